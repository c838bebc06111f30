"""Subtitles of a transcript: the formats SubRip (`.srt`) and WebVTT (`.vtt`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

LETTERS = 42  # of a line
LINES = 2  # of a cue
PAUSE = 0.8  # seconds of silence that end a cue
SECONDS = 7.0  # that a cue lasts at most
FORMATS = (".srt", ".vtt")


class Word(NamedTuple):
    """A recognised word.

    Attributes:
      text: the word.
      start: in seconds from the start of the recording.
      end: in seconds.
      confidence: 0 to 1.
    """

    text: str
    start: float
    end: float
    confidence: float


class Cue(NamedTuple):
    """Lines that are shown together, and their times in seconds."""

    start: float
    end: float
    lines: tuple[str, ...]


def cues(words: Iterable[Word]) -> Iterator[Cue]:
    """Yield words in cues of at most two lines, which end at pauses.

    Example:
      >>> words = [Word("go", 0.0, 0.3, 1.0), Word("on", 0.4, 0.8, 1.0)]
      >>> words.append(Word("stop", 2.0, 2.4, 1.0))
      >>> [(cue.start, cue.end, cue.lines) for cue in cues(words)]
      [(0.0, 0.8, ('go on',)), (2.0, 2.4, ('stop',))]
    """
    shown: list[Word] = []
    for word in words:
        if shown and (
            word.start - shown[-1].end > PAUSE
            or word.end - shown[0].start > SECONDS
            or len(_wrap([*shown, word])) > LINES
        ):
            yield _to_cue(shown)
            shown = []
        shown.append(word)
    if shown:
        yield _to_cue(shown)


def _wrap(words: Sequence[Word]) -> list[str]:
    """Return the lines of words; a longer word has a line of its own."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 1 + len(word.text) <= LETTERS:
            lines[-1] += f" {word.text}"
        else:
            lines.append(word.text)
    return lines


def _to_cue(words: Sequence[Word]) -> Cue:
    return Cue(words[0].start, words[-1].end, tuple(_wrap(words)))


def format_time(seconds: float, mark: str) -> str:
    """Return a time as hours, minutes, seconds and milliseconds.

    Args:
      seconds: the time.
      mark: the decimal mark.

    Example:
      >>> format_time(3_723.0456, ",")
      '01:02:03,046'
    """
    rest, milliseconds = divmod(round(1000 * seconds), 1000)
    rest, whole = divmod(rest, 60)
    hours, minutes = divmod(rest, 60)
    return f"{hours:02d}:{minutes:02d}:{whole:02d}{mark}{milliseconds:03d}"


def to_subtitles(words: Iterable[Word], suffix: str) -> str:
    """Return the content of a file of subtitles.

    Args:
      words: the words of a recording, in order.
      suffix: one of `FORMATS`.

    Example:
      >>> print(to_subtitles([Word("stop", 2.0, 2.4, 1.0)], ".vtt"), end="")
      WEBVTT
      <BLANKLINE>
      00:00:02.000 --> 00:00:02.400
      stop
    """
    mark = "," if suffix == ".srt" else "."
    blocks = [] if suffix == ".srt" else ["WEBVTT\n"]
    for number, cue in enumerate(cues(words), start=1):
        times = f"{format_time(cue.start, mark)} --> {format_time(cue.end, mark)}"
        head = [str(number)] if suffix == ".srt" else []
        blocks.append("\n".join((*head, times, *cue.lines)) + "\n")
    return "\n".join(blocks)
