"""Sound files: any format of libsndfile, any sample rate, any number of channels, any length."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, TypeAlias

from common.errors import InputError, require

import numpy as np

RATE = 16_000  # samples per second of all sound in this task
SHORTEST = RATE // 10  # samples; no word is shorter
SILENCE = 1e-4  # a recording with no larger sample (-80 dB of full scale) is silent
SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au", ".sph")
_BLOCK = 30 * RATE  # samples per read

Source: TypeAlias = str | Path | BinaryIO


def read_blocks(source: Source, name: str | Path | None = None) -> Iterator[np.ndarray]:
    """Yield a sound file in blocks `<float32>[samples]`, mono, at 16 kHz.

    Channels are averaged. Other sample rates are resampled by soxr. Memory is bounded.

    Args:
      source: a path, or an open binary file.
      name: file name in error messages; the path by default.

    Raises:
      InputError: the file is missing, no sound file, without samples, or contains NaN.
    """
    soundfile, soxr = require("soundfile", "speech"), require("soxr", "speech")
    if isinstance(source, str | Path):
        name = source if name is None else name
        if not Path(source).is_file():
            raise InputError("is a folder" if Path(source).is_dir() else "no such file", name)
    count = 0
    try:
        with soundfile.SoundFile(source) as file:
            stream = soxr.ResampleStream(file.samplerate, RATE, 1, dtype="float32")
            is_last = False
            while not is_last:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
                is_last = len(block) < _BLOCK
                count += len(block)
                if not np.isfinite(block).all():
                    raise InputError("contains NaN or infinite samples", name)
                mono = np.ascontiguousarray(block.mean(axis=1))
                if file.samplerate != RATE:
                    mono = stream.resample_chunk(mono, last=is_last)
                if len(mono):
                    yield mono
    except TypeError as error:  # soundfile needs rate and channels of a file without a header
        raise InputError(
            "is sound without a header, so its rate and format are unknown. Convert it, for "
            "example to WAV by sox",
            name,
        ) from error
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        is_empty = name is not None and Path(name).is_file() and not Path(name).stat().st_size
        message = "is empty" if is_empty else f"is not a readable sound file ({reason})"
        raise InputError(message, name) from error
    if not count:
        raise InputError("contains no samples", name)


def read(source: Source, name: str | Path | None = None) -> np.ndarray:
    """Return a whole sound file as `<float32>[samples]`, mono, at 16 kHz.

    Args:
      source: a path, or an open binary file.
      name: file name in error messages; the path by default.

    Raises:
      InputError: see `read_blocks`.
    """
    blocks = list(read_blocks(source, name))
    if not blocks:  # a few samples of a higher rate
        if name is None and isinstance(source, str | Path):
            name = source
        raise InputError("contains no whole sample at 16 kHz", name)
    return np.concatenate(blocks)


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


def split_at_silences(path: str | Path, max_samples: int) -> Iterator[tuple[int, np.ndarray]]:
    """Split a recording of any length into pieces at its silences, with bounded memory.

    Each cut is in the middle of the quietest fifth of a second between `max_samples / 3` and
    `max_samples`. A recording of at most `max_samples` stays whole.

    Args:
      path: a sound file.
      max_samples: maximum length of a piece, in samples at 16 kHz.

    Yields:
      The start of each piece, in samples at 16 kHz, and its samples `<float32>[samples]`.

    Raises:
      InputError: see `read_blocks`.
    """
    start, pending = 0, np.zeros(0, np.float32)
    for block in read_blocks(path):
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
