"""The `train` command: its export, fine-tuning, resuming, and invalid flags and files."""

import json

from common.serving.served import load_export
from tasks.sentiment import train
from tests.tasks import commands
from tests.tasks.own.sentiment import BAD, GOOD, TINY, own_reviews, write_csv

import numpy as np
import pytest


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "my.csv" and result["split"] == "test" and result["examples"] == 40
    assert result["accuracy"] >= 0.95 and result["mean_absolute_error"] <= 0.2
    version = folder / result["model"]
    assert version == folder / "saved_models" / "sentiment" / "1"
    commands.check_version(version, f"{result['accuracy']:.4f}", "| units | 8 |")


@pytest.mark.commands
def test_fine_tuning_keeps_the_vocabulary_and_replaces_the_head(
    trained, command_environment, served
):
    folder, _ = trained
    stars = {"good": "5", "bad": "1"}
    rows = [(text, stars[label]) for text, label in own_reviews(300, seed=3)]
    rows += [(f"{a} and {b}", "3") for a in GOOD for b in BAD] * 6
    write_csv(folder / "stars.csv", rows)
    done = commands.run(
        *("sentiment.train", "--data", "stars.csv", "--init", "saved_models/sentiment/1"),
        *("--epochs", 10, "--output", "tuned", *TINY),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(folder / "tuned" / "sentiment")
    assert tuned.settings["labels"] == ["1", "3", "5"]
    one, other = (export.path / "assets" / train.WORDS for export in (tuned, served))
    assert one.read_bytes() == other.read_bytes()
    outputs = tuned.call("serving_default", text=["its plot superb", "awful the music the film"])
    assert outputs["stars"].tolist() == [5, 1]
    assert outputs["probabilities"].shape == (2, 3)
    assert json.loads(done.stdout.splitlines()[-1])["accuracy"] >= 0.9


@pytest.mark.commands
def test_bfloat16_and_mirrored_training_export_float32(trained, command_environment):
    words = ["--data", "my.csv", "--epochs", 6, "--score", "test", "--output", "bfloat16", *TINY]
    words += ["--precision", "bfloat16", "--strategy", "mirrored"]
    done = commands.run(
        "sentiment.train", *words, folder=trained[0], environment=command_environment
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["accuracy"] >= 0.9
    served = load_export(trained[0] / "bfloat16" / "sentiment")
    probabilities = served.call("serving_default", text=["superb plot", ""])["probabilities"]
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), [1, 0], atol=1e-5)


@pytest.mark.slow  # ner and the training loop have the same test
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_csv(tmp_path / "my.csv", own_reviews(1500, seed=1))
    words = ["--data", "my.csv", "--epochs", "5", "--patience", "9", *TINY, "--deterministic"]
    # Wide enough for the recurrent kernels to be compiled.
    words += ["--score", "none", "--batch_size", "8", "--units", "40"]
    user = {"folder": tmp_path, "environment": command_environment}
    commands.check_resumed_training("sentiment", *words, **user)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "my.csv: empty file; expected a header with text and label"),
        (b"text,stars\nx,1\n", "my.csv, line 1: no column 'label' (found: text, stars)"),
        (b"text,label\n", "my.csv: no texts in this file"),
        (b"text,label\n" + b"x,1\n" * 20, "my.csv: every label is '1'; expected 2 to 10 classes"),
        (b"text,label\nx,1\n\xff,2\n", "my.csv, line 3: not UTF-8 at byte 1"),
        (b"text,label\nx,1\ny,2\n", "2 examples are too few to split"),
        (
            b"text,label\n" + b"".join(b"x,%d\n" % i for i in range(11)),
            "11 different labels; expected 2 to 10 classes",
        ),
    ],
)
def test_an_invalid_file_gives_a_one_line_error(
    content, message, capsys, monkeypatch, in_user_folder
):
    (in_user_folder / "my.csv").write_bytes(content)
    commands.check_refused(train.main, ["--data", "my.csv"], message, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "sst9"], "no data set 'sst9'; known: rated_texts, sst5"),
        (["--units", "0"], "--units must be 1 or more, got 0"),
        (["--sentence_weight", "2"], "--sentence_weight needs --phrases"),
        (["--dataset", "mr", "--rating_spread", "0.4"], "--rating_spread must be 0 or more"),
        (["--delimiter", "ab"], "--delimiter must be one character, got 'ab'"),
        (["--dropout", "1"], "--dropout must be in [0, 1)"),
        (["--data", "gone.csv"], "gone.csv: no such file or folder"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(train.main, words, message, capsys, monkeypatch)
