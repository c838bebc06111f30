import itertools

from tasks.music import features
from tasks.music.midi import KEYS
from tests.tasks.music.examples import random_notes

import numpy as np
import tensorflow as tf


def test_repeats_equal_those_of_a_search():
    random = np.random.default_rng(1)
    notes = np.eye(KEYS, dtype=np.float32)[random.integers(0, 3, size=(3, 60))]
    notes[:, :, 60:] = notes[:, :, :28][:, :, ::-1] * 0.0
    notes[1, 45:] = notes[1, 5:20]  # a long repeat
    place, length = (value.numpy() for value in tf.function(features.find_repeats)(notes))
    for kind in range(2):
        for row, step in itertools.product(range(3), range(60)):
            best, following = 0, 0
            for other in range(1, step):
                run = 0
                while run < min(other, features.LONGEST_RUN) and np.array_equal(
                    notes[row, other - 1 - run], notes[row, step - 1 - run]
                ):
                    run += 1
                if run >= best and run:
                    best, following = run, other
            assert length[kind, row, step] == best
            if best:
                assert place[kind, row, step] == following


def test_only_equal_frames_have_equal_fingerprints():
    notes = random_notes((500,), 0, 87, density=0.1)
    notes[100:200] = notes[:100]
    prints = features.fingerprints(notes).numpy()
    for kind, same in ((0, lambda a, b: np.array_equal(a, b)), (1, lambda a, b: top(a) == top(b))):
        for a, b in itertools.product(range(0, 500, 7), range(500)):
            assert (prints[kind, a] == prints[kind, b]) == same(notes[a], notes[b])


def top(row):
    return max(np.flatnonzero(row), default=-1)
