"""A stream of sound, chunk by chunk: the network of a model of `--streaming` with its state.

A chunk has up to 320 ms, a whole number of steps of the network. Its log-probabilities are those
that the network has for the whole recording, since no layer looks ahead. What later chunks need of
earlier ones is one vector a row, which the caller keeps: zeros at the start of an utterance. So a
server keeps nothing between two requests. Two signatures of the export do this:

    stream    audio [batch, samples], the next `chunk_samples` of each row
              state [batch, state_size]
              -> log_probs [batch, steps, letters + 1] of the chunk, the next state
    decode    log_probs of all chunks so far, frames [batch], how many steps are real
              -> text, confidence

`chunk_samples` and `state_size` stand in `assets.extra/config.json`. The text so far is as old as a
chunk and its computation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from common.serving.targets import choose_rows, fit
from tasks.speech.features import HOP, WINDOW, mel_energies, normalise_running

import keras
import tensorflow as tf

LONGEST = 32  # frames of a chunk, 320 ms


def chunk_samples(strides: Sequence[int]) -> int:
    """Return the samples of a chunk.

    Example:
      >>> chunk_samples((2, 2)), chunk_samples((3, 1))
      (5120, 4800)
    """
    step = math.prod(strides)
    return HOP * step * max(LONGEST // step, 1)


class Stream:
    """The network of a model of `--streaming`.

    Args:
      model: a model of `tasks.speech.model.build`.

    Attributes:
      chunk: samples of a chunk.
      size: width of the state.
    """

    def __init__(self, model: keras.Model):
        self.bands = model.get_layer("log_mel").bands
        self.subsample, self.norm, self.encoder, self.head = (
            model.get_layer(name) for name in ("subsample", "norm", "encoder", "head")
        )
        self.step = HOP * math.prod(self.subsample.strides)
        self.chunk = chunk_samples(self.subsample.strides)
        widths = [size for layer in self.encoder.layers for size in layer.state_size]
        self._shapes: list[tuple[int, ...]] = [
            (WINDOW - HOP,),
            (1 + 2 * self.bands,),
            *self.subsample.context_shapes(self.bands),
            *((width,) for width in widths),
        ]
        self.size = sum(map(math.prod, self._shapes))

    def __call__(
        self, audio: tf.Tensor, state: tf.Tensor, loudest: float
    ) -> tuple[tf.Tensor, tf.Tensor]:
        """Read a chunk.

        Args:
          audio: `<float32>[batch, samples]`; padded by zeros to one step, and cut to whole steps.
          state: `<float32>[batch, size]`. One that is not finite counts as a start.
          loudest: a chunk with a larger sample, or with NaN, counts as silence.

        Returns:
          `<float32>[batch, steps, letters + 1]`, the log-probabilities, and the next state.
        """
        audio = fit(audio, self.step * tf.maximum(tf.shape(audio)[1] // self.step, 1))
        audio = choose_rows(tf.reduce_all(tf.abs(audio) <= loudest, axis=1), audio)
        state = choose_rows(tf.reduce_all(tf.math.is_finite(state), axis=1), state)
        tail, sums, *rest = self._unpack(state)
        contexts, states = rest[:2], rest[2:]
        audio = tf.concat([tail, audio], axis=1)
        values, sums = normalise_running(mel_energies(audio, self.bands), sums)
        x, contexts = self.subsample.advance(values, contexts)
        x, *states = self.encoder(self.norm(x), initial_state=states)
        log_probs = tf.nn.log_softmax(self.head(x))
        tail = audio[:, tf.shape(audio)[1] - (WINDOW - HOP) :]
        parts = [tf.cast(part, tf.float32) for part in (tail, sums, *contexts, *states)]
        flat = [tf.reshape(part, [tf.shape(part)[0], -1]) for part in parts]
        return log_probs, tf.concat(flat, axis=1)

    def _unpack(self, state: tf.Tensor) -> Iterator[tf.Tensor]:
        """Yield the parts of a state in their shapes."""
        parts = tf.split(state, [math.prod(shape) for shape in self._shapes], axis=1)
        for part, shape in zip(parts, self._shapes, strict=True):
            yield tf.reshape(part, [-1, *shape])
