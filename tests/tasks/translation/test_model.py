"""The translation model and its loss."""

from tasks.translation import model
from tasks.translation.config import Config

import keras
import numpy as np
import tensorflow as tf


def test_losses_equal_keras_smoothed_cross_entropy():
    config = Config(embedding=6, units=8, label_smoothing=0.1)
    built = model.build(config, source_size=11, target_size=11)
    generator = np.random.default_rng(0)
    length = np.array([4, 2, 1], np.int32)
    batch = {"labels": generator.integers(0, 11, (3, 4)).astype(np.int32), "target_length": length}
    answers = generator.normal(size=(3, 4, 6)).astype(np.float32)
    losses = model.make_losses(built, label_smoothing=0.1)
    values, weights = losses(
        {"answers": tf.constant(answers)}, {k: tf.constant(v) for k, v in batch.items()}
    )
    table = built.get_layer("target_embedding").get_weights()[0]
    scores = answers @ table.T
    for row, count in enumerate(length):
        expected = keras.losses.CategoricalCrossentropy(
            from_logits=True, label_smoothing=0.1, reduction="sum"
        )(np.eye(11)[batch["labels"][row, :count]], scores[row, :count])
        np.testing.assert_allclose(values[row], expected, rtol=1e-5)
    assert weights.numpy().tolist() == [4.0, 2.0, 1.0]
