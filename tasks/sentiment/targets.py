"""The target distribution and the weight of each training example."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from tasks.sentiment.config import Config
from tasks.sentiment.datasets import BOUNDS, SENTENCE

import numpy as np
import tensorflow as tf

Targets = Callable[[Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]


def smoothed(config: Config, classes: int) -> np.ndarray:
    """Return the target distribution of each class, `<float32>[classes, classes]`.

    Example:
      >>> config = Config(neighbour_smoothing=0.25, label_smoothing=0.0)
      >>> smoothed(config, 3).round(2)
      array([[0.8 , 0.2 , 0.  ],
             [0.17, 0.67, 0.17],
             [0.  , 0.2 , 0.8 ]], dtype=float32)
    """
    distance = np.abs(np.subtract.outer(np.arange(classes), np.arange(classes)))
    rows = np.where(distance == 0, 1.0, np.where(distance == 1, config.neighbour_smoothing, 0.0))
    rows /= rows.sum(axis=1, keepdims=True)
    rows = rows * (1.0 - config.label_smoothing) + config.label_smoothing / classes
    return rows.astype(np.float32)


def soft(ratings: tf.Tensor, spread: float) -> tf.Tensor:
    """Return the distribution of stars for mean ratings that have a normal error.

    Args:
      ratings: `<float32>[batch]`, from -4 to 4.
      spread: standard deviation of the error.

    Returns:
      `<float32>[batch, 5]`.

    Example:
      >>> soft(tf.constant([0.5, 3.0]), 0.3).numpy().round(2)
      array([[0. , 0. , 0.5, 0.5, 0. ],
             [0. , 0. , 0. , 0. , 1. ]], dtype=float32)
    """
    bounds = tf.constant([-math.inf, *BOUNDS, math.inf])
    below = (bounds - ratings[:, None]) / (spread * math.sqrt(2.0))
    cumulative = 0.5 * (1.0 + tf.math.erf(below))
    return cumulative[:, 1:] - cumulative[:, :-1]


def make_targets(config: Config, classes: int, counts: Sequence[int] | None = None) -> Targets:
    """Return the function that adds targets and weights to a batch of examples.

    Args:
      config: the settings.
      classes: number of classes.
      counts: frequencies of the classes. If given, all classes weigh the same together.

    Phrases of two classes are taught by their ratings, from -4 to 4: of their class, or weakly so.

    Returns:
      A function of examples `{label, ...}`, which returns `target` `<float32>[batch, classes]` and
      `weight` `<float32>[batch]`.
    """
    table = tf.constant(smoothed(config, classes))
    of_class = (
        np.ones(classes) if counts is None else sum(counts) / (classes * np.maximum(counts, 1))
    )
    weights = tf.constant(of_class, tf.float32)

    def targets(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        target, weight = tf.gather(table, batch["label"]), tf.gather(weights, batch["label"])
        if config.rating_spread:
            target = soft(batch["rating"], config.rating_spread) @ table
        if config.phrases and classes == 2:  # a neutral phrase belongs half to each class
            positive = 0.5 + batch["rating"] / 8.0
            target = tf.stack([1.0 - positive, positive], axis=1) @ table
        if config.phrases:
            is_sentence = batch["part"] == SENTENCE
            weight *= tf.where(is_sentence, config.sentence_weight, 1.0)
        return {"target": target, "weight": weight}

    return targets
