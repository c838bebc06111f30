"""The `predict` command: its inputs and outputs, and texts of any length."""

import json
import re
import sys

from common.errors import InputError
from tasks.ner import Tagged, load, predict
from tests.tasks import commands
from tests.tasks.own.ner import own_sentences, write_conll

import pytest

# --- the command ----------------------------------------------------------------------------------


def test_predict_reads_words_files_and_standard_input_in_order(
    shipped, tmp_path, command_environment
):
    rows = [" ".join(row.tokens) for row in own_sentences(90, seed=5)]
    (tmp_path / "lines.txt").write_text("\n".join([*rows, "", "Omar Okafor sleeps"]) + "\n")
    done = commands.run(
        *("ner.predict", "Ada Byron lives in Rome.", "-", "--file", "lines.txt"),
        *("--output", "out.jsonl", "--batch_size", 16, "--model", shipped.path),
        folder=tmp_path,
        environment=command_environment,
        input="did Lena Novak call?\n",
    )
    assert done.returncode == 0, done.stderr
    predictions = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    texts = ["Ada Byron lives in Rome.", "did Lena Novak call?", *rows, "", "Omar Okafor sleeps"]
    assert [row["text"] for row in predictions] == texts
    found = [{**entity, "probability": None} for entity in predictions[0]["entities"]]
    assert found == [
        {"type": "PER", "text": "Ada Byron", "start": 0, "end": 9, "probability": None},
        {"type": "LOC", "text": "Rome", "start": 19, "end": 23, "probability": None},
    ]
    assert all(0.5 < entity["probability"] <= 1 for entity in predictions[0]["entities"])
    assert predictions[-2] == {
        **{"text": "", "entities": [], "tokens": [], "tags": [], "start": [], "end": []},
        "confidence": [],
        "message": "no word in this text",
    }
    for row in predictions:
        for token, start, end in zip(row["tokens"], row["start"], row["end"], strict=True):
            assert row["text"][start:end] == token
    for ending in ("conll", "ann", "html"):
        output = tmp_path / f"out.{ending}"
        words = ["--model", str(shipped.path), "--output", str(output)]
        predict.main(["Ada Byron lives in Rome.", *words])
        assert "LOC" in output.read_text()


def test_predict_prints_brackets_in_a_pipe_colours_on_a_terminal_and_draws(
    shipped, capsys, tmp_path, monkeypatch
):
    picture = tmp_path / "entities.png"
    words = ["--model", str(shipped.path), "Mary Shelley met Omar Novak, Ada Byron and me.", " "]
    predict.main([*words, "--plot", str(picture)])
    first, second = capsys.readouterr().out.splitlines()
    assert first == "[PER Mary Shelley] met [PER Omar Novak], [PER Ada Byron] and me."
    assert "no word in this text" in second
    assert picture.stat().st_size > 5000
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    predict.main(words)
    coloured = capsys.readouterr().out.splitlines()[0]
    assert "\x1b[1;33mMary Shelley\x1b[0;33m PER\x1b[0m met" in coloured and "[PER" not in coloured


def test_a_text_without_a_word_cannot_be_drawn(shipped, tmp_path):
    picture = tmp_path / "entities.png"
    with pytest.raises(InputError, match="no word to draw in ' '"):
        predict.main(["--model", str(shipped.path), " ", "--plot", str(picture)])
    assert not picture.exists()


def test_predict_and_evaluate_build_no_keras_model(shipped, tmp_path):
    write_conll(tmp_path / "mine.conll", own_sentences(9, seed=9))
    words = {"predict": ["Ada sleeps"], "evaluate": ["--data", "mine.conll"]}
    commands.check_no_keras_model(shipped.path, words, folder=tmp_path)


# The model `gone` does not exist: these flags are refused before a model is loaded.
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "gone"], "no text given: write it on the command line"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(predict.main, words, message, capsys, monkeypatch)


# --- texts of any length --------------------------------------------------------------------------


def test_long_texts_are_cut_after_sentences_and_tagged_to_their_end(shipped):
    limit = shipped.settings["max_tokens"]
    assert limit == 128
    sentence = "Ada Byron lives in Rome. "
    long = sentence * 40
    tagged, other = predict.predict(shipped, [long, "we like Cairo!"], batch_size=8)
    assert tagged.tokens == ["Ada", "Byron", "lives", "in", "Rome", "."] * 40
    spans = [(entity.label, entity.text) for entity in tagged.entities]
    assert spans == [("PER", "Ada Byron"), ("LOC", "Rome")] * 40
    assert other.tokens == ["we", "like", "Cairo", "!"]
    # The export itself tags the first tokens only.
    outputs = shipped.call("serving_default", text=[long])
    assert outputs["length"].tolist() == [limit] and outputs["tokens"].shape == (1, limit)


@pytest.mark.parametrize("text", ["x" * 3000, "a " * 500, " " * 900 + "Rome", "(" * 400, "\n" * 9])
def test_texts_without_a_sentence_end_are_tagged_to_their_end(shipped, text):
    (tagged,) = predict.predict(shipped, [text], batch_size=8)
    joined = "".join(text[a:b] for a, b in zip(tagged.start, tagged.end, strict=True))
    assert joined == re.sub(r"\s", "", text)


def test_a_piece_is_cut_after_a_sentence_or_between_entities():
    def cut(tokens, tags):
        return predict._cut(predict.Tagged("", tokens.split(), tags.split(), [0] * 9, [1] * 9))

    assert cut("a b c d . e", "O O O O O O") == 5
    assert cut("a b c d e F", "O O O O O B-X") == 4
    assert cut("A B C D E F", "B-X I-X I-X I-X I-X I-X") == 6
    assert cut(". A B C D F", "O B-X I-X I-X I-X I-X") == 6


# --- the model as a function ----------------------------------------------------------------------


def test_load_answers_one_text_and_several_with_typed_entities(shipped):
    model = load(shipped.path, batch_size=1)
    tagged = model("Ada Byron lives in Rome.")
    assert [entity[:4] for entity in tagged.entities] == [
        ("PER", "Ada Byron", 0, 9),
        ("LOC", "Rome", 19, 23),
    ]
    assert tagged.entities[0].label == "PER" and 0.5 < tagged.entities[0].probability <= 1
    several = model(text for text in ("", "Ada Byron lives in Rome.", "Omar Novak"))
    assert several[:2] == [Tagged(""), tagged] and several[2].text == "Omar Novak"
    assert model([]) == []
    asset = (shipped.path / "assets" / "vocabulary.txt").read_text()
    assert model.to_keras().get_layer("embedding").words == len(asset.splitlines())
    assert model.settings == shipped.settings
