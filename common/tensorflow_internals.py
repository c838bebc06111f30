"""Private APIs of TensorFlow: facts about the caller's context that no public API tells.

All private names of TensorFlow and Keras that this project uses stand in this module, so a version
of TensorFlow that moves one of them costs a change here and nowhere else.
`tests/common/test_tensorflow_internals.py` checks both.
"""

from __future__ import annotations

import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.saved_model import save_context

__all__ = ["is_compiling", "is_recording", "is_saving"]


def is_recording() -> bool:
    """Return whether a gradient tape is active in this thread.

    Example:
      >>> with tf.GradientTape():
      ...     is_recording()
      True
    """
    return record.could_possibly_record()


def is_saving() -> bool:
    """Return whether `tf.saved_model.save` traces the caller.

    Example:
      >>> is_saving()
      False
    """
    return save_context.in_save_context()


def is_compiling() -> bool:
    """Return whether a function with `jit_compile=True` is being traced, on any level.

    Example:
      >>> answers = []
      >>> @tf.function(jit_compile=True)
      ... def double(x):
      ...     answers.append(is_compiling())
      ...     return 2 * x
      >>> int(double(tf.constant(3))), answers
      (6, [True])
    """
    return tf.__internal__.get_enclosing_xla_context() is not None
