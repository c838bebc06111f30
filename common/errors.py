"""The errors that a command turns into a message for its user."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType


class InputError(ValueError):
    """What a user gave cannot be used: says what, and in which file and line.

    Example:
      >>> str(InputError("expected 2 columns, got 1", "reviews.tsv", 7))
      'reviews.tsv, line 7: expected 2 columns, got 1'
    """

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None):
        where = "" if path is None else f"{path}{'' if line is None else f', line {line}'}: "
        super().__init__(where + message)


class TrainingError(RuntimeError):
    """Training cannot go on: the loss is no longer a number, or a checkpoint does not fit."""


class ExportError(RuntimeError):
    """A model cannot be published, or a folder holds no published model."""


def require(module: str, extra: str, advice: str = "") -> ModuleType:
    """Imports a library that only some tasks need.

    Args:
      module: its name, such as `seqeval.metrics`.
      extra: the one of ours that brings it.
      advice: what else a user can do.

    Raises:
      InputError: it is not installed; says how to install it.

    Example:
      >>> require("sacrebleu.metrics", "translation").BLEU
      <class 'sacrebleu.metrics.bleu.BLEU'>
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise InputError(
            f"this needs {missing}, which is not installed: pip install -e '.[{extra}]'{advice}"
        ) from error
