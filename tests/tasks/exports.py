"""Exports for tests of the training, trained once and kept until their sources change."""

import dataclasses
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.tasks import commands

TASKS = ("dna", "music", "ner", "sentiment", "speech", "translation", "video")


ROOT = Path(__file__).parents[2]
# A failed training is kept for the rest of the test run.
TEST_RUN = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
LIBRARIES = ("tensorflow", "keras", "tensorflow-datasets", "numpy", "tensorflow-serving-api")


def fingerprint(task):
    """Return a hash of the code and the library versions that make the export of a task."""
    sources = [ROOT / "tests" / "tasks" / "own" / f"{task}.py"]
    sources += [*(ROOT / "common").rglob("*.py"), *(ROOT / "tasks" / task).rglob("*.py")]
    digest = hashlib.sha256()
    for path in sorted(sources):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes())
    for name in LIBRARIES:
        digest.update(f"{name}=={importlib.metadata.version(name)}".encode())
    return digest.hexdigest()[:16]


@dataclasses.dataclass(frozen=True)
class Exports:
    """Folders in which a user has trained on their own files, one for each task.

    A task is trained by its command when a test first needs it, and again when its code has
    changed. `tests/tasks/own/<task>.py` defines the data and the flags.

    Attributes:
      root: the folder of these folders; all workers share it, and later test runs.
      environment: the environment variables of the commands.
    """

    root: Path
    environment: Mapping[str, str]

    def folder(self, task):
        """Return the folder, which no test may change, and the completed command."""
        own = importlib.import_module(f"tests.tasks.own.{task}")
        folder, outcome = self.root / task, self.root / f"{task}.json"
        with open(self.root / f"{task}.lock", "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # another worker may be training it
            made = json.loads(outcome.read_text()) if outcome.exists() else {}
            key = [fingerprint(task), TEST_RUN if made.get("done", {}).get("returncode") else ""]
            if made.get("key") != key:
                outcome.unlink(missing_ok=True)
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                own.write_data(folder)
                done = commands.run(
                    f"{task}.train", *own.TRAIN, folder=folder, environment=self.environment
                )
                key = [fingerprint(task), TEST_RUN if done.returncode else ""]
                made = {"key": key, "done": vars(done)}
                outcome.write_text(json.dumps(made))
        done = subprocess.CompletedProcess(**made["done"])
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
