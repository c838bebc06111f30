"""Exports of all tasks, trained once per test run, for any number of test workers."""

import dataclasses
import fcntl
import importlib
import json
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.tasks import commands

TASKS = ("dna", "music", "ner", "sentiment", "speech", "translation", "video")


@dataclasses.dataclass(frozen=True)
class Exports:
    """Folders in which a user has trained on their own files, one for each task.

    A task is trained by its command when a test first needs it. `tests/tasks/own/<task>.py` defines
    the data and the flags.

    Attributes:
      root: the folder of these folders; all workers of a test run share it.
      environment: the environment variables of the commands.
    """

    root: Path
    environment: Mapping[str, str]

    def folder(self, task):
        """Return the folder, which no test may change, and the completed command."""
        own = importlib.import_module(f"tests.tasks.own.{task}")
        folder, outcome = self.root / task, self.root / f"{task}.json"
        self.root.mkdir(exist_ok=True)
        with open(self.root / f"{task}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be training it
            if not outcome.exists():
                shutil.rmtree(folder, ignore_errors=True)  # left by a killed worker
                folder.mkdir()
                own.write_data(folder)
                done = commands.run(
                    f"{task}.train", *own.TRAIN, folder=folder, environment=self.environment
                )
                outcome.write_text(json.dumps(vars(done)))
        done = subprocess.CompletedProcess(**json.loads(outcome.read_text()))
        assert done.returncode == 0, done.stderr
        return folder, done

    def version(self, task):
        """Return the version folder of the export, which no test may change."""
        return self.folder(task)[0] / "saved_models" / task / "1"

    def copy(self, task, target):
        """Copy the folder of a task; return the copy and the completed command."""
        folder, done = self.folder(task)
        shutil.copytree(folder, target, dirs_exist_ok=True)
        return target, done
