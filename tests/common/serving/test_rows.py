"""Rows of a request: valid rows are computed as if alone, invalid ones are blank."""

from common.serving.rows import length_fits, run_valid
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
    assert shapes == [(max(1, rows), max(1, time))]
    assert outputs["sums"].shape == (rows, time)
    assert outputs["mean"].shape == (rows,)
    assert np.isfinite(outputs["mean"]).all()


def test_invalid_and_added_rows_run_with_the_filler_and_other_inputs_keep_their_values():
    """The layers of cuDNN refuse a row of length 0."""
    received = []

    def watched(x, length):
        received.append((x.numpy().tolist(), length.numpy().tolist()))
        return {"sum": x + length}

    def run_rows(x, length, valid):
        inputs = {"x": tf.constant(x, tf.int32), "length": tf.constant(length, tf.int32)}
        valid = tf.constant(valid, tf.bool)
        return run_valid(watched, inputs, valid, fill={"length": 1})["sum"].numpy().tolist()

    assert run_rows([10, 20], [3, 0], [True, False]) == [13, 0]
    assert run_rows([], [], []) == []
    assert received == [([10, 20], [3, 1]), ([0], [1])]


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
