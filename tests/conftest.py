"""Fixtures of all tests."""

import contextlib
import ctypes
import gc
import os
from pathlib import Path

import pytest

# Development data lies next to the checkout; tests that need it are skipped without it.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture(scope="module", autouse=True)
def free_memory():
    """Free the models and compiled functions of each module; a worker runs dozens of modules."""
    yield
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # glibc's
        ctypes.CDLL("libc.so.6").malloc_trim(0)


@pytest.fixture(scope="session")
def shared_data():
    """The folder of real development data."""
    if not SHARED.is_dir():
        pytest.skip(f"development data not found ({SHARED.name})")
    return SHARED


@pytest.fixture(scope="session")
def command_environment():
    """The environment of a command that a user runs."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100"}


@pytest.fixture(scope="session")
def exports(tmp_path_factory, command_environment):
    """An export of each task, trained at most once in a test run; see `tests/tasks/exports.py`."""
    from tests.tasks.exports import Exports  # here, since it imports TensorFlow

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # shared by all workers
    return Exports(root / "exports", command_environment)
