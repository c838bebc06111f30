"""Folders of the user's own recordings, in the format of LJSpeech or of Kaldi.

A line that cannot be used is skipped, with its place and the reason; see `read_folder`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError, require
from common.files import read_lines
from common.messages import Skipped, say
from tasks.speech.audio import SUFFIXES

# Names of the columns of `metadata.csv`, where it has a header.
ID_COLUMNS = ("id", "file", "file_name", "filename", "path", "audio", "wav")
TEXT_COLUMNS = (
    *("normalized_text", "normalised_text", "normalized", "normalised", "normalized_transcription"),
    *("text", "transcript", "transcription", "sentence", "words"),
)
# Names of the folders of the splits.
SPLIT_FOLDERS = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test",),
}
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "voice")


class Recording(NamedTuple):
    """A sound file and its transcript.

    Attributes:
      id: name of the recording.
      path: the sound file.
      text: the transcript.
      speaker: name of the speaker, empty if unknown.
    """

    id: str
    path: Path
    text: str
    speaker: str = ""


class Columns(NamedTuple):
    """Places of the columns of `metadata.csv`; -1 is the last one, None a column it lacks."""

    id: int = 0
    text: int = -1
    speaker: int | None = None


def read_folder(folder: Path, skipped: Skipped) -> list[Recording]:
    """Read the list of a folder: `metadata.csv` (LJSpeech), or `wav.scp` and `text` (Kaldi).

    `metadata.csv` has lines `id|text`, `id|text|normalised text` or `id|text|speaker`, with or
    without a header; see `find_columns`. The sound file is `wavs/id.*` or `id.*`. `wav.scp` has
    lines `id path`, `text` has lines `id words`, and the optional `utt2spk` has lines `id speaker`.

    Args:
      folder: the folder.
      skipped: receives place and reason of each line that is malformed or has no sound file.

    Raises:
      InputError: a list is missing, or of a kind that is not read.
    """
    if (folder / "metadata.csv").is_file():
        recordings = list(_read_metadata(folder / "metadata.csv", skipped))
    elif (folder / "wav.scp").is_file():
        recordings = list(_read_kaldi(folder, skipped))
    else:
        raise InputError("expected metadata.csv (id|text), or wav.scp and text, in it", folder)
    if not recordings and not skipped:
        raise InputError("no recordings listed", folder)
    return recordings


def find_parts(folder: Path) -> dict[str, Path]:
    """Return the folder of each split, or nothing if a folder has no splits.

    Raises:
      InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError("expected a folder with metadata.csv, or wav.scp and text", folder)
    found = {
        split: next((folder / name for name in names if (folder / name).is_dir()), None)
        for split, names in SPLIT_FOLDERS.items()
    }
    parts = {split: path for split, path in found.items() if path is not None}
    return parts if len(parts) == len(found) else {}


def measure_folder(folder: Path) -> tuple[int, float, float]:
    """Return the approximate size of a folder's training part, from the headers of its files.

    Returns:
      The number of recordings, their hours, and the seconds of the longest one.

    Raises:
      InputError: see `read_folder`.
    """
    soundfile = require("soundfile", "speech")
    parts = find_parts(folder)
    seconds = []
    for recording in read_folder(parts.get("train", folder), []):
        # Files that cannot be read are reported where they are read.
        with contextlib.suppress(soundfile.SoundFileError, TypeError):
            seconds.append(float(soundfile.info(recording.path).duration))
    share = 1.0 if parts else 0.8
    return round(share * len(seconds)), share * sum(seconds) / 3600, max(seconds, default=0.0)


# --- LJSpeech -------------------------------------------------------------------------------------


def _read_metadata(path: Path, skipped: Skipped) -> Iterator[Recording]:
    """Yield the recordings of LJSpeech's `metadata.csv`."""
    rows = [
        (number, [field.strip() for field in line.split("|")])
        for number, line in read_lines(path)
        if line.strip()
    ]
    columns = header_columns(rows[0][1]) if rows else None
    if columns is not None:
        rows = rows[1:]
    else:
        columns = find_columns([fields for _, fields in rows])
        if columns.speaker is not None:
            say(f"{path}: the third column is read as the speaker (it repeats few values)")
    ids: set[str] = set()
    for number, fields in rows:
        try:
            recording = _to_recording(path, fields, columns)
            if recording.id in ids:
                raise InputError(f"duplicate id {recording.id!r}")
        except InputError as error:
            skipped.append((f"{path.name}, line {number}", str(error)))
        else:
            ids.add(recording.id)
            yield recording


def header_columns(fields: Sequence[str]) -> Columns | None:
    """Return the columns that a header names, or None for a line that is no header.

    Example:
      >>> header_columns(["Speaker", "File_name", "Transcription"])
      Columns(id=1, text=2, speaker=0)
      >>> header_columns(["a1", "Hello."])
    """
    names = [field.lower().replace(" ", "_") for field in fields]

    def find(known: Sequence[str]) -> int | None:
        return next((names.index(name) for name in known if name in names), None)

    place, text = find(ID_COLUMNS), find(TEXT_COLUMNS)
    if place is None or text is None:
        return None
    return Columns(place, text, find(SPEAKER_COLUMNS))


def find_columns(rows: Sequence[Sequence[str]]) -> Columns:
    """Return the columns of lines without a header.

    A third column holds the normalised text, as in LJSpeech, or the speaker. It is the speaker if
    equal texts differ in it, or if it has less than half as many values as there are texts.

    Example:
      >>> find_columns([["a", "It is 7.", "it is seven"], ["b", "No!", "no"]])
      Columns(id=0, text=-1, speaker=None)
      >>> find_columns([["a", "yes", "anna"], ["b", "no", "anna"], ["c", "maybe", "anna"]])
      Columns(id=0, text=1, speaker=2)
    """
    rows = [fields for fields in rows if len(fields) > 2]
    texts = {fields[1] for fields in rows}
    pairs = {(fields[1], fields[2]) for fields in rows}
    values = {fields[2] for fields in rows}
    if rows and (len(pairs) > len(texts) or 2 * len(values) < len(texts)):
        return Columns(text=1, speaker=2)
    return Columns()


def _to_recording(path: Path, fields: Sequence[str], columns: Columns) -> Recording:
    """Return the recording of a line, or raise an `InputError` with the reason against it."""
    needed = max(columns.id, columns.text, columns.speaker or 0, 1)
    if len(fields) <= needed or not fields[columns.id]:
        raise InputError(f"expected id|text, got {'|'.join(fields)[:80]!r}")
    if not fields[columns.text]:
        raise InputError("no text")
    name = fields[columns.id]
    speaker = "" if columns.speaker is None else fields[columns.speaker]
    return Recording(name, _find_sound(path.parent, name), fields[columns.text], speaker)


def _find_sound(folder: Path, name: str) -> Path:
    """Return the sound file of an id."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise InputError(f"id {name!r} points outside the folder")
    for place in (folder / "wavs", folder):
        for suffix in ("", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
            if (place / f"{name}{suffix}").is_file():
                return place / f"{name}{suffix}"
    raise InputError(f"no sound file {name}.wav (or {', '.join(SUFFIXES[1:4])})")


# --- Kaldi ----------------------------------------------------------------------------------------


def _read_kaldi(folder: Path, skipped: Skipped) -> Iterator[Recording]:
    """Yield the recordings of a Kaldi data folder."""
    if (folder / "segments").is_file():
        raise InputError("not supported: cut the recordings first", folder / "segments")
    texts = _read_pairs(folder / "text", "words", skipped)
    speakers = {}
    if (folder / "utt2spk").is_file():
        speakers = _read_pairs(folder / "utt2spk", "speaker", skipped)
    sounds = _read_pairs(folder / "wav.scp", "path", skipped)
    for name, (number, path) in sounds.items():
        if path.endswith("|"):
            raise InputError(
                "expected a path, got a command: convert the sound to files first",
                folder / "wav.scp",
                number,
            )
        sound = Path(path) if Path(path).is_absolute() else folder / path
        if name not in texts:
            skipped.append((f"wav.scp, line {number}", f"{name!r} has no line in text"))
        elif not sound.is_file():
            skipped.append((f"wav.scp, line {number}", f"no file {path!r}"))
        else:
            yield Recording(name, sound, texts[name][1], speakers.get(name, (0, ""))[1])
    for name, (number, _) in texts.items():
        if name not in sounds:
            skipped.append((f"text, line {number}", f"{name!r} has no line in wav.scp"))


def _read_pairs(path: Path, expected: str, skipped: Skipped) -> dict[str, tuple[int, str]]:
    """Return the line number and the value of each id in a file with lines `id value`."""
    pairs: dict[str, tuple[int, str]] = {}
    for number, line in read_lines(path):
        fields = line.split(maxsplit=1)
        if len(fields) == 1:
            reason = f"expected an id and {expected}, got {line[:80]!r}"
            skipped.append((f"{path.name}, line {number}", reason))
        elif fields and fields[0] in pairs:
            skipped.append((f"{path.name}, line {number}", f"duplicate id {fields[0]!r}"))
        elif fields:
            pairs[fields[0]] = number, fields[1].strip()
    return pairs
