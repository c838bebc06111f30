"""Fixtures of the tests of a task's commands; the folder of a test file is named after the task."""

import json

from common.serving.served import load_export
from common.serving.versions import SHIPPED
from tests.tasks.exports import TASKS

import pytest


@pytest.fixture(scope="module")
def task(request):
    """The task of `tests/tasks/<task>/test_<module>.py`."""
    folder = request.path.parent.name
    return folder if folder in TASKS else request.path.stem.removeprefix("test_")


@pytest.fixture(scope="module")
def trained(task, exports, tmp_path_factory):
    """A folder in which a user has trained on their own files, and the completed command.

    For tests of the training, and of the graph that it exports; see `shipped`.
    """
    return exports.copy(task, tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def served(task, trained):
    """The export of that training: a mistake in today's `serving.py` appears in no older one."""
    return load_export(trained[0] / "saved_models" / task)


@pytest.fixture(scope="module")
def shipped(task):
    """Version 1 of the repository, for tests that need any export: nothing is trained for them."""
    return load_export(SHIPPED / task / "1")


@pytest.fixture
def in_user_folder(task, tmp_path, monkeypatch):
    """Work in a user's folder; all it holds is an export of another task, named after that task.

    The other task is `sentiment`, and `ner` for the tests of `sentiment`.
    """
    other = "ner" if task == "sentiment" else "sentiment"
    version = tmp_path / other
    (version / "assets.extra").mkdir(parents=True)
    (version / "saved_model.pb").touch()
    (version / "assets.extra" / "config.json").write_text(json.dumps({"task": other}))
    monkeypatch.chdir(tmp_path)
    return tmp_path
