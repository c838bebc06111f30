"""Random changes of training recordings, as graph code: speed, rooms, silence, noise, lines."""

from __future__ import annotations

from typing import Any

from tasks.speech.audio import RATE
from tasks.speech.config import Config
from tasks.speech.features import count_frames, count_steps

import tensorflow as tf

TELEPHONE = (300.0, 3_400.0)  # Hz, the band of a telephone
QUIETEST = 50.0  # dB below the speech: noise that is hardly heard


def augment(
    sound: tf.Tensor, seed: tf.Tensor, config: Config, *, needed: tf.Tensor | int = 0
) -> tf.Tensor:
    """Change a recording at random, as a speaker, a room, a pause and a line would change it.

    Its speed changes, and with it its pitch. Some recordings get the echo of a room; half of them
    get silence before and after. The noise has a random colour, from white to red, lasts as long as
    the silence, and is `noise` to 50 dB below the speech; one recording in five gets none. Some
    recordings pass through a telephone.

    Args:
      sound: `<float32>[samples]`.
      seed: `<int64>[2]`; equal seeds have equal results.
      config: `speed`, `rooms`, `silence`, `noise` and `telephone`.
      needed: steps that CTC needs for the text. A recording that would have fewer keeps its speed.

    Returns:
      `<float32>[changed samples]`.
    """
    uniform = tf.random.stateless_uniform([9], seed)
    loudness = tf.sqrt(tf.reduce_mean(sound**2))
    if config.speed:
        faster = change_speed(sound, 1.0 + config.speed * (2.0 * uniform[0] - 1.0))
        steps = count_steps(count_frames(tf.size(faster)), config.strides)
        sound = tf.cond(steps >= needed, lambda: faster, lambda: sound)
    sound = tf.cond(uniform[7] < config.rooms, lambda: add_room(sound, seed + 3), lambda: sound)
    # From the noise that can hardly be heard to the loudest.
    decibels = config.noise + (max(QUIETEST, config.noise) - config.noise) * uniform[1]
    ratio = 10.0 ** (-decibels / 20.0)
    around = tf.where(uniform[2] < 0.5, config.silence * RATE * uniform[3], 0.0)
    before = tf.cast(around * uniform[4], tf.int32)
    sound = tf.pad(sound, [[before, tf.cast(around, tf.int32) - before]])
    noise = coloured_noise(tf.size(sound), 2.0 * uniform[5], seed + 1)
    sound += tf.where(uniform[6] < 0.2, 0.0, ratio * loudness) * noise
    is_on_telephone = uniform[8] < config.telephone
    return tf.cond(is_on_telephone, lambda: telephone(sound, seed + 4), lambda: sound)


def add_room(sound: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Add the echo of a random room: noise that decays by 60 dB in 0.1 to 0.6 seconds.

    Args:
      sound: `<float32>[samples]`.
      seed: `<int64>[2]`.

    Returns:
      `<float32>[samples]`; the direct sound is unchanged, and 0 to 15 dB louder than the echo.
    """
    uniform = tf.random.stateless_uniform([2], seed)
    seconds, ratio = 0.1 + 0.5 * uniform[0], 15.0 * uniform[1]
    time = tf.range(RATE // 2, dtype=tf.float32) / RATE
    echo = tf.random.stateless_normal([RATE // 2], seed + 1) * tf.exp(-6.9 * time / seconds)
    echo *= 10.0 ** (-ratio / 20.0) * tf.math.rsqrt(tf.reduce_sum(echo**2))
    response = tf.concat([[1.0], echo], axis=0)
    count = tf.size(sound)
    padded = 320 * -(-(count + RATE // 2) // 320)  # for which the FFT is fast
    spectrum = tf.signal.rfft(sound, [padded]) * tf.signal.rfft(response, [padded])
    return tf.signal.irfft(spectrum, [padded])[:count]


def telephone(sound: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Remove the frequencies that a telephone, or a recording at 8 kHz, does not have.

    Args:
      sound: `<float32>[samples]`.
      seed: `<int64>[2]`. The band starts between 0 and 300 Hz and ends between 3,400 and 4,000 Hz.

    Returns:
      `<float32>[samples]`.
    """
    uniform = tf.random.stateless_uniform([2], seed)
    lowest, highest = uniform[0] * TELEPHONE[0], TELEPHONE[1] + 600.0 * uniform[1]
    return limit_band(sound, lowest, highest)


def limit_band(
    sound: tf.Tensor, lowest: tf.Tensor | float, highest: tf.Tensor | float
) -> tf.Tensor:
    """Return a sound with the frequencies of a band alone; 50 Hz around it are attenuated.

    Args:
      sound: `<float32>[samples]`.
      lowest: lower end of the band in Hz.
      highest: upper end of the band in Hz.

    Returns:
      `<float32>[samples]`.

    Example:
      >>> noise = tf.random.stateless_normal([16_000], [1, 2])
      >>> spectrum = abs(tf.signal.rfft(limit_band(noise, 300.0, 3_400.0)))
      >>> [bool(spectrum[hertz] > 1.0) for hertz in (200, 1_000, 3_600)]
      [False, True, False]
    """
    count = tf.size(sound)
    padded = 320 * -(-count // 320)  # for which the FFT is fast
    spectrum = tf.signal.rfft(sound, [padded])
    frequency = tf.range(tf.size(spectrum), dtype=tf.float32) * RATE / tf.cast(padded, tf.float32)
    gain = tf.clip_by_value((frequency - lowest) / 50.0 + 1.0, 0.0, 1.0)
    gain *= tf.clip_by_value((highest - frequency) / 50.0 + 1.0, 0.0, 1.0)
    return tf.signal.irfft(spectrum * tf.cast(gain, tf.complex64), [padded])[:count]


def nothing(count: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Return a recording in which nothing is said: silence, or noise of any loudness and colour.

    Args:
      count: number of samples.
      seed: `<int64>[2]`.

    Returns:
      `<float32>[count]`.
    """
    uniform = tf.random.stateless_uniform([3], seed)
    loudness = tf.where(uniform[0] < 0.2, 0.0, 10.0 ** (-4.0 + 3.0 * uniform[1]))
    return loudness * coloured_noise(count, 2.0 * uniform[2], seed + 1)


def coloured_noise(count: tf.Tensor, slope: tf.Tensor | float, seed: tf.Tensor) -> tf.Tensor:
    """Return Gaussian noise whose power falls with the frequency f as `f ** -slope`.

    Args:
      count: number of samples.
      slope: 0 for white noise, 1 for pink, 2 for red.
      seed: `<int64>[2]`.

    Returns:
      `<float32>[count]`, with a mean power of 1.

    Example:
      >>> noise = coloured_noise(tf.constant(16_000), 1.0, tf.constant([0, 1], tf.int64))
      >>> f"{tf.reduce_mean(noise**2):.3f}"
      '1.000'
    """
    padded = 320 * -(-count // 320)  # for which the FFT is fast
    spectrum = tf.signal.rfft(tf.random.stateless_normal([padded], seed))
    frequency = tf.range(tf.size(spectrum), dtype=tf.float32)
    # Below 50 Hz the power is constant, and there is no constant offset.
    lowest = 50.0 * tf.cast(padded, tf.float32) / RATE
    gain = tf.maximum(frequency / lowest, 1.0) ** (-slope / 2.0) * tf.cast(
        frequency > 0, tf.float32
    )
    noise = tf.signal.irfft(spectrum * tf.cast(gain, tf.complex64), [padded])[:count]
    return noise * tf.math.rsqrt(tf.reduce_mean(noise**2) + 1e-12)


def change_speed(sound: tf.Tensor, factor: Any) -> tf.Tensor:
    """Play a recording faster by `factor`, which raises its pitch.

    The spectrum is truncated, or extended by zeros. This is exact for frequencies below both
    Nyquist frequencies. Lengths are padded to multiples of 320, for which the FFT is fast.

    Args:
      sound: `<float32>[samples]`.
      factor: `<float32>[]`, the new speed relative to the old one.

    Returns:
      `<float32>[about samples / factor]`.

    Example:
      >>> change_speed(tf.zeros([16_000]), 1.25).shape
      TensorShape([12800])
    """
    count = tf.size(sound)
    padded = 320 * -(-count // 320)
    ratio = tf.cast(padded, tf.float32) / factor / 320.0
    target = 320 * tf.maximum(tf.cast(tf.round(ratio), tf.int32), 1)
    spectrum = tf.signal.rfft(tf.pad(sound, [[0, padded - count]]))
    scale = tf.cast(target, tf.float32) / tf.cast(padded, tf.float32)
    played = tf.signal.irfft(spectrum, [target]) * scale
    return played[: tf.cast(tf.cast(count, tf.float32) * scale, tf.int32)]
