"""Data folders of Kaldi: `wav.scp`, `text`, and optionally `utt2spk` and `segments`.

Lists have lines of an id and its value, separated by blanks or tabs. `wav.scp` names a sound file,
or one of two commands that decode one: `flac -c -d FILE |` and `sph2pipe -f wav -c 1 FILE |`. No
command is run: the file that it names is read.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.files import read_lines
from common.messages import Skipped
from tasks.speech.audio import WHOLE, Channel, Part
from tasks.speech.recording import Recording

# Options of the commands that leave the sound as it is, and those with a value.
_FLAGS = {"flac": "cdsf", "sph2pipe": "p"}
_LONG = ("--decode", "--stdout", "--silent", "--totally-silent", "--force")
_CHANNELS: dict[str, Channel] = {"1": "1", "2": "2"}


class _Sound(NamedTuple):
    """A line of `wav.scp` or `segments`: its number, the sound file, and what is read of it.

    The path is None if the line is skipped.
    """

    line: int
    path: Path | None = None
    part: Part = WHOLE


def read_kaldi(folder: Path, skipped: Skipped) -> Iterator[Recording]:
    """Yield the recordings of a data folder.

    Args:
      folder: the folder.
      skipped: receives place and reason of each line that cannot be used.

    Raises:
      InputError: `text` is missing.
    """
    texts = _read_pairs(folder / "text", "words", skipped)
    speakers = {}
    if (folder / "utt2spk").is_file():
        speakers = _read_pairs(folder / "utt2spk", "speaker", skipped)
    sounds, source = _read_sounds(folder, skipped), "wav.scp"
    if (folder / "segments").is_file():
        sounds, source = _read_segments(folder, sounds, skipped), "segments"
    for name, sound in sounds.items():
        if sound.path is None:
            continue
        if name not in texts:
            skipped.append((f"{source}, line {sound.line}", f"{name!r} has no line in text"))
        else:
            speaker = speakers.get(name, (0, ""))[1]
            yield Recording(name, sound.path, texts[name][1], speaker, sound.part)
    for name, (number, _) in texts.items():
        if name not in sounds:
            skipped.append((f"text, line {number}", f"{name!r} has no line in {source}"))


def _read_sounds(folder: Path, skipped: Skipped) -> dict[str, _Sound]:
    """Return the sound of each id of `wav.scp`."""
    sounds = {}
    for name, (number, value) in _read_pairs(folder / "wav.scp", "path", skipped).items():
        sounds[name] = _Sound(number)
        try:
            path, part = parse_sound(value)
            if not (folder / path).is_file():
                raise InputError(f"no file {str(path)!r}")
            sounds[name] = _Sound(number, folder / path, part)
        except InputError as error:
            skipped.append((f"wav.scp, line {number}", str(error)))
    return sounds


def parse_sound(value: str) -> tuple[Path, Part]:
    """Return the file and the part of it that a value of `wav.scp` names.

    Raises:
      InputError: it is a command of another kind.

    Example:
      >>> path, part = parse_sound("sph2pipe -f wav -p -c 2 disk/a.sph |")
      >>> path.as_posix(), part.channel
      ('disk/a.sph', '2')
    """
    if not value.endswith("|"):
        return Path(value), WHOLE
    refusal = InputError(
        f"commands are not run, and only plain flac -c -d FILE | and sph2pipe FILE | are "
        f"understood, not {value[:80]!r}. Convert the sound to files first"
    )
    try:
        program, *words = shlex.split(value[:-1])
    except ValueError as error:
        raise refusal from error
    program, files, channel = Path(program).name, [], "mix"
    words.reverse()
    while words:
        word = words.pop()
        if program == "sph2pipe" and word in ("-f", "-c") and words:
            value = words.pop()
            channel = value if word == "-c" else channel
        elif program in _FLAGS and not word.startswith("-"):
            files.append(word)
        elif not _is_harmless(program, word):
            raise refusal
    if len(files) != 1 or channel not in ("mix", *_CHANNELS):
        raise refusal
    return Path(files[0]), Part(_CHANNELS.get(channel, "mix"))


def _is_harmless(program: str, option: str) -> bool:
    """Return whether an option of a command leaves the sound as it is."""
    if option.startswith("--"):
        return program == "flac" and option in _LONG
    return len(option) > 1 and set(option[1:]) <= set(_FLAGS.get(program, ""))


def _read_segments(
    folder: Path, sounds: Mapping[str, _Sound], skipped: Skipped
) -> dict[str, _Sound]:
    """Return the part of a sound of each id of `segments`: lines `id recording start end`.

    An end of -1 is the end of the recording.
    """
    segments = {}
    expected = "a recording, start and end"
    for name, (number, value) in _read_pairs(folder / "segments", expected, skipped).items():
        segments[name] = _Sound(number)
        try:
            segments[name] = _cut(number, value.split(), sounds)
        except InputError as error:
            skipped.append((f"segments, line {number}", str(error)))
    return segments


def _cut(line: int, fields: Sequence[str], sounds: Mapping[str, _Sound]) -> _Sound:
    """Return the part of a sound that the fields of a line of `segments` describe."""
    try:
        name, first, last = fields
        start, end = float(first), float(last)
    except ValueError as error:
        got = " ".join(fields)[:80]
        raise InputError(f"expected an id, a recording, start and end, got {got!r}") from error
    if name not in sounds:
        raise InputError(f"{name!r} has no line in wav.scp")
    if start < 0.0 or (end != -1.0 and not start < end):
        raise InputError(f"expected 0 <= start < end in seconds, got {first} and {last}")
    sound = sounds[name]
    if sound.path is None:
        raise InputError(f"its sound {name!r} is skipped")
    return _Sound(line, sound.path, Part(sound.part.channel, start, None if end == -1.0 else end))


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
