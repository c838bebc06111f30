"""Log-mel features and the layers in front of the recurrent network, as graph code.

    audio -> 25 ms windows every 10 ms -> power spectrum -> mel bands -> log
          -> normalisation of each band to mean 0 and variance 1 over the speech frames

Training and serving use the same functions. A frame covers a whole window of valid samples, so
padding never affects the result. The statistics are those of the speech frames alone: frames well
above the noise and within 30 dB of the loudest 50 ms. So neither loudness nor silence or noise
before and after an utterance affects its features.

A model of `--streaming` cannot see the frames to come. Its statistics are those of the frames so
far, weighted by their amplitude, so that silence hardly counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from tasks.speech.audio import RATE

import keras
import tensorflow as tf

WINDOW = 400  # samples, 25 ms
HOP = 160  # samples, 10 ms
FFT = 512
LOWEST, HIGHEST = 60.0, 7_600.0  # Hz
FLOOR = 1e-6  # relative to the mean energy of speech frames: -60 dB counts as silence
SPEECH_RANGE = 1e-3  # smallest energy of a speech frame relative to the loudest: -30 dB
LOUD = 0.1  # a frame within 10 dB of the loudest is speech in any noise
ABOVE_NOISE = 4.0  # smallest energy of a speech frame relative to the noise: +6 dB
QUIET = 20  # the noise is as loud as the quietest twentieth of the frames
SMOOTHING = 5  # frames over which energies are averaged, so that a click is not the loudest
SPREAD = 1e-2  # added to the variance of a band


def count_frames(length: Any) -> tf.Tensor:
    """Return the number of whole windows in a recording, 0 below 25 ms.

    Args:
      length: `<int>[batch]` or a scalar, in samples.

    Returns:
      `<int32>[batch]` or a scalar.

    Example:
      >>> count_frames([399, 400, 560, 16_000]).numpy()
      array([ 0,  1,  2, 98], dtype=int32)
    """
    length = tf.cast(length, tf.int32)
    return tf.where(length < WINDOW, 0, 1 + (length - WINDOW) // HOP)


def count_padded_frames(samples: Any) -> tf.Tensor:
    """Return the number of frames that `log_mel` returns for a tensor of `samples` samples.

    It is at least 1, since `log_mel` pads shorter tensors to one window.
    """
    return count_frames(tf.maximum(samples, WINDOW))


def count_steps(frames: Any, strides: Sequence[int]) -> Any:
    """Return the number of time steps that `Subsample` returns for a number of frames.

    Example:
      >>> count_steps(98, (3, 1))
      33
    """
    for stride in strides:
        frames = -(-frames // stride)
    return frames


def power_spectrum(audio: tf.Tensor) -> tf.Tensor:
    """Compute the power spectrum of each Hann window.

    Args:
      audio: `<float32>[batch, samples]`.

    Returns:
      `<float32>[batch, frames, 257]`. Frame k covers the samples from 160 k to 160 k + 400.
    """
    spectrum = tf.signal.stft(audio, WINDOW, HOP, FFT, pad_end=False)
    return tf.math.real(spectrum) ** 2 + tf.math.imag(spectrum) ** 2


def mel_energies(audio: tf.Tensor, bands: int) -> tf.Tensor:
    """Compute the energy in each mel band of each window.

    The filters are triangles of height 1 on the mel scale of HTK.

    Args:
      audio: `<float32>[batch, samples]` at 16 kHz.
      bands: number of bands.

    Returns:
      `<float32>[batch, frames, bands]`.
    """
    filters = tf.signal.linear_to_mel_weight_matrix(bands, FFT // 2 + 1, RATE, LOWEST, HIGHEST)
    return tf.tensordot(power_spectrum(audio), filters, 1)


def log_mel(audio: tf.Tensor, length: tf.Tensor, bands: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute normalised log-mel features.

    Args:
      audio: `<float32>[batch, samples]`; samples after `length` are ignored.
      length: `<int>[batch]`, number of valid samples.
      bands: number of mel bands.

    Returns:
      A pair of features `<float32>[batch, frames, bands]`, 0 after the valid frames of each row and
      with at least one frame, and the number of valid frames `<int32>[batch]`.
    """
    samples = tf.shape(audio)[1]
    audio = tf.pad(audio, [[0, 0], [0, tf.maximum(WINDOW - samples, 0)]])
    energies = mel_energies(audio, bands)
    time = tf.shape(energies)[1]
    frames = tf.minimum(count_frames(length), time)
    mask = tf.sequence_mask(frames, time)[:, :, None]
    is_speech = find_speech(energies, frames)[:, :, None]
    count = tf.reduce_sum(tf.cast(is_speech, tf.float32), axis=1, keepdims=True)

    def mean(values: tf.Tensor) -> tf.Tensor:
        total = tf.reduce_sum(tf.where(is_speech, values, 0.0), axis=1, keepdims=True)
        return total / tf.maximum(count, 1.0)

    level = tf.reduce_mean(mean(energies), axis=2, keepdims=True)
    values = tf.math.log(tf.math.divide_no_nan(energies, level) + FLOOR)
    values -= mean(values)
    values *= tf.math.rsqrt(mean(values**2) + SPREAD)
    return tf.where(mask, values, 0.0), frames


def find_speech(energies: tf.Tensor, frames: tf.Tensor) -> tf.Tensor:
    """Return the frames that are loud enough to be speech.

    Args:
      energies: `<float32>[batch, time, bands]`.
      frames: `<int32>[batch]`, number of valid frames.

    Returns:
      `<bool>[batch, time]`: the energy of the frame is within `SPEECH_RANGE` of the loudest frame
      of the row, and either `ABOVE_NOISE` or within `LOUD` of the loudest. Loudness and noise are
      measured on means over `SMOOTHING` frames.

    Example:
      >>> energies = tf.constant([[[0.01]] * 6 + [[1.0]] * 5 + [[0.01]] * 4])
      >>> find_speech(energies, [15]).numpy().astype(int)
      array([[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 0, 0, 0, 0]])
    """
    frames = tf.cast(frames, tf.int32)
    totals = tf.reduce_sum(energies, axis=2)
    valid = tf.sequence_mask(frames, tf.shape(totals)[1])
    totals = tf.where(valid, totals, 0.0)
    smooth = _around(totals) / tf.maximum(_around(tf.cast(valid, tf.float32)), 1e-3)
    loudest = tf.reduce_max(smooth, axis=1, keepdims=True)
    ordered = tf.sort(tf.where(valid, smooth, totals.dtype.max), axis=1)
    noise = tf.gather(ordered, frames // QUIET, batch_dims=1, axis=1)[:, None]
    lowest = tf.clip_by_value(ABOVE_NOISE * noise, SPEECH_RANGE * loudest, LOUD * loudest)
    return (totals > 0.0) & (totals >= lowest)


def _around(values: tf.Tensor) -> tf.Tensor:
    """Return the mean of `SMOOTHING` frames around each one, with zeros around the row."""
    margin = SMOOTHING // 2
    padded = tf.pad(values, [[0, 0], [margin, margin]])[:, :, None]
    return tf.nn.avg_pool1d(padded, SMOOTHING, 1, "VALID")[:, :, 0]


# --- Running statistics ---------------------------------------------------------------------------

QUIETEST = 1e-7  # energy of a band that counts as silence, that of noise 95 dB below full scale
LEAST = 1e-3  # weight of a frame of digital silence; one of speech has about 10


def running_log_mel(audio: tf.Tensor, length: tf.Tensor, bands: int) -> tuple[tf.Tensor, tf.Tensor]:
    """Compute log-mel features whose statistics are those of the frames so far.

    Frame k covers the 400 samples before sample 160 (k + 1), so no frame waits for sound to come.
    Arguments and results are those of `log_mel`.
    """
    shape = tf.shape(audio)
    audio = tf.pad(audio, [[0, 0], [WINDOW - HOP, tf.maximum(HOP - shape[1], 0)]])
    energies = mel_energies(audio, bands)[:, : count_padded_frames(shape[1])]
    frames = tf.minimum(count_frames(length), tf.shape(energies)[1])
    values, _ = normalise_running(energies, tf.zeros([shape[0], 1 + 2 * bands]))
    mask = tf.sequence_mask(frames, tf.shape(energies)[1])
    return tf.where(mask[:, :, None], values, 0.0), frames


def normalise_running(energies: tf.Tensor, before: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """Normalise the logarithms of energies by the statistics of the frames so far.

    A frame counts by its amplitude, so the pauses before and between words count little.

    Args:
      energies: `<float32>[batch, frames, bands]`.
      before: `<float32>[batch, 1 + 2 * bands]`, sums over the earlier frames, 0 at the start: of
        the weights, of the weighted values, and of their weighted squares.

    Returns:
      `<float32>[batch, frames, bands]` and the sums after the last frame.

    Example:
      >>> energies = tf.constant([[[1.0], [1.0], [9.0]]])
      >>> values, after = normalise_running(energies, tf.zeros([1, 3]))
      >>> bool(abs(values[0, 0, 0]) < 1e-3), bool(values[0, 2, 0] > 0.5)
      (True, True)
      >>> again, _ = normalise_running(energies[:, :2], tf.zeros([1, 3]))
      >>> bool(tf.reduce_all(again == values[:, :2]))
      True
    """
    bands = energies.shape[2]
    values = tf.math.log(energies + QUIETEST)
    weight = tf.sqrt(tf.reduce_sum(energies, axis=2, keepdims=True)) + LEAST
    sums = tf.concat([weight, weight * values, weight * values**2], axis=2)
    sums = before[:, None, :] + tf.cumsum(sums, axis=1)
    total, first, second = tf.split(sums, [1, bands, bands], axis=2)
    mean = first / total
    variance = tf.maximum(second / total - mean**2, 0.0)
    return (values - mean) * tf.math.rsqrt(variance + SPREAD), sums[:, -1]


@keras.saving.register_keras_serializable("tasks.speech")
class LogMel(keras.layers.Layer):
    """Log-mel features as a layer; see `log_mel`. It always computes in float32.

    Args:
      bands: number of mel bands.
      running: whether the statistics are those of the frames so far; see `running_log_mel`.

    Call arguments:
      audio: `<float32>[batch, samples]` at 16 kHz.
      length: `<int32>[batch]`, number of valid samples.

    Returns:
      Features `<float32>[batch, frames, bands]` and the number of valid frames `<int32>[batch]`.
    """

    def __init__(self, bands: int, running: bool = False, **kwargs: Any):
        super().__init__(autocast=False, **{**kwargs, "dtype": "float32"})
        self.bands, self.running = bands, running

    def call(self, audio: tf.Tensor, length: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Compute the features."""
        # The training step is traced for the shape of its first batch, then for any shape. With a
        # static shape TensorFlow multiplies by a reciprocal instead of dividing. A resumed run
        # starts with another batch and would differ in the last bit. So hide the static shape.
        audio = tf.raw_ops.PlaceholderWithDefault(input=audio, shape=[None, None])
        compute = running_log_mel if self.running else log_mel
        return compute(audio, length, self.bands)

    def compute_output_spec(self, audio: Any, length: Any) -> tuple[Any, Any]:
        """Return the output shapes; the number of frames is dynamic."""
        return (
            keras.KerasTensor((audio.shape[0], None, self.bands), dtype="float32"),
            keras.KerasTensor((length.shape[0],), dtype="int32"),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {**super().get_config(), "bands": self.bands, "running": self.running}


@keras.saving.register_keras_serializable("tasks.speech")
class SpecAugment(keras.layers.Layer):
    """Random time and frequency masks in training (SpecAugment).

    Masked features become 0, the mean of the normalised features. The layer has no effect outside
    of training.

    Args:
      time_masks: number of time masks per row.
      time_share: maximum length of a time mask, as a fraction of the valid frames of the row.
      band_masks: number of frequency masks per row.
      band_width: maximum width of a frequency mask, in bands.
      seed: seed of the masks.

    Call arguments:
      features: `<float>[batch, frames, bands]`.
      frames: `<int32>[batch]`, number of valid frames.
      training: whether to mask.

    Returns:
      `<float>[batch, frames, bands]`.

    Reference:
      Park et al. (2019), SpecAugment: A Simple Data Augmentation Method for Automatic Speech
      Recognition.
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
        self.time_masks, self.time_share = time_masks, time_share
        self.band_masks, self.band_width = band_masks, band_width
        self.seed = seed
        self.seed_generator = keras.random.SeedGenerator(seed)

    def call(self, features: tf.Tensor, frames: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Mask the features in training."""
        if not training:
            return features
        time, bands = tf.shape(features)[1], features.shape[2]
        frames = tf.cast(frames, tf.float32)
        in_time = self._masks(frames, frames * self.time_share, self.time_masks, time)
        extent = tf.fill(tf.shape(frames), float(bands))
        width = tf.fill(tf.shape(frames), float(self.band_width))
        in_frequency = self._masks(extent, width, self.band_masks, bands)
        mask = in_time[:, :, None] | in_frequency[:, None, :]
        return tf.where(mask, tf.zeros((), features.dtype), features)

    def _masks(
        self, extent: tf.Tensor, max_width: tf.Tensor, count: int, positions: Any
    ) -> tf.Tensor:
        """Draw random intervals of each row.

        Args:
          extent: `<float32>[batch]`, the intervals lie in 0..extent.
          max_width: `<float32>[batch]`, maximum width of an interval.
          count: number of intervals per row.
          positions: size of the result.

        Returns:
          `<bool>[batch, positions]`, true inside any of the intervals.
        """
        shape = (tf.shape(extent)[0], 2, count)
        uniform = keras.random.uniform(shape, seed=self.seed_generator)
        width = uniform[:, 0] * max_width[:, None]
        start = uniform[:, 1] * (extent[:, None] - width)
        position = tf.range(positions, dtype=tf.float32)[None, :, None]
        is_inside = (position >= start[:, None, :]) & (position < (start + width)[:, None, :])
        return tf.reduce_any(is_inside, axis=2)

    def compute_output_spec(self, features: Any, frames: Any, training: bool = False) -> Any:
        """Return the output shape, which is that of the features."""
        return keras.KerasTensor(features.shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {
            **super().get_config(),
            "time_masks": self.time_masks,
            "time_share": self.time_share,
            "band_masks": self.band_masks,
            "band_width": self.band_width,
            "seed": self.seed,
        }


@keras.saving.register_keras_serializable("tasks.speech")
class Subsample(keras.layers.Layer):
    """Two strided convolutions over time and frequency, which shorten the sequence.

    Both stride by 2 in frequency and by `strides` in time. The position of each window does not
    depend on the padding, and padding is 0 before each convolution. So padding never affects the
    result.

    Args:
      channels: channels of each convolution.
      strides: strides in time of the two convolutions.
      causal: whether a window ends with the frames of its own stride; else it is centred.

    Call arguments:
      features: `<float>[batch, frames, bands]`.
      frames: `<int32>[batch]`, number of valid frames.

    Returns:
      `<float>[batch, steps, channels * ceil(bands / 4)]` and the number of valid steps
      `<int32>[batch]`, which is `ceil(ceil(frames / strides[0]) / strides[1])`.
    """

    def __init__(
        self, channels: int, strides: tuple[int, int], causal: bool = False, **kwargs: Any
    ):
        super().__init__(**kwargs)
        self.channels, self.strides, self.causal = channels, tuple(strides), causal
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
        """Build the convolutions."""
        channels = 1
        for convolution in self.convolutions:
            convolution.build((None, None, None, channels))
            channels = self.channels

    def call(self, features: tf.Tensor, frames: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Apply the convolutions."""
        x = tf.cast(features, self.compute_dtype)[..., None]
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            width = convolution.kernel_size[0]
            before = width - stride if self.causal else width // 2
            x = _convolve(convolution, x, before, width - 1 - before)
            frames = count_steps(frames, [stride])
            mask = tf.sequence_mask(frames, tf.shape(x)[1])[:, :, None, None]
            x = tf.where(mask, x, tf.zeros((), x.dtype))
        return keras.ops.reshape(x, (tf.shape(x)[0], -1, x.shape[2] * x.shape[3])), frames

    def advance(
        self, features: tf.Tensor, contexts: Sequence[tf.Tensor]
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        """Apply the convolutions of a causal layer to the next frames of a stream.

        Args:
          features: `<float>[batch, frames, bands]`, as many frames as some steps have.
          contexts: the last inputs of each convolution, of the shapes of `context_shapes`; 0 at the
            start.

        Returns:
          `<float>[batch, steps, width]` and the next contexts.
        """
        x, kept = tf.cast(features, self.compute_dtype)[..., None], []
        for convolution, context in zip(self.convolutions, contexts, strict=True):
            x = tf.concat([tf.cast(context, x.dtype), x], axis=1)
            kept.append(x[:, tf.shape(x)[1] - context.shape[1] :])
            x = _convolve(convolution, x)
        return keras.ops.reshape(x, (tf.shape(x)[0], -1, x.shape[2] * x.shape[3])), kept

    def context_shapes(self, bands: int) -> list[tuple[int, int, int]]:
        """Return the frames, bands and channels that `advance` needs of each convolution's past."""
        shapes, channels = [], 1
        for convolution, stride in zip(self.convolutions, self.strides, strict=True):
            shapes.append((convolution.kernel_size[0] - stride, bands, channels))
            bands, channels = -(-bands // 2), self.channels
        return shapes

    def compute_output_spec(self, features: Any, frames: Any) -> tuple[Any, Any]:
        """Return the output shapes; the number of steps is dynamic."""
        bands = math.ceil(math.ceil(features.shape[2] / 2) / 2)
        return (
            keras.KerasTensor(
                (features.shape[0], None, bands * self.channels), dtype=self.compute_dtype
            ),
            keras.KerasTensor((frames.shape[0],), dtype="int32"),
        )

    def get_config(self) -> dict[str, Any]:
        """Return the constructor arguments."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "strides": self.strides,
            "causal": self.causal,
        }


def _convolve(convolution: Any, x: tf.Tensor, before: int = 0, after: int = 0) -> tf.Tensor:
    """Apply a convolution to `<float>[batch, time, bands, channels]`, padded by zeros in time."""
    margin = convolution.kernel_size[1] // 2
    return convolution(tf.pad(x, [[0, 0], [before, after], [margin, margin], [0, 0]]))


# Earlier versions registered the layers under these names; their `.keras` files still load.
keras.saving.get_custom_objects().update(
    {f"speech>{layer.__name__}": layer for layer in (LogMel, SpecAugment, Subsample)}
)
