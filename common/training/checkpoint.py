"""The folder of a run: its checkpoint, from which a killed run resumes, and its log."""

from __future__ import annotations

import csv
import dataclasses
import io
import itertools
import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from common.errors import TrainingError
from common.files import write_atomically
from common.training.distribution import from_chief, worker_index

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

CHECKPOINT = "checkpoint.npz"
LOG = "log.csv"
Variables: TypeAlias = "Mapping[str, Sequence[tf.Variable]]"  # kind -> variables, in a fixed order


@dataclasses.dataclass
class RunState:
    """The progress of a run, saved with its variables in one file."""

    settings: dict[str, Any]
    epoch: int = 0  # finished epochs
    best: float | None = None
    best_epoch: int = 0
    seconds: float = 0.0
    stopped: bool = False
    history: list[dict[str, float]] = dataclasses.field(default_factory=list)


def save(
    directory: Path, state: RunState, variables: Variables, best_weights: Sequence[np.ndarray]
) -> None:
    """Write the checkpoint and the log of a run, each whole or not at all."""
    arrays: dict[str, np.ndarray] = {
        f"{kind}/{index}": variable.numpy()
        for kind, values in variables.items()
        for index, variable in enumerate(values)
    }
    arrays |= {f"best/{index}": value for index, value in enumerate(best_weights)}
    arrays["state"] = _to_bytes(state)
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]  # the names are no other arguments
    write_atomically(directory / CHECKPOINT, buffer.getvalue())
    _write_log(directory / LOG, state.history)


def restore(
    directory: Path, settings: Mapping[str, Any], variables: Variables
) -> tuple[RunState, list[np.ndarray]]:
    """Read a checkpoint into the variables.

    Returns:
      The state of the run, and the weights of its best epoch.

    Raises:
      TrainingError: the checkpoint has other settings or other shapes.
    """
    path = directory / CHECKPOINT
    with np.load(path, allow_pickle=False) as arrays:
        state = _from_bytes(arrays["state"])
        _require_same_settings(path, state.settings, settings)
        for kind, values in variables.items():
            for index, variable in enumerate(values):
                _assign(path, variable, arrays[f"{kind}/{index}"])
        count = sum(name.startswith("best/") for name in arrays.files)
        return state, [arrays[f"best/{index}"] for index in range(count)]


def clear(directory: Path) -> None:
    """Remove the checkpoint and the logs of an earlier run."""
    for name in (CHECKPOINT, LOG):
        (directory / name).unlink(missing_ok=True)
    shutil.rmtree(directory / "tensorboard", ignore_errors=True)


def follow_chief(
    state: RunState,
    variables: Variables,
    best_weights: Sequence[np.ndarray],
    strategy: tf.distribute.Strategy,
) -> tuple[RunState, list[np.ndarray]]:
    """Start every worker from the chief's state; with one process, this changes nothing.

    Raises:
      TrainingError: this worker has other settings than the chief.
    """
    text = _to_bytes(state)
    size = int(from_chief(np.array(text.size), strategy))
    chiefs = _from_bytes(from_chief(np.resize(text, size), strategy))
    if chiefs.settings != state.settings:
        raise TrainingError(f"worker {worker_index(strategy)} has other settings than the chief")
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
    names = settings.keys() | saved.keys()
    changed = sorted(name for name in names if settings.get(name) != saved.get(name))
    if changed:
        raise TrainingError(
            f"{path} was made with another {', '.join(changed)}: give the same settings to "
            "resume, or leave out --resume to start anew"
        )


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
