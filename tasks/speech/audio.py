"""Sound files: any format of libsndfile or PyAV, any sample rate, number of channels and length."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, TypeAlias

from common.errors import InputError, require

import numpy as np

RATE = 16_000  # samples per second of all sound in this task
SHORTEST = RATE // 10  # samples; no word is shorter
SILENCE = 1e-4  # a recording with no larger sample (-80 dB of full scale) is silent
CONTAINERS = (".m4a", ".mp4", ".webm", ".mka", ".aac", ".wma")  # which PyAV reads
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au", ".sph", *CONTAINERS)
_BLOCK = 30 * RATE  # samples per read

Source: TypeAlias = str | Path | BinaryIO
Channel: TypeAlias = Literal["1", "2", "mix"]


class Part(NamedTuple):
    """The part of a sound file that is read.

    Attributes:
      channel: number of the channel, or `mix` for the mean of all.
      start: its start in seconds.
      end: its end in seconds; None for the end of the file.
    """

    channel: Channel = "mix"
    start: float = 0.0
    end: float | None = None


WHOLE = Part()


def read_blocks(
    source: Source, name: str | Path | None = None, part: Part = WHOLE
) -> Iterator[np.ndarray]:
    """Yield a sound file in blocks `<float32>[samples]`, mono, at 16 kHz. Memory is bounded.

    Args:
      source: a path, or an open binary file.
      name: file name in error messages; the path by default.
      part: the channel and the interval to read.

    Raises:
      InputError: the file is missing, no sound file, without samples or the channel, or contains
        NaN.
    """
    if isinstance(source, str | Path):
        name = source if name is None else name
        if not Path(source).is_file():
            is_folder = Path(source).is_dir()
            raise InputError("is a folder, no sound file" if is_folder else "no such file", name)
        if not Path(source).stat().st_size:
            raise InputError("is empty", name)
    is_container = name is not None and Path(name).suffix.lower() in CONTAINERS
    count = 0
    for block in (_decode if is_container else _read_file)(source, name, part):
        if not np.isfinite(block).all():
            raise InputError("contains NaN or infinite samples", name)
        count += len(block)
        if len(block):
            yield block
    if not count:
        raise InputError("contains no samples at 16 kHz", name)


def _read_file(source: Source, name: str | Path | None, part: Part) -> Iterator[np.ndarray]:
    """Yield the blocks of a file by libsndfile, resampled by soxr."""
    soundfile, soxr = require("soundfile", "speech"), require("soxr", "speech")
    try:
        with soundfile.SoundFile(source) as file:
            stream = soxr.ResampleStream(file.samplerate, RATE, 1, dtype="float32")
            end = file.frames if part.end is None else round(part.end * file.samplerate)
            left = min(end, file.frames) - round(part.start * file.samplerate)
            if part.start and left > 0:
                file.seek(round(part.start * file.samplerate))
            is_last = False
            while not is_last:
                block = file.read(max(min(_BLOCK, left), 0), dtype="float32", always_2d=True)
                left -= len(block)
                is_last = len(block) < _BLOCK or left <= 0
                mono = _select_channel(block.T, part.channel, name)
                yield mono if file.samplerate == RATE else stream.resample_chunk(mono, last=is_last)
    except TypeError as error:  # soundfile needs rate and channels of a file without a header
        raise InputError(
            "is sound without a header, so its rate and format are unknown. Convert it, for "
            "example to WAV by sox",
            name,
        ) from error
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        raise InputError(f"is not a readable sound file ({reason})", name) from error


def _decode(source: Source, name: str | Path | None, part: Part) -> Iterator[np.ndarray]:
    """Yield the blocks of a file by PyAV."""
    av = require("av", "video", f", or convert {name} to WAV")
    try:
        path = str(source) if isinstance(source, Path) else source
        with av.open(path, metadata_errors="ignore") as container:
            if not container.streams.audio:
                raise InputError("contains no sound", name)
            resampler = av.AudioResampler(format="fltp", rate=RATE)
            place, first = 0, round(part.start * RATE)
            last = None if part.end is None else round(part.end * RATE)
            for frame in _resampled(container.decode(audio=0), resampler):
                mono = _select_channel(frame.to_ndarray(), part.channel, name)
                stop = len(mono) if last is None else last - place
                yield mono[max(first - place, 0) : max(stop, 0)]
                place += len(mono)
    except av.FFmpegError as error:
        raise InputError(f"is not a readable sound file ({error.strerror})", name) from error


def _resampled(frames: Iterable[Any], resampler: Any) -> Iterator[Any]:
    """Yield the frames of a stream after resampling, with those that the resampler holds."""
    for frame in frames:
        yield from resampler.resample(frame)
    yield from resampler.resample(None)


def _select_channel(block: np.ndarray, channel: Channel, name: str | Path | None) -> np.ndarray:
    """Return a channel of `<float32>[channels, samples]`, or the mean of all.

    Example:
      >>> _select_channel(np.array([[1.0, 0.0], [0.0, 0.5]]), "2", None)
      array([0. , 0.5], dtype=float32)
    """
    if channel == "mix":
        return np.ascontiguousarray(block.mean(axis=0), np.float32)
    if int(channel) > len(block):
        count = f"{len(block)} channel" + ("s" if len(block) > 1 else "")
        raise InputError(f"has {count}, so there is no --channel {channel}", name)
    return np.ascontiguousarray(block[int(channel) - 1], np.float32)


def read(source: Source, name: str | Path | None = None, part: Part = WHOLE) -> np.ndarray:
    """Return a whole sound file as `<float32>[samples]`, mono, at 16 kHz.

    Args:
      source: a path, or an open binary file.
      name: file name in error messages; the path by default.
      part: the channel and the interval to read.

    Raises:
      InputError: see `read_blocks`.
    """
    return np.concatenate(list(read_blocks(source, name, part)))


def measure(path: Path, part: Part = WHOLE) -> float:
    """Return the seconds of a part of a file, as its header says.

    Raises:
      InputError: it is not a readable sound file.
    """
    if path.suffix.lower() in CONTAINERS:
        av = require("av", "video")
        try:
            with av.open(str(path), metadata_errors="ignore") as container:
                seconds = (container.duration or 0) / av.time_base
        except av.FFmpegError as error:
            raise InputError(f"is not a readable sound file ({error.strerror})", path) from error
    else:
        soundfile = require("soundfile", "speech")
        try:
            seconds = float(soundfile.info(path).duration)
        except (soundfile.SoundFileError, TypeError) as error:
            raise InputError("is not a readable sound file", path) from error
    end = seconds if part.end is None else min(part.end, seconds)
    return max(end - part.start, 0.0)


def read_bytes(content: bytes, name: str) -> np.ndarray:
    """Return a sound file in memory as `<float32>[samples]`, mono, at 16 kHz.

    Args:
      content: the bytes of the file.
      name: its name. `.raw` means 16-bit big-endian samples without a header, mono, at 16 kHz.

    Raises:
      InputError: the bytes are not sound; see `read_blocks`.
    """
    if name.endswith(".raw"):
        if not content or len(content) % 2:
            raise InputError(f"expected 16-bit samples, got {len(content)} bytes", name)
        return np.frombuffer(content, ">i2").astype(np.float32) / 2.0**15
    return read(io.BytesIO(content), name)


def write(path: Path, sound: np.ndarray) -> None:
    """Write `<float32>[samples]` at 16 kHz to a file; its suffix determines the format."""
    soundfile = require("soundfile", "speech")
    soundfile.write(path, sound, RATE)


def to_int16(audio: np.ndarray) -> np.ndarray:
    """Convert samples to 16-bit integers, the storage format of the data sets.

    The features do not depend on loudness, so sound beyond -1..1 is scaled down, not clipped: files
    of floats may go a little beyond, or have the range of 16-bit integers.

    Example:
      >>> to_int16(np.array([0.5, -1.0])), to_int16(np.array([5_000.0, -10_000.0]))
      (array([ 16384, -32768], dtype=int16), array([ 16384, -32768], dtype=int16))
    """
    audio = audio / max(1.0, float(np.abs(audio).max(initial=0.0)))
    return np.clip(np.rint(audio * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)


def request(sounds: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Return the inputs of an export's signatures for sounds `<float32>[samples]`.

    Example:
      >>> inputs = request([np.zeros(3), np.ones(2)])
      >>> inputs["audio"].tolist(), inputs["length"].tolist()
      ([[0.0, 0.0, 0.0], [1.0, 1.0, 0.0]], [3, 2])
    """
    length = np.array([len(sound) for sound in sounds], np.int32)
    padded = np.zeros((len(sounds), length.max()), np.float32)
    for row, sound in zip(padded, sounds, strict=True):
        row[: len(sound)] = sound
    return {"audio": padded, "length": length}


def split_at_silences(
    path: str | Path, max_samples: int, channel: Channel = "mix"
) -> Iterator[tuple[int, np.ndarray]]:
    """Split a recording of any length into pieces at its silences, with bounded memory.

    Each cut is in the middle of the quietest fifth of a second between `max_samples / 3` and
    `max_samples`. A recording of at most `max_samples` stays whole.

    Args:
      path: a sound file.
      max_samples: maximum length of a piece, in samples at 16 kHz.
      channel: number of the channel, or `mix` for the mean of all.

    Yields:
      The start of each piece, in samples at 16 kHz, and its samples `<float32>[samples]`.

    Raises:
      InputError: see `read_blocks`.
    """
    yield from split_blocks(read_blocks(path, part=Part(channel)), max_samples)


def split_blocks(
    blocks: Iterable[np.ndarray], max_samples: int
) -> Iterator[tuple[int, np.ndarray]]:
    """Split the blocks of a sound into pieces; see `split_at_silences`."""
    start, pending = 0, np.zeros(0, np.float32)
    for block in blocks:
        pending = np.concatenate([pending, block])
        while len(pending) > max_samples:
            cut = quietest(pending[:max_samples], max_samples // 3)
            yield start, pending[:cut]
            start, pending = start + cut, pending[cut:]
    if len(pending):
        yield start, pending


def quietest(audio: np.ndarray, first: int, width: int = RATE // 5) -> int:
    """Return the middle of the window of `width` samples with the least energy.

    Args:
      audio: `<float>[samples]`.
      first: earliest start of the window.
      width: samples of the window.

    Example:
      >>> quietest(np.r_[np.ones(9), np.zeros(5), np.ones(9)], 2, width=3)
      10
    """
    width = min(width, len(audio) - first)
    energy = np.concatenate([[0.0], np.cumsum(np.square(audio[first:], dtype=np.float64))])
    sums = energy[width:] - energy[:-width]
    return first + int(sums.argmin()) + width // 2
