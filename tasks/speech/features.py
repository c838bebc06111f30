"""From a waveform to what the network sees, in the graph: ONE function for training and serving.

    audio -> 25 ms windows each 10 ms -> power spectrum -> mel bands -> log
          -> every band with mean 0 and variance 1 over the utterance

A frame sees only whole windows of real samples, so whatever a server pads with changes nothing. The
energies are taken relative to the utterance's mean, so loudness changes nothing either.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

RATE = 16_000  # samples a second
WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT = 512
LOWEST, HIGHEST = 60.0, 7_600.0  # Hz
FLOOR = 1e-6  # of the mean energy: what is 60 dB below it counts as silence


def count_frames(length: Any) -> tf.Tensor:
    """How many whole windows fit: `<int32>[batch]`, 0 below 25 ms.

    Example:
    >>> count_frames([399, 400, 560, 16_000])
    [0, 1, 2, 98]
    """
    length = tf.cast(length, tf.int32)
    return tf.where(length < WINDOW, 0, 1 + (length - WINDOW) // HOP)


def count_steps(samples: Any, strides: Sequence[int]) -> tuple[tf.Tensor, tf.Tensor]:
    """Frames of a tensor of so many samples, and the steps that `Subsample` makes of them."""
    frames = count_frames(tf.maximum(samples, WINDOW))
    steps = frames
    for stride in strides:
        steps = -(-steps // stride)
    return frames, steps


def power_spectrum(audio: tf.Tensor) -> tf.Tensor:
    """Power of each Hann window: `<float32>[batch, samples]` -> `<float32>[batch, frames, 257]`.

    Frame k covers the samples from 160 k to 160 k + 400.
    """
    spectrum = tf.signal.stft(audio, WINDOW, HOP, FFT, pad_end=False)
    return tf.math.real(spectrum) ** 2 + tf.math.imag(spectrum) ** 2


def mel_energies(audio: tf.Tensor, bands: int) -> tf.Tensor:
    """Energy in each mel band of each window (HTK's mel scale, triangles of height 1 in mels).

    Args:
      audio: `<float32>[batch, samples]` at 16 kHz.
      bands: how many.

    Returns:
      `<float32>[batch, frames, bands]`.
    """
    filters = tf.signal.linear_to_mel_weight_matrix(bands, FFT // 2 + 1, RATE, LOWEST, HIGHEST)
    return tf.tensordot(power_spectrum(audio), filters, 1)


def log_mel(audio: tf.Tensor, length: tf.Tensor, bands: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The features of the task.

    Args:
      audio: `<float32>[batch, samples]`; samples beyond `length` are not looked at.
      length: `<int>[batch]`, real samples.
      bands: mel bands.

    Returns:
      `<float32>[batch, frames, bands]`, 0 beyond each row's own frames, at least one frame; and the
      number of frames `<int32>[batch]`.
    """
    samples = tf.shape(audio)[1]
    audio = tf.pad(audio, [[0, 0], [0, tf.maximum(WINDOW - samples, 0)]])
    energies = mel_energies(audio, bands)
    time = tf.shape(energies)[1]
    frames = tf.minimum(count_frames(length), time)
    mask = tf.sequence_mask(frames, time)[:, :, None]
    count = tf.maximum(tf.cast(frames, tf.float32), 1.0)[:, None, None]

    def mean(values: tf.Tensor) -> tf.Tensor:
        return tf.reduce_sum(tf.where(mask, values, 0.0), axis=1, keepdims=True) / count

    level = tf.reduce_mean(mean(energies), axis=2, keepdims=True)
    values = tf.math.log(tf.math.divide_no_nan(energies, level) + FLOOR)
    values -= mean(values)
    values *= tf.math.rsqrt(mean(values**2) + 1e-2)
    return tf.where(mask, values, 0.0), frames


@keras.saving.register_keras_serializable("speech")
class LogMel(keras.layers.Layer):
    """The layer around `log_mel`; always float32.

    Call arguments: `audio` `<float32>[batch, samples]`, `length` `<int32>[batch]`. Returns features
    `<float32>[batch, frames, bands]` and `frames` `<int32>[batch]`.
    """

    def __init__(self, bands: int, **kwargs: Any):
        super().__init__(autocast=False, **{**kwargs, "dtype": "float32"})
        self.bands = bands

    def call(self, audio: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """See `log_mel`."""
        # The training step is traced once for its first batch's shape, then for any. Where a shape
        # is known TensorFlow multiplies by a reciprocal instead of dividing, so a resumed run,
        # whose first batch is another, would differ in the last bit. So no shape is known here.
        audio = tf.raw_ops.PlaceholderWithDefault(input=audio, shape=[None, None])
        return log_mel(audio, length, self.bands)

    def compute_output_spec(self, audio: Any, length: Any) -> tuple[Any, Any]:
        """Shapes: the number of frames is known when the graph runs."""
        return (
            keras.KerasTensor((audio.shape[0], None, self.bands), dtype="float32"),
            keras.KerasTensor((length.shape[0],), dtype="int32"),
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "bands": self.bands}


@keras.saving.register_keras_serializable("speech")
class SpecAugment(keras.layers.Layer):
    """Hides stretches of time and of frequency while training (Park et al. 2019).

    Call arguments: `features` `<float>[batch, frames, bands]`, `frames` `<int32>[batch]`. What is
    hidden becomes 0, the mean of the normalised features.

    Args:
      time_masks: stretches of time.
      time_share: each is up to this share of the row's frames long.
      band_masks: stretches of frequency.
      band_width: each is up to so many bands wide.
      seed: of the masks.
    """

    def __init__(
        self,
        time_masks: int,
        time_share: float,
        band_masks: int,
        band_width: int,
        seed: int | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.settings = {
            "time_masks": time_masks,
            "time_share": time_share,
            "band_masks": band_masks,
            "band_width": band_width,
            "seed": seed,
        }
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, features: tf.Tensor, frames: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Hides, if training."""
        if not training:
            return features
        own = self.settings
        time, bands = tf.shape(features)[1], features.shape[2]
        frames = tf.cast(frames, tf.float32)
        hidden = self._stretches(frames, frames * own["time_share"], own["time_masks"], time)
        whole = tf.fill(tf.shape(frames), float(bands))
        width = tf.fill(tf.shape(frames), float(own["band_width"]))
        hidden_bands = self._stretches(whole, width, own["band_masks"], bands)
        hidden = hidden[:, :, None] | hidden_bands[:, None, :]
        return tf.where(hidden, tf.zeros((), features.dtype), features)

    def _stretches(self, size: tf.Tensor, longest: tf.Tensor, count: int, places: Any) -> tf.Tensor:
        """`<bool>[batch, places]`, true in `count` random stretches of each row."""
        shape = (tf.shape(size)[0], 2, count)
        chance = keras.random.uniform(shape, seed=self.seed_generator)
        width = chance[:, 0] * longest[:, None]
        start = chance[:, 1] * (size[:, None] - width)
        place = tf.range(places, dtype=tf.float32)[None, :, None]
        inside = (place >= start[:, None, :]) & (place < (start + width)[:, None, :])
        return tf.reduce_any(inside, axis=2)

    def compute_output_spec(self, features: Any, frames: Any, training: bool = False) -> Any:
        """The shape of the features."""
        return keras.KerasTensor(features.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), **self.settings}


@keras.saving.register_keras_serializable("speech")
class Subsample(keras.layers.Layer):
    """Two strided convolutions over time and frequency: fewer steps for the recurrent layers.

    The first strides by 2 in frequency and by `strides[0]` in time, the second by 2 and
    `strides[1]`. Each step's window is at the same place however much padding follows, and padding
    is 0 before each convolution, so it changes nothing.

    Call arguments: `features` `<float>[batch, frames, bands]`, `frames` `<int32>[batch]`. Returns
    `<float>[batch, steps, channels * ceil(bands / 4)]` and `<int32>[batch]`, the real steps:
    `ceil(ceil(frames / strides[0]) / strides[1])`.
    """

    def __init__(self, channels: int, strides: tuple[int, int], **kwargs: Any):
        super().__init__(**kwargs)
        self.channels, self.strides = channels, tuple(strides)
        self.convolutions = [
            keras.layers.Conv2D(
                channels,
                (5, 5) if i == 0 else (3, 3),
                strides=(stride, 2),
                activation="relu",
                name=f"convolution_{i}",
                dtype=self.dtype_policy,
            )
            for i, stride in enumerate(self.strides)
        ]

    def build(self, features_shape: Any, frames_shape: Any = None) -> None:
        """Builds the convolutions."""
        channels = 1
        for convolution in self.convolutions:
            convolution.build((None, None, None, channels))
            channels = self.channels

    def call(self, features: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Convolves; see the class."""
        x = tf.cast(features, self.compute_dtype)[..., None]
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            margin = convolution.kernel_size[0] // 2
            x = convolution(tf.pad(x, [[0, 0], [margin, margin], [margin, margin], [0, 0]]))
            frames = -(-frames // stride)
            mask = tf.sequence_mask(frames, tf.shape(x)[1])[:, :, None, None]
            x = tf.where(mask, x, tf.zeros((), x.dtype))
        return keras.ops.reshape(x, (tf.shape(x)[0], -1, x.shape[2] * x.shape[3])), frames

    def compute_output_spec(self, features: Any, frames: Any) -> tuple[Any, Any]:
        """Shapes: the number of steps is known when the graph runs."""
        bands = math.ceil(math.ceil(features.shape[2] / 2) / 2)
        return (
            keras.KerasTensor(
                (features.shape[0], None, bands * self.channels), dtype=self.compute_dtype
            ),
            keras.KerasTensor((frames.shape[0],), dtype="int32"),
        )

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments."""
        return {**super().get_config(), "channels": self.channels, "strides": self.strides}
