"""Rows of a request: valid rows are computed as if alone, invalid ones are blank."""

from common.serving.rows import length_fits, run_valid, shorten, within_budget
from common.serving.targets import same

import numpy as np
import pytest
import tensorflow as tf


def cumulative(x, length):
    """Return the cumulative sums and the mean of the valid steps; NaN for a row without steps."""
    mask = tf.sequence_mask(length, tf.shape(x)[1], dtype=x.dtype)
    total = tf.reduce_sum(x * mask, axis=1)
    mean = total / tf.cast(length, x.dtype)
    return {"sums": tf.cumsum(x * mask, axis=1), "mean": mean, "length": length}


def run(x, length, valid):
    inputs = {"x": tf.constant(x, tf.float32), "length": tf.constant(length, tf.int32)}
    return run_valid(
        cumulative,
        inputs,
        tf.constant(valid, tf.bool),
        fill={"x": 0.0, "length": 1},
        timed=["x"],
        steps={"sums": same},
    )


def test_invalid_rows_are_blank_and_valid_rows_as_alone():
    x = np.array([[1.0, 2.0, 3.0], [np.nan, 1.0, np.inf], [4.0, 5.0, 6.0]])
    outputs = run(x, [2, 0, 3], [True, False, True])
    np.testing.assert_array_equal(outputs["sums"], [[1, 3, 3], [0, 0, 0], [4, 9, 15]])
    np.testing.assert_array_equal(outputs["mean"], [1.5, 0.0, 5.0])
    np.testing.assert_array_equal(outputs["length"], [2, 0, 3])
    alone = run(x[2:], [3], [True])
    np.testing.assert_array_equal(alone["sums"], outputs["sums"][2:])


@pytest.mark.parametrize(("rows", "time"), [(0, 3), (2, 0), (0, 0)])
def test_no_rows_and_no_steps_have_outputs_of_their_shape(rows, time):
    shapes = []

    def watched(**inputs):
        shapes.append(inputs["x"].shape)
        return cumulative(**inputs)

    outputs = run_valid(
        watched,
        {"x": tf.zeros([rows, time]), "length": tf.zeros([rows], tf.int32)},
        tf.zeros([rows], tf.bool),
        fill={"length": 1},
        timed=["x"],
        steps={"sums": same},
    )
    assert shapes == [(1, 1)]
    assert outputs["sums"].shape == (rows, time)
    assert outputs["mean"].shape == (rows,)
    assert np.isfinite(outputs["mean"]).all()


def test_only_valid_rows_run_and_only_up_to_the_end_of_the_longest():
    """The cost of a request must not depend on the rows that it loses."""
    received = []

    def watched(x, length):
        received.append((x.numpy().tolist(), length.numpy().tolist()))
        return {"first": x[:, 0] + length, "x": 10 * x, "mean": x}

    def run_rows(x, length, valid):
        inputs = {"x": tf.constant(x, tf.int32), "length": tf.constant(length, tf.int32)}
        outputs = run_valid(
            watched,
            inputs,
            tf.constant(valid, tf.bool),
            fill={"length": 1},
            timed=["x"],
            steps={"x": same},
        )
        return {name: value.numpy().tolist() for name, value in outputs.items()}

    x = [[7, 7, 7, 7], [1, 2, 3, 4], [8, 8, 8, 8], [5, 6, 0, 0]]
    outputs = run_rows(x, [4, 2, 9, 1], [False, True, False, True])
    assert received == [([[1, 2], [5, 6]], [2, 1])]
    assert outputs["first"] == [0, 3, 0, 6]
    # Outputs with as many steps as the inputs, and one with as many as were computed.
    assert outputs["x"] == [[0] * 4, [10, 20, 0, 0], [0] * 4, [50, 60, 0, 0]]
    assert outputs["mean"] == [[0, 0], [1, 2], [0, 0], [5, 6]]

    received.clear()
    outputs = run_rows(x, [4, 2, 9, 1], [False] * 4)
    assert received == [([[0]], [1])]  # one step: the layers of cuDNN refuse a row of length 0
    assert outputs["x"] == [[0] * 4] * 4


def test_the_longest_rows_lose_when_a_batch_exceeds_its_budget():
    def computed(length, budget, valid=None):
        valid = [True] * len(length) if valid is None else valid
        result = within_budget(tf.constant(valid, tf.bool), tf.constant(length, tf.int32), budget)
        return [index for index, row in enumerate(result.numpy()) if row]

    assert computed([3, 3, 3], 9) == [0, 1, 2]
    assert computed([3, 3, 3], 8) == [0, 1]  # among equals the first ones stay
    assert computed([9, 1, 1], 8) == [1, 2]
    assert computed([4, 1, 1], 12) == [0, 1, 2]
    assert computed([4, 1, 1], 11) == [1, 2]  # the short rows are padded to its length
    assert computed([4, 1, 1], 11, [True, False, True]) == [0, 2]  # invalid rows cost nothing
    assert computed([2**31 - 1, 0, -5, 2], 6, [True, True, False, True]) == [1, 3]
    assert computed([], 6) == []
    assert computed([1] * 1024, 10**6) == list(range(1024))
    assert computed([1] * 1025, 10**6) == []  # their outputs alone would be too large
    # Rows that are longer never matter to a row.
    random = np.random.default_rng(0)
    for _ in range(20):
        length = random.integers(1, 9, 7)
        kept = computed(length, 20)
        assert len(kept) * max(length[kept]) <= 20
        for row in kept:
            others = np.where(length > length[row], 1_000, length)
            assert row in computed(others, 20)


def test_texts_are_cut_and_the_longest_lose_when_they_exceed_the_budget():
    def short(texts, longest, budget):
        return shorten(tf.constant(texts), longest=longest, budget=budget).numpy().tolist()

    assert short(["abcdef", "ab", ""], 4, 99) == [b"abcd", b"ab", b""]
    assert short(["abcdef", "ab", "c"], 4, 11) == [b"", b"ab", b"c"]
    assert short(["abcdef"] * 3, 4, 8) == [b"abcd", b"abcd", b""]


def test_static_sizes_survive_in_a_graph():
    """A core of a TPU needs them; see `Target.core`."""

    @tf.function(
        input_signature=[tf.TensorSpec([None, None, 4, 3]), tf.TensorSpec([None], tf.int32)]
    )
    def trace(frames, length):
        def check(frames, length):
            assert frames.shape[2:] == [4, 3]
            return {"length": length}

        valid = length_fits(length, frames)
        inputs = {"frames": frames, "length": length}
        return run_valid(check, inputs, valid, fill={"length": 1}, timed=["frames"])

    np.testing.assert_array_equal(trace(np.zeros((2, 5, 4, 3)), [5, 6])["length"], [5, 0])


def test_lengths_fit_their_tensor_and_the_limits():
    length = tf.constant([-1, 0, 1, 4, 5, 6])
    sequences = tf.zeros([6, 5])
    fits = length_fits(length, sequences)
    np.testing.assert_array_equal(fits, [False, False, True, True, True, False])
    fits = length_fits(length, sequences, at_least=0, at_most=4)
    np.testing.assert_array_equal(fits, [False, True, True, True, False, False])
