"""Clips: video files in and out, and frames brought to the model's own size and rate.

Files are read by PyAV one frame after another, so memory does not grow with their length. The same
rule of time holds when a file is read and inside the graph: frame i of a clip at f frames a second
is on show from i/f to (i+1)/f seconds, and the model, at R frames a second, sees what is on show at
(k + 1/2)/R.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

from common.commands import cli
from common.errors import InputError, require

import numpy as np
import tensorflow as tf

T = TypeVar("T")
Picture = Callable[[], np.ndarray]

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
LARGEST = 256  # pixels; frames with a longer side are made smaller when they are read
LONGEST_FRAME = 5.0  # seconds that a frame is on show at most, whatever its time stamps say
# What FFmpeg takes for moving pictures, too: text drawn as on a terminal, and lists of other files.
NO_VIDEO = frozenset(("tty", "concat", "hls", "dash", "sdp", "rtsp"))


# --- files ----------------------------------------------------------------------------------------


def timed_frames(source: Path | bytes) -> Iterator[tuple[float, float, Picture]]:
    """Decodes the first video stream of a file, frame by frame.

    Where a file breaks off or is damaged, what comes before counts, and the person at the terminal
    is told.

    Args:
      source: a file, or its content.

    Yields:
      From when to when it is on show, seconds from the first frame; a function that gives its
      pixels (see `to_pixels`), for most frames are never asked for them.

    Raises:
      InputError: no video, nothing of it can be decoded, or PyAV is missing; names the file.
    """
    library = require("av", "video")
    name = source if isinstance(source, Path) else None
    try:
        # Only local files: a playlist must not make us fetch what it names.
        container = library.open(
            io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source),
            metadata_errors="ignore",
            options={"protocol_whitelist": "file"},
        )
    except (library.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"cannot be read as video: {reason}", name) from error
    with container:
        cover = library.stream.Disposition.attached_pic
        streams = [s for s in container.streams.video if not s.disposition & cover]
        if not streams or NO_VIDEO & set(container.format.name.split(",")):
            raise InputError("no video in this file", name)
        stream = streams[0]
        usual = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        usual = min(max(usual, 1e-3), LONGEST_FRAME)
        clock, before, pending = 0.0, None, None
        decoded = container.decode(stream)
        while True:
            try:
                frame = next(decoded, None)
            except (library.error.FFmpegError, OSError, ValueError) as error:
                if pending is None:
                    raise InputError(f"no frame can be decoded: {error}", name) from error
                cli.say(
                    f"{name or 'clip'}: damaged after {clock + usual:.2f} s; "
                    "what comes before is used"
                )
                frame = None
            if frame is None:
                break
            if pending is not None:
                # Without time stamps, or where they run backwards, frames come at the usual rate.
                step = usual
                if frame.time is not None and before is not None and frame.time > before:
                    step = min(frame.time - before, LONGEST_FRAME)
                yield clock, clock + step, pending
                clock += step
            before = frame.time
            pending = functools.partial(to_pixels, frame, float(stream.sample_aspect_ratio or 1))
        if pending is None:
            raise InputError("the video in this file has no frame", name)
        yield clock, clock + usual, pending


def to_pixels(frame: Any, aspect: float, *, largest: int = LARGEST) -> np.ndarray:
    """A decoded frame as one sees it, RGB, `<uint8>[height, width, 3]`.

    Grey pictures become grey RGB, an alpha channel is dropped, pictures are turned upright, and
    pixels that are no squares become squares.

    Args:
      frame: an `av.VideoFrame`.
      aspect: how much wider than high its pixels are.
      largest: frames with a longer side are made smaller, in proportion.
    """
    width = frame.width * aspect
    scale = min(1.0, largest / max(width, frame.height))
    pixels = frame.to_ndarray(
        format="rgb24",
        width=max(1, round(width * scale)),
        height=max(1, round(frame.height * scale)),
    )
    turns = round(frame.rotation / 90.0) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def sample(frames: Iterable[tuple[float, float, T]], rate: float) -> Iterator[T]:
    """Takes what is on show at the middle of each 1/rate second; at least one frame.

    Example:
      >>> list(sample([(0.0, 0.5, "a"), (0.5, 0.7, "b"), (0.7, 1.0, "c")], rate=4.0))
      ['a', 'a', 'b', 'c']
    """
    taken = 0
    frame = None
    for _, end, frame in frames:
        # A hair's breadth, so that 1/rate added up many times ends where it should.
        while (taken + 0.5) / rate < end - 1e-6:
            yield frame
            taken += 1
    if frame is not None and not taken:
        yield frame


def read(source: Path | bytes, *, rate: float, longest: int | None = None) -> np.ndarray:
    """Reads a clip at a frame rate.

    Args:
      source: a file, or its content.
      rate: frames a second of the result.
      longest: at most so many frames, from the start.

    Returns:
      `<uint8>[frames, height, width, 3]`. All have the size of the first one.

    Raises:
      InputError: see `timed_frames`.
    """
    return np.stack(list(itertools.islice(read_frames(source, rate=rate), longest)))


def read_frames(source: Path | bytes, *, rate: float) -> Iterator[np.ndarray]:
    """Yields the frames that `read` returns, one at a time."""
    first = None
    for picture in sample(timed_frames(source), rate):
        pixels = picture()
        first = pixels if first is None else first
        yield pixels if pixels.shape == first.shape else _fitted(pixels, first.shape)


def _fitted(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A frame of another size than the clip's first one, stretched to it: pixels are picked."""
    rows, columns = (
        (np.arange(new) * old // new) for new, old in zip(shape[:2], frame.shape[:2], strict=True)
    )
    return frame[rows][:, columns]


def encode(frames: np.ndarray, rate: float, *, quality: int = 20) -> bytes:
    """Encodes frames as an mp4 file (H.264).

    Args:
      frames: `<uint8>[frames, height, width, 3]`, with even sides.
      rate: frames a second.
      quality: x264's constant rate factor; less is better and larger.
    """
    library = require("av", "video")
    buffer = io.BytesIO()
    with library.open(buffer, "w", format="mp4") as container:
        options = {"crf": str(quality), "preset": "veryfast", "threads": "1"}
        frame_rate = Fraction(rate).limit_denominator(1001)
        stream = container.add_stream("libx264", rate=frame_rate, options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(library.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return buffer.getvalue()


# --- in the graph ---------------------------------------------------------------------------------


def sample_in_graph(
    frames: tf.Tensor, length: tf.Tensor, frame_rate: tf.Tensor, *, rate: float, longest: int
) -> tuple[tf.Tensor, tf.Tensor]:
    """Samples a batch of clips by time, as `sample` does a file.

    Args:
      frames: `[batch, time, ...]`, time 1 or more.
      length: `<int32>[batch]`, 1 to time.
      frame_rate: `<float32>[batch]`, finite and positive.
      rate: frames a second of the result.
      longest: at most so many frames.

    Returns:
      `[batch, most frames, ...]`; `<int32>[batch]` the frames of each clip. What lies behind them
      are repetitions of the last one.
    """
    ratio = rate / frame_rate
    exact = tf.cast(length, tf.float32) * ratio
    count = tf.clip_by_value(tf.math.ceil(exact - 0.5 - 1e-4), 1.0, float(longest))
    count = tf.cast(count, tf.int32)
    steps = tf.range(tf.reduce_max(tf.concat([count, [1]], axis=0)))
    shown = (tf.cast(steps, tf.float32)[None, :] + 0.5) / ratio[:, None]
    last = tf.cast(length - 1, tf.float32)[:, None]
    index = tf.cast(tf.math.floor(tf.minimum(shown, last)), tf.int32)
    return tf.gather(frames, index, axis=1, batch_dims=1), count


def _weights(extent: tf.Tensor, scale: tf.Tensor, offset: tf.Tensor, count: Any, side: int) -> Any:
    """How much each source pixel counts in each new one, `<float32>[batch, side, count]`.

    A triangle about the new pixel's place, as wide as the new pixel where pictures become smaller:
    linear interpolation with anti-aliasing.
    """
    place = (tf.range(side, dtype=tf.float32)[None, :] + 0.5 - offset[:, None]) / scale[:, None]
    pixels = tf.range(count, dtype=tf.int32)
    distance = place[:, :, None] - (tf.cast(pixels, tf.float32)[None, None, :] + 0.5)
    weights = tf.nn.relu(1.0 - tf.abs(distance) * tf.minimum(scale, 1.0)[:, None, None])
    real = pixels[None, :] < extent[:, None]
    weights = tf.where(real[:, None, :], weights, 0.0)
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
    """Fits pictures of any size into squares, in proportion, with black bars where none is.

    Args:
      frames: `<uint8>[batch, time, height, width, 3]`, height and width 1 or more.
      size: `<int32>[batch, 2]`, the true height and width of each clip, 1 or more; what lies
        beyond counts for nothing.
      side: of the squares, pixels.
      zoom: larger or smaller than what just fits, `<float32>[batch]`.
      shift: down and right, in sides, `<float32>[batch, 2]`.
      mirrored: whether left and right are exchanged at the end, `<bool>[batch]`.

    Returns:
      `<uint8>[batch, time, side, side, 3]`. Pictures that have this size already stay as they are.
    """
    extent = tf.cast(size, tf.float32)
    scale = zoom * side / tf.reduce_max(extent, axis=1)
    offset = 0.5 * (side - extent * scale[:, None]) + shift * float(side)
    shape = tf.shape(frames)
    height, width = shape[2], shape[3]
    rows = _weights(size[:, 0], scale, offset[:, 0], height, side)
    columns = _weights(size[:, 1], scale, offset[:, 1], width, side)
    # Turning the weights round costs nothing; turning the pictures took half of all augmentation.
    columns = tf.where(tf.reshape(mirrored, [-1, 1, 1]), columns[:, ::-1], columns)
    x = tf.reshape(tf.cast(frames, tf.float32), [shape[0], shape[1], height, width * 3])
    x = tf.matmul(rows[:, None], x)
    x = tf.reshape(x, [shape[0], shape[1], side, width, 3])
    x = tf.einsum("bkw,btjwc->btjkc", columns, x)
    return tf.cast(tf.round(tf.clip_by_value(x, 0.0, 255.0)), tf.uint8)


def to_model(
    frames: tf.Tensor,
    length: tf.Tensor,
    size: tf.Tensor,
    frame_rate: tf.Tensor,
    *,
    side: int,
    rate: float,
    longest: int,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Brings clips to the size and the frame rate that the network sees.

    The one way there, in training as in the export; see `sample_in_graph` and `resize_in_graph`.

    Returns:
      `<uint8>[batch, most frames, side, side, 3]`, `<int32>[batch]` the frames of each clip.
    """
    sampled, count = sample_in_graph(frames, length, frame_rate, rate=rate, longest=longest)
    return resize_in_graph(sampled, size, side), count
