"""The classifier: a residual network on each frame, recurrent layers, pooling, softmax.

    frames -> sampled by time, resized      in the graph (`resampling`), for training and serving
      -> 5 channels                         colours, scaled down, and the distance of each pixel
                                            from the frame before it and from the mean of the
                                            clip, scaled up
      -> residual network on each frame     time folded into the batch; stem and three blocks, each
                                            halves the picture: 64 -> 4 (default: 32 -> 2); group
                                            normalisation, so that pictures stay independent
      -> bidirectional GRU                  96 units each way
      -> attention pooling over valid steps --pooling mean, max, last
      -> softmax

It is trained with cross-entropy on smoothed labels, Adam with a learning rate that falls along half
a cosine, dropout, and a moving average of the weights, which is scored and exported. Training clips
are mirrored, zoomed, moved, made faster or slower, brighter or darker, each clip as a whole. With
`--negatives` a part of them is replaced by still pictures and moving test patterns, of which the
model learns to be unsure. The graph samples the frame that is visible at the middle of each step
and fits pictures into the size of the model in proportion, with black bars.

With `--frame pooled` the recurrent layers read the mean and the maximum of each feature map and no
positions, for few clips of many cameras.

With `--frame joints` the recurrent layers read where joints are in each frame, and nothing else: 20
maps, of which each has its mean place, weighted by its softmax. With `--pose_weight` these places
are trained to be those of the captured joints that `hdm05` is rendered from. Small pictures seldom
show whether a body is seen from the back, so the left one of a pair of joints is the one further
left in the picture. A network that reads vectors fits the few bodies of its training.

`--backbone mobilenet_v3 --backbone_weights PATH` adds a frozen MobileNetV3Small on each frame. PATH
is the weights file without its top that `keras.applications` publishes; nothing is downloaded. It
was tried with random weights only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from common.attention import MaskedPooling
from common.errors import InputError
from common.rnn import length_mask, stack
from common.training.fit import Losses
from tasks.video.config import Config
from tasks.video.render import JOINTS

import keras
import numpy as np
import tensorflow as tf
from keras import ops

LOST = 0.05  # fraction of right answers on validation clips below the thresholds
SURE = 0.6  # no threshold is higher: a small validation split says little about new clips
HEAD = "head"  # the layer that `--init` replaces if the classes differ
POSE = "pose"  # the layer that returns the joints
JOINT_FILTERS = 32  # filters of the maps in which joints are located


@keras.saving.register_keras_serializable("tasks.video")
class FrameChannels(keras.layers.Layer):
    """Convert clips of bytes to float pictures and fold time into the batch.

    Two channels are added to the colours, so that each picture shows movement in any colours: the
    absolute difference of each pixel from the previous frame (0 in the first one), and from the
    mean of the clip's valid frames. Both are averaged over the three colours.

    Args:
      colours: scale of the colour channels; black is `-colours`, white is `colours`.
      changes: scale of the two added channels; from black to white is `changes`. 0 omits them.

    Call arguments:
      frames: `<uint8>[batch, time, height, width, 3]`.
      mask: `<bool>[batch, time]`, true at valid frames.

    Returns:
      `<float>[batch * time, height, width, 5]`; 3 channels without changes.

    Example:
      >>> frames, mask = ops.zeros((2, 4, 8, 8, 3), "uint8"), ops.ones((2, 4), "bool")
      >>> FrameChannels()(frames, mask).shape
      TensorShape([8, 8, 8, 5])
    """

    def __init__(self, colours: float = 1.0, changes: float = 1.0, **kwargs: Any):
        super().__init__(autocast=False, **kwargs)
        self.colours, self.changes = colours, changes

    def call(self, frames: Any, mask: Any) -> Any:
        """Scale the colours, append the changes, fold time into the batch."""
        # If a shape is static, TensorFlow multiplies by a reciprocal instead of dividing. A resumed
        # run starts with a batch of another shape and would differ in the last bit. Hence batch and
        # time are made dynamic.
        frames = tf.raw_ops.PlaceholderWithDefault(
            input=frames, shape=[None, None, *frames.shape[2:]]
        )
        x = ops.cast(frames, "float32") / 255.0
        colours = (2.0 * self.colours) * (x - 0.5)
        if self.changes:
            earlier = ops.concatenate([x[:, :1], x[:, :-1]], axis=1)
            valid = ops.cast(mask, "float32")[..., None, None, None]
            count = ops.maximum(ops.sum(valid, axis=1, keepdims=True), 1.0)
            mean = ops.sum(x * valid, axis=1, keepdims=True) / count
            changes = [
                self.changes * ops.mean(ops.abs(x - other), axis=-1, keepdims=True)
                for other in (earlier, mean)
            ]
            colours = ops.concatenate([colours, *changes], axis=-1)
        return ops.cast(ops.reshape(colours, (-1, *colours.shape[2:])), self.compute_dtype)

    def compute_output_spec(self, frames: Any, mask: Any) -> keras.KerasTensor:
        """Return the symbolic pictures."""
        shape = (None, *frames.shape[2:4], 5 if self.changes else 3)
        return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the constructor."""
        return {**super().get_config(), "colours": self.colours, "changes": self.changes}


@keras.saving.register_keras_serializable("tasks.video")
class UnfoldTime(keras.layers.Layer):
    """Separate time from the batch again, after `FrameChannels` folded it.

    Call arguments:
      features: `<float>[batch * time, ...]`.
      like: `[batch, time, ...]`; only its shape matters.

    Returns:
      `<float>[batch, time, ...]`.

    Example:
      >>> UnfoldTime()(ops.zeros((8, 3)), ops.zeros((2, 4, 1))).shape
      TensorShape([2, 4, 3])
    """

    def call(self, features: Any, like: Any) -> Any:
        """Reshape the features."""
        shape = ops.shape(like)
        return ops.reshape(features, (shape[0], shape[1], *features.shape[1:]))

    def compute_output_spec(self, features: Any, like: Any) -> keras.KerasTensor:
        """Return the symbolic sequences."""
        return keras.KerasTensor((*like.shape[:2], *features.shape[1:]), dtype=features.dtype)


def _convolution(filters: int, size: int, strides: int, name: str) -> keras.layers.Conv2D:
    """Make a convolution that a normalisation follows, hence without bias."""
    return keras.layers.Conv2D(
        filters,
        size,
        strides,
        padding="same",
        use_bias=False,
        kernel_initializer="he_normal",
        name=name,
    )


@keras.saving.register_keras_serializable("tasks.video")
class GroupNormalization(keras.layers.GroupNormalization):
    """Group normalisation of pictures, faster than the Keras layer of the same name.

    Mean and variance come from the sums and the sums of squares of each channel. Normalisation,
    `gamma` and `beta` together are one product and one sum per pixel.

    Args: those of `keras.layers.GroupNormalization`.

    Call arguments:
      x: `<float>[pictures, height, width, channels]`.

    Returns:
      `<float>[pictures, height, width, channels]`: each group of channels of each picture with
      mean 0 and variance 1, times `gamma`, plus `beta`.

    Reference:
      - [Wu & He, 2018: Group normalization](https://arxiv.org/abs/1803.08494)
    """

    def call(self, x: Any) -> Any:
        """Normalise the pictures."""
        height, width, channels = x.shape[1:]
        flat = ops.reshape(ops.cast(x, "float32"), (-1, height * width, channels))
        grouped = (-1, self.groups, channels // self.groups)
        moments = [
            ops.mean(ops.reshape(ops.mean(power, axis=1), grouped), axis=-1)
            for power in (flat, ops.square(flat))
        ]
        mean, variance = moments[0], ops.maximum(moments[1] - ops.square(moments[0]), 0.0)
        # From here on [pictures, channels].
        mean = ops.repeat(mean, grouped[-1], axis=-1)
        scale = ops.repeat(ops.rsqrt(variance + self.epsilon), grouped[-1], axis=-1)
        scale = scale * ops.cast(self.gamma, "float32")
        shift = ops.cast(self.beta, "float32") - mean * scale
        y = flat * scale[:, None] + shift[:, None]
        return ops.reshape(ops.cast(y, self.compute_dtype), (-1, height, width, channels))


# `model.keras` files of earlier versions hold these names.
keras.saving.get_custom_objects().update(
    {f"video>{layer.__name__}": layer for layer in (FrameChannels, UnfoldTime, GroupNormalization)}
)


def _activate(x: Any, name: str) -> Any:
    """Apply group normalisation in groups of eight channels, then ReLU.

    Unlike batch normalisation it is independent of other pictures, so padding cannot leak.
    """
    return ops.relu(GroupNormalization(x.shape[-1] // 8, name=f"{name}_norm")(x))


@keras.saving.register_keras_serializable("tasks.video")
class JointFeatures(keras.layers.Layer):
    """Describe each frame of a motion independent of where the body is and how large it is.

    Call arguments:
      joints: `<float>[batch, time, joints, 2 or 3]`.
      mask: `<bool>[batch, time]`, true at valid frames.

    Returns:
      `<float>[batch, time, (4 or 6) * (joints + 1)]`: the joints around their centre, the place of
      the centre since the first frame, and the movement of both since the frame before.

    Example:
      >>> JointFeatures()(ops.ones((2, 4, 5, 3)), ops.ones((2, 4), "bool")).shape
      TensorShape([2, 4, 36])
    """

    SPEED = 5.0  # movements from frame to frame are small

    def __init__(self, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, joints: Any, mask: Any) -> Any:
        """Compute the features."""
        valid = ops.cast(mask, "float32")[..., None, None]
        joints = ops.cast(joints, "float32") * valid
        centre = ops.mean(joints, axis=2, keepdims=True)
        around = (joints - centre) * valid
        count = ops.maximum(ops.sum(valid, axis=(1, 2, 3), keepdims=True), 1.0)
        spread = ops.sum(ops.square(around), axis=(1, 2, 3), keepdims=True) / count
        scale = ops.rsqrt(spread / joints.shape[2] + 1e-8)
        place = (centre - centre[:, :1]) * valid
        parts = [around * scale, place * scale]
        parts += [self.SPEED * (part - _before(part)) * valid for part in parts]
        shape = ops.shape(joints)
        flat = [
            ops.reshape(part, (shape[0], shape[1], math.prod(part.shape[2:]))) for part in parts
        ]
        return ops.concatenate(flat, axis=-1)

    def compute_output_spec(self, joints: Any, mask: Any) -> keras.KerasTensor:
        """Return the symbolic features."""
        count, axes = joints.shape[2:]
        return keras.KerasTensor((*joints.shape[:2], 2 * axes * (count + 1)), dtype="float32")


def _before(part: Any) -> Any:
    """Return each frame's predecessor; that of the first one is itself."""
    return ops.concatenate([part[:, :1], part[:, :-1]], axis=1)


@keras.saving.register_keras_serializable("tasks.video")
class MeanPlaces(keras.layers.Layer):
    """Return the mean place of each map, weighted by the softmax of `SHARPNESS` times its values.

    Call arguments:
      maps: `<float>[pictures, rows, columns, maps]`.

    Returns:
      `<float32>[pictures, maps, 2]`: column and row, fractions of the width and the height.

    Reference:
      - [Sun et al., 2018: Integral human pose regression](https://arxiv.org/abs/1711.08229)

    Example:
      >>> maps = np.zeros((1, 3, 3, 1), np.float32)
      >>> maps[0, 2, 1] = 99.0
      >>> MeanPlaces()(maps).numpy().tolist()
      [[[0.5, 1.0]]]
    """

    SHARPNESS = 4.0  # else it takes long until training tells places apart

    def __init__(self, **kwargs: Any):
        super().__init__(**{**kwargs, "dtype": "float32"})

    def call(self, maps: Any) -> Any:
        """Compute the means."""
        rows, columns, count = maps.shape[1:]
        row, column = np.mgrid[0.0 : 1.0 : rows * 1j, 0.0 : 1.0 : columns * 1j]
        places = np.stack([column.ravel(), row.ravel()], axis=1).astype(np.float32)
        flat = ops.reshape(ops.cast(maps, "float32"), (-1, rows * columns, count))
        weights = ops.transpose(ops.softmax(self.SHARPNESS * flat, axis=1), (0, 2, 1))
        return ops.matmul(weights, places)

    def compute_output_spec(self, maps: Any) -> keras.KerasTensor:
        """Return the symbolic places."""
        return keras.KerasTensor((maps.shape[0], maps.shape[-1], 2), dtype="float32")


def frame_maps(pictures: Any, config: Config) -> list[Any]:
    """Compute feature maps of each picture.

    A convolution and pre-activated residual blocks, each of which halves the sides of the picture.
    The output of the stem, the largest feature map, is not normalised, to save time.

    Args:
      pictures: `<float>[pictures, side, side, channels]`.
      config: the architecture.

    Returns:
      The input of each block and the output of the last one, each with half the sides of the one
      before it; the largest has half the sides of the pictures.

    Reference:
      - [He et al., 2016: Identity mappings in deep residual
        networks](https://arxiv.org/abs/1603.05027)
    """
    x = _convolution(config.channels[0], 3, 2, "stem")(pictures)
    maps = []
    for number, filters in enumerate(config.channels[1:], start=1):
        name = f"block_{number}"
        before = _activate(x, f"{name}_a") if number > 1 else ops.relu(x)
        maps.append(before)
        y = _convolution(filters, 3, 2, f"{name}_a")(before)
        y = _convolution(filters, 3, 1, f"{name}_b")(_activate(y, f"{name}_b"))
        pooled = keras.layers.AveragePooling2D(2, name=f"{name}_pool")(x)
        x = _convolution(filters, 1, 1, f"{name}_skip")(pooled) + y
    return [*maps, _activate(x, "last")]


def describe(maps: Any, config: Config) -> Any:
    """Return a vector for each picture, from its last feature maps.

    They are flattened, so that positions matter. With the `frame` pooled only the mean and the
    maximum of each map remain.

    Args:
      maps: `<float>[pictures, rows, columns, channels]`.
      config: the frame, and the size of the vector.

    Returns:
      `<float>[pictures, config.features]`.
    """
    if config.frame == "pooled":
        parts = [ops.mean(maps, axis=(1, 2)), ops.max(maps, axis=(1, 2))]
        x = ops.concatenate(parts, axis=-1)
    else:
        x = _convolution(32, 1, 1, "narrow")(maps)
        x = keras.layers.Flatten(name="places")(x)
    x = keras.layers.Dense(config.features, name="describe")(x)
    return keras.layers.LayerNormalization(name="describe_norm")(x)


def locate_joints(maps: Sequence[Any]) -> Any:
    """Return where each joint is in each picture, `<float32>[pictures, joints, 2]`.

    Coarse maps see more of the body, fine ones show places: each is enlarged and added to the next
    finer one, down to a quarter of the sides of the picture.

    Args:
      maps: of `frame_maps`.

    Reference:
      - [Lin et al., 2017: Feature pyramid networks](https://arxiv.org/abs/1612.03144)
    """
    *finer, last = maps
    x = keras.layers.Conv2D(JOINT_FILTERS, 1, name="joints_around")(last)
    # The largest maps, of the stem, are left out to save time.
    for number, finer_map in enumerate(reversed(finer[1:] or finer), start=1):
        x = keras.layers.UpSampling2D(2, interpolation="bilinear", name=f"joints_up_{number}")(x)
        x += keras.layers.Conv2D(JOINT_FILTERS, 1, name=f"joints_{number}")(finer_map)
    x = _convolution(JOINT_FILTERS, 3, 1, "joints_mixed")(_activate(x, "joints_mixed"))
    x = keras.layers.Conv2D(len(JOINTS), 1, name="joint_maps")(_activate(x, "joint_maps"))
    return MeanPlaces(name="joint_places")(x)


def backbone_features(frames: Any, mask: Any, config: Config) -> Any:
    """Compute a feature vector for each picture by a frozen network of `keras.applications`.

    Args:
      frames: `<uint8>[batch, time, side, side, 3]`.
      mask: `<bool>[batch, time]`, true at valid frames.
      config: the weights file; without it the weights are random, for `warm_start` to replace.

    Returns:
      `<float>[batch * time, config.features]`.

    Raises:
      InputError: the file holds other weights.
    """
    side = config.image_size
    try:
        network = keras.applications.MobileNetV3Small(
            input_shape=(side, side, 3),
            include_top=False,
            weights=None if config.backbone_weights is None else str(config.backbone_weights),
            pooling="avg",
            name="backbone",
        )
    except (ValueError, OSError, KeyError) as error:
        raise InputError(
            f"not the weights of MobileNetV3Small without its top: {error}", config.backbone_weights
        ) from error
    network.trainable = False
    # Colours as bytes: the network scales them itself.
    pictures = FrameChannels(127.5, 0.0, name="backbone_colours")(frames, mask) + 127.5
    x = network(pictures, training=False)
    x = keras.layers.Dense(config.features, name="describe_backbone")(x)
    return keras.layers.LayerNormalization(name="describe_backbone_norm")(x)


def build(config: Config, *, classes: int) -> keras.Model:
    """Build the classifier.

    Args:
      config: the architecture.
      classes: number of classes.

    Returns:
      A functional model. Inputs: `frames` `<uint8>[batch, time, side, side, 3]` at
      `config.frame_rate` frames per second, `length` `<int32>[batch]`. Outputs, all `<float32>`:
      `probabilities` `[batch, classes]`, and `frame_probabilities` `[batch, time, classes]`, the
      output of the same head at each step, 0 in the padding.

    Example:
      >>> built = build(Config(image_size=8, channels=(8,), features=4, units=3), classes=5)
      >>> frames, length = ops.zeros((2, 6, 8, 8, 3), "uint8"), ops.array([6, 4])
      >>> built({"frames": frames, "length": length})["probabilities"].shape
      TensorShape([2, 5])
    """
    side = config.image_size
    frames = keras.Input((None, side, side, 3), dtype="uint8", name="frames")
    length = keras.Input((), dtype="int32", name="length")
    mask = length_mask(length, frames)
    pictures = FrameChannels(config.colours, config.changes, name="frame_channels")(frames, mask)
    maps = frame_maps(pictures, config)
    if config.frame == "joints":
        pose = UnfoldTime(name=POSE)(locate_joints(maps), frames)
        x = JointFeatures(name="joint_features")(pose, mask)
        x = keras.layers.Dense(config.features, activation="relu", name="describe")(x)
        x = keras.layers.LayerNormalization(name="describe_norm")(x)
    else:
        described = describe(maps[-1], config)
        if config.backbone != "own":
            backbone = backbone_features(frames, mask, config)
            described = ops.concatenate([described, backbone], axis=-1)
        x = UnfoldTime(name="unfold_time")(described, frames)
    outputs = classify(keras.layers.Dropout(config.dropout)(x), mask, config, classes)
    return keras.Model(
        {"frames": frames, "length": length},
        outputs,
        name="video",
    )


def with_pose(classifier: keras.Model) -> keras.Model:
    """Return a model of the same inputs and weights that also returns the joints, for training.

    Args:
      classifier: of `build`, with the `frame` joints.

    Returns:
      A model with the outputs of the classifier and `pose` `<float32>[batch, time, joints, 2]`, see
      `tasks.video.render.pose`.
    """
    pose = classifier.get_layer(POSE).output
    return keras.Model(classifier.input, {**classifier.output, "pose": pose}, name="video_and_pose")


def classify(x: Any, mask: Any, config: Config, classes: int) -> dict[str, Any]:
    """Read the features of successive frames, and return the outputs of the model.

    Args:
      x: `<float>[batch, time, features]`.
      mask: `<bool>[batch, time]`.
      config: the architecture.
      classes: number of classes.

    Returns:
      `probabilities` `<float32>[batch, classes]`, `frame_probabilities`
      `<float32>[batch, time, classes]`, zero in padding.
    """
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
    # A softmax layer would take the mask of the steps for a mask of the classes.
    steps = ops.softmax(head(x)) * ops.cast(mask, "float32")[..., None]
    return {"probabilities": ops.softmax(head(pooled)), "frame_probabilities": steps}


def thresholds(model: keras.Model, batches: tf.data.Dataset, classes: int) -> list[float]:
    """Return the probability of each class below which a clip counts as "none of these".

    It is the one that `LOST` of the clips of the class do not reach that are classified correctly;
    for a class without any, that of all classes. It is at most `SURE`.

    Args:
      model: the classifier.
      batches: of validation clips.
      classes: number of classes.
    """
    reached: dict[int, list[float]] = {}
    for batch in batches:
        inputs = {name: value for name, value in batch.items() if name != "label"}
        probabilities = model(inputs, training=False)["probabilities"].numpy()
        for label, row in zip(batch["label"].numpy(), probabilities, strict=True):
            if row.argmax() == label:
                reached.setdefault(int(label), []).append(float(row.max()))
    every = [probability for row in reached.values() for probability in row]
    return [
        round(min(SURE, float(np.quantile(reached.get(label) or every or [0.0], LOST))), 4)
        for label in range(classes)
    ]


def make_losses(config: Config, classes: int) -> Losses:
    """Make the loss function for `common.training.fit.fit`: cross-entropy with smoothed labels.

    The target of the label -1, no activity, is the same probability for each class, as in
    [Hendrycks et al., 2019: Deep anomaly detection with outlier
    exposure](https://arxiv.org/abs/1812.04606).

    Where the outputs and the batch have a `pose`, `config.pose_weight` times the `pose_error` of
    clips with an activity is added.

    Args:
      config: the label smoothing and the weight.
      classes: number of classes.
    """
    smoothing = config.label_smoothing

    def losses(
        outputs: Mapping[str, tf.Tensor], batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.Tensor, tf.Tensor]:
        logs = tf.math.log(tf.clip_by_value(outputs["probabilities"], 1e-7, 1.0))
        label = batch["label"]
        target = tf.one_hot(label, classes, 1.0 - smoothing, 0.0) + smoothing / classes
        target = tf.where(label[:, None] >= 0, target, 1.0 / classes)
        values = -tf.reduce_sum(target * logs, axis=-1)
        if "pose" in batch and "pose" in outputs:
            error = pose_error(outputs["pose"], batch["pose"], batch["length"])
            values += config.pose_weight * tf.where(label >= 0, error, 0.0)
        return values, tf.ones_like(values)

    return losses


def pose_error(estimate: tf.Tensor, pose: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Return the mean distance of the joints from where they are estimated (MPJPE).

    Args:
      estimate: `<float>[batch, time, joints, 2]`.
      pose: like `estimate`.
      length: `<int32>[batch]`, valid frames.

    Returns:
      `<float>[batch]`.

    Example:
      >>> pose_error(tf.ones([1, 4, 5, 2]), tf.ones([1, 4, 5, 2]) + (3.0, 4.0), [2]).numpy()
      array([5.], dtype=float32)
    """
    # The gradient of the root of 0 is infinite.
    distance = tf.sqrt(tf.reduce_sum(tf.square(estimate - pose), axis=-1) + 1e-8)
    valid = tf.sequence_mask(length, tf.shape(pose)[1], tf.float32)
    frames = tf.reduce_sum(tf.reduce_mean(distance, axis=-1) * valid, axis=1)
    return frames / tf.reduce_sum(valid, axis=1)
