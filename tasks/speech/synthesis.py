"""Synthetic recordings: random sentences, spoken by the voices of several synthesizers.

    python -m tasks.speech.synthesis "call anna at nine" --output anna.wav --voice piper:joe

writes a sound file, for example as input for a model of the default data set. By default the voice
is the one of the test split.
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from common.commands import cli
from common.errors import InputError
from tasks.speech import audio, voices
from tasks.speech.audio import RATE
from tasks.speech.grammar import Sentence, sentences
from tasks.speech.voices import FAMILIES, Voice, speak

import numpy as np
import tyro


class Speakers(NamedTuple):
    """Speakers of a family.

    Attributes:
      family: the family; see `tasks.speech.voices`.
      share: fraction of the recordings of a split, up to a common factor.
      names: the speakers.
    """

    family: str
    share: float
    names: tuple[str, ...]


def _espeak(variants: str) -> tuple[str, ...]:
    """Return the speakers of eSpeak NG: each variant in each accent, half of them American."""
    accents = (*("en-us",) * 4, "en-us-nyc", "en", "en-gb-x-rp", "en-gb-scotland", "en-029")
    return tuple(f"{accent}+{variant}" for variant in variants.split() for accent in accents)


# The variants of eSpeak NG, without robots and whispers.
_VARIANTS = """
    f1 f3 f5 m1 m2 m4 m5 m6 m8 Alex Alicia Andrea Andy Annie Denis Diogo Gene Henrique Hugo Jacky
    Lee Marco Mario Michael Mike Nguyen Reed Storm anika antonio aunty belinda benjamin boris caleb
    david ed edward grandpa gustave ian iven kaukovalta klatt klatt4 marcelo max michel miguel
    norbert pablo pedro quincy rob robert sandro shelby travis victor zac
    f4 m3 steph john grandma adam
"""
# No speaker is in two splits, and the family of the test split is not in training.
SPEAKERS = {
    "train": (
        Speakers("espeak", 0.55, _espeak(_VARIANTS)),
        Speakers("hibari", 0.35, ("heart",)),
        Speakers("piper", 0.1, ("joe",)),
    ),
    "validation": (
        Speakers("espeak", 0.5, _espeak("f2 m7 linda paul")),
        Speakers("pico", 0.5, ("en-GB",)),
    ),
    "test": (Speakers("pico", 1.0, ("en-US",)),),
}
TEST_VOICE = "pico:en-US"


def check_installed() -> None:
    """Raise an `InputError` if a synthesizer of the splits is missing or does not start."""
    voices.check_installed({group.family for groups in SPEAKERS.values() for group in groups})


def random_voice(split: str, rng: random.Random) -> Voice:
    """Draw a speaker of a split with a random tempo, and in training a random pitch and formants.

    Example:
      >>> voice = random_voice("test", random.Random(1))
      >>> voice.name, 0.85 <= voice.tempo <= 1.15, voice.pitch, voice.formants
      ('en-US', True, 1.0, 1.0)
    """
    groups = SPEAKERS[split]
    (group,) = rng.choices(groups, [group.share for group in groups])
    name = rng.choice(group.names)
    if split != "train":
        return Voice(group.family, name, rng.uniform(0.85, 1.15))
    formants = rng.uniform(0.82, 1.18)
    return Voice(group.family, name, rng.uniform(0.8, 1.3), 2.0 ** rng.uniform(-0.4, 0.4), formants)


def recordings(split: str, count: int, seed: int) -> Iterator[tuple[Sentence, Voice, np.ndarray]]:
    """Yield `count` recordings of a split: random sentences in random voices.

    Yields:
      The sentence, the voice, and the sound `<float32>[samples]` with silence around it.
    """
    rng = random.Random(f"voices {split} {seed}")
    spoken = [
        (sentence, random_voice(split, rng))
        for sentence, _ in zip(sentences(split, seed), range(count), strict=False)
    ]
    sounds = speak([(sentence.spoken, voice) for sentence, voice in spoken])
    for (sentence, voice), sound in zip(spoken, sounds, strict=True):
        margins = [int(rng.uniform(0.02, 0.25) * RATE) for _ in range(2)]
        yield sentence, voice, np.pad(sound, margins)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Say:
    """Flags of this command."""

    text: tyro.conf.Positional[str]
    """text to synthesise"""
    output: Path
    """WAV file to write"""
    voice: str = TEST_VOICE
    """family and speaker, such as pico:en-US, hibari:heart, piper:joe or espeak:en-us+m3"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        if self.voice.partition(":")[0] not in FAMILIES:
            known = ", ".join(FAMILIES)
            raise InputError(f"--voice must be FAMILY:SPEAKER, a family of {known}: {self.voice}")


def main(argv: list[str]) -> None:
    """Synthesise a text and write the sound to a file; see the module."""
    flags = cli.parse(Say, argv, doc=__doc__)
    family, _, name = flags.voice.partition(":")
    (sound,) = speak([(flags.text.lower(), Voice(family, name))])
    audio.write(flags.output, sound)


if __name__ == "__main__":
    cli.run(main)
