"""Version folders on disk: which there are, and the settings published with each.

Nothing here imports TensorFlow: a command reads a model's settings before it loads the model.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_args

from common.errors import CLONE, ExportError, InputError
from common.serving import TargetName

from etils import epy

with epy.lazy_imports():
    import keras
    import tensorflow as tf

GRAPH = "saved_model.pb"
SETTINGS = Path("assets.extra", "config.json")
OWN_MODULE = re.compile(r'"module": "((?:common|tasks)\.[\w.]+)"')  # of a layer, in Keras' JSON
ARCHITECTURE = Path("assets.extra", "architecture.json")
LITERT = "model.tflite"
MODELS = Path("saved_models")  # where commands look for the models of the tasks
SHIPPED = Path(__file__).resolve().parents[2] / MODELS  # of a clone; a wheel has none


@dataclasses.dataclass(frozen=True)
class Published:
    """A version folder and its settings; nothing is loaded yet.

    Attributes:
      path: the version folder.
      settings: the content of `assets.extra/config.json`.
    """

    path: Path
    settings: Mapping[str, Any]

    @functools.cached_property
    def model(self) -> keras.Model:
        """The Keras model with the weights of the SavedModel, for notebooks and fine-tuning."""
        text = (self.path / ARCHITECTURE).read_text(encoding="utf-8")
        for module in OWN_MODULE.findall(text):
            importlib.import_module(module)  # registers its layers with Keras
        model = keras.saving.deserialize_keras_object(json.loads(text))
        weights = tf.train.load_checkpoint(str(self.path / "variables" / "variables"))
        for index, variable in enumerate(model.variables):
            variable.assign(weights.get_tensor(f"weights/{index}/.ATTRIBUTES/VARIABLE_VALUE"))
        return model

    def layer_settings(self, name: str) -> dict[str, Any]:
        """Return the settings of a layer of the Keras model, for `from_config`; builds nothing."""
        architecture = json.loads((self.path / ARCHITECTURE).read_text(encoding="utf-8"))
        layers = architecture["config"]["layers"]
        return next(layer["config"] for layer in layers if layer["config"]["name"] == name)

    def asset(self, name: str) -> Path:
        """Return the path of a file of the export, such as its vocabulary."""
        return self.path / "assets" / name


def find(path: str | Path | None, task: str | None = None) -> Published:
    """Find a published model.

    Args:
      path: a version folder, or the folder of a task's versions, of which the newest is taken. None
        means `saved_models/<task>`, or the same folder of the clone if the working folder has none.
      task: the task that the model must be of. None accepts any.

    Raises:
      FileNotFoundError: nothing was published there yet.
      ExportError: the folder is incomplete.
      InputError: the model is of another task.

    Example::

        find("saved_models/sentiment").settings["labels"]
    """
    folder = task_folder(str(task)) if path is None else Path(path)
    if not _looks_like_version(folder):
        folder = latest(folder, task)
    if not ((folder / GRAPH).is_file() or (folder / LITERT).is_file()):
        raise ExportError(f"{folder} is no export of this project: it lacks {GRAPH}")
    settings = read_settings(folder)
    if task is not None and settings.get("task", task) != task:
        raise InputError(f"{folder} is a {settings['task']} model; this command needs {task}")
    return Published(folder, settings)


def task_folder(task: str, models: Path = MODELS) -> Path:
    """Return the folder of a task's versions.

    Args:
      task: its name.
      models: the folder of these folders. The default, in the working folder, gives way to that of
        the clone for a task that has no version in it.
    """
    folder = models / task
    if models == MODELS and not versions(folder) and versions(SHIPPED / task):
        return SHIPPED / task
    return folder


def read_settings(folder: Path) -> dict[str, Any]:
    """Read the settings that were published with a version.

    Raises:
      ExportError: the folder has none.
    """
    try:
        return json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ExportError(f"{folder} is no export of this project: it lacks {SETTINGS}") from error


def _looks_like_version(folder: Path) -> bool:
    marks = (GRAPH, LITERT, SETTINGS)
    return folder.is_dir() and (
        folder.name.isdigit() or any((folder / mark).exists() for mark in marks)
    )


def versions(directory: Path) -> list[int]:
    """List the published versions of a task, the oldest first; empty if there are none."""
    if not directory.is_dir():
        return []
    numbers = (path for path in directory.iterdir() if re.fullmatch("[0-9]+", path.name))
    return sorted(int(path.name) for path in numbers if path.is_dir())


def latest(directory: Path, task: str | None = None) -> Path:
    """Return the folder of the newest version in a task's folder.

    Args:
      directory: the folder of the versions, such as `saved_models/sentiment-tpu`.
      task: the task that the message names. None: the folder's own name.

    Raises:
      FileNotFoundError: there is none; the message says how to train one.
    """
    numbers = versions(directory)
    if numbers:
        return directory / str(numbers[-1])
    name, _, target = directory.name.partition("-")
    if (task is None or name == task) and target in ("", *get_args(TargetName)):
        # The folder that `train` would make.
        flags = f"--output {directory.parent}" + (f" --target {target}" if target else "")
        advice = f"python -m tasks.{name}.train {flags}"
    else:
        advice = f"python -m tasks.{task or name}.train"
    where = "" if directory.is_absolute() else f" (in {Path.cwd()})"
    shipped = "" if CLONE.exists() else f" The pretrained ones are in {MODELS}/ of a clone."
    raise FileNotFoundError(
        f"{directory} holds no published model{where}.{shipped} Train one with `{advice}`"
    )


def card_scores(path: Path) -> dict[str, str]:
    """Read `split`, `examples` and the metrics back from a model card; empty if not scored.

    Args:
      path: of `model_card.md`, as written by `common.commands.release`.
    """
    _, _, section = path.read_text(encoding="utf-8").partition("\n## Scores\n\n")
    rows = [line.strip("| ").split(" | ") for line in section.splitlines()[:3]]
    if len(rows) < 3 or set(rows[1]) != {"---"}:
        return {}
    return dict(zip(rows[0], rows[2], strict=True))
