"""What the tests of a task's commands share: `test_<task>.py` names the task."""

from common.serving.served import load_export

import pytest


@pytest.fixture(scope="module")
def task(request):
    return request.path.stem.removeprefix("test_")


@pytest.fixture(scope="module")
def trained(task, exports, tmp_path_factory):
    """A folder in which a user has trained on files of their own, and the command's outcome."""
    return exports.copy(task, tmp_path_factory.mktemp("user"))


@pytest.fixture(scope="module")
def served(task, trained):
    return load_export(trained[0] / "saved_models" / task)
