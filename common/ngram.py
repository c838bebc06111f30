"""N-gram language model over symbols, as tables that graph code can look up."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import tensorflow as tf

__all__ = ["Dense", "Ngram", "Sparse", "Tables"]

MAX_DENSE = 2**24  # values of a table of all states and symbols, 64 MiB; larger ones are sparse


class Dense(NamedTuple):
    """Tables of all states and symbols.

    Attributes:
      log_probs: `<float32>[states, symbols + 1]`; the last column is the end of the text.
      next_state: `<int32>[states, symbols + 1]`, or `<uint16>` where this holds all states.
    """

    log_probs: tf.Tensor
    next_state: tf.Tensor

    def look_up(self, state: tf.Tensor, symbol: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the log-probability of a symbol and the state after it.

        Args:
          state: `<int32>[...]`.
          symbol: `<int32>[...]`, of a shape that broadcasts with `state`.
        """
        place = tf.stack(_broadcast(state, symbol), axis=-1)
        next_state = tf.cast(tf.gather_nd(self.next_state, place), tf.int32)
        return tf.gather_nd(self.log_probs, place), next_state

    def read_rows(self, state: tf.Tensor) -> tf.Tensor:
        """Return the log-probabilities of all symbols but the end, `<float32>[..., symbols]`."""
        return tf.gather(self.log_probs, state)[..., :-1]


class Sparse(NamedTuple):
    """Tables of the symbols that follow a state in the text; other symbols have those of a suffix.

    Attributes:
      keys: `<int64>[entries]`, state * (symbols + 1) + symbol, in order. The first state, the empty
        history, has all symbols.
      log_probs: `<float32>[entries]`.
      next_state: `<int32>[entries]`.
      backoff: `<float32>[states]`, log-weight of the suffix of each state.
      suffix: `<int32>[states]`, the state of the history without its first symbol.
      columns: `<int64>[]`, symbols + 1.
    """

    keys: tf.Tensor
    log_probs: tf.Tensor
    next_state: tf.Tensor
    backoff: tf.Tensor
    suffix: tf.Tensor
    columns: tf.Tensor

    def look_up(self, state: tf.Tensor, symbol: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the log-probability of a symbol and the state after it; see `Dense.look_up`."""
        state, symbol = _broadcast(state, symbol)
        shape = tf.shape(state)
        state, symbol = tf.reshape(state, [-1]), tf.cast(tf.reshape(symbol, [-1]), tf.int64)

        def find(state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            key = tf.cast(state, tf.int64) * self.columns + symbol
            place = tf.searchsorted(self.keys, key)
            return place, tf.gather(self.keys, tf.minimum(place, tf.size(self.keys) - 1)) == key

        def body(state: tf.Tensor, weight: tf.Tensor, place: tf.Tensor, found: tf.Tensor) -> tuple:
            weight += tf.where(found, 0.0, tf.gather(self.backoff, state))
            state = tf.where(found, state, tf.gather(self.suffix, state))
            place, found = find(state)
            return state, weight, place, found

        place, found = find(state)
        _, weight, place, _ = tf.while_loop(
            lambda state, weight, place, found: ~tf.reduce_all(found),
            body,
            (state, tf.zeros_like(state, tf.float32), place, found),
        )
        log_probs = weight + tf.gather(self.log_probs, place)
        next_state = tf.gather(self.next_state, place)
        return tf.reshape(log_probs, shape), tf.reshape(next_state, shape)

    def read_rows(self, state: tf.Tensor) -> tf.Tensor:
        """Return the log-probabilities of all symbols but the end, `<float32>[..., symbols]`."""
        symbols = tf.range(tf.cast(self.columns, tf.int32) - 1)
        return self.look_up(state[..., None], symbols)[0]


Tables: TypeAlias = Dense | Sparse


def _broadcast(state: tf.Tensor, symbol: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    shape = tf.broadcast_dynamic_shape(tf.shape(state), tf.shape(symbol))
    return tf.broadcast_to(state, shape), tf.broadcast_to(symbol, shape)


class Ngram(tf.Module):
    """N-gram model with Witten-Bell smoothing, as tables.

    The probability of a symbol c depends on the last `order - 1` symbols, the history h. It
    interpolates the counts after h with those after its shorter suffixes (Witten & Bell 1991):

        P(c | h) = (count(h c) + kinds(h) * P(c | h')) / (count(h) + kinds(h))

    where h' is h without its first symbol, and kinds(h) is the number of different symbols that
    follow h. The empty history interpolates with the uniform distribution. An order of about 8
    covers whole words of the training transcripts, and unseen words keep a positive probability.

    The histories that occur at least `min_count` times are the states of an automaton. Each symbol
    leads to the longest suffix of history and symbol that is a state itself. Therefore one step of
    a search is a look-up by state and symbol. Tables of many states and symbols are sparse: they
    hold the symbols that follow a history in the text.

    Args:
      sequences: texts, as symbols from 0.
      symbols: number of symbols, without the blank.
      order: number of symbols of the longest n-gram, including the predicted one.
      min_count: rarer histories are replaced by their shorter suffixes.
      max_states: `min_count` is raised until there are at most this many histories.
      max_dense: maximum number of states times symbols for which the tables hold all symbols.

    Attributes:
      symbols: number of symbols, without the blank.
      start: the state at the start of a text.
      states: number of states.

    Example:
      >>> model = Ngram([[0, 1, 1], [0, 1]], symbols=2, order=3)
      >>> log_probs, _ = model.tables.look_up(tf.constant(model.start), tf.range(3))
      >>> np.exp(log_probs).round(2)
      array([0.77, 0.13, 0.1 ], dtype=float32)
    """

    def __init__(
        self,
        sequences: Iterable[Sequence[int]],
        *,
        symbols: int,
        order: int,
        min_count: int = 1,
        max_states: int = 200_000,
        max_dense: int = MAX_DENSE,
    ):
        super().__init__(name="ngram")
        self.symbols = symbols
        states = _find_states(_Text.join(sequences, symbols), order, min_count, max_states)
        self.start, self.states = states.start, len(states.suffix)
        rows = _estimate(states, symbols)
        is_dense = self.states * (symbols + 1) <= max_dense
        tables: Tables = _fill(rows, states.suffix, symbols) if is_dense else rows
        self._kind = type(tables)
        self._variables = [tf.Variable(value, trainable=False) for value in tables]

    @property
    def tables(self) -> Tables:
        """The tables as tensors: XLA cannot look up rows of a variable."""
        return self._kind(*map(tf.convert_to_tensor, self._variables))


# --- estimation -----------------------------------------------------------------------------------


class _Text(NamedTuple):
    """All texts in one array, each between a symbol for its start and one for its end.

    Attributes:
      codes: `<int64>[length]`.
      place: `<int64>[length]`, place of each symbol in its own text; the start has place 0.
      symbols: number of symbols; the end is the symbol after them, the start the next one.
    """

    codes: np.ndarray
    place: np.ndarray
    symbols: int

    @classmethod
    def join(cls, sequences: Iterable[Sequence[int]], symbols: int) -> _Text:
        """Join texts."""
        parts = [np.array([symbols + 1, *sequence, symbols], np.int64) for sequence in sequences]
        places = [np.arange(len(part)) for part in parts]
        none = np.zeros(0, np.int64)
        return cls(np.concatenate([none, *parts]), np.concatenate([none, *places]), symbols)


class _States(NamedTuple):
    """The histories that are states, shorter ones first.

    Attributes:
      text: the text.
      at: for each length of a history `<int64>[length]`: the state of the history of this length
        before each symbol of the text, -1 if it is none.
      suffix: `<int64>[states]`, the state of each history without its first symbol.
      start: the state of the start of a text.
    """

    text: _Text
    at: list[np.ndarray]
    suffix: np.ndarray
    start: int


def _find_states(text: _Text, order: int, min_count: int, max_states: int) -> _States:
    """Find the histories of up to `order - 1` symbols that become states."""
    codes, place, symbols = text
    # Number of the history of each length before each symbol; -1 where a text is too short.
    numbers = [np.where(place > 0, 0, -1)]
    shorter, counts = [np.zeros(1, np.int64)], [np.array([(place > 0).sum()])]
    is_start = [np.zeros(1, bool)]
    for length in range(1, order):
        where = np.flatnonzero(place >= length)
        keys = numbers[-1][where] * (symbols + 2) + codes[where - length]
        found, inverse, count = np.unique(keys, return_inverse=True, return_counts=True)
        number = np.full(len(codes), -1)
        number[where] = inverse
        numbers.append(number)
        shorter.append(found // (symbols + 2))
        counts.append(count)
        is_start.append((found % (symbols + 2) == symbols + 1) & (length == 1))
    total = sum(map(len, counts))
    if total > max_states:
        ranked = np.sort(np.concatenate(counts))[::-1]
        min_count = max(min_count, int(ranked[max_states]) + 1)
    # A suffix occurs at least as often as its history, so it is a state, too.
    at: list[np.ndarray] = []
    suffix, start, size = [np.zeros(1, np.int64)], 0, 1
    states = np.zeros(1, np.int64)
    for length, number in enumerate(numbers):
        if length:
            is_kept = (counts[length] >= min_count) | is_start[length]
            suffix.append(states[shorter[length][is_kept]])
            states = np.where(is_kept, size + np.cumsum(is_kept) - 1, -1)
            size += int(is_kept.sum())
            start = int(states[is_start[length]].max(initial=start))
        at.append(np.append(states, -1)[number])
    return _States(text, at, np.concatenate(suffix), start)


def _estimate(states: _States, symbols: int) -> Sparse:
    """Return the probabilities of the symbols that follow each state in the text."""
    codes, columns = states.text.codes, symbols + 1
    size = len(states.suffix)
    backoff = np.zeros(size)
    keys, probs = np.arange(columns), np.full(columns, 1.0 / columns)
    # The state after a symbol that is in no text is the empty history.
    following = np.zeros(columns, np.int64)
    for length, at in enumerate(states.at):
        where = np.flatnonzero(at >= 0)
        found, first, counts = np.unique(
            at[where] * columns + codes[where], return_index=True, return_counts=True
        )
        state, symbol = np.divmod(found, columns)
        total, kinds = (np.bincount(state, w, minlength=size) for w in (counts, None))
        weight = np.divide(kinds, total + kinds, out=np.ones(size), where=kinds > 0)
        # What follows a history follows its suffix, too. The empty history has no suffix: its
        # entries, which hold the uniform distribution, are replaced.
        lower = np.searchsorted(keys, states.suffix[state] * columns + symbol)
        values = counts / (total + kinds)[state] + weight[state] * probs[lower]
        after = _state_after(states, length, where[first])
        after = np.where(after >= 0, after, following[lower])
        if length == 0:
            probs, following = probs * weight[0], following.copy()
            probs[found], following[found] = values, after
            continue
        backoff[kinds > 0] = np.log(weight[kinds > 0])
        keys = np.concatenate([keys, found])
        probs, following = np.concatenate([probs, values]), np.concatenate([following, after])
    return Sparse(
        keys.astype(np.int64),
        np.log(probs).astype(np.float32),
        following.astype(np.int32),
        backoff.astype(np.float32),
        states.suffix.astype(np.int32),
        np.int64(columns),
    )


def _state_after(states: _States, length: int, places: np.ndarray) -> np.ndarray:
    """Return the state of a history of `length` and the symbol after it, -1 if it is none.

    Args:
      states: the states.
      length: the length of the history.
      places: `<int64>[...]`, places of the symbol in the text.
    """
    if length + 1 == len(states.at):
        return np.full(len(places), -1)
    is_last = states.text.codes[places] == states.text.symbols
    after = np.where(is_last, 0, places + 1)
    return np.where(is_last, -1, states.at[length + 1][after])


def _fill(rows: Sparse, suffix: np.ndarray, symbols: int) -> Dense:
    """Return tables of all symbols: where a row has no entry, its suffix has."""
    columns = symbols + 1
    log_probs = np.zeros((len(suffix), columns), np.float32)
    next_state = np.zeros((len(suffix), columns), np.uint16 if len(suffix) <= 2**16 else np.int32)
    bounds = np.searchsorted(rows.keys, columns * np.arange(len(suffix) + 1))
    for state, below in enumerate(suffix):
        entries = slice(bounds[state], bounds[state + 1])
        symbol = rows.keys[entries] - state * columns
        log_probs[state] = log_probs[below] + rows.backoff[state]
        next_state[state] = next_state[below]
        log_probs[state, symbol] = rows.log_probs[entries]
        next_state[state, symbol] = rows.next_state[entries]
    return Dense(log_probs, next_state)
