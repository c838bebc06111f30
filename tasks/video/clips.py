"""Video files: reading with sampling in time, and writing; requests of clips to an export.

PyAV decodes files frame by frame, so memory does not grow with their length. Frames are sampled by
the rule of `tasks.video.resampling`. Nothing here imports TensorFlow.

| file | result |
|---|---|
| no video, empty, sound only, a text, a playlist | a message; other files are read |
| broken off or damaged | damaged packets are skipped and counted, the rest has its true time |
| an mp4 file without its end | cannot be read at all |
| times of decoding only, as in AVI | the n-th time belongs to the n-th visible frame |
| several video streams | of the default ones, that with the largest pictures |
| grey, alpha channel, odd sizes, turned or mirrored by its metadata | as a player shows it |
| sides above 256 pixels | reduced while reading |
| time stamps of unequal distance | frames last as long as they are visible, 5 seconds at most |
"""

from __future__ import annotations

import functools
import heapq
import io
import itertools
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from common.errors import InputError, require

import numpy as np

if TYPE_CHECKING:
    import av
    import av.container
    import av.video.stream

T = TypeVar("T")
LazyFrame = Callable[[], np.ndarray]  # converts a decoded frame when it is called

SUFFIXES = (
    *(".3g2", ".3gp", ".asf", ".avi", ".divx", ".dv", ".f4v", ".flv", ".gif", ".m2ts", ".m2v"),
    *(".m4v", ".mkv", ".mov", ".mp4", ".mpe", ".mpeg", ".mpg", ".mts", ".mxf", ".ogg", ".ogv"),
    *(".ts", ".vob", ".webm", ".wmv"),
)

MAX_SIDE = 256  # pixels; larger frames are reduced when they are read
MAX_FRAME_SECONDS = 5.0  # no frame is visible for longer, even if its time stamps say so
MAX_ASPECT = 8.0  # width of a pixel divided by its height; other values are corrupt
DECODING_TIMES = ("avi",)  # formats that store no times of presentation; FFmpeg guesses them
MAX_FAILURES = 100  # of reading packets, after which the rest of a file is given up
# FFmpeg opens these as video, too: text drawn as on a terminal, and lists of other files.
NOT_VIDEO = frozenset(("tty", "concat", "hls", "dash", "sdp", "rtsp"))


def timed_frames(source: Path | bytes | int) -> Iterator[tuple[float, float, LazyFrame]]:
    """Decode the main video stream of a file, frame by frame.

    Damaged packets are skipped, and a message on standard error counts them.

    Args:
      source: a file, its content, or the number of a camera.

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
        by_decoding = container.format.name in DECODING_TIMES
        clock = _Clock(_usual_step(stream), by_decoding=by_decoding)
        errors: list[Exception] = []
        pending: tuple[float, LazyFrame] | None = None
        aspect = float(stream.sample_aspect_ratio or 1)
        for frame in _decode(library, container, stream, clock, errors):
            time = clock.show(frame)
            if pending is not None:
                yield pending[0], time, pending[1]
            pending = time, functools.partial(to_pixels, frame, aspect)
        if pending is None:
            reason = f"no frame can be decoded: {errors[0]}" if errors else "it has no frame"
            raise InputError(f"the video in this file cannot be used: {reason}", path)
        if errors:
            print(
                f"{path or 'clip'}: {len(errors)} damaged packets were skipped",
                file=sys.stderr,
                flush=True,
            )
        yield pending[0], pending[0] + clock.last_step, pending[1]


def _decode(
    library: ModuleType,
    container: av.container.InputContainer,
    stream: av.video.stream.VideoStream,
    clock: _Clock,
    errors: list[Exception],
) -> Iterator[av.VideoFrame]:
    """Yield the frames of a stream in the order of presentation; append errors to `errors`."""
    failures = (library.error.FFmpegError, OSError, ValueError)
    unread = 0  # failures to read a packet
    while True:
        try:
            for packet in container.demux(stream):
                clock.send(packet)
                yield from _decode_packet(packet, clock, errors, failures)
            return
        except failures as error:
            errors.append(error)
            unread += 1
        if unread > MAX_FAILURES:
            return


def _decode_packet(
    packet: av.Packet,
    clock: _Clock,
    errors: list[Exception],
    failures: tuple[type[Exception], ...],
) -> list[av.VideoFrame]:
    """Return the frames that a packet completes; none if it is damaged."""
    try:
        frames: list[av.VideoFrame] = packet.decode()
    except failures as error:
        if packet.size:  # the packet after the last one has no data
            clock.drop()
            errors.append(error)
        return []
    return frames


class _Clock:
    """The times at which the frames of a stream appear.

    A decoder returns frames in the order of presentation. Most containers store when each frame is
    presented. Others, such as AVI, store when it is decoded; the n-th of these times belongs to the
    n-th frame. Frames without a time follow at the usual rate.

    Args:
      usual_step: seconds between two frames without times.
      by_decoding: whether the times of presentation are missing or guessed.
    """

    def __init__(self, usual_step: float, *, by_decoding: bool = False):
        self.usual_step = self.last_step = usual_step
        self.decoding: list[float] = []  # times of packets whose frames have not appeared; a heap
        self.by_decoding = by_decoding
        self.sent: float | None = None  # time of the last packet
        self.start: float | None = None  # time of the first frame
        self.now: float | None = None  # seconds from the first frame to the latest one

    def send(self, packet: av.Packet) -> None:
        """Register a packet that is about to be decoded."""
        self.sent = None
        time = packet.pts if packet.dts is None else packet.dts
        if packet.size and time is not None:
            self.sent = float(time * packet.time_base)
            heapq.heappush(self.decoding, self.sent)
            self.by_decoding |= packet.pts is None

    def drop(self) -> None:
        """Forget the last packet: it yields no frame."""
        if self.sent in self.decoding:
            self.decoding.remove(self.sent)
            heapq.heapify(self.decoding)

    def show(self, frame: av.VideoFrame) -> float:
        """Return when a frame appears, in seconds from the first frame."""
        decoded = heapq.heappop(self.decoding) if self.decoding else None
        time = decoded if self.by_decoding else frame.time
        self.now = self._next(time)
        if self.start is None and time is not None:
            self.start = time - self.now
        duration = (
            0.0 if self.by_decoding else float((frame.duration or 0) * (frame.time_base or 0))
        )
        self.last_step = min(duration, MAX_FRAME_SECONDS) or self.usual_step
        return self.now

    def _next(self, time: float | None) -> float:
        """Return when a frame appears that has a time of the file, or none."""
        if self.now is None:
            return 0.0
        if time is None or self.start is None:
            return self.now + self.usual_step
        step = time - self.start - self.now
        if step > MAX_FRAME_SECONDS:  # a jump is no pause
            self.start += step - MAX_FRAME_SECONDS
        return self.now + (min(step, MAX_FRAME_SECONDS) if step > 0 else self.usual_step)


def _usual_step(stream: av.video.stream.VideoStream) -> float:
    """Return the seconds between two frames according to the header of the file."""
    # The average is wrong for AVI files with B-frames.
    rate = stream.guessed_rate or stream.average_rate or 25
    return min(max(float(1 / rate), 1e-3), MAX_FRAME_SECONDS)


def _open(library: ModuleType, source: Path | bytes | int) -> av.container.InputContainer:
    if isinstance(source, int):
        return _open_camera(library, source)
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


def _open_camera(library: ModuleType, number: int) -> av.container.InputContainer:
    """Open a camera of this machine."""
    devices = {"linux": (f"/dev/video{number}", "v4l2"), "darwin": (str(number), "avfoundation")}
    if sys.platform not in devices:
        raise InputError(f"cameras are not supported on {sys.platform}: record a file first")
    device, kind = devices[sys.platform]
    try:
        return library.open(device, format=kind)
    except (library.error.FFmpegError, OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(f"camera {number} cannot be opened: {reason}", device) from error


def _video_stream(
    library: ModuleType, container: av.container.InputContainer, path: Path | None
) -> av.video.stream.VideoStream:
    """Return the main video stream: of the default ones, the one with the largest pictures.

    Cover pictures and streams of unknown codecs are left out.
    """
    disposition = library.stream.Disposition
    streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & disposition.attached_pic and stream.codec_context is not None
    ]
    if not streams or NOT_VIDEO & set(container.format.name.split(",")):
        raise InputError("no video in this file", path)
    return max(
        streams,
        key=lambda stream: (
            bool(stream.disposition & disposition.default),
            stream.width * stream.height,
        ),
    )


def to_pixels(frame: av.VideoFrame, aspect: float) -> np.ndarray:
    """Convert a decoded frame to upright RGB pixels, `<uint8>[height, width, 3]`.

    Grey frames become grey RGB, an alpha channel is dropped, rotation and mirroring by the metadata
    are applied, rectangular pixels become square, and frames with a side above `MAX_SIDE` are
    reduced.

    Args:
      frame: the decoded frame.
      aspect: width of a pixel divided by its height.
    """
    width = frame.width * min(max(aspect, 1 / MAX_ASPECT), MAX_ASPECT)
    scale = min(1.0, MAX_SIDE / max(width, frame.height))
    pixels = frame.to_ndarray(
        format="rgb24",
        width=max(1, round(width * scale)),
        height=max(1, round(frame.height * scale)),
    )
    matrix = _display_matrix(frame)
    return pixels if matrix is None else np.ascontiguousarray(_upright(pixels, matrix))


def _display_matrix(frame: Any) -> np.ndarray | None:
    """Return how the metadata turn and mirror a frame, `<int32>[2, 2]`, or None."""
    try:
        side_data = list(frame.side_data)
    except ValueError:  # a type that PyAV does not know
        return None
    for data in side_data:
        if data.type.name == "DISPLAYMATRIX":
            return np.frombuffer(bytes(data), np.int32)[:9].reshape(3, 3)[:2, :2]
    return None


def _upright(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Turn and mirror a picture by multiples of 90 degrees.

    Args:
      pixels: `<uint8>[height, width, 3]`.
      matrix: `<int>[2, 2]`; pixel (x, y) is displayed at (x, y) times the matrix, up to a shift.

    Example:
      >>> picture = np.arange(6).reshape(2, 3)
      >>> _upright(picture, np.array([[-1, 0], [0, 1]])).tolist()     # mirrored
      [[2, 1, 0], [5, 4, 3]]
      >>> _upright(picture, np.array([[0, -1], [1, 0]])).tolist()     # turned counter-clockwise
      [[2, 5], [1, 4], [0, 3]]
    """
    (a, b), (c, d) = matrix.astype(np.int64)
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, a, d = pixels.swapaxes(0, 1), c, b
    pixels = pixels[:, ::-1] if a < 0 else pixels
    return pixels[::-1] if d < 0 else pixels


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


def read_frames(source: Path | bytes | int, *, rate: float) -> Iterator[np.ndarray]:
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
