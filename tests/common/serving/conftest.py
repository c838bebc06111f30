"""Fixtures of the tests of publishing: a small classifier and two published versions of it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import NamedTuple

from common.serving import publish as publishing
from tests.common.serving.classifier import make_task

import pytest


class TwoVersions(NamedTuple):
    """Two versions of one task, which are not verified, and a fact about their publication."""

    first: Path
    second: Path
    staged: Path  # the folder with which `finish` of the second was called


@pytest.fixture(scope="session")
def task():
    return make_task()


@pytest.fixture(scope="session")
def published(task, tmp_path_factory):
    directory = tmp_path_factory.mktemp("saved_models") / "toy"
    staged = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(publishing, "verify", lambda *arguments: None)
        first = task.publish(directory)
        second = task.publish(directory, finish=staged.append)
    return TwoVersions(first, second, staged[0])


@pytest.fixture
def copy(published, tmp_path):
    """A published version that a test may damage."""
    return Path(shutil.copytree(published.first, tmp_path / "1"))


@pytest.fixture
def unverified(monkeypatch):
    """Skip the verification in a new process."""
    monkeypatch.setattr(publishing, "verify", lambda *arguments: None)
