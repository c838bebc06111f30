"""The search for copies against one by brute force."""

from tasks.music import copies
from tasks.music.midi import KEYS

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

EYE = np.eye(KEYS, dtype=np.uint8)


def search(piece, others):
    """By brute force."""
    return [
        max(
            length
            for length in range(step + 2)
            if length == 0
            or any(
                np.array_equal(piece[step + 1 - length : step + 1], other[i : i + length])
                for other in others
                for i in range(len(other) - length + 1)
            )
        )
        for step in range(len(piece))
    ]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 3))
def test_copies_are_those_of_brute_force(seed, count, letters):
    random = np.random.default_rng(seed)
    training = [
        EYE[30 + random.integers(0, letters, size=random.integers(1, 14))] for _ in range(count)
    ]
    if count > 2:
        training[1] = training[0][: len(training[0]) // 2 + 1].copy()
    piece = EYE[30 + random.integers(0, letters, size=16)]
    runs = copies.copied_runs([piece, *training], training)
    assert runs[0].tolist() == search(piece, training)
    for number, own in enumerate(training):
        others = [row for n, row in enumerate(training) if n != number]
        assert runs[1 + number].tolist() == search(own, others)


def test_transposed_copies_are_found():
    random = np.random.default_rng(2)
    training = [EYE[30 + random.integers(0, 2, size=n)] for n in (20, 30)]
    moved = np.roll(training[1], 5, axis=1)
    assert copies.copied_runs([moved], training)[0].max() == 0
    assert copies.copied_runs([moved], training, transpose=6)[0][-1] == 30


@pytest.mark.thorough
def test_time_and_memory_are_linear():
    """The number of states is at most twice the number of frames."""
    random = np.random.default_rng(0)
    pieces = [EYE[20 + random.integers(0, 40, size=300)] for _ in range(100)]
    index = copies.CopyIndex(pieces)
    assert len(index.link) <= 2 * 30_000
    assert index.runs(np.concatenate(pieces[:3])).max() >= 300
