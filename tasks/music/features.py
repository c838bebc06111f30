"""Features of the past: what the model knows before each frame.

The features of a frame are computed from the frames before it, without learned weights:

- the frames `LAGS` steps back;
- the frame that followed the longest repeat, once for repeats of whole frames and once for repeats
  of their highest notes. A repeat is an earlier run of frames that equals the most recent ones.
  Folk tunes and chorales play most of their parts twice;
- the lengths of these two repeats;
- the index of the frame, from which `Outlook` derives positions in beats and bars.

`look_back` computes them for whole sequences. Generation computes them step by step from
`fingerprints` and `extend_repeats`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tasks.music.midi import KEYS

import keras
import numpy as np
import tensorflow as tf

LAGS = (1, 2, 3, 4, 8, 16)  # distances, in steps, of the earlier frames that are features
LONGEST_RUN = 32  # frames of a repeat; longer repeats count as this long
RUN_BOUNDS = (1, 2, 3, 5, 9, 17, LONGEST_RUN)  # first lengths of the groups of repeat lengths
RUN_GROUPS = len(RUN_BOUNDS) + 1  # the first group is: no repeat
PERIODS = (3, 4, 6, 8, 12, 16, 32)  # possible lengths of beats and bars, in steps


# --- repeats --------------------------------------------------------------------------------------


def fingerprints(notes: tf.Tensor) -> tf.Tensor:
    """Return numbers that are equal where frames, or their highest notes, are equal.

    Args:
      notes: `<float>[..., 88]`, 0, 1 or 2; see `tasks.music.midi`.

    Returns:
      `<int64>[2, ...]`: a hash of the frame, and its highest note (0 for silence), which is another
      number if the note is struck again. Two different frames have the same hash with a
      probability of about 2^-62.

    Example:
      >>> frame, highest = fingerprints(tf.one_hot([40, 45, 40], 88))
      >>> bool(frame[0] == frame[2]), bool(frame[0] == frame[1]), highest.numpy()
      (True, False, array([41, 46, 41]))
    """
    # Odd multipliers, so that the sum modulo 2^64 depends on every key.
    random = np.random.default_rng(88)
    weights, again = (random.integers(-(2**62), 2**62, KEYS) * 2 + 1 for _ in range(2))
    sounding, restruck = notes > 0.5, notes > 1.5
    frame = tf.where(sounding, tf.constant(weights), 0) + tf.where(restruck, tf.constant(again), 0)
    numbers = tf.range(1, KEYS + 1, dtype=tf.int64)
    highest = tf.reduce_max(tf.where(sounding, numbers, 0), axis=-1)
    highest_again = tf.reduce_max(tf.where(restruck, numbers, 0), axis=-1)
    highest += tf.where((highest == highest_again) & (highest > 0), tf.constant(KEYS, tf.int64), 0)
    return tf.stack([tf.reduce_sum(frame, axis=-1), highest])


def extend_repeats(
    runs: tf.Tensor, prints: tf.Tensor, step: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Find the longest repeat of the frames up to `step`, given the repeats up to `step - 1`.

    Args:
      runs: `<int32>[2, batch, time]`, the first result for the previous step; zeros at first.
      prints: `<int64>[2, batch, time]`, the `fingerprints`; those after `step` are ignored.
      step: `<int32>[]`, the index of the newest frame.

    Returns:
      A tuple of

      - `runs`: for each `j < step`, the number of frames up to `j` that equal those up to `step`,
        at most `LONGEST_RUN`;
      - `place` `<int32>[2, batch]`: the index of the frame after the longest of these runs, the
        latest one among equals; 0 if there is none;
      - `length` `<int32>[2, batch]`: the length of that run; 0 if there is none.
    """
    time = tf.shape(prints)[2]
    earlier = tf.range(time) < step
    same = (prints == tf.gather(prints, step[None], axis=2)) & earlier
    shifted = tf.pad(runs[:, :, :-1], [[0, 0], [0, 0], [1, 0]])
    runs = tf.where(same, tf.minimum(shifted + 1, LONGEST_RUN), 0)
    best = tf.argmax(runs * time + tf.range(time), axis=2, output_type=tf.int32)
    length = tf.reduce_max(runs, axis=2)
    return runs, tf.where(length > 0, best + 1, 0), length


def find_repeats(notes: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Apply `extend_repeats` to every step of whole sequences.

    Args:
      notes: `<float>[batch, time, 88]`.

    Returns:
      `place` and `length` `<int32>[2, batch, time]`, for the frame that follows the frames before
      each step. There is no repeat at steps 0 and 1.

    Example:
      >>> place, length = find_repeats(tf.one_hot([[40, 45, 40, 45, 50]], 88))
      >>> place[0].numpy(), length[0].numpy()     # before step 4, frames 0 and 1 are repeated
      (array([[0, 0, 0, 1, 2]], dtype=int32), array([[0, 0, 0, 1, 2]], dtype=int32))
    """
    prints = fingerprints(notes)
    time = tf.shape(notes)[1]
    results = tf.TensorArray(tf.int32, time, element_shape=(2, 2, None))
    results = results.write(0, tf.zeros([2, 2, tf.shape(notes)[0]], tf.int32))

    def body(step: tf.Tensor, runs: tf.Tensor, results: tf.TensorArray) -> tuple[Any, ...]:
        runs, place, length = extend_repeats(runs, prints, step - 1)
        return step + 1, runs, results.write(step, tf.stack([place, length]))

    start = (tf.constant(1), tf.zeros(tf.shape(prints), tf.int32), results)
    _, _, results = tf.while_loop(lambda step, *_: step < time, body, start)
    place, length = tf.unstack(tf.transpose(results.stack(), [1, 2, 3, 0]))
    return place, length


def group_runs(runs: tf.Tensor) -> tf.Tensor:
    """One-hot encode lengths of repeats by their group, `<float>[..., RUN_GROUPS]`.

    Example:
      >>> tf.argmax(group_runs(tf.constant([0, 1, 2, 3, 4, 5, 20, 32])), axis=-1).numpy()
      array([0, 1, 2, 3, 3, 4, 6, 7])
    """
    reached = runs[..., None] >= tf.constant(RUN_BOUNDS)
    return tf.one_hot(tf.reduce_sum(tf.cast(reached, tf.int32), axis=-1), RUN_GROUPS)


# --- features -------------------------------------------------------------------------------------


class Past(NamedTuple):
    """The features of frames; `...` is `batch, time`, or `rows`, a selection of frames.

    Attributes:
      planes: `<float>[..., 88, len(LAGS) + 2]`: the frames `LAGS` steps back, the frame after the
        longest repeat of whole frames, and that after the longest repeat of highest notes.
      runs: `<int32>[..., 2]`: the lengths of the two repeats.
      step: `<int32>[...]`: the index of the frame.
      strikes: `<float>[..., 88, 3]`: the keys that are struck in the last frame, and in the frames
        after the two repeats.
    """

    planes: tf.Tensor
    runs: tf.Tensor
    step: tf.Tensor
    strikes: tf.Tensor


def sounding_keys(notes: tf.Tensor) -> tf.Tensor:
    """Return which keys sound, 0.0 or 1.0."""
    return tf.cast(notes > 0.5, tf.float32)


def struck_keys(notes: tf.Tensor, before: tf.Tensor) -> tf.Tensor:
    """Return which keys are struck, 0.0 or 1.0.

    Args:
      notes: `<float>[..., 88]`, frames; see `tasks.music.midi`.
      before: `<float>[..., 88]`, the frame before each.
    """
    return tf.cast((notes > 1.5) | ((notes > 0.5) & (before < 0.5)), tf.float32)


def look_back(notes: tf.Tensor) -> Past:
    """Return the features of all frames of `notes` `<float>[batch, time, 88]`."""
    time = tf.shape(notes)[1]
    place, length = find_repeats(notes)
    sounding = sounding_keys(notes)
    struck = struck_keys(notes, tf.pad(notes, [[0, 0], [1, 0], [0, 0]])[:, :time])

    def earlier(frames: tf.Tensor, lag: int) -> tf.Tensor:
        return tf.pad(frames, [[0, 0], [lag, 0], [0, 0]])[:, :time]

    def copied(frames: tf.Tensor, kind: int) -> tf.Tensor:
        following = tf.gather(frames, place[kind], axis=1, batch_dims=1)
        return tf.where(length[kind][:, :, None] > 0, following, 0.0)

    planes = [earlier(sounding, lag) for lag in LAGS] + [copied(sounding, k) for k in range(2)]
    strikes = [earlier(struck, 1)] + [copied(struck, kind) for kind in range(2)]
    step = tf.broadcast_to(tf.range(time), tf.shape(notes)[:2])
    return Past(
        tf.stack(planes, axis=-1),
        tf.transpose(length, [1, 2, 0]),
        step,
        tf.stack(strikes, axis=-1),
    )


@keras.saving.register_keras_serializable("tasks.music")
class LookBack(keras.layers.Layer):
    """`look_back` as a layer.

    Call arguments:
      notes: `<float>[batch, time, 88]`.

    Returns:
      The fields of a `Past`, as a tuple.
    """

    def call(self, notes: Any) -> Any:
        """Compute the features."""
        return tuple(look_back(notes))

    def compute_output_spec(self, notes: Any) -> Any:
        """Return the shapes of the features."""
        shape = tuple(notes.shape[:2])
        return (
            keras.KerasTensor((*shape, KEYS, len(LAGS) + 2), dtype="float32"),
            keras.KerasTensor((*shape, 2), dtype="int32"),
            keras.KerasTensor(shape, dtype="int32"),
            keras.KerasTensor((*shape, KEYS, 3), dtype="float32"),
        )


@keras.saving.register_keras_serializable("tasks.music")
class Outlook(keras.layers.Layer):
    """The input of the recurrent network at each frame.

    Call arguments:
      planes: see `Past`.
      runs: see `Past`.
      step: see `Past`.
      strikes: see `Past`.

    Returns:
      `<float>[..., features]`, the concatenation of the last frame; the keys struck in it;
      the frames after the repeats; the lengths of the repeats, one-hot; sine and cosine of the
      position in bars of `PERIODS` steps; 1 at the first frame.
    """

    def call(self, planes: Any, runs: Any, step: Any, strikes: Any) -> Any:
        """Concatenate the features."""
        # Under bfloat16, Keras casts the planes but not the integer inputs.
        planes = tf.cast(planes, tf.float32)
        last, struck = planes[..., 0], tf.cast(strikes[..., 0], tf.float32)
        angle = tf.cast(step, tf.float32)[..., None] * (2.0 * np.pi / np.array(PERIODS, np.float32))
        start = tf.cast(step == 0, tf.float32)[..., None]
        groups = [group_runs(runs[..., kind]) for kind in range(2)]
        copies = [planes[..., -2], planes[..., -1]]
        return tf.concat(
            [last, struck, *copies, *groups, tf.sin(angle), tf.cos(angle), start], axis=-1
        )

    def compute_output_spec(self, planes: Any, *_: Any) -> keras.KerasTensor:
        """Return the shape of the features."""
        width = 4 * KEYS + 2 * RUN_GROUPS + 2 * len(PERIODS) + 1
        return keras.KerasTensor((*planes.shape[:2], width), dtype="float32")
