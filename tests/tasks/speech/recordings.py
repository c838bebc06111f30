"""Recordings of `tests.tasks.own.speech` with their transcripts."""

from tests.tasks.own.speech import speak, texts

import numpy as np


def spoken(count, seed):
    """Return pairs of a transcript and its sound."""
    rng = np.random.default_rng(seed)
    return [(text, speak(text, rng)) for text in texts(count, seed)]
