"""Scans over time: the forward pass, the backward pass, and plain inference of recurrent layers.

`forward_program` and `backward_program` are the functions that `common.rnn_kernels` runs, compiled
by XLA or plain. Both consist of one `tf.while_loop` over time-major arrays. The input is projected
before the forward scan, and the gradients of the weights are computed after the backward scan; see
`common.rnn_cells`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

from common import rnn_cells
from common.rnn_cells import Activations, Cell, States, Weights
from common.tensor_arrays import dimension, empty, unstack

import tensorflow as tf

_UNROLL = 10  # steps per iteration of plain inference


@dataclasses.dataclass(frozen=True)
class Scan:
    """Settings of a scan.

    Attributes:
      cell: which cell.
      zero_output: whether outputs at masked steps are zero; else they repeat the last real output.
    """

    cell: Cell
    zero_output: bool


def _step_masks(mask: tf.Tensor) -> tf.Tensor:
    """Convert `<bool>[batch, time]` to `<bool>[time, batch, 1]`."""
    return tf.transpose(mask)[:, :, None]


def _output_mask(scan: Scan, mask: tf.Tensor) -> tf.Tensor:
    """Return `<bool>[batch, time, 1]`, true where an output is the state; it is zero elsewhere."""
    if not scan.zero_output:
        # A row has no output to repeat before its first real step.
        mask = tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0
    return mask[:, :, None]


# --- Forward pass ---------------------------------------------------------------------------------


def forward_program(
    scan: Scan,
    compiled: bool,
    save: bool,
    projection: tf.Tensor,
    mask: tf.Tensor | None,
    states: States,
    weights: Weights,
    length: tf.Tensor | None,
) -> tuple[tf.Tensor, list[tf.Tensor], Activations | None]:
    """Run the forward pass.

    Args:
      scan: settings.
      compiled: whether XLA compiles this program.
      save: whether to return the activations.
      projection: `<float>[time, batch, gates * units]`, the projected input without bias.
      mask: `<bool>[batch, time]`, or `None`.
      states: initial states, each `<float>[batch, units]`.
      weights: of the cell.
      length: number of steps to run, or `None` for all.

    Returns:
      Outputs `<float>[batch, time, units]`, final states, and the activations if `save`.
    """
    activations = None
    if not compiled and not save:
        outputs, final_states = _infer(scan, projection, mask, states, weights)
    else:
        # XLA vectorises the tanh of a GRU only where its value is saved.
        save_gates = save or scan.cell == "gru"
        activations, final_states = _scan_forward(
            scan, projection, mask, states, weights, length, save_gates
        )
        outputs = activations.states
    outputs = rnn_cells.swap_batch_and_time(outputs)
    if mask is not None:
        zero = tf.zeros([], outputs.dtype)
        outputs = tf.where(_output_mask(scan, mask), outputs, zero)
    return outputs, final_states, activations if save else None


def _scan_forward(
    scan: Scan,
    projection: tf.Tensor,
    mask: tf.Tensor | None,
    states: States,
    weights: Weights,
    length: tf.Tensor | None,
    save: bool,
) -> tuple[Activations, list[tf.Tensor]]:
    """Run `length` steps (all if `None`); return their activations and the final states."""
    time = dimension(projection, 0)
    mask_array = None if mask is None else unstack(_step_masks(mask))
    step = rnn_cells.forward_step(scan.cell, weights)
    save_gates = save and scan.cell != "simple_rnn"
    save_extra = save and scan.cell in ("lstm", "gru")
    projections = unstack(projection)
    shape, dtype = states[0].shape, states[0].dtype
    arrays = [empty(time, shape, dtype)]
    if save_extra:
        arrays.append(empty(time, shape, dtype))
    if save_gates:
        arrays.append(projections)  # the gates overwrite the projection

    def body(k: tf.Tensor, states: States, arrays: Any) -> Any:
        result = step((arrays[-1] if save_gates else projections).read(k), states)
        new = result.states
        if mask_array is not None:
            new = rnn_cells.select(mask_array.read(k), new, states)
        values = [new[0]]
        if save_extra:
            values.append(new[1] if scan.cell == "lstm" else result.inner)
        if save_gates:
            values.append(result.gates)
        written = tuple(a.write(k, v) for a, v in zip(arrays, values, strict=True))
        return k + 1, tuple(new), written

    end = time if length is None else length
    _, final_states, arrays = tf.while_loop(
        lambda k, *_: k < end, body, (tf.constant(0), tuple(states), tuple(arrays))
    )
    stacked = [array.stack() for array in arrays]
    activations = Activations(
        states=stacked[0],
        gates=stacked[-1] if save_gates else None,
        extra=stacked[1] if save_extra else None,
    )
    return activations, list(final_states)


# --- Backward pass --------------------------------------------------------------------------------


def backward_program(
    scan: Scan,
    d_outputs: tf.Tensor,
    d_final_states: States,
    mask: tf.Tensor | None,
    states: States,
    weights: Weights,
    activations: Activations,
    length: tf.Tensor | None,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Run the backward pass.

    Args:
      scan: settings.
      d_outputs: `<float>[batch, time, units]`, gradient of the outputs.
      d_final_states: gradients of the final states, each `<float>[batch, units]`.
      mask: `<bool>[batch, time]`, or `None`.
      states: initial states, each `<float>[batch, units]`.
      weights: of the cell.
      activations: of the forward pass.
      length: number of steps that the forward pass ran, or `None` for all.

    Returns:
      Gradients of the gate sums of all steps, each `<float>[time, batch, width]` (see
      `rnn_cells.StepGradients`), and gradients of the initial states.
    """
    zero = tf.zeros([], d_outputs.dtype)
    time = dimension(activations.states, 0)
    mask_array = None
    if mask is not None:
        d_outputs = tf.where(_output_mask(scan, mask), d_outputs, zero)
        mask_array = unstack(_step_masks(mask))
    d_array = unstack(rnn_cells.swap_batch_and_time(d_outputs))
    inputs = rnn_cells.backward_inputs(scan.cell, activations, states)
    arrays = [unstack(values) for values in inputs]
    # Transposed once, before the loop: a transposed factor is slower inside it.
    transposed = tf.transpose(weights.recurrent)
    step = rnn_cells.backward_step(scan.cell, transposed)
    widths = rnn_cells.gradient_widths(scan.cell, weights.units)
    through = transposed[: widths[0]]

    def body(k: tf.Tensor, d_states: States, d_sums: Any) -> Any:
        t = k - 1
        d_states = [d_states[0] + d_array.read(t), *d_states[1:]]
        sums, direct = step([a.read(t) for a in arrays], d_states)
        if mask_array is not None:
            step_mask = mask_array.read(t)
            sums = [tf.where(step_mask, s, zero) for s in sums]
            direct = [zero if d is None else d for d in direct]
            direct = rnn_cells.select(step_mask, direct, d_states)
        d_h = tf.matmul(sums[0], through)
        if direct[0] is not None:
            d_h += direct[0]
        written = tuple(a.write(t, s) for a, s in zip(d_sums, sums, strict=True))
        return t, (d_h, *direct[1:]), written

    d_sums = tuple(empty(time, [states[0].shape[0], w], states[0].dtype) for w in widths)
    end = tf.convert_to_tensor(time if length is None else length)
    _, d_states, d_sums = tf.while_loop(
        lambda k, *_: k > 0, body, (end, tuple(d_final_states), d_sums)
    )
    return [array.stack() for array in d_sums], list(d_states)


# --- Plain inference ------------------------------------------------------------------------------


def _infer(
    scan: Scan,
    projection: tf.Tensor,
    mask: tf.Tensor | None,
    states: States,
    weights: Weights,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Return the first state after each step, `<float>[time, batch, units]`, and the final states.

    Steps run in chunks of `_UNROLL`, since an op costs more than its arithmetic here.
    """
    weights = rnn_cells.merge_biases(scan.cell, weights)
    projection += weights.bias
    masks = None if mask is None else _step_masks(mask)
    step = functools.partial(rnn_cells.inference_step, scan.cell, weights)
    if projection.shape[0] == 1:
        first = rnn_cells.split_projection(scan.cell, projection[0])
        final_states = step(first, None if masks is None else masks[0], states)
        return final_states[0][None], final_states
    time = dimension(projection, 0)
    count = (time + _UNROLL - 1) // _UNROLL
    chunks = _infer_chunks(
        scan.cell, step, _split_steps(projection, count), _split_steps(masks, count), states
    )
    flat = [tf.reshape(chunk, [-1, dimension(chunk, 2), chunk.shape[3]]) for chunk in chunks]
    final_states = [values[time + _UNROLL - 1] for values in flat]
    return flat[0][_UNROLL : _UNROLL + time], final_states


def _split_steps(value: tf.Tensor | None, count: Any) -> tf.TensorArray | None:
    """Split steps into `count` chunks `<any>[_UNROLL, batch, width]`; the last one is padded."""
    if value is None:
        return None
    missing = count * _UNROLL - dimension(value, 0)
    value = tf.pad(value, [[0, missing], [0, 0], [0, 0]])
    array = empty(count, [_UNROLL, *value.shape[1:]], value.dtype)
    return array.unstack(tf.reshape(value, [count, _UNROLL, dimension(value, 1), value.shape[2]]))


def _infer_chunks(
    cell: Cell,
    step: Callable[..., list[tf.Tensor]],
    projections: tf.TensorArray,
    masks: tf.TensorArray | None,
    states: States,
) -> list[tf.Tensor]:
    """Return each state after each step, `<float>[1 + chunks, _UNROLL, batch, units]`.

    The first chunk is the initial state, so the final state has a fixed index even after no step.
    """
    count = projections.size()
    arrays = []
    for state in states:
        array = empty(count + 1, [_UNROLL, *state.shape], state.dtype)
        arrays.append(array.write(0, tf.tile(state[None], [_UNROLL, 1, 1])))

    def body(k: tf.Tensor, states: States, arrays: Any) -> Any:
        step_masks = [None] * _UNROLL if masks is None else tf.unstack(masks.read(k), _UNROLL)
        # One split for all steps of the chunk saves an op per step.
        parts = rnn_cells.split_projection(cell, projections.read(k))
        unstacked = [tf.unstack(part, _UNROLL) for part in parts]
        results = []
        for *projection, mask in zip(*unstacked, step_masks, strict=True):
            states = step(projection, mask, states)
            results.append(states)
        chunks = [tf.stack(values) for values in zip(*results, strict=True)]
        arrays = tuple(a.write(k + 1, c) for a, c in zip(arrays, chunks, strict=True))
        return k + 1, tuple(states), arrays

    start = (tf.constant(0), tuple(states), tuple(arrays))
    _, _, final_arrays = tf.while_loop(lambda k, *_: k < count, body, start, parallel_iterations=1)
    return [array.stack() for array in final_arrays]
