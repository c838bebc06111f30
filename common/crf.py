"""Linear-chain conditional random field: log-likelihood, Viterbi, marginals.

A path `y` of states through a row of `length` steps has the score

    start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_t-1, y_t] + end[y_length]

and the probability exp(score) / Z, Z being the sum of exp(score) over all legal paths (Lafferty et
al. 2001). `Constraints` say which paths are legal; a position may forbid a state by an emission of
`LOW`.

The walks run in log space, and the largest score of a step is taken out at every step, so that
nothing underflows and rounding does not grow with the length: a state that is e^-1000 times as
likely as another still counts when the other one dies later. They visit only the transitions that
are allowed: `K` of them into a state, at most, cost `K * states` a step, not `states^2`.

The gradient of log Z by the emissions is the marginals (Rabiner 1989: forward-backward), so it is
one more walk, from the last step to the first, and not automatic differentiation through a loop.
As in `common.rnn_kernels`, training compiles both walks by XLA where `may_compile` allows it (each
new shape costs a compilation, so use few lengths), and whatever is exported gets a plain loop.

Padding changes nothing: only the first `length` steps of a row count. A row of length 0 has log Z
0, an empty path, and marginals 0.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from common.rnn_kernels import may_compile

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record

# The score of what is forbidden. Far below any real score, yet finite: no NaN can come of it.
LOW = -1e30

__all__ = [
    "CRF",
    "LOW",
    "Constraints",
    "Scores",
    "log_likelihood",
    "log_likelihood_of_set",
    "log_normalizer",
    "log_score",
    "marginals",
    "trace_back",
    "viterbi",
    "viterbi_walk",
]


class Scores(NamedTuple):
    """What a chain adds to the emissions.

    Attributes:
        transitions: `<float32>[states, states]`, from the row's state to the column's.
        start: `<float32>[states]`, of the first step.
        end: `<float32>[states]`, of the last real step.
    """

    transitions: Any
    start: Any
    end: Any


class Constraints:
    """Which paths are legal.

    Args:
        transitions: `<bool>[states, states]`, whether the column's state may follow the row's.
        start: `<bool>[states]`, whether a path may begin there; all by default.
        end: `<bool>[states]`, whether a path may end there; all by default.

    Example:
    >>> Constraints([[True, True], [False, True]], start=[True, False])   # 0 0 ... 1 1
    Constraints(2 states, 3 transitions)

    Raises:
        ValueError: a table of another shape, or no state to start or to end in.
    """

    def __init__(self, transitions: Any, start: Any = None, end: Any = None):
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
        """Every path is legal."""
        return cls(np.ones((states, states), bool))

    @property
    def states(self) -> int:
        """How many states there are."""
        return len(self.start)

    @functools.cached_property
    def sources(self) -> _Neighbours:
        """The states that may come before each state."""
        return _neighbours(self.transitions)

    @functools.cached_property
    def targets(self) -> _Neighbours:
        """The states that may come after each state."""
        return _neighbours(self.transitions.T)

    def apply(self, scores: Scores) -> Scores:
        """The scores as float32 tensors, `LOW` where something is forbidden."""

        def keep(allowed: np.ndarray, given: Any) -> tf.Tensor:
            given = tf.cast(given, tf.float32)
            return given if allowed.all() else tf.where(tf.constant(allowed), given, LOW)

        pairs = zip((self.transitions, self.start, self.end), scores, strict=True)
        return Scores(*(keep(allowed, given) for allowed, given in pairs))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Constraints) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __repr__(self) -> str:
        return f"Constraints({self.states} states, {self.transitions.sum()} transitions)"


class _Neighbours(NamedTuple):
    """The neighbours of each state on one side, as a table.

    Attributes:
        index: `<int32>[most, states]`, the k-th neighbour of a state; 0 where it has fewer.
        exists: `<bool>[most, states]`, whether it has so many.
        dense: whether every state is listed for every state, in order.
    """

    index: np.ndarray
    exists: np.ndarray
    dense: bool


def _neighbours(table: np.ndarray) -> _Neighbours:
    """Lists the rows that are true in each column."""
    states = len(table)
    most = max(1, int(table.sum(axis=0).max()))
    if 2 * most > states:  # all of them cost little more, and need no gathering
        index = np.tile(np.arange(states, dtype=np.int32)[:, None], [1, states])
        return _Neighbours(index, table.copy(), True)
    index = np.zeros((most, states), np.int32)
    exists = np.zeros((most, states), bool)
    for state in range(states):
        found = np.flatnonzero(table[:, state])
        index[: len(found), state] = found
        exists[: len(found), state] = True
    return _Neighbours(index, exists, False)


# --- Sums over paths ------------------------------------------------------------------------------


def log_normalizer(
    emissions: Any, length: Any, scores: Scores, constraints: Constraints | None = None
) -> tf.Tensor:
    """The logarithm of the sum of exp(score) over all legal paths, with its gradient.

    Args:
        emissions: `<float>[batch, time, states]`; taken as float32. `LOW` forbids a state there.
        length: `<int>[batch]`, real steps of each row; more than `time` counts as `time`.
        scores: of transitions, start and end; of what is forbidden they do not count.
        constraints: which paths are legal; all, if `None`.

    Returns:
        `<float32>[batch]`; 0 for a row of length 0, `LOW` or less for one without a legal path.

    Example:
    >>> zero = Scores(np.zeros((2, 2)), np.zeros(2), np.zeros(2))
    >>> log_normalizer(np.zeros((1, 3, 2)), [3], zero)      # log 2^3
    [2.0794415]
    """
    chain = _Chain(emissions, length, scores, constraints)
    return _log_normalizer(chain)


def log_score(
    emissions: Any, tags: Any, length: Any, scores: Scores, constraints: Constraints | None = None
) -> tf.Tensor:
    """The score of one path a row; `LOW` or less if it is not legal.

    Args:
        emissions: `<float>[batch, time, states]`.
        tags: `<int>[batch, time]`, the states of the path; beyond `length` they do not count.
        length: `<int>[batch]`.
        scores: of transitions, start and end.
        constraints: which paths are legal; all, if `None`.

    Returns:
        `<float32>[batch]`; 0 for a row of length 0.
    """
    emissions = tf.cast(emissions, tf.float32)
    constraints = constraints or Constraints.none(emissions.shape[-1])
    transitions, start, end = constraints.apply(scores)
    # One step more than there is, so that a row of no steps has a first one.
    emissions = tf.pad(emissions, [[0, 0], [0, 1], [0, 0]])
    tags = tf.pad(tf.cast(tags, tf.int32), [[0, 0], [0, 1]])
    time = tf.shape(emissions)[1]
    length = tf.clip_by_value(tf.cast(length, tf.int32), 0, time - 1)
    real = tf.range(time)[None, :] < length[:, None]
    tags = tf.where(real, tags, 0)
    at = tf.gather(emissions, tags, batch_dims=2)
    between = tf.gather_nd(transitions, tf.stack([tags[:, :-1], tags[:, 1:]], axis=-1))
    last = tf.gather(tags, tf.maximum(length - 1, 0), batch_dims=1)
    # Multiplying by 0 instead would make NaN of an emission that is not finite.
    total = tf.reduce_sum(tf.where(real, at, 0.0), axis=1)
    total += tf.reduce_sum(tf.where(real[:, 1:], between, 0.0), axis=1)
    total += tf.gather(start, tags[:, 0]) + tf.gather(end, last)
    return tf.where(length > 0, total, 0.0)


def log_likelihood(
    emissions: Any, tags: Any, length: Any, scores: Scores, constraints: Constraints | None = None
) -> tf.Tensor:
    """The logarithm of the probability of one path a row; see `log_score` for the arguments.

    Returns:
        `<float32>[batch]`, at most 0; 0 for a row of length 0.
    """
    path = log_score(emissions, tags, length, scores, constraints)
    return path - log_normalizer(emissions, length, scores, constraints)


def log_likelihood_of_set(
    emissions: Any,
    allowed: Any,
    length: Any,
    scores: Scores,
    constraints: Constraints | None = None,
) -> tf.Tensor:
    """The logarithm of the probability that the path stays inside a set; for partial truth.

    Args:
        emissions: `<float>[batch, time, states]`.
        allowed: `<bool>[batch, time, states]`, the states that a path may have at each step: one
            where the truth is known, several or all where it is not.
        length: `<int>[batch]`.
        scores: of transitions, start and end.
        constraints: which paths are legal; all, if `None`.

    Returns:
        `<float32>[batch]`, at most 0 but for rounding.
    """
    emissions = tf.cast(emissions, tf.float32)
    inside = log_normalizer(tf.where(allowed, emissions, LOW), length, scores, constraints)
    return inside - log_normalizer(emissions, length, scores, constraints)


def marginals(
    emissions: Any, length: Any, scores: Scores, constraints: Constraints | None = None
) -> tf.Tensor:
    """The probability of each state at each step, over all legal paths.

    Args:
        emissions: `<float>[batch, time, states]`.
        length: `<int>[batch]`.
        scores: of transitions, start and end.
        constraints: which paths are legal; all, if `None`.

    Returns:
        `<float32>[batch, time, states]`, 0 beyond `length`. No gradient goes through it.
    """
    chain = _Chain(emissions, length, scores, constraints)
    walk = chain.program(_forward)
    _, _, kept = walk(*chain.forward_arguments())
    back = chain.program(_backward)
    ones = tf.ones_like(chain.emissions[0, 0])
    return chain.to_rows(back(*chain.backward_arguments(), kept, ones)[0])


class _Chain:
    """Emissions, lengths and scores, in the form in which the walks take them.

    Steps come first and the batch last: a step's work is then on contiguous rows of the batch.
    """

    def __init__(
        self, emissions: Any, length: Any, scores: Scores, constraints: Constraints | None
    ):
        emissions = tf.cast(emissions, tf.float32)
        self.constraints = constraints or Constraints.none(emissions.shape[-1])
        scores = self.constraints.apply(scores)
        self.time = tf.shape(emissions)[1] if emissions.shape[1] is None else emissions.shape[1]
        self.missing = 1 if self.time is emissions.shape[1] and self.time == 0 else 0
        if emissions.shape[1] is None:  # a walk has a first step
            self.missing = tf.maximum(1 - self.time, 0)
        if emissions.shape[1] in (None, 0):
            emissions = tf.pad(emissions, [[0, 0], [0, self.missing], [0, 0]])
        self.length = tf.clip_by_value(tf.cast(length, tf.int32), 0, self.time)
        steps = tf.range(self.time + self.missing)
        self.real = steps[:, None, None] < self.length[None, None, :]  # [time, 1, batch]
        # What stands in the padding may be anything, NaN too.
        self.emissions = tf.where(self.real, tf.transpose(emissions, [1, 2, 0]), 0.0)
        self.start, self.end = scores.start[:, None], scores.end[:, None]
        self.into = _weights(scores.transitions, self.constraints.sources, forward=True)
        self.out = _weights(scores.transitions, self.constraints.targets, forward=False)

    def program(self, body: Callable[..., Any], **how: Any) -> Callable[..., Any]:
        """One of the walks below, in the form that fits the surroundings."""
        return _program(body, self.constraints, may_compile(), tuple(self.emissions.shape), **how)

    def forward_arguments(self) -> tuple[Any, ...]:
        return self.emissions, self.real, self.into, self.start, self.end

    def backward_arguments(self) -> tuple[Any, ...]:
        return self.emissions, self.real, self.into, self.out, self.end

    def to_rows(self, value: tf.Tensor) -> tf.Tensor:
        """`[time, states, batch]` as `[batch, time, states]`, without a step that was added."""
        return tf.transpose(value, [2, 0, 1])[:, : self.time]


@functools.lru_cache(maxsize=256)
def _program(
    body: Callable[..., Any],
    constraints: Constraints,
    compiled: bool,
    shape: tuple[int | None, ...],
    **how: Any,
) -> Callable[..., Any]:
    """A walk; chains of equal constraints and shapes share it, and what XLA makes of it."""
    del shape
    function = functools.partial(body, constraints, **how)
    if not compiled:
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def _weights(transitions: tf.Tensor, neighbours: _Neighbours, *, forward: bool) -> tf.Tensor:
    """Scores of the transitions from, or to, each neighbour: `<float32>[most, states, 1]`."""
    if neighbours.dense:
        return (transitions if forward else tf.transpose(transitions))[:, :, None]
    own = np.tile(np.arange(neighbours.index.shape[1], dtype=np.int32), (len(neighbours.index), 1))
    pair = (neighbours.index, own) if forward else (own, neighbours.index)
    found = tf.gather_nd(transitions, np.stack(pair, axis=-1))
    return tf.where(neighbours.exists, found, LOW)[:, :, None]


def _log_normalizer(chain: _Chain) -> tf.Tensor:
    """The normaliser as one op, whose gradient is the walk back."""
    save = record.could_possibly_record()
    real, out = chain.real, tf.stop_gradient(chain.out)

    @tf.custom_gradient
    def call(emissions: tf.Tensor, into: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> Any:
        def walk() -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            return chain.program(_forward)(emissions, real, into, start, end)

        with record.stop_recording():  # else the tape would differentiate the loop itself
            total, last, kept = walk()

        def gradient(d_total: tf.Tensor) -> list[tf.Tensor]:
            back = chain.program(_backward)
            again = kept if save else walk()[2]
            d_emissions, d_into = back(emissions, real, into, out, end, again, d_total)
            d_start = tf.reduce_sum(d_emissions[0], axis=1, keepdims=True)
            d_end = _softmax(last + end) * tf.where(chain.length > 0, d_total, 0.0)
            return [d_emissions, d_into, d_start, tf.reduce_sum(d_end, axis=1, keepdims=True)]

        return tf.where(chain.length > 0, total, 0.0), gradient

    return call(chain.emissions, chain.into, chain.start, chain.end)


# --- The walks: [time, states, batch] -------------------------------------------------------------


def _gather(value: tf.Tensor, neighbours: _Neighbours) -> tf.Tensor:
    """The values `[states, batch]` of each state's neighbours, to be added to their weights."""
    if neighbours.dense:
        return value[:, None, :]
    most, states = neighbours.index.shape
    flat = tf.gather(value, neighbours.index.reshape(-1))
    return tf.reshape(flat, [most, states, -1])


def _log_sum_exp(value: tf.Tensor) -> tf.Tensor:
    """Over the first dimension."""
    largest = tf.reduce_max(value, axis=0, keepdims=True)
    return largest[0] + tf.math.log(tf.reduce_sum(tf.exp(value - largest), axis=0))


def _softmax(value: tf.Tensor) -> tf.Tensor:
    """Over the first dimension."""
    raised = tf.exp(value - tf.reduce_max(value, axis=0, keepdims=True))
    return raised / tf.reduce_sum(raised, axis=0, keepdims=True)


def _centred(value: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Scores less the largest one of each row of the batch, and that one `[1, batch]`."""
    largest = tf.reduce_max(value, axis=0, keepdims=True)
    return tf.maximum(value - largest, LOW), largest


def _array(value: tf.Tensor) -> tf.TensorArray:
    size = tf.shape(value)[0] if value.shape[0] is None else value.shape[0]
    kept = {"clear_after_read": False}  # the walk back reads a step twice
    array = tf.TensorArray(value.dtype, size, element_shape=value.shape[1:], **kept)
    return array.unstack(value)


def _room(like: tf.Tensor, dtype: tf.DType | None = None) -> tf.TensorArray:
    size = tf.shape(like)[0] if like.shape[0] is None else like.shape[0]
    return tf.TensorArray(dtype or like.dtype, size, element_shape=like.shape[1:])


def _forward(
    constraints: Constraints,
    emissions: tf.Tensor,
    real: tf.Tensor,
    into: tf.Tensor,
    start: tf.Tensor,
    end: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Gives log Z `[batch]`, the last scores `[states, batch]` and those of all steps.

    The scores of a step are logarithms of sums over all paths to it, less the largest one.
    """
    sources = constraints.sources
    rows, reals = _array(emissions), _array(real)
    first, total = _centred(start + emissions[0])
    kept = _room(emissions).write(0, first)

    def body(t: tf.Tensor, score: tf.Tensor, total: tf.Tensor, kept: Any) -> Any:
        new, largest = _centred(_log_sum_exp(_gather(score, sources) + into) + rows.read(t))
        real = reals.read(t)
        score = tf.where(real, new, score)
        return t + 1, score, total + tf.where(real, largest, 0.0), kept.write(t, score)

    _, last, total, kept = tf.while_loop(
        lambda t, *_: t < rows.size(), body, (tf.constant(1), first, total, kept)
    )
    return total[0] + _log_sum_exp(last + end), last, kept.stack()


def _backward(
    constraints: Constraints,
    emissions: tf.Tensor,
    real: tf.Tensor,
    into: tf.Tensor,
    out: tf.Tensor,
    end: tf.Tensor,
    kept: tf.Tensor,
    weight: tf.Tensor,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Marginals times `weight` `[batch]`, and the expected use of each transition, likewise."""
    sources, targets = constraints.sources, constraints.targets
    rows, reals, scores = _array(emissions), _array(real), _array(kept)

    def marginal(t: tf.Tensor, after: tf.Tensor) -> tf.Tensor:
        return _softmax(scores.read(t) + after) * tf.where(reals.read(t), weight, 0.0)

    def body(t: tf.Tensor, after: tf.Tensor, used: tf.Tensor, found: Any) -> Any:
        here = marginal(t, after)
        # Given a step's state, the one before it is distributed as the paths that lead there.
        used += _softmax(_gather(scores.read(t - 1), sources) + into) * here
        new, _ = _centred(_log_sum_exp(_gather(rows.read(t) + after, targets) + out))
        return t - 1, tf.where(reals.read(t), new, after), used, found.write(t, here)

    after = end + tf.zeros_like(emissions[0])
    used = tf.zeros_like(into) + tf.zeros_like(weight)
    _, after, used, found = tf.while_loop(
        lambda t, *_: t > 0, body, (rows.size() - 1, after, used, _room(emissions))
    )
    found = found.write(0, marginal(tf.constant(0), after))
    return found.stack(), tf.reduce_sum(used, axis=2, keepdims=True)


# --- The best path --------------------------------------------------------------------------------


def viterbi(
    emissions: Any, length: Any, scores: Scores, constraints: Constraints | None = None
) -> tuple[tf.Tensor, tf.Tensor]:
    """The legal path of the highest score (Viterbi 1967).

    Args:
        emissions: `<float>[batch, time, states]`.
        length: `<int>[batch]`.
        scores: of transitions, start and end.
        constraints: which paths are legal; all, if `None`.

    Returns:
        Its states `<int32>[batch, time]`, 0 beyond `length`, and its score `<float32>[batch]`. The
        score is `LOW` or less where a row has no legal path; the states then mean nothing.
    """
    emissions = tf.cast(emissions, tf.float32)
    constraints = constraints or Constraints.none(emissions.shape[-1])
    last, total, pointers = viterbi_walk(emissions, length, scores, constraints)
    last += constraints.apply(scores).end
    best = tf.reduce_max(last, axis=-1)
    tags = trace_back(pointers, tf.argmax(last, axis=-1, output_type=tf.int32), length, constraints)
    length = tf.minimum(tf.cast(length, tf.int32), tf.shape(emissions)[1])
    return tags, tf.where(length > 0, total + best, 0.0)


def viterbi_walk(
    emissions: Any,
    length: Any,
    scores: Scores,
    constraints: Constraints,
    before: Any = None,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """The walk forward of `viterbi`, which may go on from an earlier one: long rows in pieces.

    Args:
        emissions: `<float>[batch, time, states]`.
        length: `<int>[batch]`.
        scores: of transitions and start; the end is left to the caller.
        constraints: which paths are legal.
        before: `<float32>[batch, states]`, the scores that the walk over the piece before gave
            back; `None` at the first piece, which begins with the start scores.

    Returns:
        The score of the best path to each state at the last real step, less the largest one,
        `<float32>[batch, states]`; that one, `<float32>[batch]`; and pointers `<uint8>[batch, time,
        states]` for `trace_back`, which say by which of its sources each state is reached best.
    """
    chain = _Chain(emissions, length, scores, constraints)
    walk = chain.program(_viterbi, goes_on=before is not None)
    arguments = chain.emissions, chain.real, chain.into, chain.start
    if before is not None:
        arguments += (tf.transpose(tf.cast(before, tf.float32)),)
    last, total, pointers = walk(*arguments)
    return tf.transpose(last), total[0], chain.to_rows(pointers)


def _viterbi(
    constraints: Constraints,
    emissions: tf.Tensor,
    real: tf.Tensor,
    into: tf.Tensor,
    start: tf.Tensor,
    before: tf.Tensor | None = None,
    *,
    goes_on: bool,
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    sources = constraints.sources
    pointer_type = tf.uint8 if len(sources.index) <= 256 else tf.uint16
    rows, reals = _array(emissions), _array(real)
    found = _room(emissions, pointer_type)

    def body(t: tf.Tensor, score: tf.Tensor, total: tf.Tensor, found: Any) -> Any:
        ways = _gather(score, sources) + into
        new, largest = _centred(tf.reduce_max(ways, axis=0) + rows.read(t))
        real = reals.read(t)
        pointer = tf.cast(tf.argmax(ways, axis=0, output_type=tf.int32), pointer_type)
        score = tf.where(real, new, score)
        return t + 1, score, total + tf.where(real, largest, 0.0), found.write(t, pointer)

    if goes_on:
        first, total, begin = before, tf.zeros_like(emissions[0, :1]), 0
    else:
        first, total = _centred(start + emissions[0])
        found = found.write(0, tf.zeros_like(first, pointer_type))
        begin = 1
    _, score, total, found = tf.while_loop(
        lambda t, *_: t < rows.size(), body, (tf.constant(begin), first, total, found)
    )
    return score, total, found.stack()


def trace_back(pointers: Any, last: Any, length: Any, constraints: Constraints) -> tf.Tensor:
    """The path that ends in given states.

    Args:
        pointers: of `viterbi_walk`, `<uint8>[batch, time, states]`.
        last: `<int32>[batch]`, the state at each row's last real step.
        length: `<int>[batch]`.
        constraints: those of the walk.

    Returns:
        `<int32>[batch, time]`, 0 beyond `length`.
    """
    pointers = tf.convert_to_tensor(pointers)
    states, sources = constraints.states, constraints.sources
    before = tf.constant(sources.index.reshape(-1))
    time = tf.shape(pointers)[1]
    length = tf.minimum(tf.cast(length, tf.int32), time)
    rows = tf.transpose(pointers, [1, 0, 2])
    array = tf.TensorArray(rows.dtype, time, element_shape=rows.shape[1:]).unstack(rows)
    path = tf.TensorArray(tf.int32, time, element_shape=rows.shape[1:2])

    def body(t: tf.Tensor, state: tf.Tensor, path: Any) -> Any:
        real = t < length
        path = path.write(t, tf.where(real, state, 0))
        pointer = tf.gather(array.read(t), state, batch_dims=1)
        came = tf.gather(before, tf.cast(pointer, tf.int32) * states + state)
        return t - 1, tf.where(real, came, state), path

    start = (time - 1, tf.cast(last, tf.int32), path)
    _, _, path = tf.while_loop(lambda t, *_: t >= 0, body, start)
    return tf.transpose(path.stack())


# --- The layer ------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("common")
class CRF(keras.layers.Layer):
    """Linear-chain CRF on top of emissions: learnt transitions, hard constraints, decoding.

    Called, it decodes: the answer is the best legal path. A loss is made from its
    `log_likelihood`, given the emissions as another output of the model. It computes in float32
    under every precision policy.

    Args:
        states: Positive integer, how many states a step can have.
        transitions: `<bool>[states, states]`, whether the column's state may follow the row's;
            all, if `None`. Hard: what is false is neither decoded nor counted in the normaliser.
        start: `<bool>[states]`, where a path may begin.
        end: `<bool>[states]`, where a path may end.

    Call arguments:
        emissions: `<float>[batch, time, states]`.
        length: `<int>[batch]`, real steps of each row.

    Returns:
        `<int32>[batch, time]`, the best path, 0 beyond `length`.

    Example:
    >>> crf = CRF(5, name="crf")
    >>> tags = crf(emissions, length)                      # emissions [32, 40, 5], length [32]
    >>> model = keras.Model({"ids": ids, "length": length}, {"emissions": emissions, "tags": tags})
    >>> def losses(outputs, batch):                        # as common.training.fit takes it
    ...     found = crf.log_likelihood(outputs["emissions"], batch["tags"], batch["length"])
    ...     return -found, tf.cast(batch["length"], tf.float32)

    Reference:
        - [Lafferty et al., 2001: Conditional random fields](
          https://repository.upenn.edu/handle/20.500.14332/6188)
        - [Lample et al., 2016: Neural architectures for named entity recognition](
          https://arxiv.org/abs/1603.01360)
    """

    def __init__(
        self,
        states: int,
        transitions: Sequence[Sequence[bool]] | np.ndarray | None = None,
        start: Sequence[bool] | np.ndarray | None = None,
        end: Sequence[bool] | np.ndarray | None = None,
        **kwargs: Any,
    ):
        kwargs["dtype"] = "float32"  # sums over many steps lose too much in bfloat16
        super().__init__(**kwargs)
        if not isinstance(states, int) or states < 1:
            raise ValueError(f"states must be a positive integer. Received: {states!r}")
        self.states = states
        allowed = np.ones((states, states), bool) if transitions is None else transitions
        self.constraints = Constraints(allowed, start, end)
        if self.constraints.states != states:
            raise ValueError(
                f"transitions must be a table of {states} states. "
                f"Received: {self.constraints.states}"
            )

    def build(self, emissions_shape: Sequence[int | None], *_: Any) -> None:
        """Makes the scores, all 0 at first."""
        if emissions_shape[-1] != self.states:
            raise ValueError(
                f"emissions must have {self.states} states. Received shape: {emissions_shape}"
            )
        self.transitions = self.add_weight((self.states, self.states), "zeros", name="transitions")
        self.start = self.add_weight((self.states,), "zeros", name="start")
        self.end = self.add_weight((self.states,), "zeros", name="end")

    @property
    def scores(self) -> Scores:
        """The learnt scores."""
        return Scores(*map(tf.convert_to_tensor, (self.transitions, self.start, self.end)))

    def call(self, emissions: Any, length: Any) -> tf.Tensor:
        """The best legal path; see the class."""
        return self.viterbi(emissions, length)[0]

    def compute_output_spec(self, emissions: Any, length: Any) -> keras.KerasTensor:
        """The shape of the path."""
        return keras.KerasTensor(tuple(emissions.shape[:2]), dtype="int32")

    def viterbi(self, emissions: Any, length: Any) -> tuple[tf.Tensor, tf.Tensor]:
        """The best path and its score; see the function `viterbi`."""
        return viterbi(emissions, length, self.scores, self.constraints)

    def log_likelihood(self, emissions: Any, tags: Any, length: Any) -> tf.Tensor:
        """See the function `log_likelihood`."""
        return log_likelihood(emissions, tags, length, self.scores, self.constraints)

    def log_likelihood_of_set(self, emissions: Any, allowed: Any, length: Any) -> tf.Tensor:
        """See the function `log_likelihood_of_set`."""
        return log_likelihood_of_set(emissions, allowed, length, self.scores, self.constraints)

    def log_normalizer(self, emissions: Any, length: Any) -> tf.Tensor:
        """See the function `log_normalizer`."""
        return log_normalizer(emissions, length, self.scores, self.constraints)

    def marginals(self, emissions: Any, length: Any) -> tf.Tensor:
        """See the function `marginals`."""
        return marginals(emissions, length, self.scores, self.constraints)

    def get_config(self) -> dict[str, Any]:
        """The arguments, tables as lists."""
        return {
            **super().get_config(),
            "states": self.states,
            "transitions": self.constraints.transitions.tolist(),
            "start": self.constraints.start.tolist(),
            "end": self.constraints.end.tolist(),
        }
