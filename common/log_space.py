"""Sums of probabilities in log space."""

from __future__ import annotations

import tensorflow as tf

# The logarithm of 0. It is far below any real score, yet finite, so that no NaN arises.
LOW = -1e30


def log_add(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """Return log(exp(a) + exp(b)).

    Example:
      >>> tf.exp(log_add(tf.math.log(0.25), tf.math.log(0.5))).numpy().round(4)
      np.float32(0.75)
    """
    return tf.maximum(a, b) + tf.math.log1p(tf.exp(-tf.abs(a - b)))


def log_sum_exp(value: tf.Tensor) -> tf.Tensor:
    """Return log(sum(exp(value))) over the first axis.

    Example:
      >>> tf.exp(log_sum_exp(tf.math.log([0.25, 0.5, 0.125]))).numpy().round(4)
      np.float32(0.875)
    """
    largest = tf.reduce_max(value, axis=0, keepdims=True)
    return largest[0] + tf.math.log(tf.reduce_sum(tf.exp(value - largest), axis=0))
