"""Video files: reading with sampling in time, and writing; requests of clips to an export.

PyAV decodes files frame by frame, so memory does not grow with their length. Frames are sampled by
the rule of `tasks.video.resampling`. Nothing here imports TensorFlow.
"""

from __future__ import annotations

import functools
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, TypeVar

from common.errors import InputError, require

import numpy as np

if TYPE_CHECKING:
    import av
    import av.container
    import av.video.stream

T = TypeVar("T")
LazyFrame = Callable[[], np.ndarray]  # converts a decoded frame when it is called

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ogv", ".webm", ".wmv")
MAX_SIDE = 256  # pixels; larger frames are reduced when they are read
MAX_FRAME_SECONDS = 5.0  # no frame is visible for longer, even if its time stamps say so
# FFmpeg opens these as video, too: text drawn as on a terminal, and lists of other files.
NOT_VIDEO = frozenset(("tty", "concat", "hls", "dash", "sdp", "rtsp"))


def timed_frames(source: Path | bytes) -> Iterator[tuple[float, float, LazyFrame]]:
    """Decode the first video stream of a file, frame by frame.

    A damaged or truncated file yields the frames before the damage, and a message goes to standard
    error.

    Args:
      source: a file, or its content.

    Yields:
      The seconds, from the first frame, at which a frame appears and disappears, and a function
      that returns its pixels (see `to_pixels`). Most frames are skipped, and not converted.

    Raises:
      InputError: the file has no video, no frame can be decoded, or PyAV is not installed.
    """
    library = require("av", "video")
    path = source if isinstance(source, Path) else None
    with _open(library, source) as container:
        stream = _video_stream(library, container, path)
        usual_step = float(1 / (stream.average_rate or stream.guessed_rate or 25))
        usual_step = min(max(usual_step, 1e-3), MAX_FRAME_SECONDS)
        clock = 0.0
        previous_time: float | None = None
        pending: LazyFrame | None = None
        try:
            for frame in container.decode(stream):
                if pending is not None:
                    step = _step(previous_time, frame.time, usual_step)
                    yield clock, clock + step, pending
                    clock += step
                previous_time = frame.time
                aspect = float(stream.sample_aspect_ratio or 1)
                pending = functools.partial(to_pixels, frame, aspect)
        except (library.error.FFmpegError, OSError, ValueError) as error:
            if pending is None:
                raise InputError(f"no frame can be decoded: {error}", path) from error
            print(
                f"{path or 'clip'}: damaged after {clock + usual_step:.2f} s; "
                "only the part before is used",
                file=sys.stderr,
                flush=True,
            )
        if pending is None:
            raise InputError("the video in this file has no frame", path)
        yield clock, clock + usual_step, pending


def _open(library: ModuleType, source: Path | bytes) -> av.container.InputContainer:
    try:
        # Local files only: a playlist must not make us fetch the files that it names.
        return library.open(
            io.BytesIO(source) if isinstance(source, bytes) else os.fspath(source),
            metadata_errors="ignore",
            options={"protocol_whitelist": "file"},
        )
    except (library.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        path = source if isinstance(source, Path) else None
        raise InputError(f"cannot be read as video: {reason}", path) from error


def _video_stream(
    library: ModuleType, container: av.container.InputContainer, path: Path | None
) -> av.video.stream.VideoStream:
    """Return the first video stream that is not a cover picture."""
    cover = library.stream.Disposition.attached_pic
    streams = [stream for stream in container.streams.video if not stream.disposition & cover]
    if not streams or NOT_VIDEO & set(container.format.name.split(",")):
        raise InputError("no video in this file", path)
    return streams[0]


def _step(previous: float | None, current: float | None, usual: float) -> float:
    """Return the seconds between two frames.

    Frames without time stamps, or whose time stamps run backwards, follow at the usual rate.
    """
    if current is None or previous is None or current <= previous:
        return usual
    return min(current - previous, MAX_FRAME_SECONDS)


def to_pixels(frame: av.VideoFrame, aspect: float) -> np.ndarray:
    """Convert a decoded frame to upright RGB pixels, `<uint8>[height, width, 3]`.

    Grey frames become grey RGB, an alpha channel is dropped, rotation in the metadata is applied,
    rectangular pixels become square, and frames with a side above `MAX_SIDE` are reduced.

    Args:
      frame: the decoded frame.
      aspect: width of a pixel divided by its height.
    """
    width = frame.width * aspect
    scale = min(1.0, MAX_SIDE / max(width, frame.height))
    pixels = frame.to_ndarray(
        format="rgb24",
        width=max(1, round(width * scale)),
        height=max(1, round(frame.height * scale)),
    )
    turns = round(frame.rotation / 90.0) % 4
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def sample(frames: Iterable[tuple[float, float, T]], rate: float) -> Iterator[T]:
    """Yield the frame that is visible at the middle of each 1/rate second; at least one frame.

    Example:
      >>> list(sample([(0.0, 0.5, "a"), (0.5, 0.7, "b"), (0.7, 1.0, "c")], rate=4.0))
      ['a', 'a', 'b', 'c']
    """
    count = 0
    frame = None
    for _, end, frame in frames:
        # The tolerance absorbs rounding errors of 1/rate added up many times.
        while (count + 0.5) / rate < end - 1e-6:
            yield frame
            count += 1
    if frame is not None and not count:
        yield frame


def read(source: Path | bytes, *, rate: float, longest: int | None = None) -> np.ndarray:
    """Read a clip at a frame rate.

    Args:
      source: a file, or its content.
      rate: frames per second of the result.
      longest: maximum number of frames, from the start.

    Returns:
      `<uint8>[frames, height, width, 3]`. All frames have the size of the first one.

    Raises:
      InputError: see `timed_frames`.

    Example:
      >>> read(encode(np.zeros((5, 16, 32, 3), np.uint8), 10.0), rate=20.0).shape
      (10, 16, 32, 3)
    """
    return np.stack(list(itertools.islice(read_frames(source, rate=rate), longest)))


def read_frames(source: Path | bytes, *, rate: float) -> Iterator[np.ndarray]:
    """Yield the frames that `read` returns, one at a time."""
    shape: tuple[int, ...] | None = None
    for to_array in sample(timed_frames(source), rate):
        pixels = to_array()
        shape = pixels.shape if shape is None else shape
        yield pixels if pixels.shape == shape else _stretch(pixels, shape)


def _stretch(frame: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Stretch a frame to the size of another one, by nearest neighbours."""
    rows, columns = (
        (np.arange(new) * old // new) for new, old in zip(shape[:2], frame.shape[:2], strict=True)
    )
    return frame[rows][:, columns]


def encode(frames: np.ndarray, rate: float, *, quality: int = 20) -> bytes:
    """Encode frames as an mp4 file (H.264).

    Args:
      frames: `<uint8>[frames, height, width, 3]`, with even sides.
      rate: frames per second.
      quality: constant rate factor of x264; lower is better and larger.

    Raises:
      InputError: PyAV is not installed.
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


def clip_request(frames: Sequence[np.ndarray], rates: Sequence[float]) -> dict[str, np.ndarray]:
    """Return the inputs of `serving_default` or `explain` for clips of any lengths and sizes.

    Args:
      frames: `<uint8>[time, height, width, 3]` of each clip.
      rates: frames per second of each clip.

    Example:
      >>> request = clip_request([np.ones((5, 4, 8, 3)), np.ones((2, 6, 6, 3))], [25.0, 30.0])
      >>> request["frames"].shape, request["length"].tolist(), request["size"].tolist()
      ((2, 5, 6, 8, 3), [5, 2], [[4, 8], [6, 6]])
    """
    shapes = np.array([clip.shape[:3] for clip in frames], np.int32)
    padded = np.zeros((len(frames), *shapes.max(axis=0), 3), np.uint8)
    for row, clip in zip(padded, frames, strict=True):
        time, height, width = clip.shape[:3]
        row[:time, :height, :width] = clip
    return {
        "frames": padded,
        "length": shapes[:, 0],
        "size": shapes[:, 1:],
        "frame_rate": np.array(rates, np.float32),
    }
