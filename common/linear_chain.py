"""Linear chains for `common.crf`: scores, constraints, and the recursions over the steps.

The recursions run in log space over tensors `[time, states, batch]`, so the work of one step is on
contiguous rows of the batch. Every step subtracts its largest score. Therefore nothing underflows,
and rounding errors do not grow with the length: a state that is e^-1000 times as likely as another
one still counts if the other one has no continuation. A recursion visits allowed transitions only:
with at most `K` transitions into each state, a step costs `K * states` instead of `states^2`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from common.log_space import LOW, log_sum_exp
from common.rnn_kernels import may_compile
from common.tensor_arrays import dimension, empty, unstack

import numpy as np
import tensorflow as tf
from numpy.typing import ArrayLike

TensorLike: TypeAlias = tf.types.experimental.TensorLike

__all__ = [
    "Chain",
    "Constraints",
    "Neighbours",
    "Scores",
    "backward",
    "forward",
    "softmax",
    "viterbi",
]


class Scores(NamedTuple):
    """Scores that a chain adds to the emissions.

    Attributes:
      transitions: `<float32>[states, states]`, from the row's state to the column's state.
      start: `<float32>[states]`, added at the first step.
      end: `<float32>[states]`, added at the last real step.
    """

    transitions: TensorLike
    start: TensorLike
    end: TensorLike


@dataclasses.dataclass(frozen=True)
class Neighbours:
    """Table of the predecessors (or successors) of each state.

    Attributes:
      index: `<int32>[most, states]`, the k-th neighbour of each state; 0 if it has fewer.
      exists: `<bool>[most, states]`, whether the state has a k-th neighbour.
      dense: whether every state lists all states in order, and `exists` marks the neighbours.
    """

    index: np.ndarray
    exists: np.ndarray
    dense: bool


class Constraints:
    """Hard constraints: the set of valid paths.

    Args:
      transitions: `<bool>[states, states]`, whether the column's state may follow the row's state.
      start: `<bool>[states]`, whether a path may start in a state. Default: all.
      end: `<bool>[states]`, whether a path may end in a state. Default: all.

    Raises:
      ValueError: if a table has the wrong shape, or no state is allowed at the start or the end.

    Example:
      >>> Constraints([[True, True], [False, True]], start=[True, False])   # 0 0 ... 1 1
      Constraints(2 states, 3 transitions)
    """

    def __init__(
        self,
        transitions: ArrayLike,
        start: ArrayLike | None = None,
        end: ArrayLike | None = None,
    ):
        self.transitions = np.array(transitions, bool)
        states = len(self.transitions)
        if self.transitions.shape != (states, states) or not states:
            raise ValueError(
                f"transitions must be a square table. Received shape: {self.transitions.shape}"
            )
        self.start = np.ones(states, bool) if start is None else np.array(start, bool)
        self.end = np.ones(states, bool) if end is None else np.array(end, bool)
        for name, row in (("start", self.start), ("end", self.end)):
            if row.shape != (states,) or not row.any():
                raise ValueError(f"{name} must allow one or more of {states} states: {row}")
        self._key = (self.transitions.tobytes(), self.start.tobytes(), self.end.tobytes())

    @classmethod
    def none(cls, states: int) -> Constraints:
        """Return constraints under which every path is valid."""
        return cls(np.ones((states, states), bool))

    @property
    def states(self) -> int:
        """Number of states."""
        return len(self.start)

    @functools.cached_property
    def sources(self) -> Neighbours:
        """Predecessors of each state."""
        return _neighbours(self.transitions)

    @functools.cached_property
    def targets(self) -> Neighbours:
        """Successors of each state."""
        return _neighbours(self.transitions.T)

    def apply(self, scores: Scores) -> Scores:
        """Return the scores as float32 tensors, with `LOW` for everything forbidden."""

        def masked(allowed: np.ndarray, values: TensorLike) -> tf.Tensor:
            values = tf.cast(values, tf.float32)
            return values if allowed.all() else tf.where(tf.constant(allowed), values, LOW)

        return Scores(
            masked(self.transitions, scores.transitions),
            masked(self.start, scores.start),
            masked(self.end, scores.end),
        )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constraints) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Constraints({self.states} states, {self.transitions.sum()} transitions)"


def _neighbours(table: np.ndarray) -> Neighbours:
    """List the rows that are true in each column."""
    states = len(table)
    most = max(1, int(table.sum(axis=0).max()))
    if 2 * most > states:  # all states cost little more, and need no gathering
        index = np.tile(np.arange(states, dtype=np.int32)[:, None], [1, states])
        return Neighbours(index, table.copy(), True)
    index = np.zeros((most, states), np.int32)
    exists = np.zeros((most, states), bool)
    for state in range(states):
        rows = np.flatnonzero(table[:, state])
        index[: len(rows), state] = rows
        exists[: len(rows), state] = True
    return Neighbours(index, exists, False)


# --- The chain as tensors -------------------------------------------------------------------------


class Chain:
    """Emissions, lengths and scores in the layout of the recursions.

    Args:
      emissions: `<float>[batch, time, states]`.
      length: `<int>[batch]`, real steps of each row.
      scores: transition, start and end scores.
      constraints: valid paths; all if `None`.

    Attributes:
      constraints: the constraints.
      time: number of steps.
      length: `<int32>[batch]`, clipped to `time`.
      real: `<bool>[time, 1, batch]`, whether a step is before the end of its row.
      emissions: `<float32>[time, states, batch]`, 0 in the padding.
      start: `<float32>[states, 1]`.
      end: `<float32>[states, 1]`.
      incoming: `<float32>[most, states, 1]`, transition scores from each predecessor.
      outgoing: `<float32>[most, states, 1]`, transition scores to each successor.
    """

    def __init__(
        self,
        emissions: TensorLike,
        length: TensorLike,
        scores: Scores,
        constraints: Constraints | None,
    ):
        emissions = tf.cast(emissions, tf.float32)
        self.constraints = constraints or Constraints.none(emissions.shape[-1])
        scores = self.constraints.apply(scores)
        self.time = dimension(emissions, 1)
        steps = self.time
        if emissions.shape[1] in (None, 0):  # the recursions need a first step
            added = 1 if self.time is emissions.shape[1] else tf.maximum(1 - self.time, 0)
            steps = self.time + added
            emissions = tf.pad(emissions, [[0, 0], [0, added], [0, 0]])
        self.length = tf.clip_by_value(tf.cast(length, tf.int32), 0, self.time)
        self.real = tf.range(steps)[:, None, None] < self.length[None, None, :]
        # Padding may contain any value, including NaN.
        self.emissions = tf.where(self.real, tf.transpose(emissions, [1, 2, 0]), 0.0)
        self.start, self.end = scores.start[:, None], scores.end[:, None]
        self.incoming = _incoming(scores.transitions, self.constraints.sources)
        self.outgoing = _outgoing(scores.transitions, self.constraints.targets)

    def run(self, recursion: Callable[..., Any], *tensors: tf.Tensor) -> Any:
        """Run a recursion of this module, compiled by XLA where `may_compile` allows it."""
        shape = tuple(self.emissions.shape)
        return _program(recursion, self.constraints, may_compile(), shape)(*tensors)

    def to_rows(self, value: tf.Tensor) -> tf.Tensor:
        """Transpose `[time, states, batch]` to `[batch, time, states]`, without an added step."""
        return tf.transpose(value, [2, 0, 1])[:, : self.time]


@functools.lru_cache(maxsize=256)
def _program(
    recursion: Callable[..., Any],
    constraints: Constraints,
    compiled: bool,
    shape: tuple[int | None, ...],
) -> Callable[..., Any]:
    """Return a recursion as a function of tensors.

    Chains of equal constraints and shapes share one function, and its XLA compilation.
    """
    del shape
    function = functools.partial(recursion, constraints)
    if not compiled:
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def _incoming(transitions: tf.Tensor, sources: Neighbours) -> tf.Tensor:
    """Return the transition scores from each predecessor, `<float32>[most, states, 1]`."""
    if sources.dense:
        return transitions[:, :, None]
    return _listed(transitions, sources, sources.index, _own_index(sources))


def _outgoing(transitions: tf.Tensor, targets: Neighbours) -> tf.Tensor:
    """Return the transition scores to each successor, `<float32>[most, states, 1]`."""
    if targets.dense:
        return tf.transpose(transitions)[:, :, None]
    return _listed(transitions, targets, _own_index(targets), targets.index)


def _own_index(neighbours: Neighbours) -> np.ndarray:
    """Return each state's own index in the layout of `neighbours.index`."""
    most, states = neighbours.index.shape
    return np.tile(np.arange(states, dtype=np.int32), (most, 1))


def _listed(
    transitions: tf.Tensor, neighbours: Neighbours, rows: np.ndarray, columns: np.ndarray
) -> tf.Tensor:
    """Return the scores at the given rows and columns, `LOW` where no neighbour exists."""
    values = tf.gather_nd(transitions, np.stack([rows, columns], axis=-1))
    return tf.where(neighbours.exists, values, LOW)[:, :, None]


# --- Recursions over [time, states, batch] --------------------------------------------------------


def forward(
    constraints: Constraints,
    emissions: tf.Tensor,
    real: tf.Tensor,
    incoming: tf.Tensor,
    start: tf.Tensor,
    end: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Sum over all paths, from the first step to the last (the forward pass of Rabiner 1989).

    The forward score of a state at a step is the logarithm of the sum over all paths to it, less
    the largest one of the step.

    Args:
      constraints: valid paths.
      emissions: see `Chain`, like the other arguments.
      real: see there.
      incoming: see there.
      start: see there.
      end: see there.

    Returns:
      log Z `[batch]`, the forward scores of the last real step `[states, batch]`, and those of all
      steps `[time, states, batch]`.
    """
    sources = constraints.sources
    steps = dimension(emissions, 0)
    emission_array, real_array = unstack(emissions), unstack(real)
    first, total = _centred(start + emissions[0])
    alphas = empty(steps, emissions.shape[1:], emissions.dtype).write(0, first)

    def body(t: tf.Tensor, alpha: tf.Tensor, total: tf.Tensor, alphas: tf.TensorArray) -> tuple:
        paths = log_sum_exp(_gather(alpha, sources) + incoming)
        following, largest = _centred(paths + emission_array.read(t))
        is_real = real_array.read(t)
        alpha = tf.where(is_real, following, alpha)
        return t + 1, alpha, total + tf.where(is_real, largest, 0.0), alphas.write(t, alpha)

    _, last, total, alphas = tf.while_loop(
        lambda t, *_: t < steps, body, (tf.constant(1), first, total, alphas)
    )
    return total[0] + log_sum_exp(last + end), last, alphas.stack()


def backward(
    constraints: Constraints,
    emissions: tf.Tensor,
    real: tf.Tensor,
    incoming: tf.Tensor,
    outgoing: tf.Tensor,
    end: tf.Tensor,
    alphas: tf.Tensor,
    weight: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute marginals, from the last step to the first (the backward pass of Rabiner 1989).

    Args:
      constraints: valid paths.
      emissions: see `Chain`.
      real: see there.
      incoming: see there.
      outgoing: see there.
      end: see there.
      alphas: `<float32>[time, states, batch]`, the scores of `forward`.
      weight: `<float32>[batch]`, a factor for each row.

    Returns:
      The marginals times `weight`, `[time, states, batch]`, and the expected number of uses of each
      transition, times `weight` and summed over the batch, in the layout of `incoming`.
    """
    sources, targets = constraints.sources, constraints.targets
    steps = dimension(emissions, 0)
    emission_array, real_array = unstack(emissions), unstack(real, reread=True)
    alpha_array = unstack(alphas, reread=True)

    def marginal(t: tf.Tensor, beta: tf.Tensor) -> tf.Tensor:
        return softmax(alpha_array.read(t) + beta) * tf.where(real_array.read(t), weight, 0.0)

    def body(t: tf.Tensor, beta: tf.Tensor, counts: tf.Tensor, marginals: tf.TensorArray) -> tuple:
        current = marginal(t, beta)
        # Given a state, its predecessor is distributed as the paths into the state.
        counts += softmax(_gather(alpha_array.read(t - 1), sources) + incoming) * current
        paths = log_sum_exp(_gather(emission_array.read(t) + beta, targets) + outgoing)
        previous, _ = _centred(paths)
        beta = tf.where(real_array.read(t), previous, beta)
        return t - 1, beta, counts, marginals.write(t, current)

    beta = end + tf.zeros_like(emissions[0])
    counts = tf.zeros_like(incoming) + tf.zeros_like(weight)
    marginals = empty(steps, emissions.shape[1:], emissions.dtype)
    _, beta, counts, marginals = tf.while_loop(
        lambda t, *_: t > 0, body, (tf.convert_to_tensor(steps - 1), beta, counts, marginals)
    )
    marginals = marginals.write(0, marginal(tf.constant(0), beta))
    return marginals.stack(), tf.reduce_sum(counts, axis=2, keepdims=True)


def viterbi(
    constraints: Constraints,
    emissions: tf.Tensor,
    real: tf.Tensor,
    incoming: tf.Tensor,
    start: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Find the best path to each state, from the first step to the last (Viterbi 1967).

    Args:
      constraints: valid paths.
      emissions: see `Chain`, like the other arguments.
      real: see there.
      incoming: see there.
      start: see there.

    Returns:
      The score of the best path to each state at the last real step, less the largest one,
      `[states, batch]`; that largest score `[1, batch]`; and backpointers `<uint8>[time, states,
      batch]` (`<uint16>` above 256 predecessors): the place of the best predecessor in the list of
      predecessors.
    """
    sources = constraints.sources
    pointer_type = tf.uint8 if len(sources.index) <= 256 else tf.uint16
    steps = dimension(emissions, 0)
    emission_array, real_array = unstack(emissions), unstack(real)
    first, total = _centred(start + emissions[0])
    pointers = empty(steps, emissions.shape[1:], pointer_type)
    pointers = pointers.write(0, tf.zeros_like(first, pointer_type))

    def body(t: tf.Tensor, score: tf.Tensor, total: tf.Tensor, pointers: tf.TensorArray) -> tuple:
        paths = _gather(score, sources) + incoming
        best, largest = _centred(tf.reduce_max(paths, axis=0) + emission_array.read(t))
        is_real = real_array.read(t)
        pointer = tf.cast(tf.argmax(paths, axis=0, output_type=tf.int32), pointer_type)
        score = tf.where(is_real, best, score)
        return t + 1, score, total + tf.where(is_real, largest, 0.0), pointers.write(t, pointer)

    _, score, total, pointers = tf.while_loop(
        lambda t, *_: t < steps, body, (tf.constant(1), first, total, pointers)
    )
    return score, total, pointers.stack()


def _gather(value: tf.Tensor, neighbours: Neighbours) -> tf.Tensor:
    """Return the values `[states, batch]` of each state's neighbours, to add to transitions."""
    if neighbours.dense:
        return value[:, None, :]
    most, states = neighbours.index.shape
    values = tf.gather(value, neighbours.index.reshape(-1))
    return tf.reshape(values, [most, states, -1])


def softmax(value: tf.Tensor) -> tf.Tensor:
    """Return the softmax over the first axis."""
    raised = tf.exp(value - tf.reduce_max(value, axis=0, keepdims=True))
    return raised / tf.reduce_sum(raised, axis=0, keepdims=True)


def _centred(value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Subtract the largest score of each row; return the scores and that maximum `[1, batch]`."""
    largest = tf.reduce_max(value, axis=0, keepdims=True)
    return tf.maximum(value - largest, LOW), largest
