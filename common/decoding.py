"""Decoding: from one `step` function to whole sequences, as graph loops.

A model is given as `step(state, token) -> (state, log_probabilities)`: it takes one symbol for each
row and says how likely each symbol is to come next. The same `step` serves `greedy`, `sample` and
`beam_search`, in Python, in `tf.function` and in an export; with a Python `max_length` and a known
batch all shapes are static and XLA compiles them. `loop`, `uniform`, `draw` and
`filter_log_probabilities` are their parts, for models whose symbols are more than one number
(frames of music).

What a row answers depends on that row alone: neither on the rows beside it nor on their number.
Each row draws from its own seed.

Example, a model whose next symbol is likely one more than the last, and whose end is 3:
  >>> table = tf.math.log([[0.1, 0.7, 0.1, 0.1], [0.1, 0.1, 0.7, 0.1],
  ...                      [0.1, 0.1, 0.1, 0.7], [0.25, 0.25, 0.25, 0.25]])
  >>> step = lambda state, token: (state, tf.gather(table, token))
  >>> greedy(step, (), tf.zeros(1, tf.int32), end=3, max_length=5).tokens.numpy()
  array([[1, 2, 0, 0, 0]], dtype=int32)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

# Nested tensors whose first dimension is the row.
State = Any
# step(state, <int32>[rows]) -> (state, <float>[rows, symbols]).
Step = Callable[[State, tf.Tensor], tuple[State, tf.Tensor]]

# The log-probability of what cannot be: finite, so that sums and products of it stay numbers.
IMPOSSIBLE = -1e9


class Decoded(NamedTuple):
    """Decoded sequences: [batch, ...]; those of `beam_search` [batch, beam, ...], best first."""

    tokens: tf.Tensor  # <int32>[..., max_length]; 0 from `length` on
    length: tf.Tensor  # <int32>[...], without the end symbol
    score: tf.Tensor  # <float32>[...], log-probability, the end symbol's included


def loop(
    step: Callable[[State, Any, tf.Tensor], tuple[State, Any]],
    state: State,
    first: Any,
    *,
    steps: int | tf.Tensor,
    until: Callable[[State], tf.Tensor] | None = None,
) -> tuple[State, Any]:
    """Feeds what a step gives back into the next one.

    Args:
      step: `step(state, previous, place) -> (state, next)`; `place` <int32>[] counts from 0.
      state: nested tensors; their shapes stay.
      first: what the first step gets as `previous`: nested tensors <any>[batch, ...].
      steps: how many; a Python int gives static shapes, which XLA demands.
      until: says of a state <bool>[] that no more steps are needed; what they would have given
        is 0 then.

    Returns:
      The last state, and what the steps gave, in the structure of `first`:
      <any>[batch, steps, ...].

    Example:
      >>> double = lambda state, previous, place: (state, 2 * previous)
      >>> loop(double, (), tf.constant([1, 5]), steps=3)[1].numpy()
      array([[ 2,  4,  8],
             [10, 20, 40]], dtype=int32)
    """
    arrays = tf.nest.map_structure(
        lambda x: tf.TensorArray(x.dtype, size=steps, element_shape=x.shape), first
    )

    def go_on(place: tf.Tensor, state: State, *_: Any) -> tf.Tensor:
        return (place < steps) & (True if until is None else ~until(state))

    def body(place: tf.Tensor, state: State, previous: Any, arrays: Any) -> tuple:
        state, following = step(state, previous, place)
        write = lambda array, x: array.write(place, x)  # noqa: E731
        return place + 1, state, following, tf.nest.map_structure(write, arrays, following)

    start = (tf.constant(0), state, first, arrays)
    done, state, _, arrays = tf.while_loop(go_on, body, start)

    def stack(array: tf.TensorArray, x: tf.Tensor) -> tf.Tensor:
        # An array of which nothing was written does not know the size of its elements.
        nothing = lambda: tf.zeros(tf.concat([[steps], tf.shape(x)], 0), x.dtype)  # noqa: E731
        found = tf.cond(done > 0, array.stack, nothing)
        found.set_shape([steps if isinstance(steps, int) else None, *x.shape])
        return tf.transpose(found, [1, 0, *range(2, len(x.shape) + 1)])

    return state, tf.nest.map_structure(stack, arrays, first)


def uniform(seed: tf.Tensor, place: tf.Tensor | int, count: int) -> tf.Tensor:
    """Gives random numbers in [0, 1) that depend on a row's own seed and on the place alone.

    The counter-based generator Threefry-2x32 with 20 rounds (Salmon et al. 2011, "Parallel random
    numbers: as easy as 1, 2, 3"): the same numbers on every device, compiled or not, whatever
    other rows there are. `tf.random.stateless_uniform` takes one seed for the whole batch.

    Args:
      seed: <int32>[batch, 2].
      place: <int32>[] or [batch], which draw of the row it is; other places give other numbers.
      count: how many numbers.

    Returns:
      <float32>[batch, count], multiples of 2^-23.
    """
    seed = tf.bitcast(seed, tf.uint32)
    key = [seed[:, :1], seed[:, 1:]]
    place = tf.reshape(tf.bitcast(tf.cast(place, tf.int32), tf.uint32), [-1, 1])
    pairs = tf.range((count + 1) // 2, dtype=tf.int32)[None, :]
    counter = [tf.bitcast(pairs, tf.uint32), place]
    words = tf.concat(_threefry(key, counter), axis=1)[:, :count]
    return tf.cast(tf.bitwise.right_shift(words, 9), tf.float32) * 2.0**-23


def _threefry(key: list[tf.Tensor], counter: list[tf.Tensor]) -> list[tf.Tensor]:
    """Threefry-2x32-20: two words of key, two of counter -> two random words <uint32>[...]."""
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
    """Draws a symbol for each row, by the inverse of the distribution function.

    Args:
      log_probabilities: <float>[batch, symbols], need not be normalised.
      uniform: <float32>[batch] in [0, 1).

    Returns:
      <int32>[batch]; never a symbol of probability 0.
    """
    cumulative = tf.cumsum(tf.nn.softmax(tf.cast(log_probabilities, tf.float32)), axis=-1)
    # `uniform` is below 1 by more than a rounding, so this stays below the last sum.
    threshold = uniform[:, None] * cumulative[:, -1:]
    return tf.reduce_sum(tf.cast(cumulative <= threshold, tf.int32), axis=-1)


def filter_log_probabilities(
    log_probabilities: tf.Tensor,
    *,
    temperature: float | tf.Tensor = 1.0,
    top_k: int | tf.Tensor = 0,
    top_p: float | tf.Tensor = 1.0,
) -> tf.Tensor:
    """Sharpens or flattens distributions, then keeps their likeliest symbols alone.

    Args:
      log_probabilities: <float>[batch, symbols], need not be normalised.
      temperature: divides them; scalar or <float>[batch]. 0 leaves the likeliest symbol alone.
      top_k: keeps so many symbols; 0 keeps all. Scalar or <int>[batch].
      top_p: keeps the fewest symbols that have this probability together, the nucleus (Holtzman
        et al. 2020, "The curious case of neural text degeneration"); one at least. Scalar or
        <float>[batch].

    Returns:
      <float32>[batch, symbols], normalised; `IMPOSSIBLE` where a symbol was left out. Among equal
      symbols the first ones are kept.

    Example:
      >>> kept = filter_log_probabilities(tf.math.log([[0.5, 0.3, 0.2]]), top_p=0.6)
      >>> tf.exp(kept).numpy().round(3)
      array([[0.625, 0.375, 0.   ]], dtype=float32)
    """
    log_probabilities = tf.cast(log_probabilities, tf.float32)
    temperature, top_p = (_column(x, tf.float32) for x in (temperature, top_p))
    # Behind the likeliest symbol's the differences grow without bound as the temperature falls.
    heat = tf.clip_by_value(temperature, 1e-6, 1e6)
    scaled = (log_probabilities - tf.reduce_max(log_probabilities, -1, keepdims=True)) / heat
    order = tf.argsort(scaled, axis=-1, direction="DESCENDING", stable=True)
    ranks = tf.argsort(order, axis=-1, stable=True)
    shares = tf.nn.softmax(tf.gather(scaled, order, batch_dims=1))
    before = tf.gather(tf.cumsum(shares, axis=-1, exclusive=True), ranks, batch_dims=1)
    most = _column(top_k, tf.int32)
    keep = (before < top_p) & ((most <= 0) | (ranks < most)) & ((temperature > 0) | (ranks < 1))
    kept = tf.nn.log_softmax(tf.where(keep | (ranks < 1), scaled, IMPOSSIBLE))
    return tf.maximum(kept, IMPOSSIBLE)


def _column(value: float | tf.Tensor, dtype: tf.DType) -> tf.Tensor:
    """A setting as [batch, 1] or [1, 1]."""
    return tf.reshape(tf.cast(value, dtype), [-1, 1])


def greedy(
    step: Step,
    state: State,
    start: tf.Tensor,
    *,
    end: int | None,
    max_length: int,
    limit: tf.Tensor | None = None,
) -> Decoded:
    """Takes the likeliest symbol at each step.

    Args:
      step: see the module.
      state: what the first step gets: nested tensors [batch, ...].
      start: <int32>[batch], the symbol before the first.
      end: the symbol that ends a sequence; None for sequences without an end.
      max_length: symbols at most, the end's not counted.
      limit: <int32>[batch], a row's own bound below that; the end is forced there.

    Returns:
      Sequences [batch, ...]; their score is the log-probability of the whole.
    """
    likeliest = lambda scores, place: tf.argmax(scores, -1, tf.int32)  # noqa: E731
    return _decode(step, likeliest, state, start, end, max_length, limit)


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
    """Draws each symbol from the model's distribution, sharpened and cut as asked.

    Args:
      step: see the module.
      state: what the first step gets: nested tensors [batch, ...].
      start: <int32>[batch], the symbol before the first.
      seed: <int32>[batch, 2]; one seed gives one sequence.
      end: the symbol that ends a sequence; None for sequences without an end.
      max_length: symbols at most, the end's not counted.
      limit: <int32>[batch], a row's own bound below that; the end is forced there.
      temperature: see `filter_log_probabilities`.
      top_k: see there.
      top_p: see there.

    Returns:
      Sequences [batch, ...]; their score is the model's own log-probability of the whole.
    """

    def choose(scores: tf.Tensor, place: tf.Tensor) -> tf.Tensor:
        kept = filter_log_probabilities(scores, temperature=temperature, top_k=top_k, top_p=top_p)
        return draw(kept, uniform(seed, place, 1)[:, 0])

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
    """Runs `step` with one way to choose the next symbol, until every row has ended."""
    limit = _limit(limit, max_length, tf.shape(start)[:1])

    def advance(carried: State, token: tf.Tensor, place: tf.Tensor) -> tuple[State, tf.Tensor]:
        state, alive, length, score = carried
        state, log_probabilities = step(state, token)
        scores = _sound(log_probabilities)
        if end is None:
            alive &= place < limit
        else:
            scores = _end_at(scores, place >= limit, end)
        token = choose(scores, place)
        gained = tf.gather(scores, token, batch_dims=1)
        score += tf.where(alive, gained, 0.0)
        if end is not None:
            alive &= token != end
        token = tf.where(alive, token, 0)
        return (state, alive, length + tf.cast(alive, tf.int32), score), token

    # One step more than symbols: the last one can only end the sequence.
    steps = max_length + (end is not None)
    alive = tf.ones_like(start, tf.bool)
    carried = (state, alive, tf.zeros_like(start), tf.zeros_like(start, tf.float32))
    until = lambda carried: ~tf.reduce_any(carried[1])  # noqa: E731
    carried, tokens = loop(advance, carried, start, steps=steps, until=until)
    return Decoded(tokens[:, :max_length], carried[2], carried[3])


def _limit(limit: tf.Tensor | None, max_length: int, shape: tf.Tensor) -> tf.Tensor:
    limit = tf.fill(shape, max_length) if limit is None else tf.minimum(limit, max_length)
    return tf.maximum(limit, 0)


def _sound(log_probabilities: tf.Tensor) -> tf.Tensor:
    """In float32, no lower than `IMPOSSIBLE`; what is no number is impossible."""
    scores = tf.cast(log_probabilities, tf.float32)
    return tf.maximum(tf.where(tf.math.is_nan(scores), IMPOSSIBLE, scores), IMPOSSIBLE)


def _end_at(scores: tf.Tensor, ends: tf.Tensor, end: int) -> tf.Tensor:
    """Leaves the end alone as a next symbol, where a sequence has to end."""
    is_end = tf.range(tf.shape(scores)[-1]) == end
    return tf.where(ends[:, None] & ~is_end, IMPOSSIBLE, scores)


def length_penalty(length: tf.Tensor, alpha: float) -> tf.Tensor:
    """What a hypothesis's log-probability is divided by: ((5 + length) / 6) ** alpha.

    Wu et al. 2016, "Google's neural machine translation system", equation 14; 0 favours short
    sequences, 1 is near to the mean over the symbols.
    """
    return ((5.0 + tf.cast(length, tf.float32)) / 6.0) ** alpha


def coverage_penalty(attention: tf.Tensor, mask: tf.Tensor, beta: float) -> tf.Tensor:
    """What is added to a hypothesis's score for source words it did not look at (ibid.).

    Args:
      attention: <float>[rows, source], the attention weights summed over the target's steps.
      mask: <bool>[rows, source], the real source words.
      beta: weight.

    Returns:
      <float32>[rows]: beta times the sum over real words of log(min(attention, 1)); 0 at best.
    """
    seen = tf.clip_by_value(tf.cast(attention, tf.float32), 1e-9, 1.0)
    return beta * tf.reduce_sum(tf.where(mask, tf.math.log(seen), 0.0), axis=-1)


def for_each_hypothesis(structure: Any, beam: int) -> Any:
    """Repeats each row `beam` times: what a `step` under `beam_search` looks up beside its state.

    Args:
      structure: nested tensors [batch, ...].
      beam: how many hypotheses a row has.

    Returns:
      Nested tensors [batch * beam, ...], the hypotheses of a row side by side.
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
    coverage: Callable[[State], tf.Tensor] | None = None,
) -> Decoded:
    """Keeps the `beam` best beginnings of each row; finished ones are kept apart from these.

    At each step the beginnings are continued by every symbol, and the `beam` best continuations
    are looked at: those that end a sequence are finished, and the best others go on. A row is done
    when `beam` hypotheses are finished. A beam of 1 is `greedy`; a beam as wide as there are
    sequences finds the best of them.

    The score of a finished hypothesis is

      log P(sequence, end) / length_penalty(length + 1, alpha) + coverage(state)

    Args:
      step: see the module. It is called for `batch * beam` rows: repeat what it looks up beside
        its state by `for_each_hypothesis`.
      state: what the first step gets: nested tensors [batch, ...] (not repeated).
      start: <int32>[batch], the symbol before the first.
      end: the symbol that ends a sequence.
      max_length: symbols at most, the end's not counted.
      beam: how many hypotheses are kept.
      limit: <int32>[batch], a row's own bound below that; the end is forced there.
      alpha: length normalisation; see `length_penalty`.
      coverage: takes the state after the step that ended a sequence, gives <float32>[rows], 0 or
        less, which is added to the score; see `coverage_penalty`.

    Returns:
      Hypotheses [batch, beam, ...], best first. Where a row has fewer, length 0 and a score of
      `IMPOSSIBLE` or less.
    """
    batch = start.shape[0] or tf.shape(start)[0]
    limit = _limit(limit, max_length, tf.shape(start)[:1])
    # Room for the end, which is cut off when all is done.
    columns = max_length + 1
    order = tf.range(batch)[:, None] * beam

    def chosen(structure: Any, hypotheses: tf.Tensor) -> Any:
        """The rows of some hypotheses, named by <int32>[batch, beam]."""
        rows = tf.reshape(order + hypotheses, [-1])

        def pick(x: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(tf.gather(x, rows), x.shape)

        return tf.nest.map_structure(pick, structure)

    def advance(place: tf.Tensor, alive: _Alive, finished: Decoded, done: tf.Tensor) -> tuple:
        state, log_probabilities = step(alive.state, alive.token)
        limits = tf.repeat(limit, beam)
        scores = _end_at(_sound(log_probabilities), place >= limits, end)
        symbols = tf.shape(scores)[-1]
        total = alive.score[:, :, None] + tf.reshape(scores, [batch, beam, -1])
        # Twice as many as are kept, since at most half of them end.
        width = 2 * beam
        best, index = tf.math.top_k(tf.reshape(total, [batch, -1]), width)
        parents, tokens = index // symbols, index % symbols
        ends = (tokens == end) & (best > IMPOSSIBLE / 2)

        penalty = 0.0 if coverage is None else tf.reshape(coverage(state), [batch, beam])
        normal = best[:, :beam] / length_penalty(place + 1, alpha)
        if coverage is not None:
            normal += tf.gather(penalty, parents[:, :beam], batch_dims=1)
        fresh = Decoded(
            tokens=tf.gather(alive.tokens, parents[:, :beam], batch_dims=1),
            length=tf.fill([batch, beam], place),
            score=tf.where(ends[:, :beam] & ~done[:, None], normal, 2 * IMPOSSIBLE),
        )
        finished = _best(finished, fresh, beam)

        # Those that end go to the back; top_k keeps the order of the others.
        back = tf.where(tokens == end, best + 2 * IMPOSSIBLE, best)
        scores, places = tf.math.top_k(back, beam)
        parents = tf.gather(parents, places, batch_dims=1)
        tokens = tf.gather(tokens, places, batch_dims=1)
        written = tf.gather(alive.tokens, parents, batch_dims=1)
        here = tf.range(columns) == place
        alive = _Alive(
            state=chosen(state, parents),
            token=tf.reshape(tokens, [-1]),
            tokens=tf.where(here, tokens[:, :, None], written),
            score=tf.maximum(scores, 2 * IMPOSSIBLE),
        )
        full = finished.score[:, -1] > IMPOSSIBLE
        nothing_left = alive.score[:, 0] < IMPOSSIBLE / 2
        return place + 1, alive, finished, done | full | nothing_left

    def go_on(place: tf.Tensor, alive: _Alive, finished: Decoded, done: tf.Tensor) -> tf.Tensor:
        return (place < columns) & ~tf.reduce_all(done)

    first = tf.where(tf.range(beam) == 0, 0.0, 2 * IMPOSSIBLE)
    empty = tf.zeros([batch, beam, columns], tf.int32)
    alive = _Alive(
        state=for_each_hypothesis(state, beam),
        token=tf.repeat(start, beam),
        tokens=empty,
        score=tf.zeros([batch, 1]) + first,
    )
    none = Decoded(empty, empty[:, :, 0], tf.fill([batch, beam], 2 * IMPOSSIBLE))
    carried = (tf.constant(0), alive, none, tf.zeros_like(start, tf.bool))
    _, _, finished, _ = tf.while_loop(go_on, advance, carried)
    real = tf.range(max_length) < finished.length[:, :, None]
    return finished._replace(tokens=tf.where(real, finished.tokens[:, :, :max_length], 0))


class _Alive(NamedTuple):
    """The beginnings that beam search goes on with."""

    state: State  # [batch * beam, ...]
    token: tf.Tensor  # <int32>[batch * beam], the last symbol
    tokens: tf.Tensor  # <int32>[batch, beam, max_length + 1]
    score: tf.Tensor  # <float32>[batch, beam], log-probability


def _best(some: Decoded, others: Decoded, beam: int) -> Decoded:
    """The best `beam` hypotheses of both, best first; of equal ones those of `some`."""
    both = [tf.concat(pair, axis=1) for pair in zip(some, others, strict=True)]
    _, places = tf.math.top_k(both[2], beam)
    return Decoded(*(tf.gather(x, places, batch_dims=1) for x in both))
