"""Folders of the user's own recordings, in the format of LJSpeech or of Kaldi."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.files import read_lines
from tasks.speech.audio import SUFFIXES


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


def read_folder(folder: Path) -> list[Recording]:
    """Read the list of a folder: `metadata.csv` (LJSpeech), or `wav.scp` and `text` (Kaldi).

    `metadata.csv` has lines `id|text` or `id|text|normalised text`. The last column is the
    transcript, and the sound file is `wavs/id.*` or `id.*`. `wav.scp` has lines `id path`, `text`
    has lines `id words`, and the optional `utt2spk` has lines `id speaker`.

    Raises:
      InputError: a list is missing or malformed, or a sound file is missing.
    """
    if (folder / "metadata.csv").is_file():
        recordings = list(_read_metadata(folder / "metadata.csv"))
    elif (folder / "wav.scp").is_file():
        recordings = list(_read_kaldi(folder))
    else:
        raise InputError("expected metadata.csv (id|text), or wav.scp and text, in it", folder)
    if not recordings:
        raise InputError("no recordings listed", folder)
    return recordings


def _read_metadata(path: Path) -> Iterator[Recording]:
    """Yield the recordings of LJSpeech's `metadata.csv`."""
    ids: set[str] = set()
    for number, line in read_lines(path):
        if not line.strip():
            continue
        name, *columns = line.split("|")
        if not columns or not name.strip() or not columns[-1].strip():
            raise InputError(f"expected id|text, got {line[:80]!r}", path, number)
        if name in ids:
            raise InputError(f"duplicate id {name!r}", path, number)
        ids.add(name)
        yield Recording(name, _find_sound(path, number, name), columns[-1].strip())


def _find_sound(path: Path, number: int, name: str) -> Path:
    """Return the sound file of an id in line `number` of `metadata.csv`."""
    if ".." in Path(name).parts or Path(name).is_absolute():
        raise InputError(f"id {name!r} points outside the folder", path, number)
    for folder in (path.parent / "wavs", path.parent):
        for suffix in ("", *SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
            if (folder / f"{name}{suffix}").is_file():
                return folder / f"{name}{suffix}"
    raise InputError(f"no sound file {name}.wav (or {', '.join(SUFFIXES[1:4])})", path, number)


def _read_kaldi(folder: Path) -> Iterator[Recording]:
    """Yield the recordings of a Kaldi data folder."""
    if (folder / "segments").is_file():
        raise InputError("not supported: cut the recordings first", folder / "segments")
    texts = _read_pairs(folder / "text", "words")
    speakers = {}
    if (folder / "utt2spk").is_file():
        speakers = _read_pairs(folder / "utt2spk", "speaker")
    sounds = _read_pairs(folder / "wav.scp", "path")
    for name, (number, path) in sounds.items():
        if path.endswith("|"):
            raise InputError(
                "expected a path, got a command: convert the sound to files first",
                folder / "wav.scp",
                number,
            )
        if name not in texts:
            raise InputError(f"{name!r} has no line in text", folder / "wav.scp", number)
        sound = Path(path) if Path(path).is_absolute() else folder / path
        if not sound.is_file():
            raise InputError(f"no file {path!r}", folder / "wav.scp", number)
        yield Recording(name, sound, texts[name][1], speakers.get(name, (0, ""))[1])
    for name in texts.keys() - sounds.keys():
        raise InputError(f"{name!r} has no line in wav.scp", folder / "text", texts[name][0])


def _read_pairs(path: Path, expected: str) -> dict[str, tuple[int, str]]:
    """Return the line number and the value of each id in a file with lines `id value`."""
    pairs: dict[str, tuple[int, str]] = {}
    for number, line in read_lines(path):
        if not line.strip():
            continue
        name, _, value = line.strip().partition(" ")
        if not value.strip():
            raise InputError(f"expected an id and {expected}, got {line[:80]!r}", path, number)
        if name in pairs:
            raise InputError(f"duplicate id {name!r}", path, number)
        pairs[name] = number, value.strip()
    return pairs
