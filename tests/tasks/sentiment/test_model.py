from common.word_embedding import WordEmbedding
from tasks.sentiment import model
from tasks.sentiment.config import Config

import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_padding_never_affects_the_result(cell):
    pooling = ("mean", "max", "last", "attention")  # their results side by side
    config = Config(units=5, layers=2, cell=cell, pooling=pooling, members=2)
    embedding = WordEmbedding(9, 9, 4, members=2)
    built = model.build(config, embedding, classes=3)
    embedding.set_fixed(np.random.default_rng(0).normal(size=(9, 4)))
    ids, length = np.array([[3, 4, 5], [6, 0, 0]], np.int32), np.array([3, 1], np.int32)
    plain = built({"ids": ids, "length": length})
    padded = built({"ids": np.pad(ids, [(0, 0), (0, 4)], constant_values=7), "length": length})
    for name in plain:
        values = padded[name][:, :3] if name == "attention" else padded[name]
        np.testing.assert_allclose(values, plain[name], atol=1e-6)
    np.testing.assert_allclose(plain["probabilities"], np.mean(plain["members"], axis=1), atol=1e-6)


def test_losses_equal_cross_entropy_by_scikit_learn():
    config = Config(label_smoothing=0.0)
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(5), (40, 2))
    labels = random.integers(0, 5, 40)
    values, weights = model.make_losses(config, 5)(
        {"members": tf.constant(probabilities, tf.float32)}, {"label": tf.constant(labels)}
    )
    expected = sum(
        sklearn.metrics.log_loss(labels, probabilities[:, member], labels=range(5))
        for member in range(2)
    )
    np.testing.assert_allclose(np.sum(values) / np.sum(weights), expected, rtol=1e-5)


def test_targets_are_distributions_smoothed_towards_neighbours():
    rows = model.targets(Config(neighbour_smoothing=0.25, label_smoothing=0.0), 3)
    np.testing.assert_allclose(
        rows, [[0.8, 0.2, 0], [1 / 6, 2 / 3, 1 / 6], [0, 0.2, 0.8]], atol=1e-6
    )
    rows = model.targets(Config(label_smoothing=0.2), 5)
    np.testing.assert_allclose(rows, np.eye(5) * 0.8 + 0.04, atol=1e-6)
