"""Random choice against published test vectors, NumPy, and the uniform distribution."""

from common import sampling

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf


@pytest.mark.parametrize(
    ("key", "counter", "expected"),
    [
        # The test vectors of Threefry-2x32-20 in Random123 (Salmon et al. 2011).
        ((0, 0), (0, 0), (0x6B200159, 0x99BA4EFE)),
        ((-1, -1), (-1, -1), (0x1CB996FC, 0xBB002BE7)),
        ((0x13198A2E, 0x03707344), (0x243F6A88, 0x85A308D3 - 2**32), (0xC4923A9C, 0x483DF7A0)),
    ],
)
def test_threefry_equals_published_test_vectors(key, counter, expected):
    words = [tf.bitcast(tf.constant([[x]], tf.int32), tf.uint32) for x in (*key, *counter)]
    words = sampling._threefry(words[:2], words[2:])
    assert [int(word[0, 0]) for word in words] == list(expected)


def test_uniform_numbers_are_uniform_and_depend_on_seed_and_place():
    seed = tf.constant([[7, 1], [7, 2]])
    numbers = sampling.uniform(seed, 3, 20_001).numpy()
    assert numbers.shape == (2, 20_001)
    assert numbers.min() >= 0.0 and numbers.max() < 1.0
    for row in numbers:
        assert scipy.stats.kstest(row, "uniform").pvalue > 1e-3
    assert abs(np.corrcoef(numbers)[0, 1]) < 0.03
    again = sampling.uniform(seed[1:], 3, 20_001).numpy()
    np.testing.assert_array_equal(again[0], numbers[1])
    other = sampling.uniform(seed, tf.constant([3, 4]), 20_001).numpy()
    np.testing.assert_array_equal(other[0], numbers[0])
    assert abs(np.corrcoef(other[1], numbers[1])[0, 1]) < 0.03


def test_filters_equal_numpy():
    rng = np.random.default_rng(0)
    scores = rng.normal(0.0, 2.0, (5, 9)).astype(np.float32)
    temperature = np.array([0.5, 1.0, 2.0, 1e4, 0.0], np.float32)
    top_k = np.array([0, 3, 5, 0, 0])
    top_p = np.array([0.9, 1.0, 0.5, 0.7, 1.0], np.float32)
    filtered = np.exp(
        sampling.filter_log_probabilities(
            tf.constant(scores), temperature=temperature, top_k=top_k, top_p=top_p
        )
    )
    for row in range(5):
        scaled = scores[row].astype(float) / max(temperature[row], 1e-6)
        probabilities = np.exp(scaled - scaled.max())
        probabilities /= probabilities.sum()
        order = np.argsort(-probabilities)
        within = np.cumsum(probabilities[order]) - probabilities[order] < top_p[row]
        within[0] = True
        if top_k[row]:
            within[top_k[row] :] = False
        if temperature[row] == 0:
            within[1:] = False
        expected = np.zeros(9)
        expected[order[within]] = probabilities[order[within]] / probabilities[order[within]].sum()
        np.testing.assert_allclose(filtered[row], expected, atol=1e-5)


def test_draw_never_returns_an_impossible_symbol():
    scores = tf.constant([[sampling.IMPOSSIBLE, 0.0, sampling.IMPOSSIBLE, 0.0, -1e9]] * 4)
    edges = tf.constant([0.0, 0.4999999, 0.5, 1.0 - 2.0**-23])
    assert sampling.draw(scores, edges).numpy().tolist() == [1, 1, 3, 3]


@pytest.mark.parametrize("symbols", [3, 50, 400, 401, 1003])
@pytest.mark.parametrize("kind", ["different", "equal"])
def test_the_best_symbols_equal_those_of_tensorflow(symbols, kind):
    generator = np.random.default_rng(symbols)
    scores = generator.normal(0.0, 1.0, (40, symbols))
    if kind == "equal":  # many ties
        scores = np.round(scores)
    scores[3] = -np.inf
    scores[4, : symbols // 2] = -np.inf
    scores = tf.constant(scores, tf.float32)
    count = min(10, symbols)

    def find_ten(scores):
        return sampling.best_symbols(scores, 10)

    of_any_size = tf.function(find_ten, input_signature=[tf.TensorSpec([None, None])])
    for find in (find_ten, of_any_size):
        broken = find(tf.fill([2, symbols], np.nan))[1].numpy()
        assert (broken >= 0).all() and (broken < symbols).all()
        for one, other in zip(find(scores), tf.math.top_k(scores, count), strict=True):
            np.testing.assert_array_equal(one[:, :count], other)
