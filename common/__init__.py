"""Recurrent blocks, and what every task needs around them: text, data, training, export."""

import os

__version__ = "0.1.0"

# All are read when TensorFlow and Keras are first imported, so they are set here, before that.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up chatter on standard error
# By itself TensorFlow uses oneDNN's kernels only on CPUs with AVX-512 VNNI; with AVX2 alone a
# training step of convolutions takes a third less with them.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
# The layers here are TensorFlow code.
if (backend := os.environ.setdefault("KERAS_BACKEND", "tensorflow")) != "tensorflow":
    raise ImportError(
        f"KERAS_BACKEND is {backend!r}, and this project needs tensorflow: unset it, or begin the "
        "command with KERAS_BACKEND=tensorflow"
    )
