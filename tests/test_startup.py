"""Commands import nothing before they need it, and successful ones leave standard error empty.

The modules are compared, not the time.
"""

import json
import subprocess
import sys
from pathlib import Path

from common.serving.versions import SHIPPED
from common.start_up import LINES
from tasks.video import clips
from tests.conftest import END_TO_END
from tests.tasks.exports import TASKS
from tests.tasks.own import speech, video

import numpy as np
import pytest
import soundfile

ROOT = Path(__file__).parents[1]
HEAVY = ("tensorflow", "keras", "tensorflow_datasets", "sklearn", "scipy", "matplotlib")
# Runs a command in this process; the modules that it has imported are the last line of its output.
PROGRAM = """
import atexit, importlib, sys
from common.commands import cli
names = {names!r}
atexit.register(lambda: print(*(name for name in names if name in sys.modules)))
module, *sys.argv[1:] = sys.argv[1:]
cli.run(importlib.import_module(module).main)
"""


def imported_by(module, *words, folder, environment):
    """Run a command; return which heavy modules it imported, and its standard error."""
    program = PROGRAM.format(names=HEAVY)
    done = subprocess.run(
        [sys.executable, "-c", program, module, *map(str, words)],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split(), done.stderr


# Imports modules and runs commands in one process. Each line of its output holds a step, the exit
# code, what the command printed on standard error, and the heavy modules that are imported by then.
STEPS = """
import contextlib, importlib, io, json, sys
from common.commands import cli
for module, *words in {steps!r}:
    error, code = io.StringIO(), None
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(error):
        imported = importlib.import_module(module)
        if words:
            sys.argv = [module, *words]
            try:
                cli.run(imported.main)
            except SystemExit as stop:
                code = stop.code
    heavy = [name for name in {names!r} if name in sys.modules]
    print(json.dumps([module, *words, code, error.getvalue(), heavy]))
"""
WRONG = ("--no_such_flag", "1")


@pytest.mark.parametrize("task", ["", *TASKS])
def test_a_config_help_and_a_wrong_flag_import_nothing_heavy(task, command_environment):
    """Without a task, of the command that trains them all."""
    commands = [f"tasks.{task}.{m}" for m in ("train", "tune", "evaluate", "predict")]
    steps = [(f"tasks.{task}.config",)] if task else [("tasks.__main__", "--help")]
    for command in commands if task else ():
        steps += [(command, "--help"), (command, *WRONG)]
    if task:
        steps += [(commands[0], "--init", "gone")]
    if task not in ("", "sentiment"):
        steps += [(commands[0], "--target", "litert")]
    done = subprocess.run(
        [sys.executable, "-c", STEPS.format(steps=steps, names=HEAVY)],
        cwd=ROOT,
        env=command_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stderr == ""
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [tuple(row[:-3]) for row in rows] == steps
    for (_, *words, code, error, heavy), step in zip(rows, steps, strict=True):
        assert heavy == [], step
        if words == [*WRONG]:
            assert code == 2 and "no_such_flag" in error.replace("-", "_"), step
        elif "gone" in words:
            assert code == 1 and "gone holds no published model" in error, step
        elif "litert" in words:
            assert code == 2 and f"--target litert is not for {task}" in error, step
        else:
            assert code == (0 if words else None) and error == "", step


@pytest.mark.parametrize("module", ["tasks.music.chorales", "tasks.video.gaits"])
def test_a_process_that_prepares_data_imports_nothing_heavy(module, command_environment):
    # What a process of `common.data.map_in_processes` imports; the work itself may import more.
    main = module.rpartition(".")[0] + ".train"
    program = f"import sys, {main}, {module}; print({set(HEAVY)} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=ROOT,
        env=command_environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "set()\n" and done.stderr == ""


# Inputs of `predict`; files are written by `write_files`.
INPUTS = {
    "dna": ["ACGTACGT"],
    "music": ["--steps", "4", "--out", "new.mid"],
    "ner": ["Ada sleeps"],
    "sentiment": ["A fine film."],
    "speech": ["a.wav"],
    "translation": ["Bonjour."],
    "video": ["a.mp4"],
}


def write_files(folder):
    soundfile.write(folder / "a.wav", speech.speak("a", np.random.default_rng(0)), speech.RATE)
    (folder / "a.mp4").write_bytes(clips.encode(video.body("waving", 1), video.RATE))


@pytest.mark.parametrize(
    "task", [pytest.param(t, marks=[pytest.mark.commands] * (t != END_TO_END)) for t in TASKS]
)
def test_predict_imports_the_runtime_alone_and_prints_no_line_on_standard_error(
    task, command_environment, tmp_path
):
    write_files(tmp_path)
    words = [*INPUTS[task], "--model", SHIPPED / task / "1"]
    imported, error = imported_by(
        f"tasks.{task}.predict", *words, folder=tmp_path, environment=command_environment
    )
    allowed = {"tensorflow", "scipy"} | ({"matplotlib"} if task == "music" else set())  # it draws
    assert set(imported) <= allowed and error == ""


@pytest.mark.parametrize("task", TASKS)
def test_a_training_prints_no_start_up_line_of_tensorflow(task, exports):
    _, done = exports.folder(task)
    assert not [line for line in done.stderr.splitlines() if LINES.match(line.encode())]
