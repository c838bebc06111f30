"""Rules of sampling in the graph: choices against the habits of the music are less probable."""

from __future__ import annotations

from tasks.music.habits import (
    FEW_NOTES,
    FORBIDDEN,
    LEAP,
    LEAPING,
    MISSING_VOICE,
    OUT_OF_SCALE,
    PARALLEL,
    VOICES,
    Habits,
)
from tasks.music.midi import KEYS, LOWEST, MAJOR_SCALE
from tasks.music.model import voice_keys

import numpy as np
import tensorflow as tf

# Which pitch classes are in the major scale of each tonic, [12, 12].
SCALES = np.array([[(c - t) % 12 in MAJOR_SCALE for c in range(12)] for t in range(12)])
CLASSES = (np.arange(KEYS) + LOWEST) % 12


def pitch_classes(notes: tf.Tensor) -> tf.Tensor:
    """Return how many keys of each pitch class sound, `<float>[..., 12]`."""
    return notes @ tf.one_hot(CLASSES, 12)


class Rules:
    """The rules for the next frame of each row.

    Args:
      habits: of the training music.
      last: `<float>[rows, 88]`, the keys that sound in the last frame.
      sounding: `<int32>[rows, 88]`, for how many steps each key has sounded.
      still: `<int32>[rows]`, the number of frames for which these keys have not changed.
      classes: `<float>[rows, 12]`, the weight of each pitch class in the music so far.
    """

    def __init__(
        self,
        habits: Habits,
        last: tf.Tensor,
        *,
        sounding: tf.Tensor,
        still: tf.Tensor,
        classes: tf.Tensor,
    ):
        self.habits = habits
        self.too_long = sounding >= (habits.longest_key or tf.int32.max)
        scale = tf.argmax(classes @ tf.constant(SCALES.T, tf.float32), axis=-1)
        outside = tf.gather(tf.constant(~SCALES[:, CLASSES]), scale)
        has_scale = tf.reduce_sum(classes, axis=-1, keepdims=True) >= FEW_NOTES
        self.out_of_scale = outside & has_scale & habits.tonal
        self.before = voice_keys(last)
        self.top = tf.reduce_max(tf.where(last > 0.5, tf.range(KEYS), -1), axis=-1)
        self.frozen = still >= (habits.longest_frame or tf.int32.max)

    def log_factors(self, notes: tf.Tensor, latest: tf.Tensor) -> tf.Tensor:
        """Return the logarithms of the factors of all choices; see `Frame.sample`.

        Args:
          notes: `<float>[rows, 88]`, the keys chosen so far.
          latest: `<int32>[rows]`, the highest of them; -1 if there is none.

        Returns:
          `<float>[rows, 89]`: of each key as the next one, and of the end of the frame.
        """
        habits, numbers = self.habits, tf.range(KEYS)[None]
        count = tf.cast(tf.reduce_sum(notes, axis=-1), tf.int32)
        outside = (numbers < habits.low) | (numbers > habits.high)
        frozen = self.frozen[:, None] & (numbers == self.top[:, None])
        key = FORBIDDEN * tf.cast(outside | frozen | self.too_long, tf.float32)
        key += OUT_OF_SCALE * tf.cast(self.out_of_scale, tf.float32)
        end = FORBIDDEN * tf.cast(self.frozen & (self.top < 0) & (count == 0), tf.float32)
        if habits.voices:
            surplus = tf.nn.relu(tf.cast(count + 1 - habits.voices, tf.float32))
            key += MISSING_VOICE * surplus[:, None]
            end += MISSING_VOICE * tf.nn.relu(tf.cast(habits.voices - count, tf.float32))
        if not habits.parallels:
            key += PARALLEL * tf.cast(self._parallel(notes, count), tf.float32)
        if not habits.leaps:
            leaps = (tf.abs(numbers - self.top[:, None]) > LEAP) & (self.top[:, None] >= 0)
            ends_by_leap = (tf.abs(latest - self.top) > LEAP) & (self.top >= 0) & (count > 0)
            if habits.voices:  # the last voice is the melody
                key += LEAPING * tf.cast(leaps & (count[:, None] + 1 == habits.voices), tf.float32)
                ends_by_leap &= count < habits.voices
            end += LEAPING * tf.cast(ends_by_leap, tf.float32)
        return -tf.concat([key, end[:, None]], axis=-1)

    def _parallel(self, notes: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
        """Return which keys would move in parallel with a lower voice, `<bool>[rows, 88]`.

        See `habits.parallels`.
        """
        chosen = voice_keys(notes)
        mine = tf.gather(self.before, tf.minimum(count, VOICES), axis=1, batch_dims=1)
        valid = (chosen >= 0) & (self.before >= 0) & (mine >= 0)[:, None]
        valid &= chosen != self.before
        numbers = tf.range(KEYS)[None, :, None]
        old = tf.math.floormod(mine[:, None] - self.before, 12)[:, None]
        new = tf.math.floormod(numbers - chosen[:, None], 12)
        same = (new == old) & ((new == 0) | (new == 7)) & valid[:, None]
        return tf.reduce_any(same, axis=-1) & (numbers[..., 0] != mine[:, None])
