"""Equations of the recurrent cells: steps forward and backward, and the products of all steps.

`common.rnn_scan` runs the steps in a loop over time, and `common.rnn_kernels` builds a
differentiable function from both.

The sigmoid gates of a training step are computed by `tanh`, since
`sigmoid(v) = tanh(v / 2) / 2 + 1 / 2`: one `tanh` over the whole row is cheaper than separate
activations. The forward pass saves these `tanh` values, and the backward pass derives the gates and
their slopes from them.

Every step has the cell's weights bound by `forward_step`, `backward_step` or `inference_step`. Its
arguments are tensors of one time step, `<float>[batch, width]`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

from common.tensor_arrays import dimension

import numpy as np
import tensorflow as tf

Cell = Literal["simple_rnn", "gru", "gru_before", "lstm"]
States = Sequence[tf.Tensor]


class Weights(NamedTuple):
    """Weights of a cell, with the gates in Keras's order.

    Attributes:
      kernel: `<float>[features, gates * units]`; `None` inside a scan, which does not use it.
      recurrent: `<float>[units, gates * units]`.
      bias: `<float>[gates * units]`, added to the projection of the input.
      recurrent_bias: `<float>[gates * units]`, added to the recurrent product; only in a `"gru"`.
    """

    kernel: tf.Tensor | None
    recurrent: tf.Tensor
    bias: tf.Tensor
    recurrent_bias: tf.Tensor | None = None

    @property
    def units(self) -> int:
        """Width of the state."""
        return self.recurrent.shape[0]


class Activations(NamedTuple):
    """Values of the forward pass that the backward pass needs; time-major.

    Attributes:
      states: `<float>[time, batch, units]`, the first state after each step.
      gates: `<float>[time, batch, gates * units]`, the `tanh` of the gate sums; `None` in a
        `"simple_rnn"`.
      extra: `<float>[time, batch, units]`: the cell state after each step in an `"lstm"`, the
        recurrent part of the candidate in a `"gru"`; else `None`.
    """

    states: tf.Tensor
    gates: tf.Tensor | None = None
    extra: tf.Tensor | None = None


class Step(NamedTuple):
    """Result of one forward step.

    Attributes:
      states: new states, each `<float>[batch, units]`.
      gates: row of `Activations.gates`, or `None`.
      inner: recurrent part of the candidate `<float>[batch, units]`; only in a `"gru"`.
    """

    states: list[tf.Tensor]
    gates: tf.Tensor | None = None
    inner: tf.Tensor | None = None


class StepGradients(NamedTuple):
    """Result of one backward step.

    Attributes:
      sums: gradients of the gate sums, one per recurrent product, and in a GRU of the candidate's
        sum. The first one reaches the previous state through the recurrent weights.
      direct: gradients of the previous states that bypass the recurrent product; `None` is zero.
    """

    sums: list[tf.Tensor]
    direct: list[tf.Tensor | None]


# --- Shapes ---------------------------------------------------------------------------------------


def swap_batch_and_time(value: tf.Tensor) -> tf.Tensor:
    """Convert `<any>[batch, time, width]` to time-major, or back."""
    return tf.transpose(value, [1, 0, 2])


def previous_states(states: tf.Tensor, initial: tf.Tensor) -> tf.Tensor:
    """Return the state before each step, given those after each step.

    Args:
      states: `<float>[time, batch, units]`.
      initial: `<float>[batch, units]`.

    Example:
      >>> states = tf.constant([[[1.0]], [[2.0]], [[3.0]]])
      >>> previous_states(states, tf.constant([[0.5]])).numpy().ravel()
      array([0.5, 1. , 2. ], dtype=float32)
    """
    return tf.concat([initial[None], states[:-1]], 0)


def _flatten(value: tf.Tensor) -> tf.Tensor:
    """Reshape `[time, batch, width]` to `[time * batch, width]`."""
    return tf.reshape(value, [-1, value.shape[-1]])


# --- One step forward -----------------------------------------------------------------------------


def forward_step(cell: Cell, weights: Weights) -> Callable[[tf.Tensor, States], Step]:
    """Return the forward step of a cell, a function of the projected input and the states."""
    if cell == "lstm":
        # Factors on the gate sums: 1/2 where the gate is a sigmoid.
        scale = tf.constant(np.repeat([0.5, 0.5, 1.0, 0.5], weights.units), weights.recurrent.dtype)
        return functools.partial(_lstm_step, weights, scale)
    return functools.partial(_STEPS[cell], weights)


def _simple_rnn_step(weights: Weights, projection: tf.Tensor, states: States) -> Step:
    (h,) = states
    return Step([tf.tanh(projection + (tf.matmul(h, weights.recurrent) + weights.bias))])


def _lstm_step(weights: Weights, scale: tf.Tensor, projection: tf.Tensor, states: States) -> Step:
    h, c = states
    gates = tf.tanh(scale * (projection + (tf.matmul(h, weights.recurrent) + weights.bias)))
    i, f, g, o = tf.split(gates, 4, axis=1)
    c = _sigmoid(f) * c + _sigmoid(i) * g
    return Step([_sigmoid(o) * tf.tanh(c), c], gates)


def _gru_step(weights: Weights, projection: tf.Tensor, states: States) -> Step:
    (h,) = states
    units = weights.units
    q = tf.matmul(h, weights.recurrent) + weights.recurrent_bias
    p = projection + weights.bias
    zr = tf.tanh(0.5 * (p[:, : 2 * units] + q[:, : 2 * units]))
    z, r = _sigmoid(zr[:, :units]), _sigmoid(zr[:, units:])
    inner = q[:, 2 * units :]
    n = tf.tanh(p[:, 2 * units :] + r * inner)
    gates = tf.concat([zr, n], 1)
    return Step([n + z * (h - n)], gates, inner)


def _gru_before_step(weights: Weights, projection: tf.Tensor, states: States) -> Step:
    (h,) = states
    units = weights.units
    p = projection + weights.bias
    zr = tf.tanh(0.5 * (p[:, : 2 * units] + tf.matmul(h, weights.recurrent[:, : 2 * units])))
    z, r = _sigmoid(zr[:, :units]), _sigmoid(zr[:, units:])
    n = tf.tanh(p[:, 2 * units :] + tf.matmul(r * h, weights.recurrent[:, 2 * units :]))
    gates = tf.concat([zr, n], 1)
    return Step([n + z * (h - n)], gates)


_STEPS = {
    "simple_rnn": _simple_rnn_step,
    "gru": _gru_step,
    "gru_before": _gru_before_step,
}


def _sigmoid(gate: tf.Tensor) -> tf.Tensor:
    """Return the sigmoid of a sum, given the tanh of half of it."""
    return 0.5 * gate + 0.5


def _sigmoid_slope(gate: tf.Tensor) -> tf.Tensor:
    """Return the derivative of that sigmoid with respect to the sum."""
    return 0.25 - 0.25 * gate * gate


# --- One step backward ----------------------------------------------------------------------------


def backward_inputs(
    cell: Cell, activations: Activations, initial_states: States
) -> list[tf.Tensor]:
    """Return the arrays that a backward step reads, each `<float>[time, batch, units]`.

    The gates are split here, before the loop: XLA vectorises a step only where each gate is an
    array of its own.
    """
    if cell == "simple_rnn":
        return [activations.states]
    gates = tf.split(activations.gates, 4 if cell == "lstm" else 3, axis=2)
    if cell == "lstm":
        previous = previous_states(activations.extra, initial_states[1])
        return [*gates, activations.extra, previous]
    previous = previous_states(activations.states, initial_states[0])
    return [*gates, previous, activations.extra] if cell == "gru" else [*gates, previous]


def gradient_widths(cell: Cell, units: int) -> list[int]:
    """Return the widths of `StepGradients.sums`."""
    return {
        "simple_rnn": [units],
        "gru": [3 * units, units],
        "gru_before": [2 * units, units],
        "lstm": [4 * units],
    }[cell]


def backward_step(
    cell: Cell, transposed: tf.Tensor
) -> Callable[[list[tf.Tensor], States], StepGradients]:
    """Return the backward step of a cell.

    Args:
      cell: which cell.
      transposed: `<float>[gates * units, units]`, the transposed recurrent weights.

    Returns:
      A function of one row of each of `backward_inputs`, and of the gradients of the states after
      the step.
    """
    if cell == "gru_before":
        return functools.partial(_gru_before_backward, transposed)
    return _BACKWARD_STEPS[cell]


def _simple_rnn_backward(values: list[tf.Tensor], d_states: States) -> StepGradients:
    (h,) = values
    return StepGradients([d_states[0] * (1 - h * h)], [None])


def _lstm_backward(values: list[tf.Tensor], d_states: States) -> StepGradients:
    gate_i, gate_f, g, gate_o, c, previous_c = values
    d_h, d_c = d_states
    i, f, o = _sigmoid(gate_i), _sigmoid(gate_f), _sigmoid(gate_o)
    tanh_c = tf.tanh(c)
    d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
    d_gates = [
        d_c * g * _sigmoid_slope(gate_i),
        d_c * previous_c * _sigmoid_slope(gate_f),
        d_c * i * (1 - g * g),
        d_h * tanh_c * _sigmoid_slope(gate_o),
    ]
    return StepGradients([tf.concat(d_gates, 1)], [None, d_c * f])


def _gru_backward(values: list[tf.Tensor], d_states: States) -> StepGradients:
    gate_z, gate_r, n, h, inner = values
    z, r = _sigmoid(gate_z), _sigmoid(gate_r)
    d_n = d_states[0] * (1 - z) * (1 - n * n)
    d_z = d_states[0] * (h - n) * _sigmoid_slope(gate_z)
    d_r = d_n * inner * _sigmoid_slope(gate_r)
    return StepGradients([tf.concat([d_z, d_r, d_n * r], 1), d_n], [d_states[0] * z])


def _gru_before_backward(
    transposed: tf.Tensor, values: list[tf.Tensor], d_states: States
) -> StepGradients:
    gate_z, gate_r, n, h = values
    z, r = _sigmoid(gate_z), _sigmoid(gate_r)
    d_n = d_states[0] * (1 - z) * (1 - n * n)
    d_z = d_states[0] * (h - n) * _sigmoid_slope(gate_z)
    d_rh = tf.matmul(d_n, transposed[2 * h.shape[-1] :])
    d_r = d_rh * h * _sigmoid_slope(gate_r)
    return StepGradients([tf.concat([d_z, d_r], 1), d_n], [d_states[0] * z + d_rh * r])


_BACKWARD_STEPS = {
    "simple_rnn": _simple_rnn_backward,
    "gru": _gru_backward,
    "lstm": _lstm_backward,
}


# --- One step of plain inference ------------------------------------------------------------------


def merge_biases(cell: Cell, weights: Weights) -> Weights:
    """Move all biases that do not depend on a gate into `bias`.

    The recurrent bias of a GRU's candidate is multiplied by the reset gate, so it stays alone in
    `recurrent_bias`, `<float>[units]`.
    """
    if cell != "gru":
        return weights
    gates, candidate = tf.split(weights.recurrent_bias, [2 * weights.units, weights.units])
    bias = weights.bias + tf.concat([gates, tf.zeros_like(candidate)], 0)
    return weights._replace(bias=bias, recurrent_bias=candidate)


def split_projection(cell: Cell, projection: tf.Tensor) -> list[tf.Tensor]:
    """Split a projection as `inference_step` needs it: a GRU's gates and candidate are apart."""
    if cell not in ("gru", "gru_before"):
        return [projection]
    units = projection.shape[-1] // 3
    return tf.split(projection, [2 * units, units], axis=-1)


def inference_step(
    cell: Cell,
    weights: Weights,
    projection: list[tf.Tensor],
    mask: tf.Tensor | None,
    states: States,
) -> list[tf.Tensor]:
    """Return the new states, computed in few ops.

    Args:
      cell: which cell.
      weights: of `merge_biases`.
      projection: of `split_projection`, the bias included.
      mask: `<bool>[batch, 1]`, false where the states stay unchanged.
      states: states before the step, each `<float>[batch, units]`.
    """
    h = states[0]
    if cell == "simple_rnn":
        new = [tf.tanh(projection[0] + tf.matmul(h, weights.recurrent))]
    elif cell == "lstm":
        i, f, g, o = tf.split(projection[0] + tf.matmul(h, weights.recurrent), 4, axis=1)
        c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
        new = [tf.sigmoid(o) * tf.tanh(c), c]
    else:
        new = [_gru_inference(cell, weights, projection, h)]
    return new if mask is None else select(mask, new, states)


def _gru_inference(
    cell: Cell, weights: Weights, projection: list[tf.Tensor], h: tf.Tensor
) -> tf.Tensor:
    p_zr, p_n = projection
    units, recurrent = weights.units, weights.recurrent
    if cell == "gru":
        q_zr, q_n = tf.split(tf.matmul(h, recurrent), [2 * units, units], axis=1)
        z, r = tf.split(tf.sigmoid(p_zr + q_zr), 2, axis=1)
        n = tf.tanh(p_n + r * (q_n + weights.recurrent_bias))
    else:
        q_zr = tf.matmul(h, recurrent[:, : 2 * units])
        z, r = tf.split(tf.sigmoid(p_zr + q_zr), 2, axis=1)
        n = tf.tanh(p_n + tf.matmul(r * h, recurrent[:, 2 * units :]))
    return n + z * (h - n)


def select(mask: tf.Tensor, new: States, old: States) -> list[tf.Tensor]:
    """Return the new values where the mask is true, and the old ones elsewhere."""
    return [tf.where(mask, a, b) for a, b in zip(new, old, strict=True)]


# --- Products over all steps ----------------------------------------------------------------------


def project(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Multiply all inputs by the kernel in one product.

    Args:
      x: `<float>[batch, time, features]`.
      kernel: `<float>[features, gates * units]`.

    Returns:
      `<float>[time, batch, gates * units]`.

    Example:
      >>> project(tf.zeros([2, 5, 3]), tf.zeros([3, 8])).shape
      TensorShape([5, 2, 8])
    """
    x = swap_batch_and_time(x)
    features, width = kernel.shape
    flat = tf.matmul(tf.reshape(x, [-1, features]), kernel)
    return tf.reshape(flat, [dimension(x, 0), dimension(x, 1), width])


def input_gradient(d_projection: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Return the gradient of the input `<float>[batch, time, features]`."""
    flat = tf.matmul(_flatten(d_projection), kernel, transpose_b=True)
    time, batch = dimension(d_projection, 0), dimension(d_projection, 1)
    return swap_batch_and_time(tf.reshape(flat, [time, batch, kernel.shape[0]]))


def weight_gradients(
    cell: Cell,
    x: tf.Tensor,
    initial: tf.Tensor,
    d_sums: list[tf.Tensor],
    activations: Activations,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Compute the gradients of the weights, one large product for each weight or for all of them.

    Args:
      cell: which cell.
      x: `<float>[batch, time, features]`.
      initial: `<float>[batch, units]`, the initial state.
      d_sums: `StepGradients.sums` of all steps, each `<float>[time, batch, width]`.
      activations: values of the forward pass.

    Returns:
      The gradient of the projection `<float>[time, batch, gates * units]`, and the gradients of the
      weights in the order of `Weights`.
    """
    rows, features, units = [dimension(x, 1), dimension(x, 0)], x.shape[-1], initial.shape[-1]
    previous = previous_states(activations.states, initial)
    x, h, *sums = (_flatten(v) for v in (swap_batch_and_time(x), previous, *d_sums))
    if cell in ("lstm", "simple_rnn"):
        product = _transposed_product(tf.concat([x, h, tf.ones_like(x[:, :1])], 1), sums[0])
        d_weights = [product[:features], product[features:-1], product[-1]]
        return tf.reshape(sums[0], [*rows, sums[0].shape[-1]]), d_weights
    d_projection = tf.concat([sums[0][:, : 2 * units], sums[1]], 1)
    d_kernel, d_bias = _transposed_product(x, d_projection), tf.reduce_sum(d_projection, 0)
    if cell == "gru":
        d_candidate = tf.reduce_sum(sums[0][:, 2 * units :], 0)
        d_recurrent_bias = tf.concat([d_bias[: 2 * units], d_candidate], 0)
        d_weights = [d_kernel, _transposed_product(h, sums[0]), d_bias, d_recurrent_bias]
    else:
        assert activations.gates is not None
        reset = _sigmoid(_flatten(activations.gates[:, :, units : 2 * units]))
        d_gates = _transposed_product(h, sums[0])
        d_recurrent = tf.concat([d_gates, _transposed_product(reset * h, sums[1])], 1)
        d_weights = [d_kernel, d_recurrent, d_bias]
    return tf.reshape(d_projection, [*rows, 3 * units]), d_weights


def _transposed_product(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.matmul(a, b, transpose_a=True)
