"""Decoding of whole sequences from one `step` function, as graph loops.

A model is a function `step(state, token) -> (state, log_probabilities)`. It receives one symbol for
each row, and returns the log-probability of each next symbol. The same `step` works with `greedy`,
`sample` and `beam_search`, in Python, in `tf.function` and in an export. With a Python `max_length`
and a static batch size all shapes are static, as XLA requires. `loop`, `uniform`, `draw` and
`filter_log_probabilities` are the components of these functions. Use them for models whose symbols
are more than one number, such as frames of music.

The result of a row depends on that row only, not on the other rows or their number. Each row has
its own random seed.

Example, a model that mostly predicts the next number, and ends with 3:
  >>> table = tf.math.log([[0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1],
  ...                      [0.1, 0.1, 0.1, 0.7], [0.25, 0.25, 0.25, 0.25]])
  >>> step = lambda state, token: (state, tf.gather(table, token))
  >>> greedy(step, (), tf.zeros(1, tf.int32), end=3, max_length=5).tokens.numpy()
  array([[1, 2, 0, 0, 0]], dtype=int32)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

from common.tensor_arrays import dimension

import tensorflow as tf

# Nested tensors whose first axis is the batch.
State: TypeAlias = Any
# step(state, <int32>[rows]) -> (state, <float>[rows, symbols]).
Step: TypeAlias = Callable[[State, tf.Tensor], tuple[State, tf.Tensor]]

# The log-probability of an impossible event. It is finite, so sums and products of it stay finite.
IMPOSSIBLE = -1e9


class Decoded(NamedTuple):
    """Decoded sequences.

    The leading axes are `[batch]`, or `[batch, beam]`, best first, for `beam_search`.

    Attributes:
      tokens: `<int32>[..., max_length]`; 0 after `length`.
      length: `<int32>[...]`, without the end symbol.
      score: `<float32>[...]`, log-probability, including the end symbol.
    """

    tokens: tf.Tensor
    length: tf.Tensor
    score: tf.Tensor


def loop(
    step: Callable[[State, Any, tf.Tensor], tuple[State, Any]],
    state: State,
    first: Any,
    *,
    steps: int | tf.Tensor,
    until: Callable[[State], tf.Tensor] | None = None,
) -> tuple[State, Any]:
    """Run a step function repeatedly on its own output.

    Args:
      step: `step(state, previous, position) -> (state, next)`; `position` `<int32>[]` starts at 0.
      state: nested tensors of constant shapes.
      first: `previous` of the first step: nested tensors `<any>[batch, ...]`.
      steps: number of steps; a Python integer results in static shapes, which XLA requires.
      until: function from a state to `<bool>[]`, true if no further steps are needed. The outputs
        of the remaining steps are 0.

    Returns:
      The last state, and the outputs of all steps in the structure of `first`:
      `<any>[batch, steps, ...]`.

    Example:
      >>> double = lambda state, previous, position: (state, 2 * previous)
      >>> loop(double, (), tf.constant([1, 5]), steps=3)[1].numpy()
      array([[ 2,  4,  8],
             [10, 20, 40]], dtype=int32)
    """
    arrays = tf.nest.map_structure(
        lambda x: tf.TensorArray(x.dtype, size=steps, element_shape=x.shape), first
    )

    def go_on(position: tf.Tensor, state: State, *_: Any) -> tf.Tensor:
        return (position < steps) & (True if until is None else ~until(state))

    def body(position: tf.Tensor, state: State, previous: Any, arrays: Any) -> tuple:
        def write(array: tf.TensorArray, x: tf.Tensor) -> tf.TensorArray:
            return array.write(position, x)

        state, following = step(state, previous, position)
        return position + 1, state, following, tf.nest.map_structure(write, arrays, following)

    start = (tf.constant(0), state, first, arrays)
    count, state, _, arrays = tf.while_loop(go_on, body, start)

    def stack(array: tf.TensorArray, x: tf.Tensor) -> tf.Tensor:
        def zeros() -> tf.Tensor:
            return tf.zeros(tf.concat([[steps], tf.shape(x)], 0), x.dtype)

        # An array without written elements cannot be stacked: their size is unknown.
        stacked = tf.cond(count > 0, array.stack, zeros)
        stacked.set_shape([steps if isinstance(steps, int) else None, *x.shape])
        return tf.transpose(stacked, [1, 0, *range(2, len(x.shape) + 1)])

    return state, tf.nest.map_structure(stack, arrays, first)


# --- Random choice --------------------------------------------------------------------------------


def uniform(seed: tf.Tensor, position: tf.Tensor | int, count: int) -> tf.Tensor:
    """Return random numbers in [0, 1) that depend only on a row's seed and the position.

    This is the counter-based generator Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel
    random numbers: as easy as 1, 2, 3"). The numbers are the same on every device, compiled or not,
    for any batch. `tf.random.stateless_uniform` has one seed for the whole batch instead.

    Args:
      seed: `<int32>[batch, 2]`.
      position: `<int32>[]` or `[batch]`, number of the draw within a row; each position has its
        own numbers.
      count: how many numbers.

    Returns:
      `<float32>[batch, count]`, multiples of 2^-23.

    Example:
      >>> one = uniform(tf.constant([[7, 1]]), 0, 2)
      >>> two = uniform(tf.constant([[7, 2], [7, 1]]), 0, 2)
      >>> bool(tf.reduce_all(one[0] == two[1]))
      True
    """
    seed = tf.bitcast(seed, tf.uint32)
    key = [seed[:, :1], seed[:, 1:]]
    position = tf.reshape(tf.bitcast(tf.cast(position, tf.int32), tf.uint32), [-1, 1])
    pairs = tf.range((count + 1) // 2, dtype=tf.int32)[None, :]
    counter = [tf.bitcast(pairs, tf.uint32), position]
    words = tf.concat(_threefry(key, counter), axis=1)[:, :count]
    return tf.cast(tf.bitwise.right_shift(words, 9), tf.float32) * 2.0**-23


def _threefry(key: list[tf.Tensor], counter: list[tf.Tensor]) -> list[tf.Tensor]:
    """Return two random words `<uint32>[...]` for two words of key and two of counter."""
    schedule = [*key, key[0] ^ key[1] ^ tf.constant(0x1BD11BDA, tf.uint32)]
    left, right = counter[0] + schedule[0], counter[1] + schedule[1]
    for round_ in range(20):
        turn = (13, 15, 26, 6, 17, 29, 16, 24)[round_ % 8]
        left += right
        up = tf.bitwise.left_shift(right, tf.constant(turn, tf.uint32))
        down = tf.bitwise.right_shift(right, tf.constant(32 - turn, tf.uint32))
        right = (up | down) ^ left
        if round_ % 4 == 3:
            block = round_ // 4 + 1
            left += schedule[block % 3]
            right += schedule[(block + 1) % 3] + tf.constant(block, tf.uint32)
    return [left, right]


def draw(log_probabilities: tf.Tensor, uniform: tf.Tensor) -> tf.Tensor:
    """Draw a symbol for each row by inverting the cumulative distribution.

    Args:
      log_probabilities: `<float>[batch, symbols]`, not necessarily normalized.
      uniform: `<float32>[batch]`, random numbers in [0, 1).

    Returns:
      `<int32>[batch]`; never a symbol of probability 0.

    Example:
      >>> draw(tf.math.log([[0.2, 0.3, 0.5], [0.2, 0.3, 0.5]]), tf.constant([0.4, 0.6])).numpy()
      array([1, 2], dtype=int32)
    """
    cumulative = tf.cumsum(tf.nn.softmax(tf.cast(log_probabilities, tf.float32)), axis=-1)
    # `uniform` is below 1 by more than a rounding error, so this stays below the last sum.
    threshold = uniform[:, None] * cumulative[:, -1:]
    return tf.reduce_sum(tf.cast(cumulative <= threshold, tf.int32), axis=-1)


def filter_log_probabilities(
    log_probabilities: tf.Tensor,
    *,
    temperature: float | tf.Tensor = 1.0,
    top_k: int | tf.Tensor = 0,
    top_p: float | tf.Tensor = 1.0,
) -> tf.Tensor:
    """Apply a temperature to distributions, then restrict them to their most likely symbols.

    Args:
      log_probabilities: `<float>[batch, symbols]`, not necessarily normalized.
      temperature: divisor of the log-probabilities; scalar or `<float>[batch]`. 0 leaves the most
        likely symbol only.
      top_k: number of symbols to keep; 0 keeps all. Scalar or `<int>[batch]`.
      top_p: keep the smallest set of symbols with at least this total probability, the nucleus
        (Holtzman et al. 2020, "The curious case of neural text degeneration"); at least one symbol.
        Scalar or `<float>[batch]`.

    Returns:
      `<float32>[batch, symbols]`, normalized; `IMPOSSIBLE` for removed symbols. Of equally likely
      symbols the first ones are kept.

    Example:
      >>> filtered = filter_log_probabilities(tf.math.log([[0.5, 0.3, 0.2]]), top_p=0.6)
      >>> tf.exp(filtered).numpy().round(3)
      array([[0.625, 0.375, 0.   ]], dtype=float32)
    """
    log_probabilities = tf.cast(log_probabilities, tf.float32)
    temperature, top_p = (_column(x, tf.float32) for x in (temperature, top_p))
    # The differences to the most likely symbol grow without bound as the temperature goes to 0.
    divisor = tf.clip_by_value(temperature, 1e-6, 1e6)
    scaled = (log_probabilities - tf.reduce_max(log_probabilities, -1, keepdims=True)) / divisor
    order = tf.argsort(scaled, axis=-1, direction="DESCENDING", stable=True)
    ranks = tf.argsort(order, axis=-1, stable=True)
    sorted_probabilities = tf.nn.softmax(tf.gather(scaled, order, batch_dims=1))
    cumulative = tf.cumsum(sorted_probabilities, axis=-1, exclusive=True)
    before = tf.gather(cumulative, ranks, batch_dims=1)
    most = _column(top_k, tf.int32)
    keep = (before < top_p) & ((most <= 0) | (ranks < most)) & ((temperature > 0) | (ranks < 1))
    filtered = tf.nn.log_softmax(tf.where(keep | (ranks < 1), scaled, IMPOSSIBLE))
    return tf.maximum(filtered, IMPOSSIBLE)


def _column(value: float | tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """Return a setting as a tensor `[batch, 1]` or `[1, 1]`."""
    return tf.reshape(tf.cast(value, dtype), [-1, 1])


# --- One sequence per row -------------------------------------------------------------------------


def greedy(
    step: Step,
    state: State,
    start: tf.Tensor,
    *,
    end: int | None,
    max_length: int,
    limit: tf.Tensor | None = None,
) -> Decoded:
    """Decode sequences by taking the most likely symbol at each step.

    Args:
      step: see the module.
      state: initial state: nested tensors `[batch, ...]`.
      start: `<int32>[batch]`, the symbol before the first one.
      end: symbol that ends a sequence; `None` for sequences without an end symbol.
      max_length: maximum number of symbols, without the end symbol.
      limit: `<int32>[batch]`, a maximum for each row, where the end is forced.

    Returns:
      Sequences `[batch, ...]`; `score` is the log-probability of the sequence.
    """

    def choose(scores: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        del position
        return tf.argmax(scores, -1, tf.int32)

    return _decode(step, choose, state, start, end, max_length, limit)


def sample(
    step: Step,
    state: State,
    start: tf.Tensor,
    *,
    seed: tf.Tensor,
    end: int | None,
    max_length: int,
    limit: tf.Tensor | None = None,
    temperature: float | tf.Tensor = 1.0,
    top_k: int | tf.Tensor = 0,
    top_p: float | tf.Tensor = 1.0,
) -> Decoded:
    """Draw sequences from the model's distribution, filtered by `filter_log_probabilities`.

    Args:
      step: see the module.
      state: initial state: nested tensors `[batch, ...]`.
      start: `<int32>[batch]`, the symbol before the first one.
      seed: `<int32>[batch, 2]`; it determines the sequence of a row.
      end: symbol that ends a sequence; `None` for sequences without an end symbol.
      max_length: maximum number of symbols, without the end symbol.
      limit: `<int32>[batch]`, a maximum for each row, where the end is forced.
      temperature: see `filter_log_probabilities`.
      top_k: see there.
      top_p: see there.

    Returns:
      Sequences `[batch, ...]`; `score` is the log-probability under the unfiltered model.
    """

    def choose(scores: tf.Tensor, position: tf.Tensor) -> tf.Tensor:
        filtered = filter_log_probabilities(
            scores, temperature=temperature, top_k=top_k, top_p=top_p
        )
        return draw(filtered, uniform(seed, position, 1)[:, 0])

    return _decode(step, choose, state, start, end, max_length, limit)


def _decode(
    step: Step,
    choose: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
    state: State,
    start: tf.Tensor,
    end: int | None,
    max_length: int,
    limit: tf.Tensor | None,
) -> Decoded:
    """Run `step` until every row has ended.

    `choose(scores <float32>[batch, symbols], position <int32>[])` returns the next symbols.
    """
    limit = _limit(limit, max_length, tf.shape(start)[:1])

    def advance(carried: State, token: tf.Tensor, position: tf.Tensor) -> tuple[State, tf.Tensor]:
        state, alive, length, score = carried
        state, log_probabilities = step(state, token)
        scores = _sanitized(log_probabilities)
        if end is None:
            alive &= position < limit
        else:
            scores = _force_end(scores, position >= limit, end)
        token = choose(scores, position)
        gained = tf.gather(scores, token, batch_dims=1)
        score += tf.where(alive, gained, 0.0)
        if end is not None:
            alive &= token != end
        token = tf.where(alive, token, 0)
        return (state, alive, length + tf.cast(alive, tf.int32), score), token

    def all_ended(carried: State) -> tf.Tensor:
        return ~tf.reduce_any(carried[1])

    # One step more than `max_length`, which can only end the sequence.
    steps = max_length + (end is not None)
    alive = tf.ones_like(start, tf.bool)
    carried = (state, alive, tf.zeros_like(start), tf.zeros_like(start, tf.float32))
    carried, tokens = loop(advance, carried, start, steps=steps, until=all_ended)
    return Decoded(tokens[:, :max_length], carried[2], carried[3])


def _limit(limit: tf.Tensor | None, max_length: int, shape: tf.Tensor) -> tf.Tensor:
    """Return the maximum length of each row, between 0 and `max_length`."""
    limit = tf.fill(shape, max_length) if limit is None else tf.minimum(limit, max_length)
    return tf.maximum(limit, 0)


def _sanitized(log_probabilities: tf.Tensor) -> tf.Tensor:
    """Cast to float32, and replace NaN and lower values by `IMPOSSIBLE`."""
    scores = tf.cast(log_probabilities, tf.float32)
    return tf.maximum(tf.where(tf.math.is_nan(scores), IMPOSSIBLE, scores), IMPOSSIBLE)


def _force_end(scores: tf.Tensor, must_end: tf.Tensor, end: int) -> tf.Tensor:
    """Make all symbols but `end` impossible in the rows that must end."""
    is_end = tf.range(tf.shape(scores)[-1]) == end
    return tf.where(must_end[:, None] & ~is_end, IMPOSSIBLE, scores)


# --- Beam search ----------------------------------------------------------------------------------


def length_penalty(length: tf.Tensor, alpha: float) -> tf.Tensor:
    """Return the divisor of a hypothesis's log-probability, ((5 + length) / 6) ** alpha.

    See Wu et al. 2016, "Google's neural machine translation system", equation 14. With 0, short
    sequences score higher; 1 is close to the mean over the symbols.

    Example:
      >>> length_penalty(tf.constant([1, 7]), 1.0).numpy()
      array([1., 2.], dtype=float32)
    """
    return ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** alpha


def for_each_hypothesis(structure: Any, beam: int) -> Any:
    """Repeat each row `beam` times.

    Use it for tensors that a `step` under `beam_search` reads in addition to its state.

    Args:
      structure: nested tensors `[batch, ...]`.
      beam: number of hypotheses per row.

    Returns:
      Nested tensors `[batch * beam, ...]`; the hypotheses of a row are adjacent.

    Example:
      >>> for_each_hypothesis(tf.constant([1, 2]), 3).numpy()
      array([1, 1, 1, 2, 2, 2], dtype=int32)
    """
    return tf.nest.map_structure(lambda x: tf.repeat(x, beam, axis=0), structure)


def beam_search(
    step: Step,
    state: State,
    start: tf.Tensor,
    *,
    end: int,
    max_length: int,
    beam: int,
    limit: tf.Tensor | None = None,
    alpha: float = 0.0,
) -> Decoded:
    """Search for the best sequences with the `beam` best unfinished hypotheses of each row.

    Each step extends the hypotheses by every symbol. Of the `beam` best extensions, those with the
    end symbol are finished and stored separately. The `beam` best other extensions continue. A row
    is complete when `beam` hypotheses are finished. A beam of 1 equals `greedy`. A beam as wide as
    the number of sequences finds the best one.

    The score of a finished hypothesis is

      log P(sequence, end) / length_penalty(length + 1, alpha)

    Args:
      step: see the module. It is called with `batch * beam` rows. Use `for_each_hypothesis` to
        repeat tensors that it reads in addition to its state.
      state: initial state: nested tensors `[batch, ...]`, not repeated.
      start: `<int32>[batch]`, the symbol before the first one.
      end: symbol that ends a sequence.
      max_length: maximum number of symbols, without the end symbol.
      beam: number of hypotheses per row.
      limit: `<int32>[batch]`, a maximum for each row, where the end is forced.
      alpha: exponent of the length normalization; see `length_penalty`.

    Returns:
      Hypotheses `[batch, beam, ...]`, best first. An empty slot has length 0 and a score of
      `IMPOSSIBLE` or less.
    """
    batch = dimension(start, 0)
    limit = _limit(limit, max_length, tf.shape(start)[:1])
    columns = max_length + 1  # one for the end symbol, removed afterwards

    def advance(position: tf.Tensor, alive: _Alive, finished: Decoded, done: tf.Tensor) -> tuple:
        state, log_probabilities = step(alive.state, alive.token)
        must_end = position >= tf.repeat(limit, beam)
        scores = _force_end(_sanitized(log_probabilities), must_end, end)
        # Twice the beam, because up to half of the extensions end.
        extensions = _best_extensions(alive.score, scores, 2 * beam)
        completed = _completed(alive, extensions, position, end, alpha)
        score = tf.where(done[:, None], 2 * IMPOSSIBLE, completed.score)
        finished = _merge(finished, completed._replace(score=score), beam)
        alive = _unfinished(alive, extensions, state, position, end)
        full = finished.score[:, -1] > IMPOSSIBLE
        nothing_left = alive.score[:, 0] < IMPOSSIBLE / 2
        return position + 1, alive, finished, done | full | nothing_left

    def go_on(position: tf.Tensor, alive: _Alive, finished: Decoded, done: tf.Tensor) -> tf.Tensor:
        return (position < columns) & ~tf.reduce_all(done)

    tokens = tf.zeros([batch, beam, columns], tf.int32)
    alive = _Alive(
        state=for_each_hypothesis(state, beam),
        token=tf.repeat(start, beam),
        tokens=tokens,
        score=tf.zeros([batch, 1]) + tf.where(tf.range(beam) == 0, 0.0, 2 * IMPOSSIBLE),
    )
    finished = Decoded(tokens, tokens[:, :, 0], tf.fill([batch, beam], 2 * IMPOSSIBLE))
    carried = (tf.constant(0), alive, finished, tf.zeros_like(start, tf.bool))
    _, _, finished, _ = tf.while_loop(go_on, advance, carried)
    real = tf.range(max_length) < finished.length[:, :, None]
    return finished._replace(tokens=tf.where(real, finished.tokens[:, :, :max_length], 0))


class _Alive(NamedTuple):
    """The unfinished hypotheses of a beam search.

    Attributes:
      state: nested tensors `[batch * beam, ...]`.
      token: `<int32>[batch * beam]`, the last symbol.
      tokens: `<int32>[batch, beam, max_length + 1]`.
      score: `<float32>[batch, beam]`, log-probability.
    """

    state: State
    token: tf.Tensor
    tokens: tf.Tensor
    score: tf.Tensor


class _Extensions(NamedTuple):
    """Hypotheses extended by one symbol, best first; each tensor is `[batch, count]`.

    Attributes:
      parent: `<int32>`, the extended hypothesis.
      token: `<int32>`, the added symbol.
      score: `<float32>`, log-probability.
    """

    parent: tf.Tensor
    token: tf.Tensor
    score: tf.Tensor


def _best_extensions(score: tf.Tensor, scores: tf.Tensor, count: int) -> _Extensions:
    """Return the best extensions of hypotheses.

    Args:
      score: `<float32>[batch, beam]`, of the hypotheses.
      scores: `<float32>[batch * beam, symbols]`, of the next symbols.
      count: how many to return.
    """
    batch, beam = dimension(score, 0), score.shape[1]
    symbols = tf.shape(scores)[-1]
    total = score[:, :, None] + tf.reshape(scores, [batch, beam, -1])
    best, index = tf.math.top_k(tf.reshape(total, [batch, -1]), count)
    return _Extensions(index // symbols, index % symbols, best)


def _completed(
    alive: _Alive, extensions: _Extensions, position: tf.Tensor, end: int, alpha: float
) -> Decoded:
    """Return those of the `beam` best extensions that end; the others score `2 * IMPOSSIBLE`."""
    beam = alive.score.shape[1]
    parent, token, score = (x[:, :beam] for x in extensions)
    ends = (token == end) & (score > IMPOSSIBLE / 2)
    normalized = score / length_penalty(position + 1, alpha)
    return Decoded(
        tokens=tf.gather(alive.tokens, parent, batch_dims=1),
        length=tf.fill(tf.shape(parent), position),
        score=tf.where(ends, normalized, 2 * IMPOSSIBLE),
    )


def _unfinished(
    alive: _Alive, extensions: _Extensions, state: State, position: tf.Tensor, end: int
) -> _Alive:
    """Return the best extensions that do not end, as the next hypotheses."""
    beam = alive.score.shape[1]
    # A lower score moves the ended ones to the end; top_k keeps the order of the others.
    score = tf.where(extensions.token == end, extensions.score + 2 * IMPOSSIBLE, extensions.score)
    score, places = tf.math.top_k(score, beam)
    parent = tf.gather(extensions.parent, places, batch_dims=1)
    token = tf.gather(extensions.token, places, batch_dims=1)
    tokens = tf.gather(alive.tokens, parent, batch_dims=1)
    is_current = tf.range(alive.tokens.shape[2]) == position
    return _Alive(
        state=_gather_hypotheses(state, parent),
        token=tf.reshape(token, [-1]),
        tokens=tf.where(is_current, token[:, :, None], tokens),
        score=tf.maximum(score, 2 * IMPOSSIBLE),
    )


def _gather_hypotheses(structure: Any, hypotheses: tf.Tensor) -> Any:
    """Gather rows of nested tensors `[batch * beam, ...]` by `<int32>[batch, beam]`."""
    batch, beam = dimension(hypotheses, 0), hypotheses.shape[1]
    rows = tf.reshape(tf.range(batch)[:, None] * beam + hypotheses, [-1])

    def pick(x: tf.Tensor) -> tf.Tensor:
        return tf.ensure_shape(tf.gather(x, rows), x.shape)

    return tf.nest.map_structure(pick, structure)


def _merge(a: Decoded, b: Decoded, beam: int) -> Decoded:
    """Return the `beam` best hypotheses of both, best first; ties go to `a`."""
    both = Decoded(*(tf.concat(pair, axis=1) for pair in zip(a, b, strict=True)))
    _, places = tf.math.top_k(both.score, beam)
    return Decoded(*(tf.gather(x, places, batch_dims=1) for x in both))
