"""Resampling of clips in time and in size, inside the graph, for training and the export.

Frame i of a clip at f frames per second is visible from i/f to (i+1)/f seconds. The model runs at R
frames per second and receives the frames that are visible at (k + 1/2)/R seconds.
`tasks.video.clips` samples files by the same rule.
"""

from __future__ import annotations

import tensorflow as tf


def count_frames(
    length: tf.Tensor, frame_rate: tf.Tensor, *, rate: float, longest: int
) -> tf.Tensor:
    """Return the number of frames of clips after sampling, `<int32>[batch]`; see below."""
    exact = tf.cast(length, tf.float32) * (rate / frame_rate)
    count = tf.clip_by_value(tf.math.ceil(exact - 0.5 - 1e-4), 1.0, float(longest))
    return tf.cast(count, tf.int32)


def sample_in_graph(
    frames: tf.Tensor, length: tf.Tensor, frame_rate: tf.Tensor, *, rate: float, longest: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Sample a batch of clips in time, as `clips.sample` does for files.

    Args:
      frames: `[batch, time, ...]`, time 1 or more.
      length: `<int32>[batch]`, 1 to time.
      frame_rate: `<float32>[batch]`, finite and positive.
      rate: frames per second of the result.
      longest: maximum number of frames.

    Returns:
      `[batch, new time, ...]`, and the new lengths `<int32>[batch]`. Trailing frames repeat the
      last one.

    Example:
      >>> frames, length = sample_in_graph(
      ...     tf.constant([[0, 1, 2, 3, 4, 5], [0, 1, 2, 0, 0, 0]]),
      ...     tf.constant([6, 3]),
      ...     tf.constant([30.0, 10.0]),
      ...     rate=10.0,
      ...     longest=8,
      ... )
      >>> frames.numpy().tolist(), length.numpy().tolist()
      ([[1, 4, 5], [0, 1, 2]], [2, 3])
    """
    ratio = rate / frame_rate
    count = count_frames(length, frame_rate, rate=rate, longest=longest)
    steps = tf.range(tf.reduce_max(tf.concat([count, [1]], axis=0)))
    position = (tf.cast(steps, tf.float32)[None, :] + 0.5) / ratio[:, None]
    last = tf.cast(length - 1, tf.float32)[:, None]
    index = tf.cast(tf.math.floor(tf.minimum(position, last)), tf.int32)
    return tf.gather(frames, index, axis=1, batch_dims=1), count


def _interpolation_weights(
    extent: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, count: tf.Tensor, side: int
) -> tf.Tensor:
    """Return the weight of each source pixel in each new pixel, `<float32>[batch, side, count]`.

    Linear interpolation with anti-aliasing: each new pixel averages under a triangle, which is as
    wide as the new pixel where the picture is reduced.

    Args:
      extent: `<int32>[batch]`, valid source pixels.
      scale: `<float32>[batch]`, new pixels per source pixel.
      offset: `<float32>[batch]`, new pixels before the first source pixel.
      count: `<int32>[]`, source pixels, with padding.
      side: new pixels.
    """
    place = (tf.range(side, dtype=tf.float32)[None, :] + 0.5 - offset[:, None]) / scale[:, None]
    pixels = tf.range(count, dtype=tf.int32)
    distance = place[:, :, None] - (tf.cast(pixels, tf.float32)[None, None, :] + 0.5)
    weights = tf.nn.relu(1.0 - tf.abs(distance) * tf.minimum(scale, 1.0)[:, None, None])
    valid = pixels[None, :] < extent[:, None]
    weights = tf.where(valid[:, None, :], weights, 0.0)
    weights /= tf.maximum(tf.reduce_sum(weights, axis=-1, keepdims=True), 1e-6)
    inside = (place >= 0.0) & (place <= tf.cast(extent, tf.float32)[:, None])
    return tf.where(inside[:, :, None], weights, 0.0)


def resize_in_graph(
    frames: tf.Tensor,
    size: tf.Tensor,
    side: int,
    *,
    zoom: tf.Tensor | float = 1.0,
    shift: tf.Tensor | float = 0.0,
    mirrored: tf.Tensor | bool = False,
) -> tf.Tensor:
    """Fit pictures of any size into squares, in proportion, with black bars at the sides.

    Args:
      frames: `<uint8>[batch, time, height, width, 3]`, height and width 1 or more.
      size: `<int32>[batch, 2]`, true height and width of each clip, 1 or more; pixels beyond are
        padding, and ignored.
      side: side of the squares, pixels.
      zoom: `<float32>[batch]`, factor on the size that just fits.
      shift: `<float32>[batch, 2]`, shift down and right, fraction of the side.
      mirrored: `<bool>[batch]`, whether to exchange left and right at the end.

    Returns:
      `<uint8>[batch, time, side, side, 3]`. Pictures that already have this size are unchanged.
    """
    extent = tf.cast(size, tf.float32)
    scale = zoom * side / tf.reduce_max(extent, axis=1)
    offset = 0.5 * (side - extent * scale[:, None]) + shift * float(side)
    shape = tf.shape(frames)
    height, width = shape[2], shape[3]
    rows = _interpolation_weights(size[:, 0], scale, offset[:, 0], height, side)
    columns = _interpolation_weights(size[:, 1], scale, offset[:, 1], width, side)
    # Mirroring the weights is much cheaper than mirroring the pictures.
    columns = tf.where(tf.reshape(mirrored, [-1, 1, 1]), columns[:, ::-1], columns)
    x = tf.reshape(tf.cast(frames, tf.float32), [shape[0], shape[1], height, width * 3])
    x = tf.matmul(rows[:, None], x)
    x = tf.reshape(x, [shape[0], shape[1], side, width, 3])
    x = tf.einsum("bkw,btjwc->btjkc", columns, x)
    return tf.cast(tf.round(tf.clip_by_value(x, 0.0, 255.0)), tf.uint8)


def preprocess(
    frames: tf.Tensor,
    length: tf.Tensor,
    size: tf.Tensor,
    frame_rate: tf.Tensor,
    *,
    side: int,
    rate: float,
    longest: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Bring clips to the size and the frame rate of the network, in training and in the export.

    Args:
      frames: `<uint8>[batch, time, height, width, 3]`; see `sample_in_graph`, `resize_in_graph`.
      length: `<int32>[batch]`, true number of frames.
      size: `<int32>[batch, 2]`, true height and width.
      frame_rate: `<float32>[batch]`, frames per second.
      side: side of the network's pictures, pixels.
      rate: frame rate of the network, frames per second.
      longest: maximum number of frames at that rate.

    Returns:
      `<uint8>[batch, new time, side, side, 3]`, and the new lengths `<int32>[batch]`.
    """
    sampled, count = sample_in_graph(frames, length, frame_rate, rate=rate, longest=longest)
    return resize_in_graph(sampled, size, side), count
