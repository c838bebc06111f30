"""A small network over the keys of a frame that decides which held keys are struck again.

A key that sounds in two consecutive frames is either held or struck again. Given all keys of the
frame, the held ones are decided from the lowest to the highest, each given those below it:

    P(strikes | frame, past) = product over the held keys k of P(strike k | strikes below k, ...)
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tasks.music.features import LAGS, RUN_GROUPS, Past, group_runs, sounding_keys

import keras
import tensorflow as tf

REACH = 12  # keys on each side of a key that are visible
BELOW = 3  # groups of the number of lower keys that are struck, or held: 0, 1, more
UNITS = 24


@keras.saving.register_keras_serializable("tasks.music")
class Strikes(keras.layers.Layer):
    """The log-odds that each held key is struck again.

    Its hidden layer has the same weights for every key. Its input is the neighbourhood of the key
    in this frame and in earlier ones, what was struck, how many lower keys are struck or held in
    this frame, and the state of the recurrent network.

    Args:
      low: the lowest key of the training data.
      high: the highest key of the training data.
    """

    def __init__(self, low: int, high: int, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.low, self.high = low, high
        self.supports_masking = True

    def build(self, state_shape: Sequence[Any], *_: Any) -> None:
        """Create the weights."""
        planes, width = 1 + len(LAGS) + 2 + 3, state_shape[-1]

        def weight(name: str, *shape: int, fan_in: int = 1, initializer: Any = None) -> Any:
            scale = keras.initializers.RandomNormal(stddev=fan_in**-0.5)
            return self.add_weight(shape, initializer or scale, name=name)

        self.around = weight("around", 2 * REACH + 1, planes, UNITS, fan_in=16)
        self.from_state = weight("from_state", width, UNITS, fan_in=4 * width)
        self.repeats = weight("repeats", 2 * RUN_GROUPS, UNITS, fan_in=16)
        self.below = weight("below", 2 * BELOW, UNITS, fan_in=4)
        self.bias = weight("bias", UNITS, initializer="zeros")
        self.out = weight("out", UNITS, fan_in=UNITS)
        self.offset = weight("offset", initializer=keras.initializers.Constant(-2.0))

    def prepare(self, state: tf.Tensor, past: Past, sounding: tf.Tensor) -> tf.Tensor:
        """Compute all that does not depend on the strikes of the frame.

        Args:
          state: `<float>[rows, width]`, the output of the recurrent network.
          past: the features of the same rows.
          sounding: `<float>[rows, 88]`, 1 where a key sounds in the frame.

        Returns:
          `<float>[rows, keys, units]`, for the keys `low..high`.
        """
        planes = [tf.cast(value, tf.float32) for value in (past.planes, past.strikes)]
        seen = tf.concat([sounding[..., None], *planes], axis=-1)
        padded = tf.pad(seen, [[0, 0], [REACH, REACH], [0, 0]])
        padded = padded[:, self.low : self.high + 1 + 2 * REACH]
        groups = tf.concat([group_runs(past.runs[:, kind]) for kind in range(2)], axis=-1)
        alone = tf.cast(state, tf.float32) @ self.from_state + groups @ self.repeats + self.bias
        return tf.nn.conv1d(padded, self.around, 1, "VALID") + alone[:, None]

    def logits(self, prepared: tf.Tensor, held: tf.Tensor, struck: tf.Tensor) -> tf.Tensor:
        """Compute the log-odds of each key.

        Args:
          prepared: the result of `prepare`.
          held: `<float>[rows, 88]`, 1 where a key sounds in this frame and in the one before.
          struck: `<float>[rows, 88]`, 1 where it is struck again; each key depends on those below.

        Returns:
          `<float>[rows, 88]`; 0 outside `low..high`.
        """
        features = []
        for kind in (struck, held - struck):
            count = tf.cast(tf.cumsum(kind, axis=-1, exclusive=True), tf.int32)
            features.append(tf.one_hot(tf.minimum(count, BELOW - 1), BELOW))
        below = tf.concat(features, axis=-1)[:, self.low : self.high + 1]
        x = tf.nn.relu(prepared + below @ self.below)
        logits = tf.linalg.matvec(x, self.out) + self.offset
        return tf.pad(logits, [[0, 0], [self.low, struck.shape[-1] - 1 - self.high]])

    def call(
        self,
        state: Any,
        planes: Any,
        runs: Any,
        step: Any,
        strikes: Any,
        notes: Any,
        real: Any,
    ) -> Any:
        """Compute the log-odds of whole sequences, given the true lower keys.

        Args:
          state: `<float>[batch, time, width]`, the output of the recurrent network.
          planes: see `Past`.
          runs: see `Past`.
          step: see `Past`.
          strikes: see `Past`.
          notes: `<float>[batch, time, 88]`, the true frames.
          real: `<bool>[batch, time]`, the frames that are not padding.

        Returns:
          `<float>[batch, time, 88]`, 0 at padding.
        """
        indices = tf.where(real)
        state, planes, runs, step, strikes, rows = (
            tf.gather_nd(value, indices) for value in (state, planes, runs, step, strikes, notes)
        )
        past = Past(planes, runs, step, strikes)
        prepared = self.prepare(state, past, sounding_keys(rows))
        logits = self.logits(prepared, *held_and_struck(rows, planes[..., 0]))
        return tf.scatter_nd(indices, logits, tf.shape(notes, tf.int64))

    def compute_output_spec(self, *args: Any, **_: Any) -> Any:
        """Return the shape of the log-odds."""
        return keras.KerasTensor(args[5].shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "low": self.low, "high": self.high}


def held_and_struck(notes: tf.Tensor, last: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return which keys sound on from the frame before, and which of these are struck again.

    Args:
      notes: `<float>[..., 88]`, frames; see `tasks.music.midi`.
      last: `<float>[..., 88]`, the keys that sound in the frame before each, 0 or 1.

    Returns:
      Two tensors `<float>[..., 88]`, 0 or 1.
    """
    held = sounding_keys(notes) * tf.cast(last, tf.float32)
    return held, held * tf.cast(notes > 1.5, tf.float32)
