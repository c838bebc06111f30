"""Exports of this TensorFlow return the same outputs in older ones, which servers often run.

    python -m pytest -n 0 tests/replay -m replay

Every warm-up record of every export runs in TensorFlow 2.20 and 2.19, through
`tf.saved_model.load` and through the C++ loader, which is the one in TF Serving of the same
version. Each TensorFlow has an environment of its own, of about 2 GB with a download of 600 MB,
which is kept in `.pytest_cache`.
"""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from common.serving.versions import SHIPPED
from tests.tasks.shipped import NAMES

import pytest

VERSIONS = ("2.20.0", "2.19.1")  # of both packages

pytestmark = [pytest.mark.replay, pytest.mark.timeout(3600)]


@pytest.fixture(scope="session", params=VERSIONS)
def version(request):
    """A version of TensorFlow."""
    if request.param == "2.19.1" and sys.version_info >= (3, 13):
        pytest.skip("TensorFlow 2.19 has no wheel for this Python")
    return request.param


@pytest.fixture(scope="session")
def python(version, pytestconfig):
    """The Python interpreter of an environment with this version."""
    folder = pytestconfig.cache.mkdir("replay") / version
    python, complete = folder / "bin" / "python", folder / "complete"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([sys.executable, "-m", "venv", folder], check=True)
        packages = [f"{name}=={version}" for name in ("tensorflow", "tensorflow-serving-api")]
        subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], check=True)
        complete.touch()
    return python


@pytest.fixture(scope="session")
def replayed(python):
    """The objects that `replay.py` prints for all models of the repository, by their names."""
    folders = {str(SHIPPED / name / "1"): name for name in NAMES}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment.update(CUDA_VISIBLE_DEVICES="-1", TF_CPP_MIN_LOG_LEVEL="3")
    script = Path(__file__).with_name("replay.py")
    done = subprocess.run(
        [python, "-P", script, *folders],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    print(done.stdout)
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    return {name: [row for row in rows if folders[row["export"]] == name] for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_an_older_tensorflow_returns_the_recorded_outputs(name, version, replayed):
    assert [row["loader"] for row in replayed[name]] == ["python", "c++"]
    for row in replayed[name]:
        assert row["tensorflow"] == version and row["records"] and row["values"]
        # Texts, labels and whole numbers must be equal, floats to `replay.TOLERANCE`. An arg max or
        # the maximum of a pool may flip where two values are equal but for rounding; none does.
        assert [key for key, (_, wrong, _) in row["outputs"].items() if wrong] == []
