"""Where training runs: one device, or all of this machine."""

from __future__ import annotations

from typing import Literal

import tensorflow as tf

StrategyName = Literal["one", "mirrored"]


def make_strategy(name: StrategyName) -> tf.distribute.Strategy:
    """Makes the strategy under which a model is built and fitted.

    Args:
      name: `one`: TensorFlow's default, a GPU if there is one. `mirrored`: a copy of the model on
        each GPU of this machine (or on each logical CPU device, where there are several), each
        taking its share of the global batch.

    Example:
      >>> make_strategy("one").num_replicas_in_sync
      1
    """
    if name == "one":
        return tf.distribute.get_strategy()
    devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
    return tf.distribute.MirroredStrategy([device.name for device in devices])
