"""Reading the user's own music: folders of MIDI files.

| file | result |
|---|---|
| cut off, odd meta events, wrong lengths, other chunks, RIFF around it | read as far as possible |
| notes without an end | end with the track, after four quarter notes at most |
| notes shorter than half a frame, or of no length | sound for one frame |
| empty, no MIDI header, SMPTE time, only drums, no note, one frame | skipped; alone, an error |

What is dropped or skipped is counted and named. Notes beyond the piano are moved by octaves, and
silence of whole bars at the start and all silence at the end is removed. Pieces are transposed in
training, unless four fifths of them stand in one key and its relative minor.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.data import map_in_processes
from common.errors import InputError
from common.messages import LISTED, Skipped, report_skipped, say
from tasks.music import midi

import numpy as np

SUFFIXES = (".mid", ".midi", ".kar", ".rmi", ".smf")


class Piece(NamedTuple):
    """A piece of music: its name and its frames `<uint8>[time, 88]`; see `tasks.music.midi`."""

    name: str
    notes: np.ndarray


class _Result(NamedTuple):
    """The frames of a file, or the reason why it cannot be used."""

    notes: np.ndarray | None
    remarks: str
    problem: str


def read_folder(folder: Path, steps_per_quarter: int) -> list[Piece]:
    """Read all MIDI files below a folder, sorted by name, by all cores.

    Files that cannot be used are skipped, and files that could be read in part are used; messages
    on standard error count and name them. Of several files with the same music only the first is
    used.

    Raises:
      InputError: the folder has no MIDI file, or none of them can be used.
    """
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not files:
        raise InputError("no .mid file in this folder", folder)
    read = functools.partial(_read_file, steps_per_quarter=steps_per_quarter)
    pieces: dict[str, Piece] = {}
    skipped: Skipped = []
    remarks: list[str] = []
    copies: list[str] = []
    for path, result in zip(files, map_in_processes(read, files), strict=True):
        name = str(path.relative_to(folder))
        if result.notes is None:
            skipped.append((name, result.problem))
            continue
        if result.remarks:
            remarks.append(f"{name}: {result.remarks}")
        digest = hashlib.sha1(result.notes.tobytes()).hexdigest()
        if digest in pieces:
            copies.append(f"{name} contains the same music as {pieces[digest].name}")
        else:
            pieces[digest] = Piece(name, result.notes)
    report_skipped(folder, skipped, total=len(files), unit="files", limit=1.0)
    _say_some(folder, "files were read in part or changed", remarks)
    _say_some(folder, "copies were skipped", copies)
    return list(pieces.values())


def _read_file(path: Path, *, steps_per_quarter: int) -> _Result:
    try:
        recording = midi.read_recording(path, steps_per_quarter)
        check_length(recording.frames, path)
    except InputError as error:
        return _Result(None, "", str(error).removeprefix(f"{path}: "))
    remarks = midi.describe(recording.remarks) if recording.remarks else ""
    return _Result(recording.frames, remarks, "")


def _say_some(folder: Path, title: str, lines: list[str]) -> None:
    """Print the number of lines and the first few of them."""
    if lines:
        more = [f"and {len(lines) - LISTED} more"] if len(lines) > LISTED else []
        say("\n  ".join([f"{folder}: {len(lines)} {title}:", *lines[:LISTED], *more]))


def read_piece(path: Path, steps_per_quarter: int) -> np.ndarray:
    """Read a MIDI file of at least two frames; see `midi.read_midi`."""
    notes = midi.read_midi(path, steps_per_quarter)
    check_length(notes, path)
    return notes


def check_length(notes: np.ndarray, path: Path) -> None:
    """Refuse a piece of one frame.

    Raises:
      InputError: names the file.
    """
    if len(notes) < 2:
        raise InputError("one frame long; at least two are needed", path)


class Part(NamedTuple):
    """A part of a piece whose first `known` frames are only read; the others are scored."""

    piece: Piece
    known: int


def split(piece: Piece, longest: int) -> Iterator[Part]:
    """Split a piece that is longer than `longest`; half of each later part is known.

    Example:
      >>> parts = list(split(Piece("long", np.zeros((10, 88))), longest=4))
      >>> [(len(part.piece.notes), part.known) for part in parts]
      [(4, 1), (4, 2), (4, 2), (4, 2)]
    """
    notes, hop = piece.notes, longest // 2
    for start in range(0, max(1, len(notes) - (longest - hop)), hop):
        part = Piece(piece.name, notes[start : start + longest])
        yield Part(part, known=longest - hop if start else 1)
