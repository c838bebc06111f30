"""The folder of a run: its checkpoint, from which a killed run resumes, and its log."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from common.errors import InputError, TrainingError
from common.files import open_locked, replaced, write_atomically
from common.training.distribution import from_chief, worker_index

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

CHECKPOINT = "checkpoint.npz"
BEFORE = "checkpoint-before.npz"  # the one before, in case the newest is damaged
LOG = "log.csv"
LOCK = ".lock"
# Raised by NumPy, zipfile and zlib for files that are empty, cut or overwritten.
DAMAGED: tuple[type[Exception], ...] = (OSError, ValueError, LookupError, EOFError, TypeError)
DAMAGED += (RuntimeError, zipfile.BadZipFile, zlib.error)
_LOCKED: dict[Path, int] = {}  # folder of a run of this process -> its open lock file
Variables: TypeAlias = "Mapping[str, Sequence[tf.Variable]]"  # kind -> variables, in a fixed order


@dataclasses.dataclass
class RunState:
    """The progress of a run, saved with its variables in one file."""

    settings: dict[str, Any]
    fingerprints: dict[str, str] = dataclasses.field(default_factory=dict)
    epoch: int = 0  # finished epochs
    step: int = 0  # finished steps of the epoch that has not ended
    loss: float = 0.0  # the sum of their losses
    best: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    stopped: bool = False
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


def save(
    directory: Path, state: RunState, variables: Variables, best_weights: Sequence[np.ndarray]
) -> None:
    """Write the checkpoint and the log of a run, each whole or not at all.

    The checkpoint before is kept under the name `BEFORE`. Variables are read one by one, so no
    second copy of the model is in memory.
    """
    newest = directory / CHECKPOINT
    with replaced(newest) as partial:
        with zipfile.ZipFile(partial, "w") as archive:  # as `np.savez` writes it
            for kind, values in variables.items():
                for index, variable in enumerate(values):
                    _write_array(archive, f"{kind}/{index}", variable.numpy())
            for index, value in enumerate(best_weights):
                _write_array(archive, f"best/{index}", value)
            _write_array(archive, "state", _to_bytes(state))
        if newest.exists():
            os.replace(newest, directory / BEFORE)
    if state.history:
        _write_log(directory / LOG, state.history)


def _write_array(archive: zipfile.ZipFile, name: str, value: np.ndarray) -> None:
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array(file, np.asanyarray(value), allow_pickle=False)


def exists(directory: Path) -> bool:
    """Return whether a run can be resumed from this folder."""
    return any((directory / name).exists() for name in (CHECKPOINT, BEFORE))


def restore(
    directory: Path, start: RunState, variables: Variables
) -> tuple[RunState, list[np.ndarray]]:
    """Read a checkpoint into the variables; the one before if the newest is damaged.

    Args:
      directory: the folder of the run.
      start: the state of a new run, whose settings and fingerprints the checkpoint must have.
      variables: the variables.

    Returns:
      The state of the run, and the weights of its best epoch.

    Raises:
      TrainingError: the checkpoint has other settings, was made from other data, has other shapes,
        or is damaged.
    """
    path, arrays = _read(directory)
    state = _from_bytes(arrays["state"])
    _require_same_settings(path, state.settings, start.settings)
    _require_same_data(path, state.fingerprints, start.fingerprints)
    for kind, values in variables.items():
        for index, variable in enumerate(values):
            _assign(path, variable, arrays[f"{kind}/{index}"])
    os.replace(path, directory / CHECKPOINT)  # the next save must not keep a damaged one
    count = sum(name.startswith("best/") for name in arrays)
    return state, [arrays[f"best/{index}"] for index in range(count)]


def _read(directory: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """Read the newest checkpoint that is not damaged."""
    reasons = []
    for path in (directory / CHECKPOINT, directory / BEFORE):
        try:
            # NumPy leaves a damaged file open.
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
                arrays = {name: archive[name] for name in archive.files}
            _from_bytes(arrays["state"])
        except FileNotFoundError:
            continue
        except DAMAGED as error:
            reasons.append(f"{path} is damaged ({error})")
        else:
            if reasons:
                print(f"{reasons[0]}; the run resumes from {path}", file=sys.stderr, flush=True)
            return path, arrays
    raise TrainingError(f"{' and '.join(reasons)}: leave out --resume to start anew")


def clear(directory: Path) -> None:
    """Remove the checkpoint and the logs of an earlier run."""
    for name in (CHECKPOINT, BEFORE, LOG):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "tensorboard", ignore_errors=True)


def lock(directory: Path) -> None:
    """Keep the folder of a run for this process until it ends.

    Raises:
      InputError: another process trains in this folder.
    """
    directory = directory.resolve()
    if directory in _LOCKED:
        return
    path = directory / LOCK
    try:
        file = open_locked(path, wait=False)
    except BlockingIOError as error:
        raise InputError(
            f"another training run uses this folder (process {path.read_text() or 'unknown'}). "
            "Wait for its end, or pass another --output",
            directory,
        ) from error
    os.truncate(file, 0)
    os.write(file, str(os.getpid()).encode())
    _LOCKED[directory] = file


def follow_chief(
    state: RunState,
    variables: Variables,
    best_weights: Sequence[np.ndarray],
    strategy: tf.distribute.Strategy,
) -> tuple[RunState, list[np.ndarray]]:
    """Start every worker from the chief's state; with one process, this changes nothing.

    Raises:
      TrainingError: this worker has other settings or other data than the chief.
    """
    text = _to_bytes(state)
    size = int(from_chief(np.array(text.size), strategy))
    chiefs = _from_bytes(from_chief(np.resize(text, size), strategy))
    if chiefs.settings != state.settings:
        raise TrainingError(f"worker {worker_index(strategy)} has other settings than the chief")
    if changed := _changed(chiefs.fingerprints, state.fingerprints):
        raise TrainingError(f"worker {worker_index(strategy)} has other {changed} than the chief")
    for variable in itertools.chain(*variables.values()):
        variable.assign(from_chief(variable.numpy(), strategy))
    return chiefs, [from_chief(weights, strategy) for weights in best_weights]


def _to_bytes(state: RunState) -> np.ndarray:
    return np.frombuffer(json.dumps(dataclasses.asdict(state)).encode(), np.uint8)


def _from_bytes(text: np.ndarray) -> RunState:
    return RunState(**json.loads(text.tobytes()))


def _require_same_settings(
    path: Path, saved: Mapping[str, Any], settings: Mapping[str, Any]
) -> None:
    if changed := _changed(saved, settings):
        raise TrainingError(
            f"{path} was made with another {changed}: give the same settings to resume, or leave "
            "out --resume to start anew"
        )


def _require_same_data(
    path: Path, saved: Mapping[str, str], fingerprints: Mapping[str, str]
) -> None:
    if changed := _changed(saved, fingerprints):
        raise TrainingError(
            f"{path} was made from other {changed}: restore the files of that run to resume, or "
            "leave out --resume to start anew"
        )


def _changed(saved: Mapping[str, Any], present: Mapping[str, Any]) -> str:
    names = present.keys() | saved.keys()
    return ", ".join(sorted(name for name in names if present.get(name) != saved.get(name)))


def _assign(path: Path, variable: tf.Variable, value: np.ndarray) -> None:
    if value.shape != tuple(variable.shape):
        raise TrainingError(
            f"{path} holds a variable of shape {value.shape} where {variable.name} has "
            f"{tuple(variable.shape)}: the training data has changed since"
        )
    variable.assign(value)


def _write_log(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(history)
    write_atomically(path, text.getvalue().encode())
