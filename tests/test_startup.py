"""Commands import nothing before they need it, and successful ones leave standard error empty.

The modules are compared, not the time.
"""

import subprocess
import sys
from pathlib import Path

from tests.tasks.exports import TASKS

import pytest

ROOT = Path(__file__).parents[1]
HEAVY = ("tensorflow", "keras", "tensorflow_datasets", "sklearn", "scipy", "matplotlib")
MODULES = [
    "tasks.__main__",
    *(f"tasks.{task}.{m}" for task in TASKS for m in ("train", "evaluate", "predict")),
]
# Runs a command in this process; the modules that it has imported are the last line of its output.
PROGRAM = """
import atexit, importlib, sys
from common.commands import cli
names = {names!r}
atexit.register(lambda: print(*(name for name in names if name in sys.modules)))
module, *sys.argv[1:] = sys.argv[1:]
cli.run(importlib.import_module(module).main)
"""


def imported_by(module, *words, folder=ROOT, environment, code=0):
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
    assert done.returncode == code, done.stderr
    return done.stdout.splitlines()[-1].split(), done.stderr


@pytest.mark.parametrize("module", MODULES)
def test_help_imports_nothing_heavy(module, command_environment):
    imported, error = imported_by(module, "--help", environment=command_environment)
    assert imported == [] and error == ""


@pytest.mark.parametrize("task", TASKS)
def test_a_config_imports_nothing_heavy(task, command_environment):
    program = f"import sys, tasks.{task}.config; print({set(HEAVY)} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n" and done.stderr == ""


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


@pytest.mark.parametrize("command", ["train", "evaluate", "predict"])
@pytest.mark.parametrize("task", TASKS)
def test_a_wrong_flag_imports_nothing_heavy(task, command, command_environment):
    words = ("--no_such_flag", "1")
    imported, error = imported_by(
        f"tasks.{task}.{command}", *words, environment=command_environment, code=2
    )
    assert imported == [] and "no_such_flag" in error.replace("-", "_")


# Inputs of `predict` in the folder in which the tests train.
INPUTS = {
    "dna": ["ACGTACGT"],
    "music": ["--steps", "4", "--out", "new.mid"],
    "ner": ["Ada sleeps"],
    "sentiment": ["A fine film."],
    "speech": [],
    "translation": ["Bonjour."],
    "video": [],
}


@pytest.mark.parametrize("task", TASKS)
def test_predict_imports_the_runtime_alone_and_prints_no_line_on_standard_error(
    task, exports, command_environment, tmp_path
):
    folder, _ = exports.copy(task, tmp_path)
    suffix = {"speech": "*.wav", "video": "*.mp4"}.get(task)
    inputs = [next(folder.rglob(suffix))] if suffix else INPUTS[task]
    imported, error = imported_by(
        f"tasks.{task}.predict", *inputs, folder=folder, environment=command_environment
    )
    allowed = {"tensorflow", "scipy"} | ({"matplotlib"} if task == "music" else set())  # it draws
    assert set(imported) <= allowed and error == ""
