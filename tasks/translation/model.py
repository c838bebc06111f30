"""The translator: a recurrent encoder-decoder with attention, and what it is trained towards."""

from __future__ import annotations

from collections.abc import Mapping

from common import encoder_decoder
from common.training import Losses
from tasks.translation.config import Config

import keras
import tensorflow as tf


def build(config: Config, *, source_size: int, target_size: int) -> keras.Model:
    """Builds the translator; see `common.encoder_decoder.build` for its inputs and outputs."""
    return encoder_decoder.build(
        source_size=source_size,
        target_size=target_size,
        shared=config.shared_subwords,
        embedding=config.embedding,
        cell=config.cell,
        units=config.units,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        attention=config.attention,
        input_feeding=config.input_feeding,
        dropout=config.dropout,
        name="translation",
    )


def make_losses(model: keras.Model, *, label_smoothing: float) -> Losses:
    """Cross-entropy of the next subword, smoothed, as `common.training.fit` takes it.

    Against a target of which the share `s` is spread over all subwords it is

        (1 - s) (lse(z) - z_y) + s (lse(z) - mean(z)) = lse(z) - z_y + s (z_y - mean(z))

    with `z` the scores and `y` the subword. Only `lse(z)` needs all scores; `z_y` is one row of
    the embedding, `mean(z)` its mean row. Scores are taken at real steps only.
    """
    embedding = encoder_decoder.token_embedding(model)

    def losses(
        outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        labels, length = batch["labels"], batch["target_length"]
        real = tf.sequence_mask(length, tf.shape(labels)[1])
        answers = tf.boolean_mask(outputs["answers"], real)
        wanted = tf.boolean_mask(labels, real)
        scores = tf.cast(embedding(answers, reverse=True), tf.float32)
        values = tf.nn.sparse_softmax_cross_entropy_with_logits(wanted, scores)
        if label_smoothing:
            answers = tf.cast(answers, tf.float32)
            table = tf.convert_to_tensor(embedding.embeddings)
            above_mean = tf.gather(table, wanted) - tf.reduce_mean(table, axis=0)
            values += label_smoothing * tf.reduce_sum(answers * above_mean, axis=-1)
        rows = tf.repeat(tf.range(tf.shape(length)[0]), length)
        sums = tf.math.segment_sum(values, rows)
        return sums, tf.cast(length, tf.float32)

    return losses
