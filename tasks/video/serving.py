"""Raw frames in, the activity out: the signatures that are exported."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from common.serving.targets import PORTABLE, Target, same, shared
from tasks.video import clips

import keras
import numpy as np
import tensorflow as tf

NO_LITERT = "LiteRT needs one length and size, and clips of any are brought to the model's"
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
) -> Mapping[str, tf.types.experimental.PolymorphicFunction]:
    """Makes the exported functions.

    - `serving_default`: `frames` `<uint8>[batch, time, height, width, 3]` (RGB), `length`
      `<int32>[batch]` true frames, `size` `<int32>[batch, 2]` true height and width, `frame_rate`
      `<float32>[batch]` frames a second -> `activity` `<string>[batch]`, `probabilities`
      `<float32>[batch, classes]`.
    - `tensors`: `frames` `<uint8>[batch, time, side, side, 3]` at `rate` frames a second, `length`
      -> `probabilities`.
    - `explain`: what `serving_default` takes -> `frame_probabilities`
      `<float32>[batch, steps, classes]` every 1/rate second, `length` `<int32>[batch]` the steps of
      each clip.

    A clip is seen up to its first `longest` frames at `rate`; `tensors` takes any length. A row
    whose `length` is not between 1 and `time`, whose `size` is not between 1 and the tensor's, or
    whose `frame_rate` is no positive number gets the empty answer: activity "", probabilities 0.

    Args:
      model: of `tasks.video.model.build`.
      labels: the classes in the order of its outputs.
      side: pixels a side that it sees.
      rate: frames a second that it sees.
      longest: frames at that rate.
      target: what they are made for. Clips are brought to the model's size and rate on the host.
    """
    names = tf.constant(list(labels))

    def ask(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model(inputs, training=False)
        return {name: outputs[name] for name in ("probabilities", "frame_probabilities")}

    core = target.core("core", ask, timed=["frames"], steps={"frame_probabilities": same})

    @shared
    def run(frames: tf.Tensor, length: tf.Tensor, answered: tf.Tensor) -> dict[str, tf.Tensor]:
        # A row that gets no answer is run as one step and blanked. A batch of no rows is run as one
        # row, since oneDNN's convolutions fail on none.
        rows = tf.shape(frames)[0]
        none = tf.maximum(0, 1 - rows)
        outputs = core(
            frames=tf.pad(frames, [[0, none], [0, 0], [0, 0], [0, 0], [0, 0]]),
            length=tf.pad(tf.where(answered, length, 1), [[0, none]], constant_values=1),
        )
        kept = tf.cast(answered, tf.float32)
        steps = outputs["frame_probabilities"][:rows]
        return {
            "probabilities": tf.cast(outputs["probabilities"][:rows], tf.float32) * kept[:, None],
            "frame_probabilities": tf.cast(steps, tf.float32) * kept[:, None, None],
            "length": tf.where(answered, length, 0),
        }

    @shared
    def run_raw(
        frames: tf.Tensor, length: tf.Tensor, size: tf.Tensor, frame_rate: tf.Tensor
    ) -> tuple[dict[str, tf.Tensor], tf.Tensor]:
        shape = tf.shape(frames)
        answered = (length > 0) & (length <= shape[1])
        answered &= tf.reduce_all((size > 0) & (size <= shape[2:4]), axis=1)
        answered &= tf.math.is_finite(frame_rate) & (frame_rate > 0.0)
        # At least one frame of one pixel, so that there is something to run.
        missing = tf.maximum(0, 1 - shape[1:4])
        before = tf.zeros([5], tf.int32)
        behind = tf.concat([[0], missing, [0]], axis=0)
        seen, count = clips.to_model(
            tf.pad(frames, tf.stack([before, behind], axis=1)),
            tf.where(answered, length, 1),
            tf.where(answered[:, None], size, 1),
            tf.where(answered, frame_rate, rate),
            side=side,
            rate=rate,
            longest=longest,
        )
        return run(seen, count, answered), answered

    @tf.function(input_signature=RAW)
    def serving_default(
        frames: tf.Tensor, length: tf.Tensor, size: tf.Tensor, frame_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        outputs, answered = run_raw(frames, length, size, frame_rate)
        best = tf.argmax(outputs["probabilities"], axis=-1, output_type=tf.int32)
        return {
            "activity": tf.where(answered, tf.gather(names, best), ""),
            "probabilities": outputs["probabilities"],
        }

    @tf.function(
        input_signature=[
            tf.TensorSpec([None, None, side, side, 3], tf.uint8, name="frames"),
            tf.TensorSpec([None], tf.int32, name="length"),
        ]
    )
    def tensors(frames: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        answered = (length > 0) & (length <= tf.shape(frames)[1])
        missing = tf.maximum(0, 1 - tf.shape(frames)[1])
        frames = tf.pad(frames, [[0, 0], [0, missing], [0, 0], [0, 0], [0, 0]])
        return {"probabilities": run(frames, length, answered)["probabilities"]}

    @tf.function(input_signature=RAW)
    def explain(
        frames: tf.Tensor, length: tf.Tensor, size: tf.Tensor, frame_rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        outputs, _ = run_raw(frames, length, size, frame_rate)
        return {name: outputs[name] for name in ("frame_probabilities", "length")}

    return {"serving_default": serving_default, "tensors": tensors, "explain": explain}


def request(batch: Sequence[np.ndarray], rates: Sequence[float]) -> dict[str, np.ndarray]:
    """Clips of any lengths and sizes as one request to `serving_default` or `explain`.

    Args:
      batch: clips `<uint8>[time, height, width, 3]`.
      rates: their frames a second.
    """
    shapes = np.array([clip.shape[:3] for clip in batch], np.int32)
    frames = np.zeros((len(batch), *shapes.max(axis=0), 3), np.uint8)
    for row, clip in enumerate(batch):
        time, height, width = clip.shape[:3]
        frames[row, :time, :height, :width] = clip
    return {
        "frames": frames,
        "length": shapes[:, 0],
        "size": shapes[:, 1:],
        "frame_rate": np.array(rates, np.float32),
    }


def examples(
    side: int, rate: float, lengths: Sequence[int]
) -> Mapping[str, list[dict[str, np.ndarray]]]:
    """Requests for each signature: raw clips and batches, of each length and of other sizes."""
    random = np.random.default_rng(0)

    def noise(time: int, height: int, width: int) -> np.ndarray:
        return random.integers(0, 256, (time, height, width, 3), np.uint8)

    asked = [
        request([noise(12, 48, 64), noise(5, 40, 30)], [25.0, 12.5]),
        request([noise(1, side, side)], [30.0]),
    ]
    asked += [request([noise(time, side, side)], [rate]) for time in lengths]
    batches = [
        {
            "frames": np.stack([noise(time, side, side) for _ in range(2)]),
            "length": np.array([time, max(1, time // 2)], np.int32),
        }
        for time in lengths
    ]
    return {"serving_default": asked, "tensors": batches, "explain": asked}
