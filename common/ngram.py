"""N-gram language model over symbols, as two tables that graph code can look up."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

__all__ = ["Ngram"]

# A history, and the number of times that each symbol follows it.
History: TypeAlias = tuple[int, ...]
Followers: TypeAlias = dict[History, Counter[int]]


class Ngram(tf.Module):
    """N-gram model with Witten-Bell smoothing, as two tables.

    The probability of a symbol c depends on the last `order - 1` symbols, the history h. It
    interpolates the counts after h with those after its shorter suffixes (Witten & Bell 1991):

        P(c | h) = (count(h c) + kinds(h) * P(c | h')) / (count(h) + kinds(h))

    where h' is h without its first symbol, and kinds(h) is the number of different symbols that
    follow h. The empty history interpolates with the uniform distribution. An order of about 8
    covers whole words of the training transcripts, and unseen words keep a positive probability.

    The histories that occur at least `min_count` times are the states of an automaton. Each symbol
    leads to the longest suffix of history and symbol that is a state itself. Therefore one step of
    a search is a look-up by state and symbol.

    Args:
      sequences: texts, as symbols from 0.
      symbols: number of symbols, without the blank.
      order: number of symbols of the longest n-gram, including the predicted one.
      min_count: rarer histories are replaced by their shorter suffixes.
      max_states: `min_count` is raised until there are at most this many histories.

    Attributes:
      log_probs: `<float32>[states, symbols + 1]`; the last column is the end of the text.
      next_state: `<int32>[states, symbols]`.
      start: the state at the start of a text.

    Example:
      >>> model = Ngram([[0, 1, 1], [0, 1]], symbols=2, order=3)
      >>> np.exp(model.log_probs[model.start]).round(2)
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
    ):
        super().__init__(name="ngram")
        begin, end = symbols + 1, symbols  # `begin` occurs in histories only
        followers = _count(sequences, begin=begin, end=end, order=order)
        histories = _frequent(followers, begin, min_count, max_states)
        probs, next_state = _tables(followers, histories, symbols)
        self.log_probs = tf.Variable(np.log(probs), trainable=False, dtype=tf.float32)
        self.next_state = tf.Variable(next_state, trainable=False, dtype=tf.int32)
        self.start = histories.index((begin,))

    @property
    def tables(self) -> tuple[tf.Variable, tf.Variable]:
        """The tables `log_probs` and `next_state`."""
        return self.log_probs, self.next_state


def _count(sequences: Iterable[Sequence[int]], *, begin: int, end: int, order: int) -> Followers:
    """Count the symbols that follow each history of up to `order - 1` symbols."""
    followers: Followers = defaultdict(Counter)
    for sequence in sequences:
        text = (begin, *map(int, sequence), end)
        for place in range(1, len(text)):
            for first in range(max(0, place - order + 1), place + 1):
                followers[text[first:place]][text[place]] += 1
    # These two are states even if there is no text.
    followers.setdefault((), Counter())
    followers.setdefault((begin,), Counter())
    return followers


def _frequent(followers: Followers, begin: int, min_count: int, max_states: int) -> list[History]:
    """Return the histories that become states, shorter ones first."""
    totals = {history: sum(counts.values()) for history, counts in followers.items()}
    if len(totals) > max_states:
        ranked = sorted(totals.values(), reverse=True)
        min_count = max(min_count, ranked[max_states] + 1)
    required = ((), (begin,))
    histories = [h for h in followers if totals[h] >= min_count or h in required]
    # Suffixes first. A suffix occurs at least as often as its history, so it is a state, too.
    return sorted(histories, key=lambda history: (len(history), history))


def _tables(
    followers: Followers, histories: list[History], symbols: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the probabilities `[states, symbols + 1]` and next states `[states, symbols]`."""
    state_of = {history: state for state, history in enumerate(histories)}
    probs = np.empty((len(histories), symbols + 1), np.float64)
    next_state = np.empty((len(histories), symbols), np.int32)
    for state, history in enumerate(histories):
        lower: np.ndarray | float = 1.0 / (symbols + 1)
        if history:
            lower = probs[state_of[history[1:]]]
        counts = followers[history]
        if counts:
            probs[state] = len(counts) * lower
            probs[state, list(counts)] += list(counts.values())
            probs[state] /= sum(counts.values()) + len(counts)
        else:
            probs[state] = lower
        # The longest suffix: the extended history if it is a state, else that of its suffix.
        next_state[state] = next_state[state_of[history[1:]]] if history else 0
        for symbol in range(symbols):
            extended = state_of.get((*history, symbol))
            if extended is not None:
                next_state[state, symbol] = extended
    return probs, next_state
