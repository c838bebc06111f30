"""The weights of an export in 16 bits.

Large weights are stored as float16, which halves an export, and are cast to float32 once in each
graph that reads them. Rounding changes a weight by at most 1 / 2,048 of itself.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ParamSpec, TypeAlias, TypeVar

import numpy as np
from etils import epy

with epy.lazy_imports():
    import keras
    import tensorflow as tf

P = ParamSpec("P")
T = TypeVar("T")
Halves: TypeAlias = "Sequence[tuple[keras.Variable, tf.Variable]]"

SMALL = 4096  # elements; what a smaller weight saves is not worth an op
LARGEST = 6e4  # of float16, about

_read: contextvars.ContextVar[Halves] = contextvars.ContextVar("halves", default=())


def round_weights(model: keras.Model) -> Halves:
    """Round the large weights of a model to float16, in place.

    Small weights, whole numbers, and weights that float16 cannot hold are left as they are.

    Returns:
      Pairs of a rounded variable and the variable of float16 that holds the same values.

    Example:
      >>> model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(64)])
      >>> [(tuple(half.shape), half.dtype.name) for _, half in round_weights(model)]
      [((64, 64), 'float16')]
    """
    halves = []
    for variable in model.variables:
        if variable.dtype != "float32" or np.prod(variable.shape) < SMALL:
            continue
        values = np.asarray(variable)
        if np.abs(values).max() <= LARGEST:  # false for NaN, too
            half = values.astype(np.float16)
            variable.assign(half.astype(np.float32))
            halves.append((variable, tf.Variable(half, trainable=False)))
    return halves


@contextlib.contextmanager
def reading(halves: Halves) -> Iterator[None]:
    """Let the functions made by `from_halves` that are traced in the block read these variables."""
    token = _read.set(halves)
    try:
        yield
    finally:
        _read.reset(token)


def from_halves(run: Callable[P, T]) -> Callable[P, T]:
    """Decorate the function of a graph so that it reads the variables named by `reading`.

    Each graph that is not inside another one's loop or condition needs it, since it casts the
    variables itself.
    """

    @functools.wraps(run)
    def cast_first(*args: P.args, **kwargs: P.kwargs) -> T:
        casts = [(variable, tf.cast(half, tf.float32)) for variable, half in _read.get()]
        with keras.StatelessScope(casts) if casts else contextlib.nullcontext():
            return run(*args, **kwargs)

    return cast_first


def stored(model: keras.Model, halves: Halves) -> list[Any]:
    """Return the variables of TensorFlow that hold a model's weights, in the model's order."""
    half_of = {id(variable): half for variable, half in halves}
    return [half_of.get(id(variable), variable.value) for variable in model.variables]
