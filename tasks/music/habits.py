"""Habits of the training music that samples keep: rules that change the choice of notes.

A model that is trained to predict frames makes small mistakes, which add up in what it composes: a
voice is missing, voices move in parallel, the melody leaps, a chord is held for long. Where the
training music hardly ever does so, the choices that do so are made less probable. The factors are
constants; `tests/benchmarks/samples.py` shows what they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tasks.music import midi
from tasks.music.midi import KEYS

import numpy as np

VOICES = 8  # voices are counted from the lowest note
LEAP = 5  # semitones; the melody leaps if it moves by more
USUAL = 0.8  # fraction of frames with the same number of notes from which it is a habit
FEW_PARALLELS = 2.0  # in 100 changes of frames; music with fewer avoids them
FEW_LEAPS = 0.08  # fraction of melodic intervals; music with fewer avoids them
LONG_NOTE = 0.999  # quantile of the lengths of notes that is not exceeded
LONG_KEY = 0.99  # the same of steps for which a key sounds, struck again or not
LONG_FRAME = 0.95  # the same of steps for which no key changes
TONAL = 0.6  # fraction of pieces whose halves have the same scale from which keys are kept
MEMORY = 0.98  # weight of a frame for the scale of the music so far, against the next frame's
FEW_NOTES = 24.0  # weighted notes before which the music has no scale yet

# Logarithms of the factors by which choices are made less probable.
MISSING_VOICE = 2.0  # for each missing or surplus voice
PARALLEL = 3.5
LEAPING = 1.6
OUT_OF_SCALE = 0.8
FORBIDDEN = 30.0


class Habits(NamedTuple):
    """Habits of a corpus; the defaults restrict nothing.

    Attributes:
      low: the lowest key that sounds.
      high: the highest key that sounds.
      voices: the usual number of notes of a frame; 0 if there is none.
      parallels: whether voices move in parallel fifths and octaves.
      leaps: whether the melody leaps by more than a fourth.
      tonal: whether pieces stay in their key.
      longest_note: steps that a key sounds without being struck; 0 for any number.
      longest_key: steps that a key sounds, struck again or not; 0 for any number.
      longest_frame: steps for which the sounding keys do not change; 0 for any number.
    """

    low: int = 0
    high: int = KEYS - 1
    voices: int = 0
    parallels: bool = True
    leaps: bool = True
    tonal: bool = False
    longest_note: int = 0
    longest_key: int = 0
    longest_frame: int = 0


NO_HABITS = Habits()


def learn(pieces: Sequence[np.ndarray]) -> Habits:
    """Return the habits of pieces `<uint8>[time, 88]`.

    Example:
      >>> piece = np.zeros((8, 88), np.uint8)
      >>> piece[:, [39, 43, 46]] = 1
      >>> learn([piece] * 9)[:5]
      (39, 46, 3, False, False)
      >>> learn([piece] * 9)[5:]
      (True, 8, 8, 8)
    """
    rolls = [piece > 0.5 for piece in pieces]
    frames = np.concatenate(rolls)
    keys = np.flatnonzero(frames.any(axis=0))
    sounding = frames[frames.any(axis=1)]
    counts = np.bincount(sounding.sum(axis=1))
    usual = int(counts.argmax())
    lengths = [end - start for piece in pieces for _, start, end in midi.to_notes(piece)]
    sounding_for = [end - start for roll in rolls for _, start, end in midi.to_notes(roll)]
    still = [run for roll in rolls for run in _unchanged(roll)]
    changes = sum(len(_unchanged(roll)) - 1 for roll in rolls)
    moved = sum(parallels(roll) for roll in rolls)
    intervals = np.concatenate([midi.melody_intervals(roll) for roll in rolls])
    return Habits(
        low=int(keys[0]),
        high=int(keys[-1]),
        voices=usual if counts[usual] >= USUAL * len(sounding) and usual <= VOICES else 0,
        parallels=100.0 * moved >= FEW_PARALLELS * max(changes, 1),
        leaps=bool(np.sum(np.abs(intervals) > LEAP) >= FEW_LEAPS * max(len(intervals), 1)),
        tonal=bool(np.mean([_keeps_scale(roll) for roll in rolls]) >= TONAL),
        longest_note=int(np.quantile(lengths, LONG_NOTE, method="lower")),
        longest_key=int(np.quantile(sounding_for, LONG_KEY, method="lower")),
        longest_frame=int(np.quantile(still, LONG_FRAME, method="lower")),
    )


def _keeps_scale(roll: np.ndarray) -> bool:
    """Return whether the two halves of a piece have the same scale."""
    half = len(roll) // 2
    return midi.main_scale(roll[:half]) == midi.main_scale(roll[half:])


def _unchanged(roll: np.ndarray) -> list[int]:
    """Return for how many steps each set of sounding keys stays, in order.

    Example:
      >>> _unchanged(np.array([[0], [1], [1], [0]], bool))
      [1, 2, 1]
    """
    places = np.flatnonzero((roll[1:] != roll[:-1]).any(axis=1)) + 1
    return np.diff([0, *places, len(roll)]).tolist()


def parallels(roll: np.ndarray) -> int:
    """Return the number of parallel fifths and octaves in a piece.

    Two voices, counted from the lowest note, move to other keys and form the same interval before
    and after, a fifth or an octave (or more by octaves). Frames with other numbers of notes than
    the one before are left out.

    Args:
      roll: `<bool>[time, 88]`.

    Example:
      >>> roll = np.zeros((3, 88), bool)
      >>> roll[0, [10, 17]] = roll[1, [12, 19]] = roll[2, [12, 24]] = True
      >>> parallels(roll)
      1
    """
    found = 0
    before: np.ndarray | None = None
    for row in roll:
        keys = np.flatnonzero(row)
        if before is not None and len(keys) == len(before):
            moved = keys != before
            for upper in np.flatnonzero(moved):
                lower = np.flatnonzero(moved[:upper])
                gap, old = keys[upper] - keys[lower], before[upper] - before[lower]
                found += int((np.isin(gap % 12, (0, 7)) & (gap % 12 == old % 12)).sum())
        before = keys
    return found
