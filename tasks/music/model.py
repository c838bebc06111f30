"""The model: a deep recurrent network over frames, and a network over the keys of a frame.

A frame is the set of piano keys that sound at a step. `look_back` gathers, at each step, what the
past says about the next frame: the frames some steps back, and those that followed the longest
repeats of what was just played. A recurrent network (`common.rnn.stack`) reads this step by step.
`Keys` then gives each key's probability. It looks at every key in the same way, at what lies above
and below, so that what is learnt of one key serves all (Johnson 2017). With the head `joint` it
also looks at the keys already chosen below in the same frame (Boulanger-Lewandowski et al. 2012):
exact, since P(frame) is the product over the keys of P(key | keys below, past).

References:
  - Boulanger-Lewandowski, Bengio and Vincent, 2012: Modeling temporal dependencies in
    high-dimensional sequences (https://arxiv.org/abs/1206.6392)
  - Johnson, 2017: Generating polyphonic music using tied parallel networks
    (https://doi.org/10.1007/978-3-319-55750-2_9)
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from common.rnn import length_mask, stack
from tasks.music.config import Config

import keras
import numpy as np
import tensorflow as tf

KEYS = 88  # of a piano; key 0 is MIDI note 21
LAGS = (1, 2, 3, 4, 8, 16)  # how many steps back the frames lie that are seen directly
LONGEST_RUN = 32  # of a repeat, in steps; a longer one counts as this
RUNS = 8  # groups of lengths of repeats: none, 1, 2, 3-4, 5-8, 9-16, 17-31, 32
PERIODS = (3, 4, 6, 8, 12, 16, 32)  # in steps, of the beats and bars that the model may count
VOICES = 8  # notes of a frame, from below, that are followed one by one
TRACED = 3  # frames back through which the voices are followed
REACH = 12  # keys to each side of a key that are seen in earlier frames
BELOW = 36  # keys below a key that are seen in the same frame
AHEAD = 3  # by how many notes a frame may be ahead of the last one or behind it, and be seen so
MISSES = 3  # groups of how often the keys below differ from an earlier frame: never, once, more
FOLLOWED = (0, -2, -1)  # planes of `Past` that a frame may go on like: the last one, the repeats


# --- what the past says ---------------------------------------------------------------------------


def identities(notes: tf.Tensor) -> tf.Tensor:
    """Numbers that are equal where frames are (first), and where their highest notes are (second).

    Args:
      notes: `<float>[..., 88]`, 0 or 1.

    Returns:
      `<int64>[2, ...]`. Two frames in 2^62 or so share a number by accident.
    """
    # Odd multipliers, so that the sum modulo 2^64 depends on every key.
    weights = np.random.default_rng(88).integers(-(2**62), 2**62, KEYS) * 2 + 1
    sounding = notes > 0.5
    whole = tf.reduce_sum(tf.where(sounding, tf.constant(weights), 0), axis=-1)
    places = tf.range(1, KEYS + 1, dtype=tf.int64)
    return tf.stack([whole, tf.reduce_max(tf.where(sounding, places, 0), axis=-1)])


def follow_repeats(
    runs: tf.Tensor, known: tf.Tensor, step: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Finds where what was played up to `step` was played before, for as long as possible.

    Args:
      runs: `<int32>[2, batch, time]`, what the call for the step before gave; zeros at first.
      known: `<int64>[2, batch, time]`, the identities of the frames; those behind `step` are not
        looked at.
      step: `<int32>[]`, the newest frame.

    Returns:
      `runs`: at `j < step`, how many frames up to `j` equal those up to `step`, at most
      `LONGEST_RUN`; `place` `<int32>[2, batch]`, the frame behind the latest of the longest such
      runs; `length` `<int32>[2, batch]`, of that run, 0 where there is none (`place` is then
      meaningless, but a frame).
    """
    time = tf.shape(known)[2]
    earlier = tf.range(time) < step
    same = (known == tf.gather(known, step[None], axis=2)) & earlier
    shifted = tf.pad(runs[:, :, :-1], [[0, 0], [0, 0], [1, 0]])
    runs = tf.where(same, tf.minimum(shifted + 1, LONGEST_RUN), 0)
    best = tf.argmax(runs * time + tf.range(time), axis=2, output_type=tf.int32)
    length = tf.reduce_max(runs, axis=2)
    return runs, tf.where(length > 0, best + 1, 0), length


def repeats(notes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`follow_repeats` at every step of whole sequences.

    Returns:
      `place` and `length` `<int32>[2, batch, time]` for the frame to come at each step; at step 0
      there is no past, hence no repeat.
    """
    known = identities(notes)
    time = tf.shape(notes)[1]
    found = tf.TensorArray(tf.int32, time, element_shape=(2, 2, None))
    found = found.write(0, tf.zeros([2, 2, tf.shape(notes)[0]], tf.int32))

    def body(step: tf.Tensor, runs: tf.Tensor, found: tf.TensorArray) -> tuple[Any, ...]:
        runs, place, length = follow_repeats(runs, known, step - 1)
        return step + 1, runs, found.write(step, tf.stack([place, length]))

    runs = tf.zeros(tf.shape(known), tf.int32)
    _, _, found = tf.while_loop(lambda step, *_: step < time, body, (tf.constant(1), runs, found))
    place, length = tf.unstack(tf.transpose(found.stack(), [1, 2, 3, 0]))
    return place, length


class Past(NamedTuple):
    """What is known when a frame is to come; `...` is `batch, time`, or rows of frames.

    Attributes:
      planes: `<float>[..., 88, len(LAGS) + 2]`: the frames `LAGS` steps before, then the frame
        behind the longest repeat of whole frames, and of highest notes.
      runs: `<int32>[..., 2]`: the lengths of these repeats.
      step: `<int32>[...]`: the number of the frame to come.
    """

    planes: tf.Tensor
    runs: tf.Tensor
    step: tf.Tensor


def look_back(notes: tf.Tensor) -> Past:
    """What is known before each frame of `notes` `<float>[batch, time, 88]`."""
    time = tf.shape(notes)[1]
    place, length = repeats(notes)
    planes = [tf.pad(notes, [[0, 0], [lag, 0], [0, 0]])[:, :time] for lag in LAGS]
    for kind in range(2):
        seen = tf.gather(notes, place[kind], axis=1, batch_dims=1)
        planes.append(tf.where(length[kind][:, :, None] > 0, seen, 0.0))
    step = tf.broadcast_to(tf.range(time), tf.shape(notes)[:2])
    return Past(tf.stack(planes, axis=-1), tf.transpose(length, [1, 2, 0]), step)


def run_groups(runs: tf.Tensor) -> tf.Tensor:
    """One-hot groups of the lengths of repeats, `<float>[..., RUNS]`; see `RUNS`."""
    bounds = tf.constant([1, 2, 3, 5, 9, 17, LONGEST_RUN])
    return tf.one_hot(tf.reduce_sum(tf.cast(runs[..., None] >= bounds, tf.int32), axis=-1), RUNS)


@keras.saving.register_keras_serializable("tasks.music")
class Outlook(keras.layers.Layer):
    """What the recurrent network reads before each frame.

    Call arguments:
      planes: as in `Past`.
      runs: as in `Past`.
      step: as in `Past`.

    Returns:
      `<float>[..., features]`: the last frame; which of its notes began with it; the frames
      behind the repeats and how long these were; the place in bars of several lengths; whether this
      is the start.
    """

    def call(self, planes: Any, runs: Any, step: Any) -> Any:
        """Gathers; see the class."""
        planes = tf.cast(planes, tf.float32)  # under bfloat16 Keras has cast them, the others not
        last = planes[..., 0]
        onsets = tf.nn.relu(last - planes[..., 1])
        angle = tf.cast(step, tf.float32)[..., None] * (2.0 * np.pi / np.array(PERIODS, np.float32))
        start = tf.cast(step == 0, tf.float32)[..., None]
        groups = [run_groups(runs[..., kind]) for kind in range(2)]
        copies = [planes[..., -2], planes[..., -1]]
        return tf.concat(
            [last, onsets, *copies, *groups, tf.sin(angle), tf.cos(angle), start], axis=-1
        )

    def compute_output_spec(self, planes: Any, *_: Any) -> keras.KerasTensor:
        """The shape of the result."""
        width = 4 * KEYS + 2 * RUNS + 2 * len(PERIODS) + 1
        return keras.KerasTensor((*planes.shape[:2], width), dtype="float32")


@keras.saving.register_keras_serializable("tasks.music")
class LookBack(keras.layers.Layer):
    """`look_back` as a layer: `notes` `<float>[batch, time, 88]` -> the parts of a `Past`."""

    def call(self, notes: Any) -> Any:
        """Looks back; see the function."""
        return tuple(look_back(notes))

    def compute_output_spec(self, notes: Any) -> Any:
        """The shapes of the parts."""
        shape = tuple(notes.shape[:2])
        return (
            keras.KerasTensor((*shape, KEYS, len(LAGS) + 2), dtype="float32"),
            keras.KerasTensor((*shape, 2), dtype="int32"),
            keras.KerasTensor(shape, dtype="int32"),
        )


# --- the keys of a frame --------------------------------------------------------------------------


def count_below(notes: tf.Tensor) -> tf.Tensor:
    """How many notes sound below each key, `<int32>[..., 88]`."""
    return tf.cast(tf.cumsum(notes, axis=-1, exclusive=True), tf.int32)


def voice_keys(notes: tf.Tensor) -> tf.Tensor:
    """The keys of a frame's notes from below.

    Args:
      notes: `<float>[rows, 88]`.

    Returns:
      `<int32>[rows, VOICES + 1]`; `-KEYS` for a voice that the frame does not have, which the last
      one never has.
    """
    keys = tf.math.top_k(tf.where(notes > 0.5, -tf.range(KEYS), -2 * KEYS), VOICES)[0]
    keys = tf.where(keys == -2 * KEYS, -KEYS, -keys)
    return tf.pad(keys, [[0, 0], [0, 1]], constant_values=-KEYS)


@keras.saving.register_keras_serializable("tasks.music")
class Keys(keras.layers.Layer):
    """The probability of each key of a frame, given the past and, if `joint`, the keys below.

    Two hidden layers whose weights all keys share see what lies around a key in earlier frames, the
    state of the recurrent network, the key itself and, if `joint`, which keys below it sound in
    this frame, how they continue the voices of earlier frames, and whether they follow the
    repeats.

    Args:
      joint: whether a key is given the keys below.
      units: width of the hidden layers.
      low: the lowest key of the training data.
      high: the highest key.
      frames: how many training frames there were. A key outside `low..high` never sounded in
        them, so its probability is `1 / (frames + 2)` (Laplace's rule).
      dropout: share of hidden units dropped in training.
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
        """Makes the layer."""
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.joint, self.units, self.dropout = joint, units, dropout
        self.low, self.high, self.frames = low, high, frames
        # Dropped for all keys of a frame at once.
        shape = (None, 1, units)
        self.drop = [keras.layers.Dropout(dropout, shape, dtype="float32") for _ in range(2)]
        self.supports_masking = True

    def build(self, state_shape: Sequence[int | None], *_: Any) -> None:
        """Makes the weights for a state of a given width."""
        inner, width = self.units, state_shape[-1]
        planes = len(LAGS) + 2

        def weight(name: str, *shape: int, fan_in: int = 1, initializer: Any = None) -> Any:
            scale = keras.initializers.RandomNormal(stddev=fan_in**-0.5)
            return self.add_weight(shape, initializer or scale, name=name)

        # What is summed is mostly zeros, hence the fan-ins.
        self.around = weight("around", 2 * REACH + 1, planes, inner, fan_in=16)
        self.alone = weight("alone", 2 * RUNS + VOICES, inner, fan_in=16)
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
        """How many features of the keys below there are beside the keys themselves."""
        like_earlier = 2 * MISSES * len(FOLLOWED)
        return VOICES + (2 * AHEAD + 1) + like_earlier + 12 + TRACED * (2 * REACH + 3)

    def past(self, state: tf.Tensor, past: Past) -> tuple[tf.Tensor, ...]:
        """What does not depend on the keys below: once a frame, whatever is then asked of it.

        Args:
          state: `<float>[rows, width]`, of the recurrent network.
          past: of the same rows.
        """
        low, high = self.low, self.high + 1
        state, planes = tf.cast(state, tf.float32), past.planes
        padded = tf.pad(planes, [[0, 0], [REACH, REACH], [0, 0]])
        seen = tf.nn.conv1d(padded[:, low : high + 2 * REACH], self.around, 1, "VALID")
        copied = [
            planes[:, low:high, kind - 2, None] * run_groups(past.runs[:, kind])[:, None]
            for kind in range(2)
        ]
        below = tf.minimum(count_below(planes[:, :, 0]), VOICES - 1)[:, low:high]
        alone = tf.concat([*copied, tf.one_hot(below, VOICES)], axis=-1)
        first, second = tf.split(state @ self.from_state + self.bias, 2, axis=-1)
        first = first[:, None] + self.which[low:high] + seen + alone @ self.alone
        return first, second[:, None], (state @ self.direct + self.base)[:, low:high]

    def given_keys(self, notes: tf.Tensor, past: Past) -> tf.Tensor:
        """What the keys below say: `<float>[rows, keys, units]`, to be added to the first layer.

        Args:
          notes: `<float>[rows, 88]`; at each key only those below it matter.
          past: of the same rows.
        """
        low, high = self.low, self.high + 1
        padded = tf.pad(notes, [[0, 0], [BELOW, 0]])[:, low : high + BELOW - 1, None]
        seen = tf.nn.conv1d(padded, self.below, 1, "VALID")
        count = count_below(notes)[:, low:high]
        last = past.planes[:, :, 0]
        behind = tf.clip_by_value(count_below(last)[:, low:high] - count, -AHEAD, AHEAD)
        parts = [
            tf.one_hot(tf.minimum(count, VOICES - 1), VOICES),
            tf.one_hot(behind + AHEAD, 2 * AHEAD + 1),
        ]
        for plane in FOLLOWED:
            other = past.planes[:, :, plane]
            misses = count_below(tf.abs(notes - other))[:, low:high]
            so_far = tf.one_hot(tf.minimum(misses, MISSES - 1), MISSES)
            parts += [so_far, so_far * other[:, low:high, None]]
        parts.append(self._intervals(notes))
        voice = tf.minimum(count, VOICES)
        keys = tf.range(low, high)
        for lag in range(TRACED):
            before = tf.gather(voice_keys(past.planes[:, :, lag]), voice, axis=1, batch_dims=1)
            gap = tf.clip_by_value(keys - before, -REACH - 1, REACH + 1) + REACH + 1
            parts.append(tf.one_hot(tf.where(before < 0, -1, gap), 2 * REACH + 3))
        return seen + tf.concat(parts, axis=-1) @ self.given

    def _intervals(self, notes: tf.Tensor) -> tf.Tensor:
        """Whether a note sounds below each key, 0 to 11 semitones modulo the octave."""
        keys, below = np.arange(self.low, self.high + 1), np.arange(KEYS)
        gap = keys[None] - below[:, None]
        table = (gap[..., None] % 12 == np.arange(12)) & (gap[..., None] > 0)
        found = notes @ tf.constant(table.reshape(KEYS, -1), tf.float32)
        return tf.reshape(tf.minimum(found, 1.0), [-1, len(keys), 12])

    def logits(
        self, prepared: tuple[tf.Tensor, ...], given: tf.Tensor | None, training: bool = False
    ) -> tf.Tensor:
        """The log-odds of each key, `<float>[rows, 88]`.

        Args:
          prepared: what `past` gave.
          given: what `given_keys` gave; None with the head `independent`.
          training: whether dropout is active.
        """
        first, second, direct = prepared
        x = first if given is None else first + given
        x = self.drop[0](tf.nn.relu(x), training=training)
        x = self.drop[1](tf.nn.relu(x @ self.hidden + second), training=training)
        inside = tf.linalg.matvec(x, self.out) + direct
        outside = -float(np.log(self.frames + 1.0))
        room = [[0, 0], [self.low, KEYS - 1 - self.high]]
        return tf.pad(inside, room, constant_values=outside)

    def call(
        self,
        state: Any,
        planes: Any,
        runs: Any,
        step: Any,
        notes: Any,
        real: Any,
        training: bool = False,
    ) -> Any:
        """The log-odds of each key of whole sequences, given the true keys below.

        Returns:
          `<float>[batch, time, 88]`, 0 where `real` `<bool>[batch, time]` is false.
        """
        places = tf.where(real)

        def rows(value: tf.Tensor) -> tf.Tensor:
            return tf.gather_nd(value, places)

        past = Past(rows(planes), rows(runs), rows(step))
        prepared = self.past(rows(state), past)
        given = self.given_keys(rows(notes), past) if self.joint else None
        found = self.logits(prepared, given, training)
        shape = tf.shape(notes, tf.int64)
        return tf.scatter_nd(places, found, shape)

    def compute_output_spec(self, *args: Any, **_: Any) -> Any:
        """The shape of the log-odds."""
        return keras.KerasTensor(args[4].shape, dtype="float32")

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        names = ("joint", "units", "low", "high", "frames", "dropout")
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def mean_log_odds(logits: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """The members' mean probability of each key to sound and not to sound, as logarithms.

    Args:
      logits: `<float>[rows, members, 88]`.

    Returns:
      `<float>[rows, 88]` twice.
    """
    members = logits.shape[1]
    on, off = (
        tf.reduce_logsumexp(tf.math.log_sigmoid(sign * logits), axis=1) for sign in (1.0, -1.0)
    )
    return on - float(np.log(members)), off - float(np.log(members))


@keras.saving.register_keras_serializable("tasks.music")
class FrameNLL(keras.layers.Layer):
    """Negative log-likelihood of frames, in nats.

    Call arguments:
      logits: `<float>[batch, time, members, 88]`.
      notes: `<float>[batch, time, 88]`.
      real: `<bool>[batch, time]`; where it is false the answer is 0.

    Returns:
      `(<float32>[batch, time], <float32>[batch, time, members])`: of the mean of the members'
      probabilities of each key, and of each member alone.
    """

    def __init__(self, **kwargs: Any):
        """Makes the layer."""
        super().__init__(**{**kwargs, "dtype": "float32"})
        self.supports_masking = True

    def call(self, logits: Any, notes: Any, real: Any) -> Any:
        """Sums over the keys; see the class."""
        signs = (2.0 * notes - 1.0)[:, :, None]
        likelihood = tf.math.log_sigmoid(logits * signs)
        together = tf.reduce_logsumexp(likelihood, axis=2) - float(np.log(logits.shape[2]))
        real = tf.cast(real, tf.float32)
        return (
            -tf.reduce_sum(together, axis=-1) * real,
            -tf.reduce_sum(likelihood, axis=-1) * real[:, :, None],
        )

    def compute_output_spec(self, logits: Any, notes: Any, real: Any) -> Any:
        """The shapes."""
        shape = tuple(logits.shape[:2])
        return (
            keras.KerasTensor(shape, dtype="float32"),
            keras.KerasTensor((*shape, logits.shape[2]), dtype="float32"),
        )


def build(config: Config, *, low: int, high: int, frames: int) -> keras.Model:
    """Builds the model.

    Args:
      config: the architecture.
      low: the lowest key of the training data.
      high: the highest key.
      frames: how many there are; see `Keys`.

    Returns:
      A functional model. Inputs: `notes` `<float>[batch, time, 88]`, `length` `<int32>[batch]`.
      Outputs: `nll` `<float32>[batch, time]`, of each frame given those before, the first included;
      `members` `<float32>[batch, time, members]`, the same of each member alone. 0 beyond `length`.
    """
    notes = keras.Input((None, KEYS), dtype="float32", name="notes")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, notes)
    planes, runs, step = LookBack(name="look_back")(notes)
    outlook = Outlook(name="outlook")(planes, runs, step)
    logits = []
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
        logits.append(keys(x, planes, runs, step, notes, mask))
    nll, members = FrameNLL(name="nll")(keras.ops.stack(logits, axis=2), notes, mask)
    return keras.Model(
        {"notes": notes, "length": length}, {"nll": nll, "members": members}, name="music"
    )


def losses(
    outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Each member's NLL a frame, the first included, as `common.training.fit.fit` takes it."""
    # Summed, not averaged, over the members: each learns as fast as it would alone.
    return tf.reduce_sum(outputs["members"], axis=(1, 2)), tf.cast(batch["length"], tf.float32)
