"""N-gram models against counting."""

import itertools
import math
from collections import defaultdict

from common.ngram import Ngram

import numpy as np
import pytest


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


@pytest.mark.parametrize("order", [1, 2, 4])
def test_ngram_tables_hold_the_formula(order):
    model = Ngram(TRANSCRIPTS, symbols=2, order=order)
    counted = Counted(TRANSCRIPTS, 2, order)
    np.testing.assert_allclose(np.exp(model.log_probs).sum(axis=1), 1.0, rtol=1e-5)
    for text in itertools.chain.from_iterable(
        itertools.product(range(2), repeat=n) for n in range(6)
    ):
        state, total = model.start, 0.0
        for symbol in text:
            total += model.log_probs[state, symbol]
            state = model.next_state[state, symbol]
        total += model.log_probs[state, -1]
        assert float(total) == pytest.approx(counted.log_probability(text), abs=1e-4)


def test_ngram_equals_its_docstring_example():
    model = Ngram([[0, 1, 1], [0, 1]], symbols=2, order=3)
    probabilities = np.exp(model.log_probs[model.start]).round(2).tolist()
    assert probabilities == pytest.approx([0.77, 0.13, 0.1], abs=1e-6)


def test_ngram_drops_rare_histories():
    full = Ngram(TRANSCRIPTS, symbols=2, order=4)
    small = Ngram(TRANSCRIPTS, symbols=2, order=4, min_count=3)
    limited = Ngram(TRANSCRIPTS, symbols=2, order=4, max_states=6)
    assert full.log_probs.shape[0] > small.log_probs.shape[0] > 2
    # One more than `max_states`: the empty history and the start of a text are always states.
    assert limited.log_probs.shape[0] <= 7
    for model in (small, limited):
        np.testing.assert_allclose(np.exp(model.log_probs).sum(axis=1), 1.0, rtol=1e-5)
        assert model.next_state.numpy().max() < model.log_probs.shape[0]


def test_ngram_of_no_text_is_uniform():
    model = Ngram([], symbols=3, order=3)
    np.testing.assert_allclose(np.exp(model.log_probs[model.start]), 0.25, rtol=1e-6)
