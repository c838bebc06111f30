"""Fixtures of the serving tests: the models of the repository in one folder, and a server."""

import importlib.util
import shutil

from common.serving.models_config import MODELS_CONFIG
from common.serving.served import load_export
from common.serving.versions import SHIPPED
from tests.serving.server import Server
from tests.tasks.shipped import NAMES

import pytest


@pytest.fixture(scope="session")
def root(tmp_path_factory):
    """The folder `saved_models/` of a fresh clone, without what its user has trained."""
    root = tmp_path_factory.mktemp("saved_models")
    for name in NAMES:
        shutil.copytree(SHIPPED / name / "1", root / name / "1")
    shutil.copy(SHIPPED / MODELS_CONFIG, root)
    return root


class Exports(dict):
    """The models by name, each loaded when a test first calls it."""

    def __init__(self, root):
        super().__init__()
        self.root = root

    def __missing__(self, name):
        self[name] = load_export(self.root / name)
        return self[name]


@pytest.fixture(scope="session")
def served(root):
    """The same exports, called without a server."""
    return Exports(root)


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
