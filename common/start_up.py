"""The start of a process: its cores, and the import of TensorFlow.

TensorFlow logs about a missing GPU, oneDNN and its own logging whenever it starts, whatever
`TF_CPP_MIN_LOG_LEVEL` says. These lines are written by C++ to the file descriptor, so they are
filtered there, and only while TensorFlow starts.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
from collections.abc import Iterator

from common.errors import InputError

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

LINES = re.compile(
    rb"WARNING: All log messages before absl::InitializeLog"
    rb"|I\d{4} "  # information
    rb"|[WE]\d{4} .*(cuInit|cuda|CUDA|TensorRT|oneDNN supports DT_BOOL)"
)
_DONE = b"\0done\n"  # no line of TensorFlow


def cores() -> list[int]:
    """Return the numbers of the cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def without_lines(lines: re.Pattern[bytes] = LINES) -> Iterator[None]:
    """Remove lines that match from standard error while the block runs; keep all others.

    A child process filters, so that nothing is lost if this process is aborted. If the block raises
    (but for an `InputError`) or the process dies, the removed lines are printed, too. The block
    runs unfiltered where TensorFlow was imported before, since a process with its threads should
    not fork, and where processes cannot fork.
    """
    if "tensorflow" in sys.modules or not hasattr(os, "fork"):
        yield
        return
    sys.stderr.flush()
    read, write = os.pipe()
    child = os.fork()
    if not child:
        os.close(write)
        _filter(read, lines)
    os.close(read)
    stderr = os.dup(2)
    os.dup2(write, 2)
    os.close(write)
    is_expected = False
    try:
        yield
        is_expected = True
    except InputError:  # a message about the user's flags
        is_expected = True
        raise
    finally:
        sys.stderr.flush()
        if is_expected:
            os.write(2, _DONE)
        os.dup2(stderr, 2)  # closes the pipe
        os.close(stderr)
        os.waitpid(child, 0)


def _filter(read: int, lines: re.Pattern[bytes]) -> None:
    """Copy a pipe to standard error line by line; end this process where the pipe ends."""
    removed, is_done = [], False
    try:
        with open(read, "rb") as pipe:
            for line in pipe:
                is_done = line == _DONE
                if is_done:
                    break
                if lines.match(line):
                    removed.append(line)
                else:
                    os.write(2, line)
        os.write(2, b"" if is_done else b"".join(removed))
    finally:
        os._exit(0)


@contextlib.contextmanager
def without_keras() -> Iterator[None]:
    """Let the first import of TensorFlow skip Keras, which it would import, too.

    That takes a large part of its time, and an export needs none of it. Keras can be imported
    later.
    """
    if "keras" in sys.modules:
        yield
        return
    sys.modules["keras"] = None  # type: ignore[assignment]  # makes the import fail
    try:
        yield
    finally:
        del sys.modules["keras"]


def start_tensorflow() -> None:
    """Import TensorFlow alone and start its runtime, in silence; for exports, which need no Keras.

    Does nothing where TensorFlow was imported before.
    """
    if "tensorflow" not in sys.modules:
        with without_lines(), without_keras():
            start_runtime()


def start_runtime() -> None:
    """Run a first op, which starts devices and kernels with all that they log."""
    tf.transpose(tf.constant([[True]]))  # of this type, since oneDNN's kernels log about it
