"""The contracts that the `train`, `evaluate` and `predict` of all tasks share."""

import importlib
import os
import re
import shutil

from common.errors import TrainingError
from common.serving import versions
from tests.tasks import commands
from tests.tasks.exports import TASKS

import pytest

COMMANDS = ("train", "evaluate", "predict")
# Inputs without which `predict` refuses its flags; nothing is read from them here.
INPUTS = {
    "dna": ["ACGT"],
    "music": [],
    "ner": ["Ada"],
    "sentiment": ["fine"],
    "speech": ["a.wav"],
    "translation": ["Oui."],
    "video": ["a.avi"],
}
DRAWN_BY_EVALUATE = ("dna", "music", "ner", "sentiment", "video")
DRAWN_BY_PREDICT = ("dna", "ner", "sentiment", "speech", "video")
IN_BATCHES = tuple(task for task in TASKS if task != "music")  # music is generated one at a time


def main(task, command):
    return importlib.import_module(f"tasks.{task}.{command}").main


@pytest.mark.parametrize("command", [*COMMANDS, "tune"])
@pytest.mark.parametrize("task", TASKS)
def test_help_has_examples_defaults_and_data_sets(task, command, capsys):
    words = commands.check_help(importlib.import_module(f"tasks.{task}.{command}"), capsys)
    config = importlib.import_module(f"tasks.{task}.config")
    default = "that of the model's training" if command == "evaluate" else config.DEFAULT
    names = f"Data sets for --dataset: {', '.join(config.PRESETS)} (default: {default})."
    assert (names in words) == (command != "predict")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("task", TASKS)
def test_a_model_of_another_task_is_refused(task, command, capsys, monkeypatch, in_user_folder):
    (other,) = os.listdir()
    inputs = INPUTS[task] if command == "predict" else []
    flag = "--init" if command == "train" else "--model"
    message = f"{other} is a {other} model; this command needs {task}"
    commands.check_refused(
        main(task, command), [*inputs, flag, other], message, capsys, monkeypatch
    )


@pytest.mark.parametrize("command", ["evaluate", "predict"])
@pytest.mark.parametrize("task", TASKS)
def test_without_a_model_the_message_says_how_to_train(task, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(versions, "SHIPPED", tmp_path / "none")
    inputs = INPUTS[task] if command == "predict" else []
    with pytest.raises(FileNotFoundError, match=rf"python -m tasks\.{task}\.train"):
        main(task, command)(inputs)
    assert os.listdir() == []


@pytest.mark.parametrize("command", ["train", "evaluate"])
@pytest.mark.parametrize("task", TASKS)
def test_a_data_set_and_own_data_exclude_each_other(
    task, command, capsys, monkeypatch, in_user_folder
):
    dataset = importlib.import_module(f"tasks.{task}.config").DEFAULT
    words = ["--dataset", dataset, "--data", "x"]
    message = "give --dataset or --data, not both"
    commands.check_refused(main(task, command), words, message, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--epochs", "0"], "--epochs must be 1 or more, got 0"),
        (["--batch_size", "0"], "--batch_size must be 1 or more, got 0"),
        (["--learning_rate", "0"], "--learning_rate must be positive, got 0.0"),
        (["--average", "1"], "--average must be in [0, 1), got 1.0"),
    ],
)
@pytest.mark.parametrize("task", TASKS)
def test_train_refuses_invalid_values(task, words, message, capsys, monkeypatch, in_user_folder):
    commands.check_refused(main(task, "train"), words, message, capsys, monkeypatch)


# The model `gone` does not exist: these flags are refused before a model is loaded.
@pytest.mark.parametrize(
    ("task", "command"),
    [*[(task, "evaluate") for task in TASKS], *[(task, "predict") for task in IN_BATCHES]],
)
def test_a_batch_size_of_0_is_refused(task, command, capsys, monkeypatch, in_user_folder):
    inputs = INPUTS[task] if command == "predict" else []
    words = [*inputs, "--model", "gone", "--batch_size", "0"]
    message = "--batch_size must be 1 or more, got 0"
    commands.check_refused(main(task, command), words, message, capsys, monkeypatch)


@pytest.mark.parametrize(
    ("task", "command"),
    [
        *[(task, "evaluate") for task in DRAWN_BY_EVALUATE],
        *[(task, "predict") for task in DRAWN_BY_PREDICT],
    ],
)
def test_a_picture_of_an_unknown_format_is_refused(
    task, command, capsys, monkeypatch, in_user_folder
):
    inputs = INPUTS[task] if command == "predict" else []
    words = [*inputs, "--model", "gone", "--plot", "a.mp3"]
    message = "a.mp3: no picture format ends in '.mp3'"
    commands.check_refused(main(task, command), words, message, capsys, monkeypatch)


def _edit(name, pattern, replacement, count=0):
    def change(folder):
        text = (folder / name).read_text()
        edited, changes = re.subn(pattern, replacement, text, count=count)
        assert changes > 20
        (folder / name).write_text(edited)

    return change


def _overwrite_all_by_one(pattern):
    def change(folder):
        first, *others = sorted(folder.glob(pattern))
        for path in others:
            shutil.copyfile(first, path)

    return change


def _remove_some(pattern):
    def change(folder):
        for path in sorted(folder.glob(pattern))[::9]:
            path.unlink()

    return change


# Changes of the data in place, for each task, which keep the files readable.
CHANGES = {
    # Neither start codons nor splice sites nor stop codons change.
    "dna": _edit("my.fa", "AAAAA(?=[AC])", "AAAAC"),
    "music": _remove_some("midi/*.mid"),
    "ner": _edit("my.conll", "(?m)^Ada\t", "Adam\t"),
    "sentiment": _edit("my.csv", ",good\n", ",bad\n", 50),
    "speech": _overwrite_all_by_one("mine/wavs/*.wav"),
    "translation": _edit("my.tsv", r"(?m)(?<=.)$", " !"),
    "video": _overwrite_all_by_one("clips/*/*.mp4"),
}


@pytest.mark.commands
@pytest.mark.parametrize("task", TASKS)
def test_a_run_is_not_resumed_on_changed_data(task, exports, tmp_path, monkeypatch):
    folder, _ = exports.copy(task, tmp_path / "user")
    words = [*map(str, importlib.import_module(f"tests.tasks.own.{task}").TRAIN), "--resume"]
    monkeypatch.chdir(folder)
    CHANGES[task](folder)
    with pytest.raises(TrainingError, match=r"was made from other (.*, )?training data"):
        main(task, "train")(words)
    assert sorted(os.listdir(folder / "saved_models" / task)) == ["1", "run"]
