"""Answers of the models in the repository, as the page shows them."""

import re
import types

from common.errors import InputError
from common.serving.served import load_export, text_request
from common.serving.versions import SHIPPED
from tasks.demo import answers, samples
from tests.tasks.demo.test_views import Reader, shares

import numpy as np
import pytest


@pytest.fixture(scope="module")
def models():
    """Each model, loaded when it is first needed."""

    class Models(dict):
        def __missing__(self, task):
            self[task] = load_export(SHIPPED / task / "1")
            return self[task]

    return Models()


@pytest.fixture
def answer(models, tmp_path):
    """Return the answer of a task, and its elements."""

    def answer(task, *inputs):
        result = answers.ANSWER[task](models[task], tmp_path, *inputs)
        return result, Reader(result.view)

    return answer


# --- Texts ----------------------------------------------------------------------------------------


def test_a_review_has_stars_bars_and_the_effect_of_each_word(answer, models):
    result, reader = answer("sentiment", "There is nothing to like in this movie.")
    assert result.summary.startswith("1 star (")
    assert len(reader.all("tr")) == 5 and len(reader.all("tr", "chosen")) == 1
    assert "nothing−" in reader.text

    def expected(text):
        outputs = models["sentiment"].call("serving_default", **text_request([text]))
        return outputs["probabilities"][0] @ np.arange(1, 6)

    effect = expected("There is nothing to like in this movie.")
    effect -= expected("There is to like in this movie.")
    assert f"nothing−{-effect:.1f}" in reader.text


def test_a_review_of_one_word_has_no_word_to_leave_out(answer):
    result, reader = answer("sentiment", "Superb")
    assert "stars" in result.summary and not reader.all("span", "raises")


def test_a_long_review_is_cut_into_pieces(answer):
    _, reader = answer("sentiment", "a warm and funny film " * 60)
    words = reader.text.partition("Stars that a word adds")[2]
    assert len(re.findall("warm", words)) == 60
    assert len(reader.all("span")) - len(reader.all("td", "bar")) == answers.PIECES


@pytest.mark.parametrize(
    ("task", "text", "message"),
    [
        ("sentiment", "  ", "Type a review first."),
        ("sentiment", None, "Type a review first."),
        ("ner", "", "Type a sentence first."),
        ("translation", "\n", "Type a sentence first."),
        ("dna", " ", "Type or paste a sequence first."),
        ("dna", "ACGTQ", "'Q' at base 5 is no IUPAC letter"),
        ("dna", ">one\n>two", "The text"),
        ("dna", ">one\nAC!T", "The text, line 2"),
        ("speech", None, "Record or upload some sound first."),
        ("video", None, "Upload a clip first."),
    ],
)
def test_a_slip_is_explained(answer, task, text, message):
    with pytest.raises(InputError, match=re.escape(message)):
        answer(task, text)


def test_names_are_marked_in_the_text(answer):
    result, reader = answer("ner", "Yesterday, Harry Potter met Hermione Granger.")
    assert result.summary == "Harry Potter (PER), Hermione Granger (PER)"
    assert re.match(
        r"Yesterday, Harry Potter PER \d+ % met Hermione Granger PER \d+ %\.", reader.text
    )
    assert len(reader.all("mark")) == 2 and len(reader.all("th")) == 4 + 8


def test_a_text_without_names_says_so(answer):
    result, reader = answer("ner", "nobody came .")
    assert result.summary == "no name" and "No name was found." in reader.text


def test_a_translation_has_alternatives_and_attention(answer):
    result, reader = answer("translation", "Voulez-vous chanter avec moi?")
    assert result.summary.startswith("Do you want to sing with me? (")
    rows = [a for a in reader.all("td") if "style" in a]
    assert len(rows) % 8 == 0 and "Voulez" in reader.text
    _, two = answer("translation", "Je ne sais pas. Où est la gare ?")
    assert "Attention of the first sentence" in two.text


# --- DNA ------------------------------------------------------------------------------------------


def test_a_short_sequence_shows_its_labels(answer):
    result, reader = answer("dna", "AGCCCCTGTGAGGAACTAG")
    assert result.summary == f"{'.' * 19} no gene" and "." * 19 in reader.text
    assert reader.all("details")[-1] == {"open": None}


@pytest.mark.parametrize("name", sorted(path.parent.name for path in SHIPPED.glob("dna*/1")))
def test_the_example_of_three_genes_is_found(models, tmp_path, name):
    (sample,) = (s for s in samples.dna(models[name], tmp_path) if "FASTA" in s.label)
    result = answers.dna(models[name], tmp_path, *sample.inputs)
    assert result.summary == "3 genes"
    reader = Reader(result.view)
    arrows = reader.all("b", "head")
    assert [("reverse" in a["class"]) for a in arrows] == [False, False, True]
    lefts = [shares(a) for a in arrows]
    assert lefts[0] < lefts[2] < lefts[1]
    (picture,) = (a["aria-label"] for a in reader.all("div", "tracks"))
    assert picture.count(" strand") == 3 and picture.count("reverse") == 1
    assert reader.text.count("\tgene\t") == 3 and reader.text.count(">gene") == 3
    assert len(reader.all("b", "exon")) == (6 if models[name].settings["config"]["spliced"] else 3)


@pytest.mark.parametrize(
    "pasted",
    [
        ">a\n{0}\n>b\n{1}\n",
        "\n  >a first\r\n{0}\r\n\r\n>b second\r\n{1}",
        ">a\n{0}\n>empty\n>b\n{1}",
    ],
)
def test_pasted_fasta_is_read_with_all_its_records(answer, pasted):
    first, second = "ACGT" * 30, "GGCC" * 25
    _, reader = answer("dna", pasted.format(first, second))
    labels = [a["aria-label"] for a in reader.all("div", "tracks")]
    assert labels == ["Genes of a, 120 bases: none", "Genes of b, 100 bases: none"]
    assert "No gene in 2 records found" in reader.text


@pytest.mark.parametrize(
    "pasted", ["acgt acgt\nacgt", "1 acgt acgt\n  9 acgt", "  1  acgtacgt\r\n61 acgt\r\n"]
)
def test_a_sequence_with_blanks_and_numbers_is_read(pasted):
    (record,) = answers.read_dna(pasted, 100)
    assert record.sequence == "ACGT" * 3


def test_too_many_bases_are_refused():
    with pytest.raises(InputError, match=r"120 bases are more than 100; python -m tasks\.dna"):
        answers.read_dna(f">a\n{'A' * 60}\n>b\n{'C' * 60}", 100)


def test_a_long_record_is_drawn_in_part_and_many_records_too(answer, monkeypatch):
    monkeypatch.setattr(answers, "DRAWN_BASES", 100)
    monkeypatch.setattr(answers, "DRAWN_RECORDS", 2)
    _, reader = answer("dna", "".join(f">r{n}\n{'ACGT' * 50}\n" for n in range(3)))
    assert len(reader.all("div", "tracks")) == 2
    assert "The first 100 bases." in reader.text
    assert "The first 2 records are drawn." in reader.text and ">r2" in reader.text


# --- Sound, clips, music --------------------------------------------------------------------------


@pytest.mark.demo
def test_recordings_are_transcribed(models, answer, tmp_path):
    fox, _ = samples.speech(models["speech"], tmp_path)
    result, reader = answer("speech", *fox.inputs)
    assert result.summary.startswith("the quick brown fox jumped over the lazy dog (")
    words = reader.all("div", "words")
    assert words and reader.all("img")[0]["alt"].endswith("lazy dog")
    assert fox.inputs[0] in result.player


@pytest.mark.demo
def test_clips_are_recognised(models, answer, tmp_path):
    for sample in samples.video(models["video"], tmp_path):
        result, reader = answer("video", *sample.inputs)
        assert result.summary.replace(" ", "_").startswith(sample.label.removesuffix(".mp4"))
        assert len(reader.all("img")) == 10 and len(reader.all("polyline")) == 4


@pytest.mark.demo
def test_music_is_composed_and_continued(models, answer, tmp_path):
    sample = samples.music(models["music"], tmp_path)[0]
    _, reader = answer("music", *sample.inputs)
    assert "given" not in {a["class"] for a in reader.all("rect")}
    (written,) = tmp_path.glob("answer-*/music.mid")
    _, reader = answer("music", str(written), 16, 1.0, 0.95, 0)
    assert {a["class"] for a in reader.all("rect")} == {"given", "made"}
    assert "Grey: the notes that were given." in reader.text


def test_a_file_that_is_no_midi_is_told(tmp_path):
    (tmp_path / "notes.mid").write_text("no music")
    model = types.SimpleNamespace(settings={"steps_per_quarter": 2})
    with pytest.raises(InputError, match=r"notes\.mid"):
        answers.music(model, tmp_path, str(tmp_path / "notes.mid"), 8, 1.0, 1.0, 0)


@pytest.mark.parametrize("seed", [None, -1, 0.5])
def test_a_seed_is_a_whole_number(seed, tmp_path):
    with pytest.raises(InputError, match="The seed must be a whole number, 0 or more"):
        answers.music(None, tmp_path, None, 8, 1.0, 1.0, seed)


def test_only_the_newest_files_of_answers_are_kept(tmp_path, monkeypatch):
    monkeypatch.setattr(answers, "KEPT_FILES", 2)
    (tmp_path / "fox.wav").write_bytes(b"an example stays")
    paths = [answers.keep(tmp_path, bytes([n]), "music.wav") for n in range(4)]
    assert [path.exists() for path in paths] == [False, False, True, True]
    assert answers.keep(tmp_path, b"\x03", "music.wav") == paths[3]
    assert (tmp_path / "fox.wav").exists()
