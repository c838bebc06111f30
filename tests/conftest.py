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


# The task whose commands the default tier runs from end to end. Tests that train or call a model of
# any other task belong to the tier `commands`.
END_TO_END = "sentiment"
MODELS = {"exports", "shipped", "spliced"}  # fixtures: trained by the tests, or of the repository


def pytest_collection_modifyitems(items):
    for item in items:
        is_end_to_end = END_TO_END in (item.path.parent.name, *_parameters(item))
        if item.get_closest_marker("triton"):
            continue  # it needs an environment of its own, so no other mark may choose it
        if not MODELS.isdisjoint(item.fixturenames) and not is_end_to_end:
            item.add_marker(pytest.mark.commands)
        if "shared_data" in item.fixturenames:
            item.add_marker(pytest.mark.data)


def _parameters(item):
    """Return the words among the parameters; arrays cannot be compared with a word."""
    values = item.callspec.params.values() if hasattr(item, "callspec") else ()
    return [value for value in values if isinstance(value, str)]


@pytest.fixture(scope="session")
def exports(request, command_environment):
    """An export of each task, trained when it is needed and kept; see `tests/tasks/exports.py`."""
    from tests.tasks.exports import Exports  # here, since it imports TensorFlow

    return Exports(request.config.cache.mkdir("exports"), command_environment)
