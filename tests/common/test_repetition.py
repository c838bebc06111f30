"""Repeated runs of symbols, against a search in Python."""

from common import decoding, repetition

import numpy as np
import tensorflow as tf


def begins_third_time(sequence):
    """Return whether the last symbol begins a run that stands twice before it."""
    return any(
        sequence[-1 - size : -1] == sequence[-1 - 2 * size : -1 - size]
        and sequence[-1] == sequence[-1 - size]
        for size in range(1, repetition.LONGEST_RUN + 1)
        if len(sequence) > 2 * size
    )


def test_sequences_with_a_third_run_equal_those_found_in_python():
    generator = np.random.default_rng(0)
    tokens = generator.integers(0, 3, (400, 9)).astype(np.int32)
    length = generator.integers(0, 10, 400).astype(np.int32)
    found = repetition.has_third_run(tf.constant(tokens), tf.constant(length)).numpy()
    for row, count, has_run in zip(tokens.tolist(), length, found, strict=True):
        assert has_run == any(begins_third_time(row[:end]) for end in range(1, count + 1))
    assert 0.1 < found.mean() < 0.9
    for size in (1, 4, repetition.LONGEST_RUN):
        run = list(range(size))
        for row, expected in (([*run, *run, 0], True), ([*run, *run, 9, 0], False)):
            assert bool(repetition.has_third_run(tf.constant([row]), tf.constant([99]))) == expected
    assert not bool(repetition.has_third_run(tf.zeros([1, 0], tf.int32), tf.constant([0])))


def test_symbols_that_begin_a_third_run_equal_those_found_in_python():
    generator = np.random.default_rng(1)
    tokens = generator.integers(0, 3, (30, 4, 12)).astype(np.int32)
    may = np.arange(30) % 5 == 0
    for position in (0, 1, 2, 5, 12):
        found = repetition.third_runs(tf.constant(tokens), tf.constant(position), tf.constant(may))
        for row, symbols in enumerate(found.numpy().reshape(30, 4, -1)):
            for known, banned in zip(tokens[row, :, :position].tolist(), symbols, strict=True):
                expected = {symbol for symbol in range(3) if begins_third_time([*known, symbol])}
                assert set(banned.tolist()) - {-1} == (set() if may[row] else expected)


def test_the_search_repeats_nothing_but_where_it_may():
    """A model that always prefers 5, then 4, and rarely ends."""
    scores = tf.nn.log_softmax(tf.math.log([0.05, 0.05, 1e-4, 0.1, 0.3, 0.5]))

    def step(state, token):
        return state, tf.tile(scores[None], [tf.shape(token)[0], 1])

    for beam in (1, 4):
        decoded = decoding.beam_search(
            *(step, (), tf.zeros([2], tf.int32)),
            end=2,
            max_length=12,
            beam=beam,
            alpha=1.0,
            may_repeat=tf.constant([True, False]),
        )
        free, other = (
            decoded.tokens.numpy()[row, 0, : decoded.length.numpy()[row, 0]] for row in (0, 1)
        )
        assert free.tolist() == [5] * 12
        assert not any(begins_third_time(other.tolist()[:end]) for end in range(1, 13))
        # The score is the log-probability under the model.
        expected = sum(float(scores[symbol]) for symbol in [*other, 2])
        expected /= float(decoding.length_penalty(tf.constant(len(other) + 1), 1.0))
        np.testing.assert_allclose(decoded.score[1, 0], expected, rtol=1e-5)
