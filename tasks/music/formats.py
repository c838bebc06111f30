"""Reading the user's own music: folders of MIDI files."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from tasks.music import midi

import numpy as np

SUFFIXES = (".mid", ".midi")


class Piece(NamedTuple):
    """A piece of music: its name and its frames `<uint8>[time, 88]`."""

    name: str
    notes: np.ndarray


def read_folder(folder: Path, steps_per_quarter: int) -> list[Piece]:
    """Read all MIDI files below a folder, sorted by name.

    Of several files with the same music only the first is used; a message on standard error names
    the others.

    Raises:
      InputError: the folder has no MIDI file, or files are invalid; the message names all of them.
    """
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not files:
        raise InputError("no .mid file in this folder", folder)
    midi.library()  # reports a missing package once instead of once per file
    pieces: dict[str, Piece] = {}
    errors = []
    for path in files:
        try:
            notes = read_piece(path, steps_per_quarter)
        except InputError as error:
            errors.append(str(error))
            continue
        digest = hashlib.sha1(notes.tobytes()).hexdigest()
        if digest in pieces:
            duplicate = f"{path} contains the same music as {pieces[digest].name}: skipped"
            print(duplicate, file=sys.stderr, flush=True)
            continue
        pieces[digest] = Piece(str(path.relative_to(folder)), notes)
    if errors:
        listed = "\n  ".join(errors)
        raise InputError(f"{len(errors)} of {len(files)} files cannot be used:\n  {listed}")
    return list(pieces.values())


def read_piece(path: Path, steps_per_quarter: int) -> np.ndarray:
    """Read a MIDI file of at least two frames; see `midi.read_midi`."""
    notes = midi.read_midi(path, steps_per_quarter)
    if len(notes) < 2:
        raise InputError("one frame long; at least two are needed", path)
    return notes
