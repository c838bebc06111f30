"""The recogniser: log-mel frames, strided convolutions, a deep RNN and CTC.

    any sound file -> mono, 16 kHz         soundfile and soxr, outside the graph
      -> log-mel frames                    in the graph (`features`)
      -> two strided convolutions          over time and frequency; a step every 30 or 40 ms
      -> bidirectional LSTM or GRU, deep   192 or 256 units each way, residual, dropout between
      -> softmax over letters and blank    CTC (Graves et al. 2006), true lengths
      -> prefix beam search                over the frames that are not certainly blank, with a
                                           letter n-gram model of the training transcripts, as
                                           tables inside the graph (`language_model`)

With `--streaming` the RNN reads forwards alone; see `tasks.speech.streaming`.

In training (`augmentation`) a recording is played up to 10 % faster or slower. Half of the
recordings get silence around them (up to `--silence` seconds), four of five noise of a random
colour, and stretches of time and frequency are hidden (SpecAugment, Park et al. 2019). Some get the
echo of a room (`--rooms`) or lose the frequencies that a telephone does not have (`--telephone`).
A few (`--nothing`) are replaced by noise or silence without a text, so that a model leaves noise
without one. Adam, a learning rate that rises and falls along half a cosine, and a moving average of
the weights, which is scored and exported.

Recordings from which nothing can be learned are skipped, counted and listed: too long, without a
letter, or too short for their transcripts (CTC needs a step for each letter and one more between
equal letters). A recording that would be too short when played faster keeps its speed.
"""

from __future__ import annotations

from collections.abc import Mapping

from common import ctc
from common.rnn import length_mask, stack
from tasks.speech.config import Config
from tasks.speech.features import LogMel, SpecAugment, Subsample

import keras
import tensorflow as tf

HEAD = "head"  # the layer that `--init` replaces if the letters differ


def build(config: Config, *, symbols: int) -> keras.Model:
    """Build the recogniser.

    Args:
      config: the architecture.
      symbols: number of letters; the blank is the symbol after them.

    Returns:
      A functional model. Its inputs are `audio` `<float32>[batch, samples]` in -1..1 at 16 kHz and
      `length` `<int32>[batch]` in samples. Its outputs are `log_probs`
      `<float32>[batch, steps, symbols + 1]`, `frames` `<int32>[batch]`, the number of valid steps
      of each row, and `log_mel` `<float32>[batch, frames, bands]`, one frame every 10 ms.

    Example:
      >>> model = build(Config(units=8, layers=1, channels=4, bands=16), symbols=27)
      >>> outputs = model({"audio": tf.zeros([1, 16_000]), "length": tf.constant([16_000])})
      >>> outputs["log_probs"].shape
      TensorShape([1, 25, 28])
    """
    audio = keras.Input((None,), dtype="float32", name="audio")
    length = keras.Input((), dtype="int32", name="length")
    log_mel, frames = LogMel(config.bands, running=config.streaming, name="log_mel")(audio, length)
    x = SpecAugment(
        config.time_masks,
        config.time_share,
        config.band_masks,
        config.band_width,
        seed=config.seed,
        name="augment",
    )(log_mel, frames)
    subsample = Subsample(
        config.channels, config.strides, causal=config.streaming, name="subsample"
    )
    x, steps = subsample(x, frames)
    x = keras.layers.LayerNormalization(name="norm")(x)
    encoder = stack(
        config.cell,
        config.units,
        config.layers,
        bidirectional=not config.streaming,
        dropout=config.dropout,
        residual=True,
        return_state=config.streaming,
        name="encoder",
    )
    x = encoder(x, mask=length_mask(steps, x))
    x = x[0] if config.streaming else x
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
    """Compute the CTC loss of each row, for `common.training.fit.fit`.

    Args:
      outputs: the outputs of the model.
      batch: `label` `<int32>[batch, letters]` and `label_length` `<int32>[batch]`.

    Returns:
      The negative log-likelihood of each transcript, and its number of letters (at least 1) as the
      weight; both `<float32>[batch]`.
    """
    length = batch["label_length"]
    labels = batch["label"][:, : tf.maximum(tf.reduce_max(length), 1)]
    values = ctc.loss(outputs["log_probs"], labels, outputs["frames"], length)
    return values, tf.cast(tf.maximum(length, 1), tf.float32)  # 1 where nothing is said
