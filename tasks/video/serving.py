"""The exported signatures: raw frames -> the activity, and its probability at each step."""

from __future__ import annotations

from collections.abc import Sequence

from common.serving.rows import length_fits, run_valid, within_budget
from common.serving.targets import PORTABLE, Examples, Run, Signatures, Target, fit, same, shared
from tasks.video import resampling
from tasks.video.clips import clip_request

import keras
import numpy as np
import tensorflow as tf

MOST = 6_144  # frames of a request: its rows times the longest of them, at the network's rate
LARGEST, MOST_PIXELS = 1 << 25, 1 << 27  # pixels in all frames of a clip, and of a request
RATES = (1.0, 1000.0)  # frames per second that a clip may have

RAW = (
    tf.TensorSpec([None, None, None, None, 3], tf.uint8, name="frames"),
    tf.TensorSpec([None], tf.int32, name="length"),
    tf.TensorSpec([None, 2], tf.int32, name="size"),
    tf.TensorSpec([None], tf.float32, name="frame_rate"),
)


def signatures(
    model: keras.Model,
    labels: Sequence[str],
    *,
    side: int,
    rate: float,
    longest: int,
    target: Target = PORTABLE,
) -> Signatures:
    """Make the exported functions.

    - `serving_default`: `frames` `<uint8>[batch, time, height, width, 3]` (RGB), `length`
      `<int32>[batch]` true frames, `size` `<int32>[batch, 2]` true height and width, `frame_rate`
      `<float32>[batch]` frames per second -> `activity` `<string>[batch]`, `probabilities`
      `<float32>[batch, classes]`.
    - `tensors`: `frames` `<uint8>[batch, time, side, side, 3]` at `rate` frames per second,
      `length` -> `probabilities`.
    - `explain`: the inputs of `serving_default` -> `frame_probabilities`
      `<float32>[batch, steps, classes]` every 1/rate second, `length` `<int32>[batch]` the steps of
      each clip.

    Clips are truncated to `longest` frames at `rate`; `tensors` accepts any number. A row whose
    `length` is outside 1..`time`, whose `size` is outside 1..`height` and 1..`width`, or whose
    `frame_rate` is outside `RATES` has the activity "" and probabilities of 0. So has a row of more
    than `LARGEST` pixels, or beyond the budget of `MOST` frames or `MOST_PIXELS` pixels; see
    `common.serving.rows.within_budget`. They are counted at `rate`, before pictures are resized.

    Args:
      model: of `tasks.video.model.build`.
      labels: the classes, in the order of its outputs.
      side: side of its pictures, pixels.
      rate: its frame rate, frames per second.
      longest: maximum number of frames at that rate.
      target: the device of the export. Clips are resampled on the host.
    """
    names = tf.constant(list(labels))
    run = _make_run(model, target)

    def run_clips(**clips: tf.Tensor) -> dict[str, tf.Tensor]:
        frames, length = _preprocess(clips, side=side, rate=rate, longest=longest)
        return {**run(frames, length), "length": length}

    @shared
    def run_raw(
        frames: tf.Tensor, length: tf.Tensor, size: tf.Tensor, frame_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        inputs = {"frames": frames, "length": length, "size": size, "frame_rate": frame_rate}
        valid = _computed(**inputs, rate=rate, longest=longest)
        fill = {"length": 1, "size": 1, "frame_rate": rate}
        outputs = run_valid(run_clips, inputs, valid, fill=fill, timed=["frames"])
        return {**outputs, "valid": valid}

    @tf.function(input_signature=RAW)
    def serving_default(
        frames: tf.Tensor, length: tf.Tensor, size: tf.Tensor, frame_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        outputs = run_raw(frames, length, size, frame_rate)
        best = tf.argmax(outputs["probabilities"], axis=-1, output_type=tf.int32)
        return {
            "activity": tf.where(outputs["valid"], tf.gather(names, best), ""),
            "probabilities": outputs["probabilities"],
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, side, side, 3], tf.uint8, name="frames"),
            tf.TensorSpec([None], tf.int32, name="length"),
        ]
    )
    def tensors(frames: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        inputs = {"frames": frames, "length": length}
        valid = within_budget(length_fits(length, frames), length, MOST)
        outputs = run_valid(run, inputs, valid, fill={"length": 1}, timed=["frames"])
        return {"probabilities": outputs["probabilities"]}

    @tf.function(input_signature=RAW)
    def explain(
        frames: tf.Tensor, length: tf.Tensor, size: tf.Tensor, frame_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        outputs = run_raw(frames, length, size, frame_rate)
        return {name: outputs[name] for name in ("frame_probabilities", "length")}

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def _computed(
    frames: tf.Tensor,
    length: tf.Tensor,
    size: tf.Tensor,
    frame_rate: tf.Tensor,
    *,
    rate: float,
    longest: int,
) -> tf.Tensor:
    """Return which clips are computed, `<bool>[batch]`; see `signatures`."""
    valid = length_fits(length, frames)
    valid &= tf.reduce_all((size > 0) & (size <= tf.shape(frames)[2:4]), axis=1)
    valid &= (frame_rate >= RATES[0]) & (frame_rate <= RATES[1])  # false for NaN
    count = resampling.count_frames(
        tf.where(valid, length, 1), tf.where(valid, frame_rate, rate), rate=rate, longest=longest
    )
    area = tf.reduce_prod(tf.cast(size, tf.int64), axis=1)
    pixels = tf.where(valid, tf.cast(count, tf.int64) * area, 0)
    valid = within_budget(valid & (pixels <= LARGEST), count, MOST)
    return within_budget(valid, pixels, MOST_PIXELS)


def _preprocess(
    clips: dict[str, tf.Tensor], *, side: int, rate: float, longest: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Bring valid clips to the size and the rate of the network.

    One by one, so that no clip costs the margins that the largest of the batch gives it.

    Returns:
      See `resampling.preprocess`; 0 after the end of a clip.
    """
    count = resampling.count_frames(
        clips["length"], clips["frame_rate"], rate=rate, longest=longest
    )
    most = tf.reduce_max(count)

    def preprocess(clip: dict[str, tf.Tensor]) -> tf.Tensor:
        height, width = tf.unstack(clip["size"])
        frames = clip["frames"][: clip["length"], :height, :width]
        batch = {name: value[None] for name, value in {**clip, "frames": frames}.items()}
        frames, _ = resampling.preprocess(**batch, side=side, rate=rate, longest=longest)
        return tf.ensure_shape(fit(frames, most)[0], [None, side, side, 3])

    spec = tf.TensorSpec([None, side, side, 3], tf.uint8)
    frames = tf.map_fn(preprocess, clips, parallel_iterations=1, fn_output_signature=spec)
    return frames, count


def _make_run(model: keras.Model, target: Target) -> Run:
    """Make the computation that all signatures share; it is numeric, so accelerators can run it.

    Returns:
      A function of `frames` and `length`, which returns `probabilities` and `frame_probabilities`.
    """

    def classify(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(inputs, training=False)
        names = ("probabilities", "frame_probabilities")
        return {name: tf.cast(outputs[name], tf.float32) for name in names}

    core = target.core("core", classify, timed=["frames"], steps={"frame_probabilities": same})

    @shared
    def run(frames: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        return core(frames=frames, length=length)

    return run


def examples(side: int, rate: float, lengths: Sequence[int]) -> Examples:
    """Return requests for each signature: of each bucket length, and of other sizes and rates."""
    random = np.random.default_rng(0)

    def noise(time: int, height: int, width: int) -> np.ndarray:
        return random.integers(0, 256, (time, height, width, 3), np.uint8)

    requests = [
        clip_request([noise(12, 48, 64), noise(5, 40, 30)], [25.0, 12.5]),
        clip_request([noise(1, side, side)], [30.0]),
    ]
    requests += [clip_request([noise(time, side, side)], [rate]) for time in lengths]
    numbers = [
        {
            "frames": np.stack([noise(time, side, side) for _ in range(2)]),
            "length": np.array([time, max(1, time // 2)], np.int32),
        }
        for time in lengths
    ]
    return {"serving_default": requests, "tensors": numbers, "explain": requests}
