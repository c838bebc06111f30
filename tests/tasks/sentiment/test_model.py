from common.word_embedding import WordEmbedding
from tasks.sentiment import model
from tasks.sentiment.config import Config

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_padding_never_affects_the_result(cell):
    pooling = ("mean", "max", "last", "attention")  # their results side by side
    config = Config(units=5, layers=2, cell=cell, pooling=pooling, members=2)
    embedding = WordEmbedding(9, 9, 4)
    built = model.build(config, embedding, classes=3)
    embedding.set_fixed(np.random.default_rng(0).normal(size=(9, 4)))
    ids, length = np.array([[3, 4, 5], [6, 0, 0]], np.int32), np.array([3, 1], np.int32)
    plain = built({"ids": ids, "length": length})
    padded = built({"ids": np.pad(ids, [(0, 0), (0, 4)], constant_values=7), "length": length})
    for name in plain:
        values = padded[name][:, :3] if name == "attention" else padded[name]
        np.testing.assert_allclose(values, plain[name], atol=1e-6)
    np.testing.assert_allclose(plain["probabilities"], np.mean(plain["members"], axis=1), atol=1e-6)


def test_losses_equal_weighted_cross_entropy_by_scikit_learn():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(5), (40, 2))
    labels, weight = random.integers(0, 5, 40), random.uniform(0.5, 2.0, 40)
    values, weights = model.losses(
        {"members": tf.constant(probabilities, tf.float32)},
        {"target": tf.one_hot(labels, 5), "weight": tf.constant(weight, tf.float32)},
    )
    expected = sum(
        sklearn.metrics.log_loss(
            labels, probabilities[:, member], labels=range(5), sample_weight=weight
        )
        for member in range(2)
    )
    np.testing.assert_allclose(np.sum(values) / np.sum(weights), expected, rtol=1e-5)


def test_a_packed_model_returns_nearly_the_same_and_can_be_unpacked():
    keras.utils.set_random_seed(1)
    config = Config(units=5, members=2)
    embedding = WordEmbedding(9, 6, 4, subwords=3, subwords_of_word=2, name="embedding")
    built = model.build(config, embedding, classes=3)
    random = np.random.default_rng(0)
    table = random.integers(0, 4, (9, 2))
    matrix = random.normal(size=(9, 4)).astype(np.float32)
    embedding.fill(matrix, counts=np.ones(6), rare=1.0, table=table)
    for weight in (embedding.learnt, embedding.parts):
        weight.assign(random.normal(size=weight.shape))
    packed = model.pack(built, config)
    assert packed.get_layer(model.EMBEDDING).learnt.dtype == "int8"
    inputs = {"ids": random.integers(0, 9, (4, 7)), "length": np.array([7, 2, 3, 1])}
    expected = built(inputs)["probabilities"]
    np.testing.assert_allclose(packed(inputs)["probabilities"], expected, atol=0.01)
    again = packed.get_layer(model.EMBEDDING).pack(packed=False)
    assert again.learnt.trainable and not packed.get_layer(model.EMBEDDING).trainable_variables
    largest = float(np.abs(embedding.learnt).max())  # 7 steps of the 4 bits
    np.testing.assert_allclose(again.learnt, embedding.learnt, atol=largest / 14)
    np.testing.assert_allclose(again.use, embedding.use)
