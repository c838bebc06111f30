"""The recogniser: log-mel frames, strided convolutions, deep bidirectional RNN, CTC."""

from __future__ import annotations

from collections.abc import Mapping

from common import ctc
from common.rnn import length_mask, stack
from tasks.speech.config import Config
from tasks.speech.features import LogMel, SpecAugment, Subsample

import keras
import tensorflow as tf

HEAD = "head"  # the layer that `--init` replaces where the letters differ


def build(config: Config, *, symbols: int) -> keras.Model:
    """Builds the recogniser.

    Args:
      config: the architecture.
      symbols: how many letters there are; the blank comes behind them.

    Returns:
      A functional model. Inputs: `audio` `<float32>[batch, samples]` in -1..1 at 16 kHz, `length`
      `<int32>[batch]` in samples. Outputs: `log_probs` `<float32>[batch, steps, symbols + 1]`,
      `frames` `<int32>[batch]`, the real steps of each row, and `log_mel` `<float32>[batch, 10 ms
      frames, bands]`.
    """
    audio = keras.Input((None,), dtype="float32", name="audio")
    length = keras.Input((), dtype="int32", name="length")
    log_mel, frames = LogMel(config.bands, name="log_mel")(audio, length)
    x = SpecAugment(
        config.time_masks,
        config.time_share,
        config.band_masks,
        config.band_width,
        seed=config.seed,
        name="augment",
    )(log_mel, frames)
    x, steps = Subsample(config.channels, config.strides, name="subsample")(x, frames)
    x = keras.layers.LayerNormalization(name="norm")(x)
    x = stack(
        config.cell,
        config.units,
        config.layers,
        bidirectional=True,
        dropout=config.dropout,
        residual=True,
        name="encoder",
    )(x, mask=length_mask(steps, x))
    x = keras.layers.Dropout(config.dropout, name="dropout")(x)
    logits = keras.layers.Dense(symbols + 1, dtype="float32", name=HEAD)(x)
    return keras.Model(
        {"audio": audio, "length": length},
        {
            "log_probs": keras.ops.log_softmax(logits),
            "frames": steps,
            "log_mel": log_mel,
        },
        name="speech",
    )


def losses(
    outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """CTC per letter, as `common.training.fit.fit` takes it."""
    length = batch["label_length"]
    labels = batch["label"][:, : tf.reduce_max(length)]
    values = ctc.loss(outputs["log_probs"], labels, outputs["frames"], length)
    return values, tf.cast(length, tf.float32)
