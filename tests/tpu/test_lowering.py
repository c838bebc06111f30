"""Every core of every task can be lowered for a TPU, on a machine without one.

    python -m pytest -n 0 tests/tpu -m tpu
    TPU_ENVIRONMENT=~/tpu python -m pytest -n 0 tests/tpu -m tpu    # keeps the environment there

The wheel `tensorflow` cannot lower for a TPU; `tensorflow-tpu` can, but both cannot be installed
together. So the first test makes a separate environment, of about 2 GB.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

from tests.tasks.test_targets import small, task, tpu  # noqa: F401

import pytest

PACKAGES = ("tensorflow-tpu==2.20.0", "libtpu==0.0.21")  # a newer libtpu aborts here
LOWER = Path(__file__).with_name("lower.py")

pytestmark = [pytest.mark.tpu, pytest.mark.timeout(3600)]


@pytest.fixture(scope="session")
def python(tmp_path_factory):
    """The Python interpreter of an environment with `PACKAGES`."""
    folder = Path(os.environ.get("TPU_ENVIRONMENT") or tmp_path_factory.mktemp("environment"))
    python = folder.expanduser() / "bin" / "python"
    if not python.exists():
        subprocess.run([sys.executable, "-m", "venv", folder.expanduser()], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *PACKAGES], check=True)
    return python


def test_every_core_lowers_for_a_tpu(python, tpu):  # noqa: F811
    target, version = tpu
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, LOWER, version], capture_output=True, text=True, check=False, env=environment
    )
    lowered = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert {row["core"] for row in lowered} == set(target.cores), done.stderr[-2000:]
    assert [row for row in lowered if "error" in row] == []
