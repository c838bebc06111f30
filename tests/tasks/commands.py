"""Helpers of the tests of all tasks: commands as a user runs them, and checks of exports."""

import json
import os
import signal
import subprocess
import sys
import time

from common.commands import cli
from common.serving.versions import find, versions

import numpy as np
import pytest


def run(command, *words, folder, environment, **kwargs):
    """Run `python -m tasks.<command>`, such as `ner.train`, in a folder."""
    line = [sys.executable, "-m", f"tasks.{command}", *map(str, words)]
    return subprocess.run(
        line, cwd=folder, env=environment, capture_output=True, text=True, check=False, **kwargs
    )


def heed_ctrl_c():
    """Enable Ctrl-C, which a background process of a shell ignores; for `preexec_fn`."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def train_and_kill(task, *words, folder, environment, epochs=2, seconds=240):
    """Kill a training run in the middle of the epoch after the first `epochs` ones.

    The words must set a larger number of epochs, so that the run has not finished by then.
    """
    line = [sys.executable, "-m", f"tasks.{task}.train", *map(str, words)]
    process = subprocess.Popen(line, cwd=folder, env=environment, stderr=subprocess.DEVNULL)
    log = folder / "saved_models" / task / "run" / "log.csv"
    deadline = time.time() + seconds
    while not (log.exists() and len(log.read_text().splitlines()) > epochs):
        assert process.poll() is None and time.time() < deadline
        time.sleep(0.02)
    time.sleep(0.2)  # now it is in the middle of the next epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.returncode == -signal.SIGKILL
    assert versions(log.parent.parent) == []


def check_resumed_training(task, *words, folder, environment, resume=()):
    """Check that a killed and resumed training run has the weights of an uninterrupted one.

    Args:
      task: a task whose layers the test has imported.
      words: the flags of both runs, with `--deterministic`.
      folder: holds the data of the flags.
      environment: the environment variables of the commands.
      resume: further flags of the resumed run, which may not affect the weights.
    """
    user = {"folder": folder, "environment": environment}
    train_and_kill(task, *words, **user)
    for changed in (("--resume", *resume), ("--output", "whole")):
        done = run(f"{task}.train", *words, *changed, **user)
        assert done.returncode == 0, done.stderr
    resumed, whole = (
        find(folder / root / task / "1").model.get_weights() for root in ("saved_models", "whole")
    )
    for one, other in zip(resumed, whole, strict=True):
        np.testing.assert_array_equal(one, other)


def check_no_keras_model(version, words, folder):
    """Check that `predict` and `evaluate` need only the export, without a Keras model.

    Args:
      version: the version folder of a model in `saved_models/`.
      words: the input of each command, by its name.
      folder: where they run.
    """
    task = version.parent.name
    script = (
        "import sys, keras\n"
        "def refuse(*a, **k): raise AssertionError('a Keras model was built')\n"
        "keras.Model.__init__ = refuse\n"
        "keras.saving.deserialize_keras_object = refuse\n"
        f"from tasks.{task} import predict, evaluate\n"
        f"predict.main(['--model', sys.argv[1], *{words['predict']}])\n"
        f"evaluate.main(['--model', sys.argv[1], *{words['evaluate']}])\n"
    )
    line = [sys.executable, "-c", script, version]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def check_refused(main, words, message, capsys, monkeypatch):
    """Check that bad flags end a command with one message and exit code 2, and write no file."""
    monkeypatch.setattr(sys, "argv", ["train", *words])
    before = os.listdir()
    with pytest.raises(SystemExit) as stop:
        cli.run(main)
    error = capsys.readouterr().err
    assert stop.value.code == 2 and message in error
    assert error.startswith("error: ") and error.count("\n") == 1, error
    assert os.listdir() == before


def check_help(module, capsys):
    """Check that `--help` shows the command and the defaults of its flags; return its words."""
    with pytest.raises(SystemExit) as stop:
        module.main(["--help"])
    printed = capsys.readouterr().out
    assert stop.value.code == 0
    assert f"python -m {module.__name__}" in printed and "(default: " in printed
    return " ".join(printed.split())


def check_signatures(served, golden):
    """Compare the names, types and shapes of an export's signatures with a file."""
    signatures = {}
    for name, function in served.functions.items():
        specs = function.structured_input_signature[1]
        signatures[name] = {
            "inputs": {k: [s.dtype.name, s.shape.as_list()] for k, s in sorted(specs.items())},
            "outputs": {
                k: [s.dtype.name, s.shape.as_list()]
                for k, s in sorted(function.structured_outputs.items())
            },
        }
    assert signatures == json.loads(golden.read_text())


def check_version(version, *expected):
    """Check that a version has all files and pictures, and its card the expected texts."""
    for name in ("saved_model.pb", "variables", "assets", "assets.extra", "model_card.md"):
        assert (version / name).exists(), name
    card = (version / "model_card.md").read_text()
    for text in expected:
        assert text in card
    for line in card.splitlines():
        if line.startswith("!["):
            assert (version / line.split("(")[1].rstrip(")")).stat().st_size > 5000
