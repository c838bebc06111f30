"""Private APIs of TensorFlow: facts about the caller's context that no public API tells.

All private names of TensorFlow and Keras that this project uses stand in this module, so a version
of TensorFlow that moves one of them costs a change here and nowhere else.
`tests/common/test_tensorflow_internals.py` checks both.
"""

from __future__ import annotations

import uuid
from pathlib import Path

import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.saved_model import fingerprinting_utils, save_context

__all__ = ["UnsharedFile", "is_compiling", "is_recording", "is_saving", "write_fingerprint"]


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


def write_fingerprint(directory: Path) -> None:
    """Write `fingerprint.pb` of a SavedModel anew, after its graph was changed."""
    fingerprinting_utils.write_fingerprint(str(directory))


class UnsharedFile(tf.lookup.TextFileInitializer):
    """The lines of a file as the keys of a table, and their numbers from 0 as its values.

    TensorFlow gives a table the name of its file, so within a process a second table of the same
    path would get the lines that the file held before. Here each table has a name of its own.

    Args:
      path: of the file, which becomes an asset of every export.
    """

    def __init__(self, path: str):
        lines, numbers = tf.lookup.TextFileIndex.WHOLE_LINE, tf.lookup.TextFileIndex.LINE_NUMBER
        self._own_name = f"lines_{uuid.uuid4()}"
        super().__init__(path, tf.string, lines, tf.int64, numbers)

    @property
    def _shared_name(self) -> str:
        return self._own_name
