"""The `evaluate` command and its metrics."""

import json

import common.tables
from common.errors import InputError
from common.serving.served import Served
from tasks.sentiment import evaluate
from tests.tasks import commands
from tests.tasks.own.sentiment import own_reviews, write_csv

import numpy as np
import pytest
import tensorflow as tf

# --- the command ----------------------------------------------------------------------------------


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    expected = json.loads(done.stdout.splitlines()[-1])
    again = commands.run("sentiment.evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "accuracy", "macro_f1"):
        assert result[name] == expected[name]


def test_an_own_file_is_scored_whole(capsys, shipped, tmp_path):
    stars, opposite = {"good": "5", "bad": "1"}, {"5": "1", "1": "5"}
    rows = [(text, stars[label]) for text, label in own_reviews(6, seed=9)]
    rows[:4] = [(text, opposite[label]) for text, label in rows[:4]]
    path = tmp_path / "mine.tsv"
    path.write_text("label\ttext\n" + "".join(f"{label}\t{text}\n" for text, label in rows))
    picture = tmp_path / "confusion.png"
    errors = tmp_path / "errors.jsonl"
    words = ["--plot", str(picture), "--errors", str(errors)]
    evaluate.main(["--model", str(shipped.path), "--data", str(path), *words])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    predicted = shipped.call("serving_default", text=[text for text, _ in rows])["label"]
    equal = np.mean([a.decode() == label for a, (_, label) in zip(predicted, rows, strict=True)])
    assert result["accuracy"] == equal == pytest.approx(2 / 6)
    assert result["examples"] == 6 and result["split"] == "all"
    assert picture.stat().st_size > 5000
    wrong = [json.loads(line) for line in errors.read_text().splitlines()]
    assert {row["text"] for row in wrong} == {text for text, _ in rows[:4]} and len(wrong) == 4
    assert all(row["label"] == opposite[row["predicted"]] for row in wrong)
    confidence = [row["probability"] for row in wrong]
    assert confidence == sorted(confidence, reverse=True)
    assert confidence[-1] > 1 / 5  # the largest of five


def test_a_large_file_is_scored_from_disk_as_a_small_one_from_memory(
    shipped, tmp_path, monkeypatch
):
    stars = {"good": "5", "bad": "1"}
    rows = [(text, stars[label]) for text, label in own_reviews(120, seed=9)]
    path = write_csv(tmp_path / "large.csv", [*rows, (rows[0][0], "3")])
    flags = evaluate.Evaluate(data=path, data_dir=tmp_path)

    def score():
        name, split, reviews = evaluate.load_split(shipped, flags)
        scored = evaluate.score(shipped, reviews, batch_size=8)
        errors = [*scored.errors(reviews, shipped.settings["labels"])]
        return name, split, scored.metrics, scored.truth.tolist(), errors

    small = score()
    assert not (tmp_path / "own_sentiment").exists() and small[4]
    monkeypatch.setattr(common.tables, "LARGE", 0)
    assert score() == small
    assert (tmp_path / "own_sentiment").is_dir()


class Counting(Served):
    """An export that predicts the first class, and notes how many rows were read before."""

    settings = {"labels": ["bad", "good"]}  # noqa: RUF012

    def __init__(self, read):
        self.read, self.counts = read, []

    def call(self, signature, /, text):
        self.counts.append(len(self.read))
        return {"probabilities": np.full((len(text), 2), (0.75, 0.25), np.float32)}


def test_texts_are_read_while_others_are_scored():
    read = []

    def rows():
        for number in range(1000):
            read.append(number)
            yield {"text": f"row {number}", "label": number % 2}

    types = {"text": tf.TensorSpec([], tf.string), "label": tf.TensorSpec([], tf.int64)}
    export = Counting(read)
    reviews = tf.data.Dataset.from_generator(rows, output_signature=types)
    assert evaluate.score(export, reviews, batch_size=2).metrics["accuracy"] == 0.5
    assert len(export.counts) == 500 and export.counts[0] < 200


def test_leaks_and_unknown_labels_are_refused(shipped, tmp_path):
    evaluate.check_no_leak("sst5", "sst5")
    evaluate.check_no_leak("my.csv", None)
    with pytest.raises(InputError, match="trained on 'rated_texts', which shares sentences"):
        evaluate.check_no_leak("rated_texts", "mr")
    with pytest.raises(InputError, match="shares sentences"):
        evaluate.check_no_leak("sst2", "mr")
    path = write_csv(tmp_path / "other.csv", [("fine", "4"), ("hm", "odd")])
    with pytest.raises(InputError, match=r"other.csv, line 3: unknown label 'odd'; expected 1, 2"):
        evaluate.main(["--model", str(shipped.path), "--data", str(path)])


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_are_in_the_stated_units():
    metrics = evaluate.metrics([0, 4, 2, 2], [0, 3, 2, 0], classes=5)
    assert metrics["accuracy"] == 0.5 and metrics["mean_absolute_error"] == 0.75
    assert evaluate.metrics([0, 1], [1, 1], classes=2)["mean_absolute_error"] == 2.0
