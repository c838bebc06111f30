"""The `train` command: its export, fine-tuning, resuming, its score, and invalid flags."""

import json
import sys

from common.commands import cli
from common.errors import InputError
from common.serving.served import load_export
from tasks.music import data, datasets, model, train
from tasks.music.formats import Piece
from tests.tasks import commands
from tests.tasks.music.examples import nll, tiny_config, write_broken_files
from tests.tasks.own.music import TINY, write_folder

import numpy as np
import pytest

# --- the command ----------------------------------------------------------------------------------


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "midi" and result["split"] == "test"
    # A chord lasts two frames, and the next one is certain to 0.85. If the place in the bar is
    # known, the lowest possible NLL is a little above 0.31 nats per frame.
    assert 0.2 < result["nll"] < 0.8
    assert result["frame_accuracy"] > 0.85
    card = ("| units | 16 |", f"{result['nll']:.4f}", "assets.extra/samples.png")
    commands.check_version(folder / result["model"], *card)
    assert "longest copy (frames)" in done.stdout


@pytest.mark.slow  # the same test of sentiment is not
def test_fine_tuning_starts_from_the_published_weights(trained, command_environment):
    folder, done = trained
    write_folder(folder / "new", 30, seed=9)
    words = ["--data", "new", "--init", "saved_models/music/1", "--output", "tuned", "--epochs"]
    tuned = commands.run(
        *("music.train", *words, 1, "--learning_rate", "0.0001", "--verbose", 0),
        folder=folder,
        environment=command_environment,
    )
    assert tuned.returncode == 0, tuned.stderr
    before = json.loads(done.stdout.splitlines()[-1])["nll"]
    assert json.loads(tuned.stdout.splitlines()[-1])["nll"] < before + 0.3
    assert load_export(folder / "tuned" / "music").settings["config"]["units"] == 16


@pytest.mark.slow  # the same test of ner is not
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_folder(tmp_path / "midi", 60, seed=2)
    words = ["--data", "midi", "--epochs", 6, "--deterministic", *TINY, "--batch_size", 4]
    words += ["--score", "none"]
    place = {"folder": tmp_path, "environment": command_environment}
    commands.check_resumed_training("music", *words, **place)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--transpose", "13"], "--transpose must be 0 to 12, got 13"),
        (["--samples", "-1"], "--samples must be 0 or more, got -1"),
        (["--data", "gone"], "gone: no such folder"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(train.main, words, message, capsys, monkeypatch)


def test_invalid_files_of_a_user_are_named(tmp_path, capsys, monkeypatch):
    write_broken_files(tmp_path)
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.run(train.main)
    error = capsys.readouterr().err
    assert ended.value.code == 2 and "drums.mid: only drums" in error and "Traceback" not in error
    for path, message in (
        (tmp_path / "absent", "no such folder"),
        (tmp_path / "drums.mid", "a file;"),
    ):
        with pytest.raises(InputError, match=message):
            train.main(["--data", str(path)])


# --- the score ------------------------------------------------------------------------------------


def test_the_marginal_baseline_on_jsb_equals_that_of_numpy(shared_data):
    """With only its bias, the model is the baseline of independent key frequencies."""
    path = shared_data / "music" / "boulanger_lewandowski" / "JSB_Chorales.mat"
    splits = datasets.read_matrices(path)
    train_frames = np.concatenate(splits["train"])
    fraction = (train_frames.sum(axis=0) + 0.5) / (len(train_frames) + 1.0)
    built = model.build(tiny_config(members=1, head="independent"), low=0, high=87, frames=13807)
    for variable in built.trainable_variables:
        variable.assign(
            np.log(fraction / (1 - fraction)) if "base" in variable.path else 0.0 * variable
        )
    total, frames = 0.0, 0
    for batch in data.validation_batches([Piece("", row) for row in splits["test"]]):
        pair = (
            {name: value.numpy() for name, value in batch.items()},
            {"nll": nll(built, batch["notes"].numpy(), batch["length"].numpy())},
        )
        mean = train.score_batches([pair])["nll"]
        count = int((pair[0]["length"] - 1).sum())
        total, frames = total + mean * count, frames + count
    targets = np.concatenate([row[1:] for row in splits["test"]]).astype(np.float64)
    expected = (
        -(targets * np.log(fraction) + (1 - targets) * np.log(1 - fraction)).sum(axis=1).mean()
    )
    assert frames == len(targets) == 4648
    assert total / frames == pytest.approx(expected, rel=1e-5)
    assert expected == pytest.approx(11.06, abs=0.15)
