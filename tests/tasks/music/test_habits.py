"""Habits of music, and samples that keep them."""

from tasks.music import generation, habits
from tasks.music.habits import Habits
from tasks.music.midi import KEYS
from tests.tasks.music.examples import random_model

import numpy as np
import pytest
import tensorflow as tf


def roll(*chords):
    frames = np.zeros((len(chords), KEYS), np.uint8)
    for row, keys in zip(frames, chords, strict=True):
        row[list(keys)] = 1
    return frames


CHORDS = [(27, 39, 43, 46), (27, 39, 43, 48), (27, 39, 44, 48), (32, 38, 44, 47)]


def test_habits_of_four_voices():
    piece = roll(*(chord for chord in CHORDS for _ in range(2)))
    learned = habits.learn([piece] * 3)
    assert learned == Habits(27, 48, 4, False, False, True, 6, 6, 2)


def test_music_with_parallels_leaps_and_changing_chords_has_no_such_habits():
    fifths = roll((30, 37), (32, 39), (34, 41), (45, 52, 57), (30, 37, 42), (50,))
    learned = habits.learn([fifths])
    assert learned.parallels and learned.leaps and learned.voices == 0


@pytest.mark.parametrize(
    ("chords", "count"),
    [
        ([(10, 17), (12, 19)], 1),
        ([(10, 22), (12, 24)], 1),
        ([(10, 17), (12, 31)], 1),  # a fifth, then a fifth over an octave
        ([(10, 17), (10, 17)], 0),  # nothing moves
        ([(10, 17), (10, 22)], 0),
        ([(10, 15), (12, 17)], 0),  # fourths
        ([(10, 17), (12, 19, 24)], 0),  # another number of voices
        ([(10, 17, 22), (12, 19, 24)], 2),  # a fifth and an octave
        ([(), (12, 19)], 0),
    ],
)
def test_parallels(chords, count):
    assert habits.parallels(roll(*chords) > 0) == count


def compose(kept, rows=4, steps=32, temperature=1.0):
    layers = generation.parts(random_model(), kept)
    inputs = {
        "prime": tf.zeros([rows, 1, KEYS]),
        "prime_length": tf.zeros(rows, tf.int32),
        "length": tf.fill([rows], steps),
        "temperature": tf.fill([rows], temperature),
        "top_p": tf.ones(rows),
        "seed": tf.stack([tf.zeros(rows, tf.int32), tf.range(rows)], axis=1),
    }
    return tf.function(lambda: generation.generate(layers, steps=steps, **inputs))().numpy()


@pytest.mark.thorough
def test_samples_keep_habits():
    plain = compose(Habits(low=36, high=48)) > 0
    kept = Habits(38, 47, voices=3, parallels=False, leaps=False, longest_note=4, longest_frame=3)
    raw = compose(kept)
    notes = raw > 0
    assert not notes[..., :38].any() and not notes[..., 48:].any()

    def fraction(rows):
        return (rows.sum(axis=-1) == 3).mean()

    assert fraction(notes) > fraction(plain) + 0.2
    for row, frames in zip(notes, raw, strict=True):
        assert max(habits._unchanged(row)) <= 4
        learned = habits.learn([frames])
        assert learned.longest_note <= 4
    found = [sum(map(habits.parallels, rows)) for rows in (plain, notes)]
    assert found[1] <= found[0]


@pytest.mark.thorough
def test_temperature_0_does_not_hold_one_chord():
    kept = Habits(36, 48, voices=3, longest_note=8, longest_frame=4)
    frames = compose(kept, rows=1, temperature=0.0)[0] > 0
    assert len({row.tobytes() for row in frames}) > 3
