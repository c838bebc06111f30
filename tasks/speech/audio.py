"""Sound files: any format that libsndfile reads, any rate, any number of channels, any length."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from common.errors import InputError, require
from tasks.speech.features import RATE

import numpy as np

SUFFIXES = (".wav", ".flac", ".ogg", ".mp3", ".opus", ".aiff", ".aif", ".au", ".sph")
_BLOCK = 30 * RATE  # samples read at once


def read_blocks(source: str | Path | BinaryIO, name: str | Path | None = None) -> Iterator[Any]:
    """Yields a sound file as blocks `<float32>[samples]`, mono, at 16 kHz; memory is bounded.

    Channels are averaged, and other rates resampled by soxr.

    Raises:
      InputError: the file is missing, holds no sound that can be read, no samples, or NaN.
    """
    soundfile, soxr = require("soundfile", "speech"), require("soxr", "speech")
    name = source if name is None else name
    if not hasattr(source, "read") and not Path(source).is_file():
        raise InputError("is a folder" if Path(source).is_dir() else "no such file", name)
    count = 0
    try:
        with soundfile.SoundFile(source) as file:
            stream = soxr.ResampleStream(file.samplerate, RATE, 1, dtype="float32")
            is_done = False
            while not is_done:
                block = file.read(_BLOCK, dtype="float32", always_2d=True)
                is_done = len(block) < _BLOCK
                count += len(block)
                if not np.isfinite(block).all():
                    raise InputError("holds NaN or infinite samples", name)
                mono = np.ascontiguousarray(block.mean(axis=1))
                if file.samplerate != RATE:
                    mono = stream.resample_chunk(mono, last=is_done)
                if len(mono):
                    yield mono
    except soundfile.SoundFileError as error:
        reason = str(getattr(error, "error_string", error)).rstrip(".")
        size = Path(name).stat().st_size if Path(name).is_file() else None
        raise InputError(
            "is empty" if size == 0 else f"no sound file that can be read ({reason})", name
        ) from error
    if not count:
        raise InputError("holds no samples", name)


def read(source: str | Path | BinaryIO, name: str | Path | None = None) -> np.ndarray:
    """A whole sound file, `<float32>[samples]`, mono, at 16 kHz; see `read_blocks`."""
    return np.concatenate(list(read_blocks(source, name)))


def read_bytes(content: bytes, name: str) -> np.ndarray:
    """A sound file in memory. `.raw` is headerless 16-bit big-endian mono at 16 kHz (AN4's).

    Raises:
      InputError: as `read`.
    """
    if name.endswith(".raw"):
        if not content or len(content) % 2:
            raise InputError(f"{len(content)} bytes are no 16-bit samples", name)
        return np.frombuffer(content, ">i2").astype(np.float32) / 2.0**15
    return read(io.BytesIO(content), name)


def write(path: Path, sound: np.ndarray) -> None:
    """Writes `<float32>[samples]` at 16 kHz into a file, whose ending says in which form."""
    soundfile = require("soundfile", "speech")
    soundfile.write(path, sound, RATE)


def to_int16(audio: np.ndarray) -> np.ndarray:
    """16-bit samples, as data sets are kept."""
    return np.clip(np.rint(audio * 2.0**15), -(2**15), 2**15 - 1).astype(np.int16)


def pieces(path: str | Path, longest: int) -> Iterator[tuple[int, np.ndarray]]:
    """Cuts a recording of any length at its silences; memory is bounded by `longest` and a block.

    Each cut is made in the middle of the quietest fifth of a second of what comes between a third
    of `longest` and `longest`. A recording no longer than `longest` stays whole.

    Args:
      path: a sound file.
      longest: samples of a piece, at most.

    Yields:
      Where the piece begins, in samples at 16 kHz, and its samples.

    Raises:
      InputError: as `read_blocks`.
    """
    start, waiting = 0, np.zeros(0, np.float32)
    for block in read_blocks(path):
        waiting = np.concatenate([waiting, block])
        while len(waiting) > longest:
            cut = quietest(waiting[:longest], longest // 3)
            yield start, waiting[:cut]
            start, waiting = start + cut, waiting[cut:]
    if len(waiting):
        yield start, waiting


def quietest(audio: np.ndarray, first: int, width: int = RATE // 5) -> int:
    """The middle of the quietest `width` samples that begin at `first` or later.

    Example:
    >>> quietest(np.r_[np.ones(9), np.zeros(5), np.ones(9)], 2, width=3)
    10
    """
    width = min(width, len(audio) - first)
    energy = np.concatenate([[0.0], np.cumsum(np.square(audio[first:], dtype=np.float64))])
    sums = energy[width:] - energy[:-width]
    return first + int(sums.argmin()) + width // 2
