"""The `evaluate` command and its metrics."""

import json

import common.tables
from common.errors import InputError
from common.serving.served import Served
from tasks.ner import evaluate, formats
from tasks.ner.formats import Sentence
from tests.tasks import commands
from tests.tasks.own.ner import own_sentences, write_conll

import numpy as np
import pytest
import seqeval.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

# --- the command ----------------------------------------------------------------------------------


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    expected = json.loads(done.stdout.splitlines()[-1])
    again = commands.run("ner.evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "precision", "recall", "f1"):
        assert result[name] == expected[name]
    assert "| PER |" in again.stdout and "| true \\ predicted | O | LOC | PER |" in again.stdout


def test_an_own_file_is_scored_whole_on_its_types(capsys, shipped, tmp_path):
    people = [  # Rome, which the model finds, too, is no person
        Sentence(["Ada", "Byron", "lives", "in", "Rome", "."], ["B-PER", "I-PER", *"OOOO"]),
        Sentence(["did", "Lena", "Novak", "call", "?"], ["O", "B-PER", "I-PER", *"OO"]),
        Sentence(["nobody", "lives", "here", "."], [*"OOOO"]),
    ]
    path = write_conll(tmp_path / "people.conll", people * 10)
    picture = tmp_path / "confusion.png"
    evaluate.main(["--model", str(shipped.path), "--data", str(path), "--plot", str(picture)])
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    assert result["f1"] == 1.0 and result["split"] == "all" and result["examples"] == 30
    assert "scored on the types of people.conll: PER; others count as no entity" in printed.err
    assert picture.stat().st_size > 5000


def test_a_large_file_is_scored_from_disk_as_a_small_one_from_memory(
    shipped, tmp_path, monkeypatch
):
    path = write_conll(tmp_path / "large.conll", own_sentences(60, seed=4))
    flags = evaluate.Evaluate(data=path, data_dir=tmp_path)

    def score():
        name, split, rows, types = evaluate.load_split(shipped, flags)
        scored = evaluate.score(shipped, rows, types, batch_size=8)
        mistakes = evaluate.mistakes(rows, scored)
        return name, split, types, scored.metrics, scored.truth, scored.predicted, mistakes

    small = score()
    assert not (tmp_path / "own_ner").exists() and small[3]["recall"] > 0.5
    monkeypatch.setattr(common.tables, "LARGE", 0)
    assert score() == small
    assert (tmp_path / "own_ner").is_dir()


class Counting(Served):
    """An export that finds no entity, and notes how many rows were read before."""

    settings = {"labels": ["O"]}  # noqa: RUF012

    def __init__(self, read):
        self.read, self.counts = read, []

    def call(self, signature, /, tokens, length):
        self.counts.append(len(self.read))
        return {"tags": np.full(tokens.shape, b"O", object), "confidence": np.ones(tokens.shape)}


def test_sentences_are_read_while_others_are_scored():
    read = []

    def rows():
        for number in range(1000):
            read.append(number)
            yield Sentence(["Ada", "sleeps"], ["B-PER", "O"])

    export = Counting(read)
    scored = evaluate.score(export, rows(), ["PER"], batch_size=2)
    assert scored.metrics["recall"] == 0.0 and scored.examples == 1000
    assert len(export.counts) == 500 and export.counts[0] == 128


def test_types_that_the_model_lacks_are_refused(shipped, tmp_path):
    rows = [Sentence(["p53", "is", "old"], ["B-GENE", "O", "O"])]
    path = write_conll(tmp_path / "genes.conll", rows)
    message = "genes.conll has entities of type GENE; the model knows only LOC, MISC, ORG, PER"
    with pytest.raises(InputError, match=message):
        evaluate.main(["--model", str(shipped.path), "--data", str(path)])
    evaluate.check_types(("LOC", "MISC", "ORG", "PER"), ("LOC", "ORG", "PER"), "btc")


def test_types_that_the_model_lacks_among_others_count_as_missed(capsys, shipped, tmp_path):
    rows = [Sentence(["Ada", "Byron", "studies", "p53"], ["B-PER", "I-PER", "O", "B-GENE"])]
    path = write_conll(tmp_path / "mixed.conll", rows * 9)
    errors = tmp_path / "errors.jsonl"
    evaluate.main(["--model", str(shipped.path), "--data", str(path), "--errors", str(errors)])
    printed = capsys.readouterr()
    result = json.loads(printed.out.splitlines()[-1])
    assert result["recall"] == 0.5
    assert "the model does not know these types of mixed.conll: GENE; their entities" in printed.err
    mistakes = [json.loads(line) for line in errors.read_text().splitlines()]
    assert len(mistakes) == 9 and mistakes[0]["sentence"] == 1
    assert mistakes[0]["true"] == [{"type": "GENE", "text": "p53"}]
    assert 0 < mistakes[0]["confidence"] <= 1


def test_mistakes_are_grouped_by_overlap_and_sorted_by_confidence():
    rows = [Sentence(list("abcdef"), ["O"] * 6), Sentence(["g", "h"], ["O"] * 2)]
    truth = [["B-X", "I-X", "O", "B-Y", "O", "B-X"], ["B-X", "I-X"]]
    predicted = [["B-X", "B-Y", "O", "B-Y", "B-Y", "O"], ["O", "O"]]
    confidence = [[0.5, 0.6, 0.9, 0.8, 0.7, 0.95], [0.9, 0.3]]
    scored = evaluate.ScoredTags(2, 0.0, {}, truth, predicted, confidence)
    found = evaluate.mistakes(rows, scored)
    assert [row["confidence"] for row in found] == [0.95, 0.7, 0.6, 0.3]
    missed, spurious, bounds, other = found
    assert missed["true"] == [{"type": "X", "text": "f"}] and not missed["predicted"]
    assert spurious["predicted"] == [{"type": "Y", "text": "e"}] and not spurious["true"]
    assert bounds["true"] == [{"type": "X", "text": "a b"}]
    expected = [{"type": "X", "text": "a"}, {"type": "Y", "text": "b"}]
    assert bounds["predicted"] == expected and bounds["text"] == "a b c d e f"
    assert other["sentence"] == 2


# --- metrics --------------------------------------------------------------------------------------

TAGS = formats.tag_names(["PER", "LOC"])


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.sampled_from(TAGS), min_size=1, max_size=7), min_size=1, max_size=5))
def test_scores_equal_counts_of_exact_spans(rows):
    truth = [formats.to_iob2(row) for row in rows]
    predicted = [formats.to_iob2(row[::-1]) for row in rows]
    true_spans = {(n, *span) for n, row in enumerate(truth) for span in formats.entities(row)}
    spans = {(n, *span) for n, row in enumerate(predicted) for span in formats.entities(row)}
    result = evaluate.metrics(truth, predicted)
    correct = len(true_spans & spans)
    precision, recall = correct / max(1, len(spans)), correct / max(1, len(true_spans))
    f1 = 2 * precision * recall / max(precision + recall, 1e-9)
    assert list(result.values()) == pytest.approx([precision, recall, f1])
    if true_spans and spans:
        # On valid IOB2, seqeval's other mode, that of the conlleval script, must agree.
        assert result["f1"] == pytest.approx(seqeval.metrics.f1_score(truth, predicted))


def test_scores_per_type_and_confusion_equal_counts_by_hand():
    truth = [["B-PER", "I-PER", "O", "B-LOC"], ["O", "B-LOC"]]
    predicted = [["B-PER", "I-PER", "O", "B-PER"], ["O", "B-LOC"]]
    rows = evaluate.by_type(truth, predicted)
    assert (rows["PER"]["precision"], rows["PER"]["recall"], rows["PER"]["support"]) == (0.5, 1, 1)
    assert (rows["LOC"]["precision"], rows["LOC"]["recall"], rows["LOC"]["support"]) == (1, 0.5, 2)
    scored = evaluate.ScoredTags(2, 0.0, {}, truth, predicted)
    types, a, b = scored.confusion()
    assert types == ["O", "LOC", "PER"]
    assert a == [2, 2, 0, 1, 0, 1] and b == [2, 2, 0, 2, 0, 1]
