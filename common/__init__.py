"""Recurrent blocks, and what every task needs around them: text, data, training, export."""

import os

__version__ = "0.1.0"

# Both are read when TensorFlow and Keras are first imported, so they are set here, before that.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")  # no start-up chatter on standard error
os.environ["KERAS_BACKEND"] = "tensorflow"  # the layers here are TensorFlow code
