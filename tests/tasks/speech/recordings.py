"""Recordings with their transcripts: of `tests.tasks.own.speech`, and of a synthesizer."""

import functools

from tasks.speech.voices import Voice
from tasks.speech.voices import speak as synthesise
from tests.tasks.own.speech import speak, texts

import numpy as np

# Sentences that the model in `saved_models/` hears right, in a voice of its training.
ENGLISH = ("five nine seven two", "seven eight four", "twenty three", "one two three four")
ENGLISH += ("zero one two three",)


def spoken(count, seed):
    """Return pairs of a transcript and its sound."""
    rng = np.random.default_rng(seed)
    return [(text, speak(text, rng)) for text in texts(count, seed)]


@functools.cache
def english():
    """Return pairs of an English sentence and its sound."""
    sounds = synthesise([(text, Voice("hibari", "heart")) for text in ENGLISH])
    return tuple(zip(ENGLISH, sounds, strict=True))
