"""Fixtures of the tests on Triton: its environment, and all seven exports on it."""

from tests.serving.conftest import root, served  # noqa: F401
from tests.tasks.exports import TASKS
from tests.triton.server import Server, add_version, make_environment

import pytest


@pytest.fixture(scope="session")
def python(pytestconfig):
    """The interpreter of an environment that holds Triton and OpenVINO."""
    return make_environment(pytestconfig.cache.mkdir("triton"))


@pytest.fixture(scope="session")
def repository(root, tmp_path_factory):  # noqa: F811
    """A model repository of Triton: version 1 of all seven exports."""
    repository = tmp_path_factory.mktemp("triton") / "models"
    for task in TASKS:
        add_version(repository, task, 1, root / task / "1")
    return repository


@pytest.fixture(scope="session")
def server(python, repository):
    with Server(python, repository) as server:
        yield server
