"""The classifier: embedding, bidirectional recurrent layers, pooling over time, softmax."""

from __future__ import annotations

from collections.abc import Mapping

from common.attention import MaskedPooling
from common.rnn import length_mask, stack
from common.text import WordEmbedding
from tasks.sentiment.config import Config

import keras
import numpy as np
import tensorflow as tf

HEAD = "head"  # the layer that `--init` replaces where the classes differ


def build(
    config: Config, *, words: int, learnt_words: int, dimension: int, classes: int
) -> keras.Model:
    """Builds the classifier.

    Args:
      config: the architecture.
      words: size of the vocabulary.
      learnt_words: how many of them, from id 0 on, stand in the training text.
      dimension: of the word vectors.
      classes: how many, in order from worst to best.

    Returns:
      A functional model. Inputs: `ids` `<int32>[batch, time]`, `length` `<int32>[batch]`; outputs:
      `probabilities` `<float32>[batch, classes]` and `attention` `<float32>[batch, time]`, the
      share that each word has in the pooled text.
    """
    ids = keras.Input((None,), dtype="int32", name="ids")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, ids)
    embedding = WordEmbedding(
        words, learnt_words, dimension, word_dropout=config.word_dropout, name="embedding"
    )
    x = keras.layers.SpatialDropout1D(config.embedding_dropout)(embedding(ids))
    x = stack(
        config.cell,
        config.units,
        config.layers,
        bidirectional=True,
        dropout=config.dropout,
        name="encoder",
    )(x, mask=mask)
    pooled, weights = zip(
        *(MaskedPooling(mode, name=f"pool_{mode}")(x, mask=mask) for mode in config.pooling),
        strict=True,
    )
    features = pooled[0] if len(pooled) == 1 else keras.layers.Concatenate()(pooled)
    attention = weights[0] if len(weights) == 1 else keras.layers.Average()(weights)
    features = keras.layers.Dropout(config.head_dropout)(features)
    logits = keras.layers.Dense(classes, dtype="float32", name=HEAD)(features)
    probabilities = keras.layers.Softmax(dtype="float32", name="probabilities")(logits)
    return keras.Model(
        {"ids": ids, "length": length},
        {"probabilities": probabilities, "attention": attention},
        name="sentiment",
    )


def targets(config: Config, classes: int) -> np.ndarray:
    """The distribution that each class is trained towards, `<float32>[classes, classes]`.

    Example:
      >>> targets(dataclasses.replace(config, neighbour_smoothing=0.25), 3).round(2)
      [[0.8, 0.2, 0.0], [0.17, 0.67, 0.17], [0.0, 0.2, 0.8]]
    """
    distance = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    rows = np.where(distance == 0, 1.0, np.where(distance == 1, config.neighbour_smoothing, 0.0))
    rows /= rows.sum(axis=1, keepdims=True)
    rows = rows * (1.0 - config.label_smoothing) + config.label_smoothing / classes
    return rows.astype(np.float32)


def make_losses(config: Config, classes: int):
    """Cross-entropy against `targets`, in the form that `common.training.fit` takes."""
    table = tf.constant(targets(config, classes))

    def losses(
        outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        probabilities = tf.clip_by_value(outputs["probabilities"], 1e-7, 1.0)
        wanted = tf.gather(table, batch["label"])
        values = -tf.reduce_sum(wanted * tf.math.log(probabilities), axis=-1)
        return values, tf.ones_like(values)

    return losses
