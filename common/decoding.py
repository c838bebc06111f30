"""Decoding of whole sequences from one `step` function, as graph loops.

A model is a function `step(state, token) -> (state, scores)`. It receives one symbol for each row,
and returns a score for each next symbol: its log-probability, or one that differs from it by a
constant of the row, such as the logits of a softmax. The searches normalize them. The same `step`
works with `greedy`, `sample` and `beam_search`, in Python, in `tf.function` and in an export. With
a Python `max_length` and a static batch size all shapes are static, as XLA requires. `loop` and the
functions of `common.sampling` are the components of these functions. Use them for models whose
symbols are more than one number, such as frames of music.

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

from common.repetition import third_runs
from common.sampling import IMPOSSIBLE, best_symbols, draw, filter_log_probabilities, uniform
from common.tensor_arrays import dimension

import numpy as np
import tensorflow as tf

# Nested tensors whose first axis is the batch.
State: TypeAlias = Any
# step(state, <int32>[rows]) -> (state, scores <float>[rows, symbols]).
Step: TypeAlias = Callable[[State, tf.Tensor], tuple[State, tf.Tensor]]


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
        state, scores = step(state, token)
        scores = _sanitized(tf.nn.log_softmax(tf.cast(scores, tf.float32)))
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


def _sanitized(scores: tf.Tensor) -> tf.Tensor:
    """Replace NaN and lower values by `IMPOSSIBLE`."""
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
    step: Callable[..., tuple[State, tf.Tensor]],
    state: State,
    start: tf.Tensor,
    *,
    end: int,
    max_length: int,
    beam: int,
    best: int | None = None,
    limit: tf.Tensor | None = None,
    alpha: float = 0.0,
    may_repeat: tf.Tensor | None = None,
    context: State = (),
) -> Decoded:
    """Search for the best sequences with the `beam` best unfinished hypotheses of each row.

    Each step extends the hypotheses by every symbol. Of the `beam` best extensions, those with the
    end symbol are finished and stored separately. The `beam` best other extensions continue.

    The score of a finished hypothesis is

      log P(sequence, end) / length_penalty(length + 1, alpha)

    A row is complete when no unfinished hypothesis can still reach the score of the `best`-th
    finished one: the log-probability of an extension is no larger, and the divisor is largest at
    the limit. So the search never stops before a better sequence that the beam holds. Without a
    batch size that is known when it is traced, complete rows leave the batch.

    A beam of 1 with `alpha=0` equals `greedy`. A beam as wide as the number of sequences finds the
    best ones.

    Args:
      step: see the module. It is called with `batch * beam` rows, and with `context` as third
        argument if there is one.
      state: initial state: nested tensors `[batch, ...]`, not repeated.
      start: `<int32>[batch]`, the symbol before the first one.
      end: symbol that ends a sequence.
      max_length: maximum number of symbols, without the end symbol.
      beam: number of hypotheses per row.
      best: number of sequences to find, up to `beam`, which is the default; further ones that the
        search has finished are returned, too.
      limit: `<int32>[batch]`, a maximum for each row, where the end is forced.
      alpha: exponent of the length normalization; see `length_penalty`.
      may_repeat: `<bool>[batch]`, the rows in which a run of symbols may begin for the third time
        in a row, see `common.repetition`; None: in all.
      context: nested tensors `[batch, ...]`, not repeated, that `step` reads and never changes,
        such as a memory. It receives those of the incomplete rows.

    Returns:
      Hypotheses `[batch, beam, ...]`, best first. An empty slot has length 0 and a score of
      `IMPOSSIBLE` or less.
    """
    batch, is_static = dimension(start, 0), start.shape[0] is not None
    # One column for the end symbol, removed afterwards.
    needed, columns = min(best or beam, beam), max_length + 1

    def advance(position: tf.Tensor, search: _Search) -> tuple[tf.Tensor, _Search]:
        alive = search.alive
        given = (search.context,) if tf.nest.flatten(search.context) else ()
        state, scores = step(alive.state, alive.token, *given)
        must_end = position >= search.limit
        written = (alive.tokens, position, search.may_repeat)
        banned = None if may_repeat is None else third_runs(*written)
        # Twice the beam, because up to half of the extensions end.
        extensions = _best_extensions(alive.score, scores, must_end, end, 2 * beam, banned)
        completed = _completed(alive, extensions, position, end, alpha)
        score = tf.where(search.done[:, None], 2 * IMPOSSIBLE, completed.score)
        finished = _merge(search.finished, completed._replace(score=score), beam)
        alive = _unfinished(alive, extensions, state, position, end)
        reachable = alive.score[:, 0] / length_penalty(search.limit + 1, alpha)
        done = (finished.score[:, needed - 1] >= reachable) | (alive.score[:, 0] < IMPOSSIBLE / 2)
        search = search._replace(alive=alive, finished=finished, done=search.done | done)
        return position + 1, search if is_static else _leave(search)

    def go_on(position: tf.Tensor, search: _Search) -> tf.Tensor:
        return (position < columns) & ~tf.reduce_all(search.done)

    tokens = tf.zeros([batch, beam, columns], tf.int32)
    nothing = Decoded(tokens, tokens[:, :, 0], tf.fill([batch, beam], 2 * IMPOSSIBLE))
    search = _Search(
        alive=_Alive(
            state=for_each_hypothesis(state, beam),
            token=tf.repeat(start, beam),
            tokens=tokens,
            score=tf.zeros([batch, 1]) + tf.where(tf.range(beam) == 0, 0.0, 2 * IMPOSSIBLE),
        ),
        finished=nothing,
        done=tf.zeros_like(start, tf.bool),
        limit=_limit(limit, max_length, tf.shape(start)[:1]),
        may_repeat=tf.ones_like(start, tf.bool) if may_repeat is None else may_repeat,
        context=context,
        place=tf.range(batch),
        left=nothing,
    )
    search = tf.while_loop(
        go_on,
        advance,
        (tf.constant(0), search),
        shape_invariants=(tf.TensorShape([]), _shapes(search, is_static)),
    )[1]
    finished = _put(search.left, search.place, search.finished)
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


class _Search(NamedTuple):
    """A beam search between two steps.

    Attributes:
      alive: the unfinished hypotheses.
      finished: the best finished ones.
      done: `<bool>[batch]`, which rows are complete.
      limit: `<int32>[batch]`.
      may_repeat: `<bool>[batch]`.
      context: nested tensors `[batch, ...]`.
      place: `<int32>[batch]`, the row of the result for each row that is still searched.
      left: the result, which holds the rows that have left the batch.
    """

    alive: _Alive
    finished: Decoded
    done: tf.Tensor
    limit: tf.Tensor
    may_repeat: tf.Tensor
    context: State
    place: tf.Tensor
    left: Decoded


def _shapes(search: _Search, is_static: bool) -> _Search:
    """Return the shapes that the loop keeps: all but the number of rows still searched."""

    def shape(x: tf.Tensor) -> tf.TensorShape:
        return x.shape if is_static else tf.TensorShape([None, *x.shape[1:]])

    shapes = tf.nest.map_structure(shape, search)
    return shapes._replace(left=tf.nest.map_structure(lambda x: x.shape, search.left))


def _leave(search: _Search) -> _Search:
    """Take the complete rows out of the batch, once they are a quarter of it."""
    count = tf.math.count_nonzero(search.done, dtype=tf.int32)

    def leave() -> _Search:
        rows = tf.where(~search.done)[:, 0]
        beam, alive = search.alive.score.shape[1], search.alive
        hypotheses = tf.reshape(rows[:, None] * beam + tf.range(beam, dtype=rows.dtype), [-1])

        def take(structure: Any, places: tf.Tensor) -> Any:
            return tf.nest.map_structure(lambda x: tf.gather(x, places), structure)

        return _Search(
            alive=_Alive(
                state=take(alive.state, hypotheses),
                token=take(alive.token, hypotheses),
                tokens=take(alive.tokens, rows),
                score=take(alive.score, rows),
            ),
            finished=take(search.finished, rows),
            done=take(search.done, rows),
            limit=take(search.limit, rows),
            may_repeat=take(search.may_repeat, rows),
            context=take(search.context, rows),
            place=take(search.place, rows),
            left=_put(search.left, search.place, search.finished),
        )

    return tf.cond(4 * count >= tf.maximum(tf.size(search.done), 1), leave, lambda: search)


def _put(result: Decoded, place: tf.Tensor, finished: Decoded) -> Decoded:
    """Write the rows of `finished` to their places in the result."""
    pairs = zip(result, finished, strict=True)
    return Decoded(*(tf.tensor_scatter_nd_update(a, place[:, None], b) for a, b in pairs))


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


def _best_extensions(
    score: tf.Tensor,
    scores: tf.Tensor,
    must_end: tf.Tensor,
    end: int,
    count: int,
    banned: tf.Tensor | None,
) -> _Extensions:
    """Return the best extensions of hypotheses.

    Only the best symbols of each hypothesis are normalized, so that no other operation than their
    choice and one sum reads the scores of all symbols.

    Args:
      score: `<float32>[batch, beam]`, of the hypotheses.
      scores: `<float>[batch * beam, symbols]`, of the next symbols, not necessarily normalized.
      must_end: `<bool>[batch]`, the rows at their limit.
      end: the symbol that ends a sequence.
      count: how many to return.
      banned: `<int32>[batch * beam, n]`, impossible symbols; -1 for none.
    """
    batch, beam = dimension(score, 0), score.shape[1]
    scores = tf.cast(scores, tf.float32)
    # Two more, because banned ones are among them.
    best, token = best_symbols(scores, count if banned is None else count + 2)
    least = dimension(best, 1)
    largest = best[:, :1]
    total = tf.reduce_sum(tf.exp(scores - largest), axis=1, keepdims=True)
    if banned is not None:
        is_banned = tf.reduce_any(token[:, :, None] == banned[:, None, :], axis=2)
        best = tf.where(is_banned, -np.inf, best)
    # At the limit only the end is possible.
    forced, place = tf.repeat(must_end, beam)[:, None], tf.range(least)
    only_end = tf.where(place == 0, scores[:, end : end + 1], -np.inf)
    best = tf.where(forced, only_end, best)
    token = tf.where(forced & (place == 0), end, token)
    normalized = _sanitized(best - largest - tf.math.log(total))
    total = score[:, :, None] + tf.reshape(normalized, [batch, beam, least])
    best, index = tf.math.top_k(tf.reshape(total, [batch, beam * least]), count)
    token = tf.gather(tf.reshape(token, [batch, beam * least]), index, batch_dims=1)
    return _Extensions(index // least, token, best)


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
