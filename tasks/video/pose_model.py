"""The classifier of joints over time and its signatures, for `--pose`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common.rnn import length_mask
from common.serving.rows import length_fits, run_valid, within_budget
from common.serving.targets import PORTABLE, Examples, Signatures, Target, same, shared
from tasks.video import resampling
from tasks.video.config import Config
from tasks.video.joints import pose_request
from tasks.video.model import JointFeatures, classify
from tasks.video.serving import MOST, RATES

import keras
import numpy as np
import tensorflow as tf


def build(config: Config, *, classes: int, joints: int) -> keras.Model:
    """Build the classifier.

    Args:
      config: the architecture.
      classes: number of classes.
      joints: number of joints.

    Returns:
      A functional model. Inputs: `joints` `<float32>[batch, time, joints, 3]` at
      `config.frame_rate` frames per second, `length` `<int32>[batch]`. Outputs: those of
      `tasks.video.model.build`.
    """
    motion = keras.Input((None, joints, 3), dtype="float32", name="joints")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, motion)
    x = JointFeatures(name="joint_features")(motion, mask)
    x = keras.layers.Dense(config.features, activation="relu", name="describe")(x)
    x = keras.layers.LayerNormalization(name="describe_norm")(x)
    outputs = classify(keras.layers.Dropout(config.dropout)(x), mask, config, classes)
    return keras.Model(
        {"joints": motion, "length": length},
        outputs,
        name="pose",
    )


def signatures(
    model: keras.Model,
    labels: Sequence[str],
    *,
    joints: int,
    rate: float,
    longest: int,
    target: Target = PORTABLE,
) -> Signatures:
    """Make the exported functions: those of `tasks.video.serving`, for joints instead of frames.

    - `serving_default`: `joints` `<float32>[batch, time, joints, 3]` (the second coordinate is the
      height), `length` `<int32>[batch]`, `frame_rate` `<float32>[batch]` -> `activity`
      `<string>[batch]`, `probabilities` `<float32>[batch, classes]`.
    - `tensors`: `joints` at `rate` frames per second, `length` -> `probabilities`.
    - `explain`: the inputs of `serving_default` -> `frame_probabilities`, `length`.

    A row with a joint that is not finite, or with an invalid length or frame rate, is empty.

    Args:
      model: of `build`.
      labels: the classes, in the order of its outputs.
      joints: number of joints.
      rate: its frame rate, frames per second.
      longest: maximum number of frames at that rate.
      target: the device of the export.
    """
    names = tf.constant(list(labels))

    def classify(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(inputs, training=False)
        kinds = ("probabilities", "frame_probabilities")
        return {name: tf.cast(outputs[name], tf.float32) for name in kinds}

    core = target.core("core", classify, timed=["joints"], steps={"frame_probabilities": same})

    @shared
    def run(joints: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        return core(joints=joints, length=length)

    def resampled(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        motion, length = resampling.sample_in_graph(
            inputs["joints"], inputs["length"], inputs["frame_rate"], rate=rate, longest=longest
        )
        return {**run(motion, length), "length": length}

    spec = [
        tf.TensorSpec([None, None, joints, 3], tf.float32, name="joints"),
        tf.TensorSpec([None], tf.int32, name="length"),
        tf.TensorSpec([None], tf.float32, name="frame_rate"),
    ]

    @shared
    def run_raw(joints: tf.Tensor, length: tf.Tensor, frame_rate: tf.Tensor) -> Any:
        valid = _valid(joints, length) & (frame_rate >= RATES[0]) & (frame_rate <= RATES[1])
        valid = within_budget(valid, length, MOST)
        inputs = {"joints": joints, "length": length, "frame_rate": frame_rate}
        fill = {"length": 1, "frame_rate": rate}
        return {**run_valid(resampled, inputs, valid, fill=fill, timed=["joints"]), "valid": valid}

    @tf.function(input_signature=spec)
    def serving_default(
        joints: tf.Tensor, length: tf.Tensor, frame_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        outputs = run_raw(joints, length, frame_rate)
        best = tf.argmax(outputs["probabilities"], axis=-1, output_type=tf.int32)
        return {
            "activity": tf.where(outputs["valid"], tf.gather(names, best), ""),
            "probabilities": outputs["probabilities"],
        }

    @tf.function(input_signature=spec[:2])
    def tensors(joints: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        valid = within_budget(_valid(joints, length), length, MOST)
        inputs = {"joints": joints, "length": length}
        outputs = run_valid(run, inputs, valid, fill={"length": 1}, timed=["joints"])
        return {"probabilities": outputs["probabilities"]}

    @tf.function(input_signature=spec)
    def explain(
        joints: tf.Tensor, length: tf.Tensor, frame_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        outputs = run_raw(joints, length, frame_rate)
        return {name: outputs[name] for name in ("frame_probabilities", "length")}

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def _valid(joints: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Return which rows have a valid length and finite joints, `<bool>[batch]`."""
    padding = ~tf.sequence_mask(length, tf.shape(joints)[1])
    finite = tf.reduce_all(tf.math.is_finite(joints), axis=(2, 3)) | padding
    return length_fits(length, joints) & tf.reduce_all(finite, axis=1)


def examples(joints: int, rate: float, lengths: Sequence[int]) -> Examples:
    """Return requests for each signature."""
    random = np.random.default_rng(0)

    def noise(time: int) -> np.ndarray:
        return random.normal(size=(time, joints, 3)).astype(np.float32)

    requests = [pose_request([(noise(12), 60.0), (noise(5), rate)])]
    requests += [pose_request([(noise(time), rate)]) for time in lengths]
    numbers = [
        {
            "joints": np.stack([noise(time) for _ in range(2)]),
            "length": np.array([time, max(1, time // 2)], np.int32),
        }
        for time in lengths
    ]
    return {"serving_default": requests, "tensors": numbers, "explain": requests}
