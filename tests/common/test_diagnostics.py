"""Gradient norms compared with NumPy; the memory problems, their baselines and their solution."""

import io

from common import rnn
from common.diagnostics import adding, copying, gradient_norms, plot_gradient_norms

import keras
import numpy as np
import pytest

X = np.random.default_rng(0).normal(size=(3, 7, 2)).astype("float32")
LENGTH = np.array([7, 3, 3])
MASK = np.arange(7) < LENGTH[:, None]


def fill(layer, seed=0):
    """Set random weights, so that no bias is zero and no gate has its initial value."""
    rng = np.random.default_rng(seed)
    layer.set_weights([rng.normal(scale=0.5, size=w.shape) for w in layer.weights])


def weights_of(layer):
    return [np.asarray(w.value, "float64") for w in layer.weights]


def product_of_jacobians(layer, row):
    """Return the Jacobians of a SimpleRNN's last state, as products over its steps.

    With D_s = diag(1 - h_s^2) and row vectors, dh_T/dx_t = kernel D_t (U D_t+1) ... (U D_T).
    """
    kernel, recurrent, bias = weights_of(layer)
    states = [np.zeros(len(bias))]
    for x in row.astype("float64"):
        states.append(np.tanh(x @ kernel + states[-1] @ recurrent + bias))
    slopes = [np.diag(1 - state**2) for state in states[1:]]
    jacobians = []
    for t in range(len(row)):
        jacobian = kernel @ slopes[t]
        for slope in slopes[t + 1 :]:
            jacobian = jacobian @ recurrent @ slope
        jacobians.append(jacobian)
    return jacobians


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def lstm_by_numpy(layer, row):
    kernel, recurrent, bias = weights_of(layer)
    h = c = np.zeros(len(bias) // 4)
    for x in row:
        i, f, g, o = np.split(x @ kernel + h @ recurrent + bias, 4)
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        h = sigmoid(o) * np.tanh(c)
    return h


def gru_by_numpy(layer, row):
    kernel, recurrent, bias = weights_of(layer)
    h = np.zeros(bias.shape[1] // 3)
    for x in row:
        z, r, n = np.split(x @ kernel + bias[0], 3)
        uz, ur, un = np.split(h @ recurrent + bias[1], 3)
        z = sigmoid(z + uz)
        h = z * h + (1 - z) * np.tanh(n + sigmoid(r + ur) * un)
    return h


def test_norms_of_a_plain_rnn_equal_the_product_of_its_jacobians():
    layer = rnn.SimpleRNN(4)
    layer.build((None, None, 2))
    fill(layer)
    expected = [[np.linalg.norm(j) for j in product_of_jacobians(layer, row)] for row in X]
    np.testing.assert_allclose(gradient_norms(layer, X), expected, rtol=1e-4)


@pytest.mark.parametrize(
    ("cell", "by_numpy"), [(rnn.LSTM, lstm_by_numpy), (rnn.GRU, gru_by_numpy)], ids=["lstm", "gru"]
)
def test_norms_of_gated_layers_equal_finite_differences(cell, by_numpy):
    layer = cell(4)
    layer.build((None, None, 2))
    fill(layer)
    expected = np.zeros(X.shape)
    for index in np.ndindex(X.shape):
        larger, smaller = (X.astype("float64") for _ in range(2))
        larger[index] += 1e-5
        smaller[index] -= 1e-5
        change = by_numpy(layer, larger[index[0]]) - by_numpy(layer, smaller[index[0]])
        expected[index] = np.square(change / 2e-5).sum()
    expected = np.sqrt(expected.sum(axis=-1))
    np.testing.assert_allclose(gradient_norms(layer, X), expected, rtol=1e-4)


def test_norms_of_a_model_are_of_its_output_and_its_input():
    layer, dense = rnn.SimpleRNN(4), keras.layers.Dense(5)
    model = keras.Sequential([keras.Input((None, 2)), layer, dense])
    fill(layer)
    expected = [
        [np.linalg.norm(j @ np.asarray(dense.kernel)) for j in product_of_jacobians(layer, row)]
        for row in X
    ]
    np.testing.assert_allclose(gradient_norms(model, X), expected, rtol=1e-4)


@pytest.mark.parametrize("cell", ["simple_rnn", "gru", "lstm"])
def test_padding_has_no_gradient_and_affects_none(cell):
    layer = rnn.stack(cell, 4, 2)
    norms = gradient_norms(layer, X, MASK)
    assert not norms[~MASK].any()
    np.testing.assert_allclose(norms[:1], gradient_norms(layer, X[:1]), rtol=1e-4)
    np.testing.assert_allclose(norms[1:, :3], gradient_norms(layer, X[1:, :3]), rtol=1e-4)
    layer.return_sequences = False
    np.testing.assert_allclose(gradient_norms(layer, X, MASK), norms, rtol=1e-4)


def test_outputs_at_every_step_and_states_change_nothing():
    layer = keras.layers.GRU(4)
    layer.build((None, None, 2))
    other = keras.layers.GRU(4, return_sequences=True, return_state=True)
    other.build((None, None, 2))
    other.set_weights(layer.get_weights())
    np.testing.assert_allclose(gradient_norms(other, X), gradient_norms(layer, X), rtol=1e-5)


def test_vanishing_is_geometric_and_squares_do_not_underflow():
    """Each step is 0.6 times a rotation with slope 1, so it scales the norm by 0.6."""
    orthogonal = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0]
    layer = rnn.SimpleRNN(4)
    layer.build((None, None, 2))
    layer.set_weights([0.1 * np.ones((2, 4)), 0.6 * orthogonal, np.zeros(4)])
    norms = gradient_norms(layer, np.zeros((1, 150, 2)))[0]
    np.testing.assert_allclose(norms[:-1] / norms[1:], 0.6, rtol=1e-4)
    assert 0 < norms[0] < 1e-32


def test_the_plot_has_a_logarithmic_line_for_each_layer():
    norms = {"one": np.array([[1e-8, 1e-4, 1.0]]), "two": np.array([0.0, 1e-3, 1e-1])}
    figure = plot_gradient_norms(norms, title="norms")
    (axes,) = figure.axes
    assert axes.get_yscale() == "log"
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["one", "two"]
    np.testing.assert_allclose(axes.lines[0].get_xdata(), [2, 1, 0])
    np.testing.assert_allclose(axes.lines[0].get_ydata(), [1e-8, 1e-4, 1.0])
    file = io.BytesIO()
    figure.savefig(file)
    assert file.getvalue().startswith(b"\x89PNG")


def test_adding_marks_a_number_in_each_half_and_its_target_is_their_sum():
    inputs, targets, baseline = adding(4000, 9, seed=3)
    values, marks = inputs[..., 0], inputs[..., 1]
    assert inputs.shape == (4000, 9, 2)
    assert inputs.dtype == targets.dtype == np.float32
    assert ((values >= 0) & (values < 1)).all()
    np.testing.assert_array_equal(marks[:, :4].sum(axis=1), 1)
    np.testing.assert_array_equal(marks[:, 4:].sum(axis=1), 1)
    np.testing.assert_allclose(
        targets, [row[mark == 1].sum() for row, mark in zip(values, marks, strict=True)]
    )
    # All steps of a half are equally likely: 1000 and 800 of 4000, within 4 standard deviations.
    assert np.abs(marks[:, :4].sum(axis=0) - 1000).max() < 4 * np.sqrt(4000 * 0.25 * 0.75)
    assert np.abs(marks[:, 4:].sum(axis=0) - 800).max() < 4 * np.sqrt(4000 * 0.2 * 0.8)
    assert baseline == pytest.approx(1 / 6)
    assert np.square(targets - 1).mean() == pytest.approx(baseline, abs=0.01)
    again, other = adding(4000, 9, seed=3), adding(4000, 9, seed=4)
    np.testing.assert_array_equal(again.inputs, inputs)
    assert (other.inputs != inputs).any()


def test_copying_has_the_first_symbols_as_its_target_after_the_mark():
    inputs, targets, baseline = copying(500, 20, seed=3, symbols=4, length=5)
    assert inputs.shape == targets.shape == (500, 30)
    np.testing.assert_array_equal(np.unique(inputs[:, :5]), [1, 2, 3, 4])
    np.testing.assert_array_equal(np.where(inputs == 5)[1], 24)  # 20 steps after the last symbol
    assert not inputs[:, 5:24].any()
    assert not inputs[:, 25:].any()
    assert not targets[:, :25].any()
    np.testing.assert_array_equal(targets[:, 25:], inputs[:, :5])
    # The prediction of the baseline: certain of the blanks, uniform over the symbols.
    probabilities = np.zeros((30, 6))
    probabilities[:25, 0] = 1
    probabilities[25:, 1:5] = 1 / 4
    likelihoods = probabilities[np.arange(30), targets]
    assert -np.log(likelihoods).mean() == pytest.approx(baseline)
    np.testing.assert_array_equal(copying(500, 20, seed=3, symbols=4, length=5).inputs, inputs)


def test_impossible_problems_are_rejected():
    with pytest.raises(
        ValueError, match="steps must be 2 or more, since two numbers are marked, got 1"
    ):
        adding(1, 1, seed=0)
    with pytest.raises(ValueError, match="delay must be 1 or more, got 0"):
        copying(1, 0, seed=0)


def errors_of_adding(cell, *, steps, rows, epochs):
    """Train on the adding problem; return the test error after each epoch, until it is solved.

    An error below 0.01 counts as solved; the baseline without memory is 1/6.
    """
    keras.utils.set_random_seed(1)
    train, test = adding(rows, steps, seed=1), adding(1000, steps, seed=2)
    model = keras.Sequential(
        [
            keras.Input((steps, 2)),
            rnn.stack(cell, 32, 1, return_sequences=False),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.01, global_clipnorm=1.0), "mse")
    errors = []
    for _ in range(epochs):
        model.fit(train.inputs, train.targets, batch_size=50, verbose=0)
        errors.append(model.evaluate(test.inputs, test.targets, batch_size=500, verbose=0))
        if errors[-1] < 0.01:
            break
    return errors


@pytest.mark.parametrize("cell", ["lstm", pytest.param("gru", marks=pytest.mark.slow)])
@pytest.mark.thorough
def test_gates_solve_adding_at_50_steps(cell):
    assert errors_of_adding(cell, steps=50, rows=5000, epochs=12)[-1] < 0.01  # they need 3 to 6


@pytest.mark.thorough
def test_a_plain_rnn_does_not_solve_adding_at_50_steps():
    assert min(errors_of_adding("simple_rnn", steps=50, rows=5000, epochs=6)) > 0.12


@pytest.mark.slow  # the same at 50 steps is not
@pytest.mark.parametrize(("cell", "solves"), [("lstm", True), ("gru", True), ("simple_rnn", False)])
def test_gates_solve_adding_at_100_steps_and_a_plain_rnn_does_not(cell, solves):
    errors = errors_of_adding(cell, steps=100, rows=10_000, epochs=10 if solves else 4)
    if solves:
        assert errors[-1] < 0.01  # the LSTM needs 3 to 5 epochs, the GRU 2
    else:
        assert min(errors) > 0.12
