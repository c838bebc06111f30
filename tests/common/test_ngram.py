"""N-gram models against counting."""

import itertools
import math
from collections import defaultdict

from common.ngram import Dense, Ngram, Sparse

import numpy as np
import pytest
import tensorflow as tf


class Counted:
    """Witten-Bell interpolation, computed from its formula."""

    def __init__(self, sequences, symbols, order):
        self.symbols, self.order, self.pairs = symbols, order, defaultdict(int)
        for sequence in sequences:
            text = ("begin", *sequence, symbols)
            for place in range(1, len(text)):
                for size in range(min(order, place + 1)):
                    self.pairs[text[place - size : place], text[place]] += 1

    def probability(self, history, symbol):
        lower = self.probability(history[1:], symbol) if history else 1 / (self.symbols + 1)
        row = {s: n for (h, s), n in self.pairs.items() if h == history}
        if not row:
            return lower
        return (row.get(symbol, 0) + len(row) * lower) / (sum(row.values()) + len(row))

    def log_probability(self, text):
        text = ("begin", *text, self.symbols)
        return sum(
            math.log(self.probability(text[max(0, i - self.order + 1) : i], text[i]))
            for i in range(1, len(text))
        )


TRANSCRIPTS = [(0, 1, 1, 0), (0, 1), (1, 1, 0, 1), (0,), (0, 1, 1)]


def table(model):
    """Return the log-probabilities and the next states of all states and symbols."""
    states = tf.range(model.states)[:, None]
    log_probs, next_state = model.tables.look_up(states, tf.range(model.symbols + 1)[None, :])
    return log_probs.numpy(), next_state.numpy()


@pytest.mark.parametrize("kind", [Dense, Sparse])
@pytest.mark.parametrize("order", [1, 2, 4, 9])
def test_ngram_tables_hold_the_formula(order, kind):
    max_dense = 0 if kind is Sparse else 10**6
    model = Ngram(TRANSCRIPTS, symbols=2, order=order, max_dense=max_dense)
    assert isinstance(model.tables, kind)
    counted = Counted(TRANSCRIPTS, 2, order)
    log_probs, next_state = table(model)
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, rtol=1e-5)
    for text in itertools.chain.from_iterable(
        itertools.product(range(2), repeat=n) for n in range(6)
    ):
        state, total = model.start, 0.0
        for symbol in text:
            total += log_probs[state, symbol]
            state = next_state[state, symbol]
        total += log_probs[state, -1]
        assert float(total) == pytest.approx(counted.log_probability(text), abs=1e-4)


def test_ngram_equals_its_docstring_example():
    model = Ngram([[0, 1, 1], [0, 1]], symbols=2, order=3)
    probabilities = np.exp(table(model)[0][model.start]).round(2).tolist()
    assert probabilities == pytest.approx([0.77, 0.13, 0.1], abs=1e-6)


def test_ngram_drops_rare_histories():
    full = Ngram(TRANSCRIPTS, symbols=2, order=4)
    small = Ngram(TRANSCRIPTS, symbols=2, order=4, min_count=3)
    limited = Ngram(TRANSCRIPTS, symbols=2, order=4, max_states=6)
    assert full.states > small.states > 2
    # One more than `max_states`: the empty history and the start of a text are always states.
    assert limited.states <= 7
    for model in (small, limited):
        log_probs, next_state = table(model)
        np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, rtol=1e-5)
        assert next_state.max() < model.states


def test_ngram_of_no_text_is_uniform():
    model = Ngram([], symbols=3, order=3)
    np.testing.assert_allclose(np.exp(table(model)[0][model.start]), 0.25, rtol=1e-6)


@pytest.mark.parametrize("min_count", [1, 3])
def test_sparse_tables_equal_dense_ones(min_count):
    rng = np.random.default_rng(0)
    texts = [rng.geometric(0.3, rng.integers(1, 12)).clip(1, 9) - 1 for _ in range(200)]
    dense, sparse = (
        Ngram(texts, symbols=9, order=5, min_count=min_count, max_dense=most) for most in (10**6, 0)
    )
    assert dense.states == sparse.states and dense.start == sparse.start
    for one, other in zip(table(dense), table(sparse), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_many_states_and_symbols_take_little_memory():
    """200,000 states and 4,000 symbols would be 6.4 GB."""
    rng = np.random.default_rng(0)
    model = Ngram(rng.integers(0, 4000, (9_500, 20)), symbols=4000, order=3)
    assert 150_000 < model.states <= 200_000
    assert sum(np.asarray(value).nbytes for value in model.tables) < 50e6
    log_probs, _ = model.tables.look_up(tf.constant([[model.start], [9]]), tf.range(4001)[None, :])
    np.testing.assert_allclose(np.exp(log_probs).sum(axis=1), 1.0, rtol=1e-4)
