"""Flags are checked before anything heavy is imported."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TASKS = sorted(path.parent.name for path in ROOT.glob("tasks/*/predict.py"))
HEAVY = ("tensorflow", "keras", "tensorflow_datasets", "sklearn")
MODULES = [
    "tasks.__main__",
    *(f"tasks.{task}.{m}" for task in TASKS for m in ("config", "predict")),
]


@pytest.mark.parametrize("module", MODULES)
def test_no_heavy_library_is_imported_with(module, command_environment):
    program = f"import sys, {module}; print(*(m for m in {HEAVY} if m in sys.modules))"
    line = [sys.executable, "-c", program]
    done = subprocess.run(
        line, cwd=ROOT, env=command_environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [] and done.stderr == ""
