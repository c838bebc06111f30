"""Folders of the user's own recordings, in the formats of practice.

| list | sound |
|---|---|
| `metadata.csv` of LJSpeech (`id|text`) or with a header, comma or tab | `wavs/id.*` or `id.*` |
| `wav.scp` and `text` of Kaldi | see `tasks.speech.kaldi` |
| `*.trans.txt` of LibriSpeech, anywhere below the folder | `id.flac` in the same folder |
| `validated.tsv`, or `train.tsv`, `dev.tsv` and `test.tsv` of Common Voice | `clips/` |

A line that cannot be used is skipped, with its place and the reason; see `read_folder`.

Pipes of Kaldi are not run: the file that they name is read. Without a header, a third column is the
speaker if equal texts differ in it or if it repeats few values. Recordings are split by speaker if
at least ten are named.
"""

from __future__ import annotations

import contextlib
import csv
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.files import read_lines
from common.messages import Skipped, say
from tasks.speech import audio
from tasks.speech.audio import SUFFIXES
from tasks.speech.kaldi import read_kaldi
from tasks.speech.recording import Recording

# Names of the columns of a table, where it has a header.
ID_COLUMNS = ("id", "file", "file_name", "filename", "path", "audio", "wav")
TEXT_COLUMNS = (
    *("normalized_text", "normalised_text", "normalized", "normalised", "normalized_transcription"),
    *("text", "transcript", "transcription", "sentence", "words"),
)
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "voice")
# Names of the folders of the splits, or of the tables without their ending.
SPLIT_NAMES = {
    "train": ("train", "train-clean-100", "train-clean-360", "train-other-500"),
    "validation": ("validation", "valid", "val", "dev", "dev-clean", "dev-other"),
    "test": ("test", "test-clean", "test-other"),
}
TABLES = ("metadata.csv", "validated.tsv")
TRANSCRIPTS = "*.trans.txt"
EXPECTED = (
    "expected metadata.csv (id|text), wav.scp and text, *.trans.txt of LibriSpeech, or the .tsv "
    "files of Common Voice, in it"
)


class Columns(NamedTuple):
    """Places of the columns of a table; -1 is the last one, None a column it lacks."""

    id: int = 0
    text: int = -1
    speaker: int | None = None


def read_folder(path: Path, skipped: Skipped) -> list[Recording]:
    """Read the list of a folder, or a table of recordings.

    A table has lines `id|text`, `id|text|normalised text` or `id|text|speaker`, with or without a
    header, or a header and commas or tabs between the columns; see `find_columns`.

    Args:
      path: the folder, or the table.
      skipped: receives place and reason of each line that is malformed or has no sound file.

    Raises:
      InputError: a list is missing, or of a kind that is not read.
    """
    tables = [path / name for name in TABLES if (path / name).is_file()]
    if path.is_file():
        recordings = list(_read_table(path, skipped))
    elif tables:
        recordings = list(_read_table(tables[0], skipped))
    elif (path / "wav.scp").is_file():
        recordings = list(read_kaldi(path, skipped))
    elif lists := sorted(path.rglob(TRANSCRIPTS)):
        recordings = [row for file in lists for row in _read_transcripts(file, skipped)]
    else:
        raise InputError(EXPECTED, path)
    if not recordings and not skipped:
        raise InputError("no recordings listed", path)
    return recordings


def find_parts(folder: Path) -> dict[str, Path]:
    """Return the folder or the table of each split, or nothing if a folder has no splits.

    Raises:
      InputError: there is no such folder.
    """
    if not folder.is_dir():
        raise InputError("expected a folder of recordings", folder)

    def find(names: Sequence[str]) -> Path | None:
        candidates = [folder / name for name in names]
        candidates += [folder / f"{name}.tsv" for name in names]
        return next((path for path in candidates if path.exists()), None)

    found = {split: find(names) for split, names in SPLIT_NAMES.items()}
    parts = {split: path for split, path in found.items() if path is not None}
    return parts if len(parts) == len(found) else {}


def measure_folder(folder: Path) -> tuple[int, float, float]:
    """Return the approximate size of a folder's training part, from the headers of its files.

    Returns:
      The number of recordings, their hours, and the seconds of the longest one.

    Raises:
      InputError: see `read_folder`.
    """
    parts = find_parts(folder)
    seconds = []
    for recording in read_folder(parts.get("train", folder), []):
        with contextlib.suppress(InputError):  # reported where the files are read
            seconds.append(audio.measure(recording.path, recording.part))
    share = 1.0 if parts else 0.8
    return round(share * len(seconds)), share * sum(seconds) / 3600, max(seconds, default=0.0)


# --- tables ---------------------------------------------------------------------------------------


def _read_table(path: Path, skipped: Skipped) -> Iterator[Recording]:
    """Yield the recordings of a table."""
    lines = [(number, line) for number, line in read_lines(path) if line.strip()]
    delimiter = find_delimiter(lines[0][1]) if lines else "|"
    rows = [(number, split_fields(line, delimiter)) for number, line in lines]
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


def find_delimiter(line: str) -> str:
    """Return the character between the columns of a table, from its first line.

    Example:
      >>> find_delimiter("file_name,transcription"), find_delimiter("a1|Well, yes.")
      (',', '|')
    """
    for delimiter in ("\t", ","):
        if header_columns(split_fields(line, delimiter)) is not None:
            return delimiter
    return "|"


def split_fields(line: str, delimiter: str) -> list[str]:
    """Return the fields of a line; between commas they may be quoted.

    Example:
      >>> split_fields('a1.wav, "Well, yes."', ",")
      ['a1.wav', 'Well, yes.']
    """
    if delimiter == ",":
        (fields,) = csv.reader([line], skipinitialspace=True)
    else:
        fields = line.split(delimiter)
    return [field.strip() for field in fields]


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
    for place in (folder / "wavs", folder / "clips", folder):
        for suffix in ("", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
            if (place / f"{name}{suffix}").is_file():
                return place / f"{name}{suffix}"
    raise InputError(f"no sound file {name}.wav (or {', '.join(SUFFIXES[1:4])})")


# --- LibriSpeech ----------------------------------------------------------------------------------


def _read_transcripts(path: Path, skipped: Skipped) -> Iterator[Recording]:
    """Yield the recordings of a chapter: lines `speaker-chapter-number WORDS`."""
    for number, line in read_lines(path):
        name, _, text = line.strip().partition(" ")
        place = f"{path.name}, line {number}"
        try:
            if name and not text:
                raise InputError(f"expected an id and words, got {line[:80]!r}")
            if name:
                sound = _find_sound(path.parent, name)
                yield Recording(name, sound, text.strip(), name.partition("-")[0])
        except InputError as error:
            skipped.append((place, str(error)))
