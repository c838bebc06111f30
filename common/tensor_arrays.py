"""Tensor arrays with static sizes where they are known, as the loops of XLA need them."""

from __future__ import annotations

from collections.abc import Sequence

import tensorflow as tf


def dimension(value: tf.Tensor, axis: int) -> int | tf.Tensor:
    """Return the size of an axis, as a Python integer where it is known.

    Example:
      >>> dimension(tf.zeros([2, 5]), 1)
      5
    """
    size = value.shape[axis]
    return tf.shape(value)[axis] if size is None else size


def unstack(value: tf.Tensor, *, reread: bool = False) -> tf.TensorArray:
    """Return a tensor array of the slices along the first axis.

    Args:
      value: `<any>[steps, ...]`.
      reread: whether each slice may be read more than once.

    Example:
      >>> int(unstack(tf.constant([3, 4])).read(1))
      4
    """
    array = tf.TensorArray(
        value.dtype,
        dimension(value, 0),
        element_shape=value.shape[1:],
        clear_after_read=not reread,
    )
    return array.unstack(value)


def empty(
    steps: int | tf.Tensor, shape: Sequence[int | None] | tf.TensorShape, dtype: tf.DType
) -> tf.TensorArray:
    """Return a tensor array of `steps` elements of one shape, to be written by a loop."""
    return tf.TensorArray(dtype, steps, element_shape=shape)
