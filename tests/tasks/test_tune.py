"""The `tune` command of each task, and one search that is stopped and resumed."""

import dataclasses
import importlib
import json
import signal
import subprocess
import sys
import time

from common.commands.config import Choice, ranges
from common.errors import InputError
from common.training.checkpoint import CHECKPOINT
from tests.tasks.exports import TASKS
from tests.tasks.own import sentiment as own

import pytest


def module(task, name):
    return importlib.import_module(f"tasks.{task}.{name}")


@pytest.mark.parametrize("task", TASKS)
def test_every_preset_takes_every_value_that_is_searched(task):
    config = module(task, "config")
    searched = ranges(config.Config)
    assert {"learning_rate", "units"} <= searched.keys()
    for preset in config.PRESETS.values():
        for name, values in searched.items():
            is_choice = isinstance(values, Choice)
            for value in values.values if is_choice else (values.low, values.high):
                assert getattr(dataclasses.replace(preset, **{name: value}), name) == value


@pytest.mark.parametrize("task", TASKS)
def test_wrong_flags_are_refused_before_anything_starts(task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    main = module(task, "tune").main
    dataset = ["--dataset", module(task, "config").DEFAULT]
    with pytest.raises(InputError, match="tune never reads the test split"):
        main([*dataset, "--score", "test"])
    with pytest.raises(InputError, match="--trials must be 1 or more, got 0"):
        main(["--trials", "0"])
    with pytest.raises(InputError, match=r"--learning_rate must be positive, got 0\.0"):
        main([*dataset, "--learning_rate", "0"])
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"this needs ray, .*\[cluster\]"):
        main(dataset)
    assert not (tmp_path / "saved_models").exists()


def test_a_search_without_fields_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = ["--learning_rate=1e-3", "--units", "8", "--layers", "1", "--dropout", "0.1"]
    with pytest.raises(InputError, match="every field that could be searched is given as a flag"):
        module("dna", "tune").main(given)


@pytest.mark.slow
@pytest.mark.commands
@pytest.mark.distribution
def test_a_search_is_stopped_resumed_and_its_best_settings_are_repeated(
    tmp_path, command_environment, pytestconfig
):
    own.write_data(tmp_path)
    words = [*map(str, own.TRAIN)]
    for flag, value in (("--epochs", "4"), ("--learning_rate", None), ("--score", None)):
        place = words.index(flag)
        words[place : place + 2] = [flag, value] if value else []
    words += ["--deterministic", "--units", "8"]
    environment = {**command_environment, "PYTHONPATH": str(pytestconfig.rootpath)}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}

    def start(command, *more):
        line = [sys.executable, "-m", f"tasks.sentiment.{command}", *words, *more]
        return subprocess.Popen(line, cwd=tmp_path, env=environment, **pipes)

    folder = tmp_path / "saved_models" / "sentiment" / "tune"
    search = ("--trials", "5", "--workers", "2")
    process = start("tune", *search)
    while process.poll() is None and not list(folder.glob("?.json")):
        time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate()
    assert process.returncode == 130, errors
    assert "to resume:\n  python -m tasks.sentiment.tune" in errors
    before = {path.name: path.read_text() for path in folder.glob("?.json")}
    assert 1 <= len(before) < 5, errors

    output, errors = start("tune", *search, "--resume").communicate()
    result = json.loads(output.splitlines()[-1])
    assert result["trials"] == 5 and result["failed"] == 0, errors
    for name, text in before.items():
        assert (folder / name).read_text() == text
    trials = [json.loads((folder / f"{number}.json").read_text()) for number in range(5)]
    assert trials[0]["flags"] == {} and trials[0]["state"] == "finished"
    assert trials[1]["flags"].keys() == {"learning_rate", "label_smoothing"}
    best = max(row["val_accuracy"] for trial in trials for row in trial["log"])
    assert result["best"] == best >= result["preset"]
    assert not list(tmp_path.rglob(CHECKPOINT)) and not list(tmp_path.rglob("*.pkl"))

    flags = [str(w) for name, value in result["flags"].items() for w in (f"--{name}", value)]
    output, errors = start("train", *flags, "--score", "validation").communicate()
    assert json.loads(output.splitlines()[-1])["accuracy"] == pytest.approx(best, abs=0.011), errors
