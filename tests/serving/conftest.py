"""Fixtures of the serving tests: all seven exports in one folder, and a server over them."""

import importlib.util
import os
import shutil

from common.serving.models_config import write_models_config
from common.serving.served import load_export
from tests.serving.server import Server
from tests.tasks.exports import TASKS

import pytest


@pytest.fixture(scope="session")
def root(exports, tmp_path_factory):
    """A folder like `saved_models/`: version 1 of each task, and `models.config`."""
    root = tmp_path_factory.mktemp("saved_models")
    # Two workers that begin at opposite ends train in parallel, and rarely wait for each other.
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0")
    for task in TASKS if worker == "gw0" else reversed(TASKS):
        shutil.copytree(exports.version(task), root / task / "1")
    write_models_config(root)
    return root


@pytest.fixture(scope="session")
def served(root):
    """The same exports, called without a server."""
    return {task: load_export(root / task) for task in TASKS}


@pytest.fixture(scope="session")
def server(root):
    with Server(root) as server:
        yield server


@pytest.fixture(scope="session")
def batching_server(root, pytestconfig):
    with Server(root, batching=pytestconfig.rootpath / "saved_models/batching.config") as server:
        yield server


@pytest.fixture(scope="session")
def client(pytestconfig):
    """`saved_models/client.py`, which belongs to no package."""
    path = pytestconfig.rootpath / "saved_models" / "client.py"
    spec = importlib.util.spec_from_file_location("client", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
