"""The `train` command: its export, fine-tuning, resuming, and invalid flags."""

import json
from pathlib import Path

from common.commands.run import Run
from common.serving.served import load_export
from common.serving.targets import PORTABLE
from common.serving.versions import Published
from tasks.speech import audio, train
from tasks.speech.config import Config
from tests.tasks import commands
from tests.tasks.own.speech import TINY, TONES, write_folder
from tests.tasks.speech.recordings import spoken

import pytest
import tensorflow as tf


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "mine" and result["split"] == "test" and result["examples"] == 15
    assert result["wer"] <= 0.1 and result["cer"] <= 0.05
    assert {"words", "substitutions", "deletions", "insertions"} <= set(result)
    assert "language model: weight" in done.stderr
    version = folder / result["model"]
    assert version == folder / "saved_models" / "speech" / "1"
    commands.check_version(version, f"{result['wer']:.4f}", "| units | 28 |", "At most 5 s")


FINE_TUNING = ("--init", "saved_models/speech/1", *TINY)


def test_fine_tuning_keeps_the_letters(trained, tmp_path, command_environment):
    folder, _ = trained
    write_folder(tmp_path / "same", 30, seed=5)
    done = commands.run(
        *("speech.train", "--data", tmp_path / "same", "--output", tmp_path, *FINE_TUNING),
        *("--epochs", 3),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["wer"] <= 0.34
    assert load_export(tmp_path / "speech").settings["letters"] == [" ", "a", "b", "c"]


@pytest.mark.slow  # the same test of sentiment is not
def test_fine_tuning_replaces_the_head_for_new_letters(
    trained, tmp_path, command_environment, monkeypatch
):
    folder, _ = trained
    monkeypatch.setitem(TONES, "d", (3000.0, 200.0))
    write_folder(tmp_path / "more", 12, seed=6)
    done = commands.run(
        *("speech.train", "--data", tmp_path / "more", "--output", tmp_path, *FINE_TUNING),
        *("--epochs", 1, "--score", "none"),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(tmp_path / "speech")
    assert tuned.settings["letters"] == [" ", "a", "b", "c", "d"]
    outputs = tuned.call("tensors", **audio.request([spoken(1, 1)[0][1]]))
    assert outputs["log_probs"].shape[2] == 6


@pytest.mark.parametrize(
    ("published", "letters"), [(" abcd", " abcd"), (" ab", " abc")], ids=["more", "fewer"]
)
def test_the_letters_of_a_published_model_come_from_its_settings(tmp_path, published, letters):
    write_folder(tmp_path / "mine", 12, seed=0)
    model = Published(Path("gone"), {"letters": list(published)})  # there is nothing to load
    run = Run(
        "speech",
        Config(data=tmp_path / "mine"),
        tf.distribute.get_strategy(),
        PORTABLE,
        model,
    )
    assert train.prepare(run).letters == tuple(letters)


@pytest.mark.slow  # resuming is tested on ner and on the loop itself, too
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_folder(tmp_path / "mine", 120, seed=1)
    words = ["--data", "mine", "--epochs", "5", *TINY, "--deterministic", "--score", "none"]
    words += ["--dropout", "0.2", "--time_masks", "1", "--batch_size", "2", "--order", "0"]
    where = {"folder": tmp_path, "environment": command_environment}
    commands.check_resumed_training("speech", *words, **where)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "an5"], "no data set 'an5'; known: spoken_commands, an4"),
        (["--dataset", "an4+an5"], "'an4+an5': 'an5' cannot be mixed; known: spoken_commands"),
        (["--dataset", "an4+an4"], "'an4+an4': an4 is given twice"),
        (["--units", "0"], "--units must be 1 or more, got 0"),
        (["--band_width", "65"], "--band_width must be in 0..64, got 65"),
        (["--data", "gone"], "gone: expected a folder of recordings"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(train.main, words, message, capsys, monkeypatch)
