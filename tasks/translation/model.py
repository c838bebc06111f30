"""The translator: a recurrent encoder-decoder with attention, and what it is trained towards."""

from __future__ import annotations

from collections.abc import Mapping

from common import decoding, encoder_decoder
from common.training.fit import Losses
from tasks.translation.config import Config
from tasks.translation.subwords import END, PAD, START

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
    """Cross-entropy of the next subword, smoothed, as `common.training.fit.fit` takes it.

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


def translate(
    model: keras.Model,
    ids: tf.Tensor,
    length: tf.Tensor,
    *,
    max_length: int,
    beam: int = 1,
    alpha: float = 0.0,
) -> decoding.Decoded:
    """Searches the best translations.

    Args:
      model: of `build`.
      ids: `<int32>[batch, time]`, sources with their end mark.
      length: `<int32>[batch]`.
      max_length: subwords of a translation at most; it also ends at twice its source's length and
        ten more.
      beam: hypotheses that are kept; 1 is greedy search.
      alpha: length normalisation of Wu et al. 2016.

    Returns:
      Translations without the end mark, `[batch, beam, ...]`, best first.
    """
    encoded = encoder_decoder.encode(model, ids, length)
    step = encoder_decoder.make_step(model, encoded, never=(PAD, START))
    start = tf.fill(tf.shape(length), START)
    limit = tf.minimum(2 * length + 10, max_length)
    chosen = {"end": END, "max_length": max_length, "limit": limit}
    if beam > 1:
        return decoding.beam_search(step, encoded.state, start, beam=beam, alpha=alpha, **chosen)
    found = decoding.greedy(step, encoded.state, start, **chosen)
    normal = found.score / decoding.length_penalty(found.length + 1, alpha)
    return decoding.Decoded(*(x[:, None] for x in found._replace(score=normal)))
