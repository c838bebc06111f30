"""Speech synthesis by eSpeak NG, through the C interface of its library.

The package `espeakng-loader` (extra [espeak]) contains the library and its voices. eSpeak NG is
licensed GPL-3.0-or-later; no part of it is in this project or in its models.

    python -m tasks.speech.synthesis "call anna at nine" --output anna.wav --variant f4

writes a sound file, for example as input for a model of the default data set. By default the voice
is one of the test split.
"""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias, get_args

from common.commands import cli
from common.errors import InputError, require
from tasks.speech import audio
from tasks.speech.audio import RATE
from tasks.speech.grammar import Sentence, sentences

import numpy as np
import tyro

# Accents of English. The speakers are variants of the voice, without robots and whispers.
Accent: TypeAlias = Literal["en-us", "en", "en-gb-x-rp", "en-gb-scotland", "en-us-nyc", "en-029"]
ACCENTS: tuple[Accent, ...] = get_args(Accent)
_TRAIN = """
    f1 f3 f5 m1 m2 m4 m5 m6 m8 Alex Alicia Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky
    Lee Marco Mario Michael Mike Nguyen Reed Storm anika antonio aunty belinda benjamin boris caleb
    david ed edward grandpa gustave ian iven kaukovalta klatt klatt4 marcelo max michel miguel
    norbert pablo pedro quincy rob robert sandro shelby travis victor zac
"""
VARIANTS = {
    "validation": ("f2", "m7", "linda", "paul"),
    "test": ("f4", "m3", "steph", "john", "grandma", "adam"),
    "train": tuple(_TRAIN.split()),
}


class Voice(NamedTuple):
    """Parameters of the voice.

    Attributes:
      accent: one of `ACCENTS`.
      variant: the speaker.
      rate: words per minute.
      pitch: 0 to 100.
      range: range of the pitch, 0 to 100.
    """

    accent: str = "en-us"
    variant: str = "m1"
    rate: int = 160
    pitch: int = 50
    range: int = 50


# Constants and types of speak_lib.h, the C interface.
_SYNCHRONOUS, _DONT_EXIT, _UTF8 = 2, 0x8000, 1
_RATE, _PITCH, _RANGE = 1, 3, 4
_CALLBACK = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p
)


class Synthesizer:
    """The library of eSpeak NG.

    The library has one state per process, so use `synthesizer()` instead of the constructor.

    Raises:
      InputError: the library is not installed, or does not start.
    """

    def __init__(self) -> None:
        advice = " (eSpeak NG is GPL-3.0-or-later), or train on recordings with --dataset or --data"
        espeakng_loader = require("espeakng_loader", "speech,espeak", advice)
        self._soxr = require("soxr", "speech")
        self._library = ctypes.CDLL(espeakng_loader.get_library_path())
        self._library.espeak_Synth.argtypes = [
            ctypes.c_char_p,
            ctypes.c_size_t,
            ctypes.c_uint,
            ctypes.c_int,
            ctypes.c_uint,
            ctypes.c_uint,
            ctypes.c_void_p,
            ctypes.c_void_p,
        ]
        data = Path(espeakng_loader.get_data_path())
        self._variants = data / "voices" / "!v"
        path = str(data).encode()
        self.rate = self._library.espeak_Initialize(_SYNCHRONOUS, 0, path, _DONT_EXIT)
        if self.rate <= 0:
            raise InputError(f"eSpeak NG does not start (error {self.rate})", data)
        self._parts: list[np.ndarray] = []
        # An attribute, since ctypes holds no reference to it.
        self._callback = _CALLBACK(self._append)
        self._library.espeak_SetSynthCallback(self._callback)

    def _append(self, samples: Any, count: int, events: Any) -> int:
        """Store a part of the sound; called by the library."""
        del events
        if samples and count:
            self._parts.append(np.ctypeslib.as_array(samples, (count,)).copy())
        return 0  # continue

    def say(self, text: str, voice: Voice) -> np.ndarray:
        """Synthesise a text. eSpeak NG adds jitter, so two calls differ slightly.

        Returns:
          `<float32>[samples]` in -1..1 at 16 kHz.

        Raises:
          InputError: eSpeak NG does not have the voice, or fails.
        """
        name = f"{voice.accent}+{voice.variant}"
        # The library ignores an unknown variant instead of failing.
        has_variant = (self._variants / voice.variant).is_file()
        if not has_variant or self._library.espeak_SetVoiceByName(name.encode()):
            raise InputError(f"eSpeak NG has no voice {name!r}")
        for parameter, value in ((_RATE, voice.rate), (_PITCH, voice.pitch), (_RANGE, voice.range)):
            self._library.espeak_SetParameter(parameter, value, 0)
        self._parts.clear()
        content = text.encode() + b"\0"
        status = self._library.espeak_Synth(content, len(content), 0, 0, 0, _UTF8, None, None)
        if status or not self._parts:
            raise InputError(f"eSpeak NG cannot say {text!r} (error {status})")
        sound = np.concatenate(self._parts).astype(np.float32) / 2.0**15
        return self._soxr.resample(sound, self.rate, RATE)


@functools.cache
def synthesizer() -> Synthesizer:
    """Return the synthesizer of this process.

    Example:
      >>> sound = synthesizer().say("hello", Voice("en-us", "f3"))
      >>> sound.dtype, 0.3 < len(sound) / RATE < 1.0
      (dtype('float32'), True)
    """
    return Synthesizer()


def random_voice(split: str, rng: random.Random) -> Voice:
    """Draw a speaker of a split, with random accent, rate and pitch.

    Example:
      >>> random_voice("test", random.Random(1)).variant in VARIANTS["test"]
      True
    """
    return Voice(
        accent=rng.choice(ACCENTS),
        variant=rng.choice(VARIANTS[split]),
        rate=rng.randint(120, 200),
        pitch=rng.randint(30, 70),
        range=rng.randint(30, 70),
    )


def recordings(split: str, count: int, seed: int) -> Iterator[tuple[Sentence, Voice, np.ndarray]]:
    """Yield `count` recordings of a split: random sentences in random voices.

    Yields:
      The sentence, the voice, and the sound `<float32>[samples]` with silence around it.
    """
    rng = random.Random(f"voices {split} {seed}")
    speaker = synthesizer()
    for sentence, _ in zip(sentences(split, seed), range(count), strict=False):
        voice = random_voice(split, rng)
        sound = speaker.say(sentence.spoken, voice)
        margins = [int(rng.uniform(0.02, 0.25) * RATE) for _ in range(2)]
        yield sentence, voice, np.pad(sound, margins)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Say:
    """Flags of this command."""

    text: tyro.conf.Positional[str]
    """text to synthesise"""
    output: Path
    """WAV file to write"""
    accent: Accent = "en-us"
    """accent of English"""
    variant: str = VARIANTS["test"][0]
    """variant of the voice"""


def main(argv: list[str]) -> None:
    """Synthesise a text and write the sound to a file; see the module."""
    flags = cli.parse(Say, argv, doc=__doc__)
    sound = synthesizer().say(flags.text, Voice(flags.accent, flags.variant))
    audio.write(flags.output, sound)


if __name__ == "__main__":
    cli.run(main)
