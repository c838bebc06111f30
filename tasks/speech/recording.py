"""A recording of the user's own data: its sound file, transcript and speaker."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tasks.speech.audio import WHOLE, Part


class Recording(NamedTuple):
    """A sound and its transcript.

    Attributes:
      id: name of the recording.
      path: the sound file.
      text: the transcript.
      speaker: name of the speaker, empty if unknown.
      part: the part of the file that is the recording.
    """

    id: str
    path: Path
    text: str
    speaker: str = ""
    part: Part = WHOLE
