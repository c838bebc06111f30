"""Runs of symbols that stand several times in a row, a common fault of decoded sequences.

A run begins for the third time if it stands twice in a row and its first symbol follows: "no , no ,
no" does, "no , no ." does not.
"""

from __future__ import annotations

import numpy as np
import tensorflow as tf

LONGEST_RUN = 8  # symbols of a run that is found


def has_third_run(tokens: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Return which sequences have a run of symbols that begins three times in a row.

    Args:
      tokens: `<int32>[batch, time]`.
      length: `<int32>[batch]`.

    Returns:
      `<bool>[batch]`.

    Example:
      >>> has_third_run(tf.constant([[4, 4, 4], [4, 5, 4]]), tf.constant([3, 3])).numpy()
      array([ True, False])
    """
    time = tf.shape(tokens)[1]
    real = tf.sequence_mask(length, time)
    found = tf.zeros_like(length, tf.bool)
    for size in range(1, LONGEST_RUN + 1):
        earlier = tokens[:, : tf.maximum(time - size, 0)]
        equal = tf.cast((tokens[:, size:] == earlier) & real[:, size:], tf.int32)
        windows = tf.signal.frame(equal, size + 1, 1)
        found |= tf.reduce_any(tf.reduce_all(windows > 0, axis=2), axis=1)
    return found


def third_runs(tokens: tf.Tensor, position: tf.Tensor, may_repeat: tf.Tensor) -> tf.Tensor:
    """Return the symbols that would begin a run for the third time in a row.

    Args:
      tokens: `<int32>[batch, beam, columns]`.
      position: `<int32>[]`, how many of them are known.
      may_repeat: `<bool>[batch]`, the rows in which no symbol is returned.

    Returns:
      `<int32>[batch * beam, LONGEST_RUN]`, -1 for none.
    """
    back = tf.range(2 * LONGEST_RUN)
    recent = tf.gather(tokens, tf.maximum(position - 1 - back, 0), axis=2)
    recent = tf.where(back < position, recent, -1 - back)  # nothing equals what is not there
    # Row k compares the last k + 1 symbols with those before them.
    sizes, places = np.arange(1, LONGEST_RUN + 1)[:, None], np.arange(LONGEST_RUN)
    is_equal = recent[:, :, None, :LONGEST_RUN] == tf.gather(recent, sizes + places, axis=2)
    is_twice = tf.reduce_all(is_equal | (places >= sizes), axis=3) & ~may_repeat[:, None, None]
    found = tf.where(is_twice, recent[:, :, :LONGEST_RUN], -1)
    return tf.reshape(found, [-1, LONGEST_RUN])
