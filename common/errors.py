"""The errors that a command turns into a message for its user."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

CLONE = Path(__file__).parents[1] / "setup.cfg"  # a wheel has none


class InputError(Exception):
    """Invalid user input. The message names the file, the line and the problem.

    Example:
      >>> str(InputError("expected 2 columns, got 1", "reviews.tsv", 7))
      'reviews.tsv, line 7: expected 2 columns, got 1'
    """

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None):
        where = "" if path is None else f"{path}{'' if line is None else f', line {line}'}: "
        super().__init__(where + message)


class TrainingError(RuntimeError):
    """Training cannot continue: the loss is not finite, or a checkpoint does not fit."""


class ExportError(RuntimeError):
    """A model cannot be published or called, or a folder holds no published model."""


def require(module: str, extra: str, advice: str = "") -> ModuleType:
    """Import a library that only some tasks need.

    Args:
      module: its name, such as `seqeval.metrics`.
      extra: the extra of this package that installs it.
      advice: further advice for the message.

    Raises:
      InputError: it is not installed; the message says how to install it.

    Example:
      >>> require("json", "ner").dumps([1])
      '[1]'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        package = f"-e '.[{extra}]'" if CLONE.exists() else f"'sequence-suite[{extra}]'"
        raise InputError(
            f"this needs {missing}, which is not installed: pip install {package}{advice}"
        ) from error
