"""Resampling in time and in size, against computations by hand."""

import itertools
from fractions import Fraction

from tasks.video import clips, resampling
from tests.tasks.video.samples import noise

import numpy as np
import pytest
import tensorflow as tf


def sampled_by_hand(count, source, rate):
    """Number of the frame visible at the middle of each new frame, by exact fractions."""
    source, rate = Fraction(source), Fraction(rate)
    numbers = []
    while (len(numbers) + Fraction(1, 2)) / rate < count / source:
        numbers.append(int((len(numbers) + Fraction(1, 2)) / rate * source))
    return numbers or [count - 1]


@pytest.mark.parametrize("source", ["12", "12.5", "24", "25", "29.97", "30", "60", "120", "5"])
@pytest.mark.parametrize("count", [1, 2, 7, 30, 101])
def test_files_and_graph_sample_by_one_rule(source, count):
    rate, frames = float(Fraction(source)), np.arange(count)
    expected = sampled_by_hand(count, source, "12.5")
    timed = ((i / rate, (i + 1) / rate, i) for i in frames)
    assert list(clips.sample(timed, 12.5)) == expected
    sampled, length = resampling.sample_in_graph(
        frames[None, :, None], tf.constant([count]), tf.constant([rate]), rate=12.5, longest=999
    )
    assert sampled[0, : length[0], 0].numpy().tolist() == expected


def resized_by_hand(picture, side):
    """Anti-aliased linear interpolation into a square, one pixel after another."""
    height, width, _ = picture.shape
    scale = side / max(height, width)
    out = np.zeros((side, side, 3))
    for row, column in itertools.product(range(side), repeat=2):
        y = (row + 0.5 - (side - height * scale) / 2) / scale
        x = (column + 0.5 - (side - width * scale) / 2) / scale
        if not (0 <= y <= height and 0 <= x <= width):
            continue
        reach = max(1.0, 1.0 / scale)
        wy = np.maximum(0, 1 - abs(np.arange(height) + 0.5 - y) / reach)
        wx = np.maximum(0, 1 - abs(np.arange(width) + 0.5 - x) / reach)
        weights = np.outer(wy / wy.sum(), wx / wx.sum())
        out[row, column] = (weights[..., None] * picture).sum(axis=(0, 1))
    return out


@pytest.mark.parametrize("shape", [(16, 16), (33, 57), (5, 3), (61, 20), (1, 1)])
def test_pictures_are_resized_as_by_hand(shape):
    picture = noise(1, *shape)[0]
    canvas = noise(1, 64, 70, seed=9)  # padding with junk
    canvas[0, : shape[0], : shape[1]] = picture
    resized = resampling.resize_in_graph(canvas[None], tf.constant([shape]), 16)[0, 0]
    assert np.abs(resized.numpy() - resized_by_hand(picture, 16)).max() <= 0.51
    if shape == (16, 16):
        np.testing.assert_array_equal(resized, picture)
    both = resampling.resize_in_graph(
        *(np.repeat(value, 2, axis=0) for value in (canvas[None], [shape])),
        16,
        mirrored=[False, True],
    )
    np.testing.assert_array_equal(both[0, 0], resized)
    np.testing.assert_array_equal(both[1, 0], resized[:, ::-1])
