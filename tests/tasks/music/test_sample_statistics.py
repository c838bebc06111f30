from tasks.music import sample_statistics
from tasks.music.midi import KEYS

import numpy as np
import pytest


def test_statistics_of_a_piece_made_by_hand():
    piece = np.zeros((6, KEYS), np.uint8)
    for frame, keys in enumerate([(39, 43), (39, 43), (39, 44), (), (39, 56), (39, 51)]):
        piece[frame, keys] = 1
    statistics = sample_statistics.describe([piece], [np.ones((3, KEYS), np.uint8)], 0)
    figures = statistics.figures
    assert figures["notes per frame"] == pytest.approx(10 / 6)
    assert figures["distinct frames"] == pytest.approx(5 / 6)
    assert figures["frames equal to the one before"] == pytest.approx(1 / 5)
    assert figures["notes held from the frame before"] == pytest.approx(4 / 8)
    assert figures["melodic intervals of 1 or 2 semitones"] == pytest.approx(1 / 3)
    assert figures["melodic intervals of more than 5"] == pytest.approx(1 / 3)
    assert figures["longest copy (frames)"] == 0
    assert statistics.notes_per_frame[[0, 2]].tolist() == pytest.approx([1 / 6, 5 / 6])
    assert statistics.pitch_classes[0] == pytest.approx(6 / 10)  # keys 39 and 51 are a C
    assert statistics.chords[[0, 4, 5]].tolist() == pytest.approx([1 / 5, 2 / 5, 2 / 5])
    assert statistics.melody[[12 + 1, 24, 12 - 5]].tolist() == pytest.approx([1 / 3] * 3)
    assert sample_statistics.distance(statistics.chords, statistics.chords) == 0.0
