from tasks.sentiment.config import Config
from tasks.sentiment.targets import make_targets, smoothed, soft

import numpy as np
import scipy.stats
import tensorflow as tf


def test_targets_are_distributions_smoothed_towards_neighbours():
    rows = smoothed(Config(neighbour_smoothing=0.25, label_smoothing=0.0), 3)
    np.testing.assert_allclose(
        rows, [[0.8, 0.2, 0], [1 / 6, 2 / 3, 1 / 6], [0, 0.2, 0.8]], atol=1e-6
    )
    rows = smoothed(Config(label_smoothing=0.2), 5)
    np.testing.assert_allclose(rows, np.eye(5) * 0.8 + 0.04, atol=1e-6)


def test_soft_targets_are_the_probabilities_of_a_normal_error():
    ratings = np.array([-3.9, -1.4, 0.0, 1.6])
    bounds = np.array([-np.inf, -1.5, -0.5, 0.5, 1.5, np.inf])
    expected = np.diff(scipy.stats.norm.cdf(bounds, loc=ratings[:, None], scale=0.4))
    rows = soft(tf.constant(ratings, tf.float32), 0.4)
    np.testing.assert_allclose(rows, expected, atol=1e-6)
    config = Config(dataset="rated_texts", rating_spread=0.4, label_smoothing=0.1)
    batch = {"label": tf.constant([0, 1, 2, 4]), "rating": tf.constant(ratings, tf.float32)}
    target = make_targets(config, 5)(batch)["target"]
    np.testing.assert_allclose(target, expected * 0.9 + 0.02, atol=1e-6)


def test_sentences_weigh_more_than_phrases():
    config = Config(dataset="sst5", phrases=True, sentence_weight=4.0)
    batch = {"label": tf.constant([0, 1]), "part": tf.constant(["phrase", "sentence"])}
    assert make_targets(config, 5)(batch)["weight"].numpy().tolist() == [1.0, 4.0]


def test_phrases_of_two_classes_are_taught_by_their_ratings():
    config = Config(dataset="sst2", phrases=True, label_smoothing=0.0)
    batch = {
        "label": tf.constant([0, 0, 1]),
        "part": tf.constant(["phrase"] * 3),
        "rating": tf.constant([-4.0, 0.0, 2.0]),
    }
    target = make_targets(config, 2)(batch)["target"].numpy()
    assert target.tolist() == [[1.0, 0.0], [0.5, 0.5], [0.25, 0.75]]
