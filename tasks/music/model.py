"""The model: a recurrent network over frames, and a network over the keys of a frame.

A frame is the set of piano keys that sound during one time step, and which of them are struck. At
each step the recurrent network (`common.rnn.stack`) reads the features of the past
(`tasks.music.features`). The layer `Keys` then computes the probability of each key. It has the
same weights for every key and sees its neighbourhood, as in Johnson (2017). With the head `joint`,
it also sees the lower keys of the same frame, as in Boulanger-Lewandowski et al. (2012). This
factorisation is exact:

    P(frame | past) = product over the keys k of P(key k | keys below k, past)

    frames so far
      -> features of the past        the frames 1, 2, 3, 4, 8 and 16 steps back; the frame that
                                     followed the longest repeat; the place in bars
      -> two LSTM layers of 200      step by step
      -> a network over the keys     two hidden layers whose weights all 88 keys share: 12
                                     keys around in those frames, the state of the LSTM, the key
           head `joint` (default)    ... and 36 keys below in the same frame, their number,
                                     intervals and voices
           head `independent`        nothing of the same frame
      -> 88 probabilities            exact for both heads
      -> a smaller network           whether each key that sounds on is held or struck again
                                     (`strikes`)

`nll` is that of the keys alone, as in the published results; `strike_nll` is that of the strikes.
Keys that never sound in the training data have the probability 1 / (frames + 2).

It is trained with Adam, a learning rate that falls along half a cosine, dropout, and a moving
average of the weights, which is scored and exported. `--members N` trains several networks and
averages the probabilities of each key.

References:
  - Boulanger-Lewandowski, Bengio and Vincent, 2012: Modeling temporal dependencies in
    high-dimensional sequences (https://arxiv.org/abs/1206.6392)
  - Johnson, 2017: Generating polyphonic music using tied parallel networks
    (https://doi.org/10.1007/978-3-319-55750-2_9)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from common.rnn import length_mask, stack
from tasks.music.config import Config
from tasks.music.features import (
    LAGS,
    RUN_GROUPS,
    LookBack,
    Outlook,
    Past,
    group_runs,
    sounding_keys,
)
from tasks.music.midi import KEYS
from tasks.music.strikes import Strikes, held_and_struck

import keras
import numpy as np
import tensorflow as tf

VOICES = 8  # notes of a frame, counted from the lowest, that are distinguished
TRACED = 3  # earlier frames in which the voice of a note is looked up
REACH = 12  # keys on each side of a key that are visible in earlier frames
BELOW = 36  # keys below a key that are visible in the same frame
AHEAD = 3  # largest difference of note counts, between a frame and the last one, that is encoded
MISSES = 3  # groups of the number of differences from an earlier frame: 0, 1, more
FOLLOWED = (0, -2, -1)  # planes of `Past` that a frame may repeat: the last frame, the two copies


# --- the keys of a frame --------------------------------------------------------------------------


def count_below(notes: tf.Tensor) -> tf.Tensor:
    """Return the number of notes below each key, `<int32>[..., 88]`.

    Example:
      >>> count_below(tf.constant([[1.0, 0.0, 1.0, 0.0]])).numpy()
      array([[0, 1, 1, 2]], dtype=int32)
    """
    return tf.cast(tf.cumsum(notes, axis=-1, exclusive=True), tf.int32)


def voice_keys(notes: tf.Tensor) -> tf.Tensor:
    """Return the keys of the notes of a frame in ascending order.

    Args:
      notes: `<float>[rows, 88]`.

    Returns:
      `<int32>[rows, VOICES + 1]`; `-KEYS` for missing voices and for the last entry.

    Example:
      >>> voice_keys(tf.one_hot([40], 88) + tf.one_hot([60], 88)).numpy()
      array([[ 40,  60, -88, -88, -88, -88, -88, -88, -88]], dtype=int32)
    """
    keys = tf.math.top_k(tf.where(notes > 0.5, -tf.range(KEYS), -2 * KEYS), VOICES)[0]
    keys = tf.where(keys == -2 * KEYS, -KEYS, -keys)
    return tf.pad(keys, [[0, 0], [0, 1]], constant_values=-KEYS)


@keras.saving.register_keras_serializable("tasks.music")
class Keys(keras.layers.Layer):
    """The log-odds of each key of a frame, given the past and, if `joint`, the lower keys.

    The network has two hidden layers with the same weights for every key. Its input is the
    neighbourhood of the key in earlier frames, the state of the recurrent network and the number of
    the key. If `joint`, it also receives the lower keys of the frame, how these continue the voices
    of earlier frames, and whether the frame follows a repeat so far.

    `call` evaluates whole sequences. Generation calls `prepare` once per frame, then `lower_keys`
    and `logits` after each chosen key.

    Args:
      joint: whether a key depends on the lower keys of its frame.
      units: units of each hidden layer.
      low: the lowest key of the training data.
      high: the highest key of the training data.
      frames: number of training frames. A key outside `low..high` never sounded in them; its
        probability is `1 / (frames + 2)` by Laplace's rule of succession.
      dropout: dropout rate of the hidden units.
    """

    def __init__(
        self,
        joint: bool,
        units: int,
        low: int,
        high: int,
        frames: int,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.joint, self.units, self.dropout = joint, units, dropout
        self.low, self.high, self.frames = low, high, frames
        shape = (None, 1, units)  # one mask for all keys of a frame
        self.drop = [keras.layers.Dropout(dropout, shape, dtype="float32") for _ in range(2)]
        self.supports_masking = True

    def build(self, state_shape: Sequence[Any], *_: Any) -> None:
        """Create the weights."""
        inner, width = self.units, state_shape[-1]
        planes = len(LAGS) + 2

        def weight(name: str, *shape: int, fan_in: int = 1, initializer: Any = None) -> Any:
            scale = keras.initializers.RandomNormal(stddev=fan_in**-0.5)
            return self.add_weight(shape, initializer or scale, name=name)

        # Most inputs are zero, so the fan-in is smaller than the input size.
        self.around = weight("around", 2 * REACH + 1, planes, inner, fan_in=16)
        self.alone = weight("alone", 2 * RUN_GROUPS + VOICES, inner, fan_in=16)
        self.from_state = weight("from_state", width, 2 * inner, fan_in=4 * width)
        self.which = weight("which", KEYS, inner, fan_in=16)
        self.bias = weight("bias", 2 * inner, initializer="zeros")
        self.hidden = weight("hidden", inner, inner, fan_in=max(1, inner // 2))
        self.out = weight("out", inner, fan_in=inner)
        self.direct = weight("direct", width, KEYS, fan_in=4 * width)
        self.base = weight("base", KEYS, initializer=keras.initializers.Constant(-2.0))
        if self.joint:
            self.below = weight("below", BELOW, 1, inner, fan_in=16)
            self.given = weight("given", self.given_width, inner, fan_in=16)

    @property
    def given_width(self) -> int:
        """Number of features of the lower keys, not counting the keys themselves."""
        like_earlier = 2 * MISSES * len(FOLLOWED)
        return VOICES + (2 * AHEAD + 1) + like_earlier + 12 + TRACED * (2 * REACH + 3)

    def prepare(self, state: tf.Tensor, past: Past) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """Compute all that does not depend on the lower keys.

        Args:
          state: `<float>[rows, width]`, the output of the recurrent network.
          past: the features of the same rows.

        Returns:
          The contributions to the first hidden layer `<float>[rows, keys, units]`, to the second
          `<float>[rows, 1, units]` and to the log-odds `<float>[rows, keys]`, where `keys` are
          those of `low..high`.
        """
        low, high = self.low, self.high + 1
        state, planes = tf.cast(state, tf.float32), past.planes
        padded = tf.pad(planes, [[0, 0], [REACH, REACH], [0, 0]])
        around = tf.nn.conv1d(padded[:, low : high + 2 * REACH], self.around, 1, "VALID")
        copied = [
            planes[:, low:high, kind - 2, None] * group_runs(past.runs[:, kind])[:, None]
            for kind in range(2)
        ]
        below = tf.minimum(count_below(planes[:, :, 0]), VOICES - 1)[:, low:high]
        alone = tf.concat([*copied, tf.one_hot(below, VOICES)], axis=-1)
        first, second = tf.split(state @ self.from_state + self.bias, 2, axis=-1)
        first = first[:, None] + self.which[low:high] + around + alone @ self.alone
        return first, second[:, None], (state @ self.direct + self.base)[:, low:high]

    def lower_keys(self, notes: tf.Tensor, past: Past) -> tf.Tensor:
        """Compute the contribution of the lower keys to the first hidden layer.

        Args:
          notes: `<float>[rows, 88]`; each key depends only on those below it.
          past: the features of the same rows.

        Returns:
          `<float>[rows, keys, units]`.
        """
        low, high = self.low, self.high + 1
        padded = tf.pad(notes, [[0, 0], [BELOW, 0]])[:, low : high + BELOW - 1, None]
        below = tf.nn.conv1d(padded, self.below, 1, "VALID")
        count = count_below(notes)[:, low:high]
        last = past.planes[:, :, 0]
        missing = tf.clip_by_value(count_below(last)[:, low:high] - count, -AHEAD, AHEAD)
        features = [
            tf.one_hot(tf.minimum(count, VOICES - 1), VOICES),
            tf.one_hot(missing + AHEAD, 2 * AHEAD + 1),
        ]
        for plane in FOLLOWED:
            earlier = past.planes[:, :, plane]
            misses = count_below(tf.abs(notes - earlier))[:, low:high]
            groups = tf.one_hot(tf.minimum(misses, MISSES - 1), MISSES)
            features += [groups, groups * earlier[:, low:high, None]]
        features.append(self._intervals(notes))
        voice = tf.minimum(count, VOICES)
        keys = tf.range(low, high)
        for lag in range(TRACED):
            before = tf.gather(voice_keys(past.planes[:, :, lag]), voice, axis=1, batch_dims=1)
            gap = tf.clip_by_value(keys - before, -REACH - 1, REACH + 1) + REACH + 1
            features.append(tf.one_hot(tf.where(before < 0, -1, gap), 2 * REACH + 3))
        return below + tf.concat(features, axis=-1) @ self.given

    def _intervals(self, notes: tf.Tensor) -> tf.Tensor:
        """Encode which intervals, modulo the octave, each key forms with the notes below it.

        Returns:
          `<float>[rows, keys, 12]`, 0 or 1.
        """
        keys, below = np.arange(self.low, self.high + 1), np.arange(KEYS)
        gap = keys[None] - below[:, None]
        table = (gap[..., None] % 12 == np.arange(12)) & (gap[..., None] > 0)
        counts = notes @ tf.constant(table.reshape(KEYS, -1), tf.float32)
        return tf.reshape(tf.minimum(counts, 1.0), [-1, len(keys), 12])

    def logits(
        self, prepared: tuple[tf.Tensor, ...], lower: tf.Tensor | None, training: bool = False
    ) -> tf.Tensor:
        """Compute the log-odds of each key.

        Args:
          prepared: the result of `prepare`.
          lower: the result of `lower_keys`; None for the head `independent`.
          training: whether dropout is active.

        Returns:
          `<float>[rows, 88]`.
        """
        first, second, direct = prepared
        x = first if lower is None else first + lower
        x = self.drop[0](tf.nn.relu(x), training=training)
        x = self.drop[1](tf.nn.relu(x @ self.hidden + second), training=training)
        inside = tf.linalg.matvec(x, self.out) + direct
        outside = -float(np.log(self.frames + 1.0))
        margins = [[0, 0], [self.low, KEYS - 1 - self.high]]
        return tf.pad(inside, margins, constant_values=outside)

    def call(
        self,
        state: Any,
        planes: Any,
        runs: Any,
        step: Any,
        strikes: Any,
        notes: Any,
        real: Any,
        training: bool = False,
    ) -> Any:
        """Compute the log-odds of each key of whole sequences, given the true lower keys.

        Args:
          state: `<float>[batch, time, width]`, the output of the recurrent network.
          planes: see `Past`.
          runs: see `Past`.
          step: see `Past`.
          strikes: see `Past`.
          notes: `<float>[batch, time, 88]`, the true frames.
          real: `<bool>[batch, time]`, the frames that are not padding.
          training: whether dropout is active.

        Returns:
          `<float>[batch, time, 88]`, 0 at padding.
        """
        indices = tf.where(real)

        def rows(value: tf.Tensor) -> tf.Tensor:
            return tf.gather_nd(value, indices)

        past = Past(rows(planes), rows(runs), rows(step), rows(strikes))
        prepared = self.prepare(rows(state), past)
        lower = self.lower_keys(sounding_keys(rows(notes)), past) if self.joint else None
        logits = self.logits(prepared, lower, training)
        return tf.scatter_nd(indices, logits, tf.shape(notes, tf.int64))

    def compute_output_spec(self, *args: Any, **_: Any) -> Any:
        """Return the shape of the log-odds."""
        return keras.KerasTensor(args[5].shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        names = ("joint", "units", "low", "high", "frames", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


# --- the ensemble ---------------------------------------------------------------------------------


def mean_log_odds(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Average the probabilities of the ensemble members.

    Args:
      logits: `<float>[rows, members, 88]`.

    Returns:
      The logarithms of the mean probabilities that a key sounds and that it does not, each
      `<float>[rows, 88]`.

    Example:
      >>> on, off = mean_log_odds(tf.constant([[[0.0], [2.0]]]))
      >>> tf.exp(on).numpy().round(3), tf.exp(off).numpy().round(3)     # 0.5 and 0.881
      (array([[0.69]], dtype=float32), array([[0.31]], dtype=float32))
    """
    members = logits.shape[1]
    on, off = (
        tf.reduce_logsumexp(tf.math.log_sigmoid(sign * logits), axis=1) for sign in (1.0, -1.0)
    )
    return on - float(np.log(members)), off - float(np.log(members))


@keras.saving.register_keras_serializable("tasks.music")
class FrameNLL(keras.layers.Layer):
    """Negative log-likelihood of frames, in nats: of their keys, and of their strikes.

    Call arguments:
      logits: `<float>[batch, time, members, 88]`, the log-odds that a key sounds.
      strike_logits: the same, that a held key is struck again.
      notes: `<float>[batch, time, 88]`.
      planes: see `Past`.
      real: `<bool>[batch, time]`, the frames that are not padding.

    Returns:
      `(<float32>[batch, time], <float32>[batch, time], <float32>[batch, time, members])`: the value
      of the keys under the mean probabilities of the ensemble members, that of the strikes, and the
      sum of both for each member; 0 at padding.
    """

    def __init__(self, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.supports_masking = True

    def call(self, logits: Any, strike_logits: Any, notes: Any, planes: Any, real: Any) -> Any:
        """Sum the log-likelihood over the keys."""
        held, struck = held_and_struck(notes, planes[..., 0])
        keys, members = _nll(logits, sounding_keys(notes), tf.ones_like(held))
        strikes, strike_members = _nll(strike_logits, struck, held)
        real = tf.cast(real, tf.float32)
        return keys * real, strikes * real, (members + strike_members) * real[:, :, None]

    def compute_output_spec(self, logits: Any, *_: Any) -> Any:
        """Return the shapes of the three results."""
        shape = tuple(logits.shape[:2])
        return (
            keras.KerasTensor(shape, dtype="float32"),
            keras.KerasTensor(shape, dtype="float32"),
            keras.KerasTensor((*shape, logits.shape[2]), dtype="float32"),
        )


def _nll(logits: tf.Tensor, truth: tf.Tensor, counted: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the negative log-likelihood of the ensemble and of each member.

    Args:
      logits: `<float>[batch, time, members, 88]`.
      truth: `<float>[batch, time, 88]`, 0 or 1.
      counted: `<float>[batch, time, 88]`, 1 where a key counts.
    """
    signs = (2.0 * truth - 1.0)[:, :, None]
    likelihood = tf.math.log_sigmoid(logits * signs) * counted[:, :, None]
    ensemble = tf.reduce_logsumexp(likelihood, axis=2) - float(np.log(logits.shape[2]))
    return -tf.reduce_sum(ensemble, axis=-1), -tf.reduce_sum(likelihood, axis=-1)


# --- the whole model ------------------------------------------------------------------------------


def build(config: Config, *, low: int, high: int, frames: int) -> keras.Model:
    """Build the model.

    Args:
      config: the architecture.
      low: the lowest key of the training data.
      high: the highest key of the training data.
      frames: number of training frames; see `Keys`.

    Returns:
      A functional model. Inputs: `notes` `<float>[batch, time, 88]`, `length` `<int32>[batch]`.
      Outputs: `nll` `<float32>[batch, time]`, of the keys of each frame given the frames before,
      including the first; `strike_nll` `<float32>[batch, time]`, of the strikes; `members`
      `<float32>[batch, time, members]`, the sum of both for each ensemble member. All are 0 beyond
      `length`.

    Example:
      >>> small = build(Config(units=4, key_units=4, members=2), low=30, high=60, frames=100)
      >>> outputs = small({"notes": np.zeros((1, 8, 88)), "length": np.array([6])})
      >>> outputs["nll"].shape, outputs["members"].shape
      (TensorShape([1, 8]), TensorShape([1, 8, 2]))
    """
    notes = keras.Input((None, KEYS), dtype="float32", name="notes")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, notes)
    past = LookBack(name="look_back")(notes)
    outlook = Outlook(name="outlook")(*past)
    logits, strike_logits = [], []
    for number in range(config.members):
        x = keras.layers.Dropout(config.input_dropout)(outlook)
        x, *_ = stack(
            config.cell,
            config.units,
            config.layers,
            dropout=config.dropout,
            return_state=True,
            name=f"encoder_{number}",
        )(x, mask=mask)
        x = keras.layers.Dropout(config.dropout)(x)
        keys = Keys(
            config.head == "joint",
            config.key_units,
            low,
            high,
            frames,
            config.key_dropout,
            name=f"keys_{number}",
        )
        logits.append(keys(x, *past, notes, mask))
        strikes = Strikes(low, high, name=f"strikes_{number}")
        strike_logits.append(strikes(x, *past, notes, mask))
    stacked = [keras.ops.stack(values, axis=2) for values in (logits, strike_logits)]
    nll, strike_nll, members = FrameNLL(name="nll")(*stacked, notes, past[0], mask)
    return keras.Model(
        {"notes": notes, "length": length},
        {"nll": nll, "strike_nll": strike_nll, "members": members},
        name="music",
    )


def losses(
    outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the loss of each example and its weight, for `common.training.fit.fit`.

    The loss is the NLL of all frames, summed over the ensemble members; the weight is the number of
    frames. With a sum instead of a mean, each member learns as fast as it would alone.
    """
    return tf.reduce_sum(outputs["members"], axis=(1, 2)), tf.cast(batch["length"], tf.float32)
