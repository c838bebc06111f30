"""The classifier: a residual network on each frame, recurrent layers, pooling, softmax."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common.attention import MaskedPooling
from common.rnn import length_mask, stack
from common.training.fit import Losses
from tasks.video.config import Config

import keras
import tensorflow as tf
from keras import ops

HEAD = "head"  # the layer that `--init` replaces where the classes differ


@keras.saving.register_keras_serializable("video")
class FrameChannels(keras.layers.Layer):
    """Turns clips of bytes into pictures for a network that sees one frame at a time.

    Each picture has two channels more than its colours, so that movement shows in every picture
    whatever its colours: how far each pixel is from the frame before it (nothing in the first one),
    and how far from the clip's mean, both as the mean of the three colours.

    Args:
      colours: black and white are minus and plus so much.
      changes: from black to white is so much; 0 leaves the two channels out.

    Call arguments:
      frames: `<uint8>[batch, time, height, width, 3]`.
      mask: `<bool>[batch, time]`, frames that count.

    Returns:
      `<float>[batch * time, height, width, 3 or 5]`: time is folded into the batch.
    """

    def __init__(self, colours: float = 1.0, changes: float = 1.0, **kwargs: Any):
        """Makes the layer, which has no weights."""
        super().__init__(autocast=False, **kwargs)
        self.colours, self.changes = colours, changes

    def call(self, frames: Any, mask: Any) -> Any:
        """Scales, compares and folds; see the class."""
        # Where a shape is known TensorFlow multiplies by a reciprocal instead of dividing, so a
        # resumed run, whose first batch is another, would differ in the last bit. So batch and
        # time are not known here.
        frames = tf.raw_ops.PlaceholderWithDefault(
            input=frames, shape=[None, None, *frames.shape[2:]]
        )
        x = ops.cast(frames, "float32") / 255.0
        colours = (2.0 * self.colours) * (x - 0.5)
        if self.changes:
            earlier = ops.concatenate([x[:, :1], x[:, :-1]], axis=1)
            real = ops.cast(mask, "float32")[..., None, None, None]
            count = ops.maximum(ops.sum(real, axis=1, keepdims=True), 1.0)
            mean = ops.sum(x * real, axis=1, keepdims=True) / count
            changes = [
                self.changes * ops.mean(ops.abs(x - other), axis=-1, keepdims=True)
                for other in (earlier, mean)
            ]
            colours = ops.concatenate([colours, *changes], axis=-1)
        return ops.cast(ops.reshape(colours, (-1, *colours.shape[2:])), self.compute_dtype)

    def compute_output_spec(self, frames: Any, mask: Any) -> keras.KerasTensor:
        """The shape of the pictures."""
        shape = (None, *frames.shape[2:4], 5 if self.changes else 3)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        return {**super().get_config(), "colours": self.colours, "changes": self.changes}


@keras.saving.register_keras_serializable("video")
class UnfoldTime(keras.layers.Layer):
    """Parts time from the batch again.

    Call arguments:
      features: `<float>[batch * time, features]`.
      like: `[batch, time, ...]`, only its shape matters.

    Returns:
      `<float>[batch, time, features]`.
    """

    def call(self, features: Any, like: Any) -> Any:
        """Reshapes; see the class."""
        shape = ops.shape(like)
        return ops.reshape(features, (shape[0], shape[1], features.shape[-1]))

    def compute_output_spec(self, features: Any, like: Any) -> keras.KerasTensor:
        """The shape of the sequences."""
        return keras.KerasTensor((*like.shape[:2], features.shape[-1]), dtype=features.dtype)


def _convolution(filters: int, size: int, strides: int, name: str) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )


@keras.saving.register_keras_serializable("video")
class GroupNormalization(keras.layers.GroupNormalization):
    """Keras's layer of the same name for pictures, with fewer passes over them.

    Mean and variance come from each channel's sum and sum of squares, and scale and shift are one
    product and one sum: a training step of the network on frames takes a fifth less time.

    Call arguments:
      x: `<float>[pictures, height, width, channels]`.

    Returns:
      The same shape; each picture's groups of channels with mean 0 and variance 1, times `gamma`,
      plus `beta` (Wu & He 2018).
    """

    def call(self, x: Any) -> Any:
        """Normalises; see the class."""
        height, width, channels = x.shape[1:]
        flat = ops.reshape(ops.cast(x, "float32"), (-1, height * width, channels))
        grouped = (-1, self.groups, channels // self.groups)
        moments = [
            ops.mean(ops.reshape(ops.mean(power, axis=1), grouped), axis=-1)
            for power in (flat, ops.square(flat))
        ]
        mean, variance = moments[0], ops.maximum(moments[1] - ops.square(moments[0]), 0.0)
        # [pictures, channels]
        mean = ops.repeat(mean, grouped[-1], axis=-1)
        scale = ops.repeat(ops.rsqrt(variance + self.epsilon), grouped[-1], axis=-1)
        scale = scale * ops.cast(self.gamma, "float32")
        shift = ops.cast(self.beta, "float32") - mean * scale
        y = flat * scale[:, None] + shift[:, None]
        return ops.reshape(ops.cast(y, self.compute_dtype), (-1, height, width, channels))


def _activated(x: Any, name: str) -> Any:
    """Normalises groups of eight channels within each picture, then ReLU.

    Unlike batch normalisation this looks at no other picture, so padding cannot leak.
    """
    return ops.relu(GroupNormalization(x.shape[-1] // 8, name=f"{name}_norm")(x))


def frame_features(pictures: Any, config: Config) -> Any:
    """Describes each picture by itself: `<float>[pictures, config.features]`.

    A convolution and pre-activated residual blocks (He et al. 2016), each of which halves the
    picture's sides. What is left of the picture is laid flat, so that places count. The stem's
    answer, the largest of all, is not normalised, which saves time.
    """
    x = _convolution(config.channels[0], 3, 2, "stem")(pictures)
    for number, filters in enumerate(config.channels[1:], start=1):
        name = f"block_{number}"
        before = _activated(x, f"{name}_a") if number > 1 else ops.relu(x)
        y = _convolution(filters, 3, 2, f"{name}_a")(before)
        y = _convolution(filters, 3, 1, f"{name}_b")(_activated(y, f"{name}_b"))
        pooled = keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)
        x = _convolution(filters, 1, 1, f"{name}_skip")(pooled) + y
    x = _activated(x, "last")
    x = _convolution(32, 1, 1, "narrow")(x)
    x = keras.layers.Flatten(name="places")(x)
    x = keras.layers.Dense(config.features, name="describe")(x)
    return keras.layers.LayerNormalization(name="describe_norm")(x)


def build(config: Config, *, classes: int) -> keras.Model:
    """Builds the classifier.

    Args:
      config: the architecture.
      classes: how many.

    Returns:
      A functional model. Inputs: `frames` `<uint8>[batch, time, side, side, 3]` at
      `config.frame_rate` frames a second, `length` `<int32>[batch]`; outputs, all `<float32>`:
      `probabilities` `[batch, classes]`; `frame_probabilities` `[batch, time, classes]`, what the
      same head says about each step, zeros behind a clip's end.
    """
    side = config.image_size
    frames = keras.Input((None, side, side, 3), dtype="uint8", name="frames")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, frames)
    pictures = FrameChannels(config.colours, config.changes, name="frame_channels")(frames, mask)
    x = UnfoldTime(name="unfold_time")(frame_features(pictures, config), frames)
    x = keras.layers.Dropout(config.dropout)(x)
    x = stack(
        config.cell,
        config.units,
        config.layers,
        bidirectional=True,
        dropout=config.dropout,
        name="encoder",
    )(x, mask=mask)
    pooled, _ = MaskedPooling(config.pooling, name="pool")(x, mask=mask)
    pooled = keras.layers.Dropout(config.head_dropout)(pooled)
    head = keras.layers.Dense(classes, dtype="float32", name=HEAD)
    # Not the layer, which would take the mask of the steps for one of the classes.
    steps = ops.softmax(head(x)) * ops.cast(mask, "float32")[..., None]
    return keras.Model(
        {"frames": frames, "length": length},
        {"probabilities": ops.softmax(head(pooled)), "frame_probabilities": steps},
        name="video",
    )


def make_losses(config: Config, classes: int) -> Losses:
    """The cross-entropy against smoothed labels, as `common.training.fit.fit` takes it."""
    smoothing = config.label_smoothing

    def losses(
        outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        logs = tf.math.log(tf.clip_by_value(outputs["probabilities"], 1e-7, 1.0))
        wanted = tf.one_hot(batch["label"], classes, 1.0 - smoothing, 0.0) + smoothing / classes
        values = -tf.reduce_sum(wanted * logs, axis=-1)
        return values, tf.ones_like(values)

    return losses
