"""Fused recurrent walks: what `common.rnn`'s layers compute with on a CPU.

A recurrent layer on TensorFlow runs a dozen small ops a step, and automatic differentiation adds up
its weight gradients step by step. Here instead

* the input projection of all steps is one matrix product before the walk;
* the gates are one `tanh` over the whole row, since `sigmoid(v) = tanh(v / 2) / 2 + 1 / 2`;
* training keeps the gates, written over the projection, and the gradient walks back once; the
  gradients of all weights are then single large products.

The walk is one `tf.while_loop` over time-major arrays, run in one of two forms. `run` is told
which; `inner_loop` chooses, from shapes and surroundings:

* Compiled by XLA, which fuses a step's elementwise work and updates the arrays in place: inside a
  `tf.function` on a CPU, from 32 units on. A batch is cut in two programs, which run side by side
  on two cores; the two directions of `common.rnn.bidirectional` take a core each instead.
* Plain: in eager mode, under a distribution strategy and inside a `jit_compile` function (compiled
  functions fail in the one, are of no use in the other), and in whatever is exported, for TF
  Serving refuses compiled functions on a CPU by default. Trace exports inside `portable()`. A plain
  inference takes ten steps an iteration, since there an op costs more than its arithmetic.

`covers` tells which layers this holds for. All others, and every layer where there is a GPU, are
left to Keras. bfloat16 and float16 are computed in float32 and cast back.

XLA compiles anew for every shape: the first training step takes 0.8 s (stock Keras: 0.3 s), and
each new pair of batch and time 0.75 s and 2.4 MB, as measured for 128 units on two cores. So what
is compiled is the walk alone, without the large products, which depend on the width of the input,
and sequences are turned around outside: all layers of equal cells and units, whatever their input
and direction, share their programs. A dimension that is known only at run time is padded: up to 8
rows to a power of two, more to multiples of 8, beyond 128 to eighths of a power of two, steps
likewise but from 8 on. So lengths up to 1024 give at most 40 shapes. The walk stops at the last
step that was asked for, so padded ones cost only their share of the large products, and padded rows
have gradients of exactly zero.

Where the time goes, for an LSTM training step at batch 32, 100 steps, 128 inputs, 128 units, on one
core: 35 ms, of which 12 forward, 18 back and 5 for the gradient of the input. The large products
(projection 5.5, gradient of the weights 10, of the input 5) are 20 of them and run at the speed of
`tf.matmul`; the two walks are the other 15, of which their own products are 7 and the elementwise
work, the zeroing of arrays and the transposes the rest. Over the shapes of
`tests/benchmarks/rnn.py` the matrix products alone would take 0.65 of the time.

XLA vectorises a step back only where each gate lies in an array of its own (the index of a row that
is read more than once stays inside the loop): hence the `tf.split` before that walk. What was tried
and did not pay: XLA's vector width, threading, oneDNN and XNNPACK flags (within noise),
`BlockLSTMV2` for plain inference (1.3 times faster at batch 1, 1.5 times slower at 32). Rows are
not sorted by length inside a batch: `common.data.batches` already brings rows of like length
together.

Limits: second derivatives do not go through the compiled form (nest gradient tapes eagerly, where
it is plain); every padded step that the caller passes is walked; and Keras's `model.export` must be
called inside `portable()`, as `common.export.publish` does for its own tracing.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.eager import record
from tensorflow.python.ops import control_flow_util
from tensorflow.python.saved_model import save_context

Cell = Literal["simple_rnn", "gru", "gru_before", "lstm"]
States = Sequence[tf.Tensor]

__all__ = ["Weights", "covers", "inner_loop", "is_portable", "may_compile", "portable", "run"]

# What each gate's sum is multiplied by before the tanh: 1/2 where the gate is a sigmoid.
_SCALES = {
    "simple_rnn": (1.0,),
    "gru": (0.5, 0.5, 1.0),
    "gru_before": (0.5, 0.5, 1.0),
    "lstm": (0.5, 0.5, 1.0, 0.5),
}
_UNROLL = 10  # steps an iteration of a plain inference
_COMPILE_FROM = 32  # units; a smaller model is trained before it is compiled

_portable = contextvars.ContextVar("portable", default=False)


class Weights(NamedTuple):
    """The weights of a cell, with gates in Keras's order.

    Attributes:
        kernel: `<float>[features, gates * units]`; `None` inside the programs, which do without.
        recurrent: `<float>[units, gates * units]`.
        bias: `<float>[gates * units]`, added to the projection of the input.
        recurrent_bias: `<float>[gates * units]`, added to the recurrent product; in a `"gru"` only.
    """

    kernel: tf.Tensor | None
    recurrent: tf.Tensor
    bias: tf.Tensor
    recurrent_bias: tf.Tensor | None = None

    @property
    def units(self) -> int:
        """Width of the state."""
        return self.recurrent.shape[0]


@dataclasses.dataclass(frozen=True)
class _Walk:
    """What a walk does, whatever it is given."""

    cell: Cell
    zero_output: bool  # at masked steps; else the last real output is repeated


class _Kept(NamedTuple):
    """What the way back needs; time-major.

    Attributes:
        states: `<float>[time, batch, units]`, the first state after each step.
        gates: `<float>[time, batch, gates * units]` before the sigmoids' halving; in a
            `"simple_rnn"` `None`.
        extra: `<float>[time, batch, units]`: in an `"lstm"` the cell after each step, in a `"gru"`
            the recurrent part of the candidate; else `None`.
    """

    states: tf.Tensor
    gates: tf.Tensor | None = None
    extra: tf.Tensor | None = None


# --- What the layers ask --------------------------------------------------------------------------


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Keeps what is traced inside free of compiled functions, so that any server can run it.

    Example:
        >>> with portable():
        ...     concrete = function.get_concrete_function()
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Whether what is being traced is to be free of compiled functions; see `portable`."""
    return _portable.get()


def covers(layer: keras.layers.RNN, mask: Any, training: bool | None) -> bool:
    """Whether `inner_loop` computes what the layer would, and no GPU would do it faster.

    Args:
        layer: a `SimpleRNN`, `GRU` or `LSTM`.
        mask: what the layer's `inner_loop` was given.
        training: whether dropout is active.
    """
    cell = layer.cell
    sigmoid = getattr(cell, "recurrent_activation", keras.activations.sigmoid)
    mask = _first(mask)
    return (
        cell.activation is keras.activations.tanh
        and sigmoid is keras.activations.sigmoid
        and getattr(cell, "implementation", 2) == 2
        and not layer.unroll
        and not layer.stateful
        and getattr(layer, "use_cudnn", "auto") is not True  # Keras raises on a CPU
        and not (training and cell.recurrent_dropout)
        and (mask is None or len(mask.shape) == 2)
        and not tf.config.list_logical_devices("GPU")
    )


def inner_loop(
    cell: Cell,
    layer: keras.layers.RNN,
    sequences: tf.Tensor,
    initial_state: Any,
    mask: Any,
    training: bool | None,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Computes what `layer.inner_loop` of Keras does, for a layer that `covers` accepts.

    Args:
        cell: which walk.
        layer: its weights and settings.
        sequences: `<float>[batch, time, features]`.
        initial_state: `<float>[batch, units]`, or a list of them.
        mask: `<bool>[batch, time]`, a list that begins with it, or `None`.
        training: whether `dropout` is active.

    Returns:
        The last output `<float>[batch, units]`, the outputs `<float>[batch, time or 1, units]` and
        the list of final states `<float>[batch, units]`.
    """
    if training and layer.cell.dropout:
        kept = layer.cell.get_dropout_mask(sequences[:, 0, :])
        sequences = sequences * kept[:, None, :]
    mask = _first(mask)
    outputs, states = run(
        cell,
        tf.convert_to_tensor(sequences),
        list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state],
        None if mask is None else tf.cast(mask, tf.bool),
        _weights(cell, layer.cell),
        go_backwards=layer.go_backwards,
        zero_output=layer.zero_output_for_mask,
        compiled=layer.units >= _COMPILE_FROM and may_compile(),
        side_by_side=getattr(layer, "side_by_side", False),
    )
    last = outputs[:, -1]
    return last, outputs if layer.return_sequences else last[:, None], states


def _first(mask: Any) -> Any:
    return mask[0] if isinstance(mask, (list, tuple)) else mask


def _weights(cell: Cell, layer: keras.layers.Layer) -> Weights:
    """The weights of a Keras cell; zeros where it has no bias."""
    kernel = tf.convert_to_tensor(layer.kernel)
    recurrent = tf.convert_to_tensor(layer.recurrent_kernel)
    if layer.use_bias:
        bias = tf.convert_to_tensor(layer.bias)
    else:
        width = kernel.shape[1]
        bias = tf.zeros([2, width] if cell == "gru" else [width], kernel.dtype)
    if cell == "gru":
        return Weights(kernel, recurrent, bias[0], bias[1])
    return Weights(kernel, recurrent, bias)


def may_compile() -> bool:
    """Whether what is being traced may hold compiled functions."""
    return (
        tf.inside_function()
        and not _portable.get()
        and not save_context.in_save_context()
        and not tf.distribute.has_strategy()
        and not control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())
    )


# --- The whole walk -------------------------------------------------------------------------------


def run(
    cell: Cell,
    x: tf.Tensor,
    states: States,
    mask: tf.Tensor | None,
    weights: Weights,
    *,
    go_backwards: bool = False,
    zero_output: bool = False,
    compiled: bool = False,
    side_by_side: bool = False,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Walks over sequences, with the gradient of everything but the mask.

    Args:
        cell: `"simple_rnn"`, `"gru"` (reset after the recurrent product), `"gru_before"`, `"lstm"`.
        x: `<float>[batch, time, features]`.
        states: initial states, each `<float>[batch, units]`; in an `"lstm"` `h` and `c`.
        mask: `<bool>[batch, time]`; at a false step the states stay what they were.
        weights: the cell's.
        go_backwards: reads from the last step to the first; outputs come in reading order.
        zero_output: outputs at masked steps are zero; else they repeat the last real one.
        compiled: by XLA; only inside a `tf.function`.
        side_by_side: whether another walk runs on the other core, so that this one needs one.

    Returns:
        Outputs `<float>[batch, time, units]` and the list of final states `<float>[batch, units]`.
    """
    walk = _Walk(cell, zero_output)
    given = x.dtype
    if go_backwards:  # turned here, both directions share all programs
        x, mask = tf.reverse(x, [1]), None if mask is None else tf.reverse(mask, [1])
    if given in (tf.bfloat16, tf.float16):
        x, states, weights = tf.nest.map_structure(
            lambda v: None if v is None else tf.cast(v, tf.float32), (x, list(states), weights)
        )
    save = record.could_possibly_record()
    if compiled:
        parts = 1 if side_by_side or (os.cpu_count() or 1) == 1 else 2
        outputs, finals = _run_padded(walk, x, states, mask, weights, save, parts)
    else:
        outputs, finals = _run(walk, x, states, mask, weights, save, parts=1, compiled=False)
    return tf.cast(outputs, given), [tf.cast(final, given) for final in finals]


def _run_padded(
    walk: _Walk,
    x: tf.Tensor,
    states: States,
    mask: tf.Tensor | None,
    weights: Weights,
    save: bool,
    parts: int,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Compiled walk with few shapes, in as many parts of the batch as help, `parts` at the most."""
    batch, time = x.shape[:2]
    # Of unknown size, a batch in training is rather large and one in serving rather small.
    if (batch is None and not save) or (batch is not None and batch < 8):
        parts = 1
    true_batch, true_time = tf.unstack(tf.shape(x)[:2])
    rows = steps = 0
    if batch is None:
        # In training, where a step costs little beside a compilation, the small sizes are left out.
        least = 8 if save else 1
        rows = parts * _round_up((true_batch + parts - 1) // parts, least) - true_batch
    if time is None:
        steps = _round_up(true_time, 8) - true_time
    if batch is None or time is None:
        # Padding in time comes behind what is read: the walk does not get there.
        more = [[0, rows], [0, steps]]
        x = tf.pad(x, [*more, [0, 0]])
        mask = None if mask is None else tf.pad(mask, more)
        states = [tf.pad(state, [[0, rows], [0, 0]]) for state in states]
    length = true_time if time is None else None
    outputs, finals = _run(walk, x, states, mask, weights, save, parts, True, length)
    if batch is None or time is None:
        outputs = outputs[:true_batch, :true_time]
        finals = [final[:true_batch] for final in finals]
    return outputs, finals


def _round_up(size: tf.Tensor, least: int) -> tf.Tensor:
    """The next of few sizes: powers of two to 8, multiples of 8 to 128, then eighths of octaves.

    Args:
        size: `<int>[]`.
        least: the smallest size to give, a power of two up to 8.
    """
    # The octave that holds size - 1; a wrong one, by rounding, would still give a size that fits.
    logarithm = tf.math.log(tf.cast(tf.maximum(size - 1, 1), tf.float32) + 0.5) / np.log(2.0)
    octave = tf.cast(tf.floor(logarithm), tf.int32)
    multiple = tf.bitwise.left_shift(1, tf.maximum(octave - 3, 3))
    power = tf.bitwise.left_shift(1, octave + 1)
    small = tf.where(size <= 1, 1, power)
    large = (size + multiple - 1) // multiple * multiple
    return tf.maximum(tf.where(size <= 8, small, large), least)


def _run(
    walk: _Walk,
    x: tf.Tensor,
    states: States,
    mask: tf.Tensor | None,
    weights: Weights,
    save: bool,
    parts: int,
    compiled: bool,
    length: tf.Tensor | None = None,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """The walk as one differentiable op, forward and back in `parts` parts of the batch."""
    cell, count = walk.cell, len(states)
    masks = _cut(mask, parts)
    xs = _cut(x, parts)
    program = functools.partial(
        _program, compiled=compiled, shapes=(tuple(x.shape[:2]), weights.units)
    )

    def pieces(states: States) -> list[list[tf.Tensor]]:
        return [list(piece) for piece in zip(*[_cut(s, parts) for s in states], strict=True)]

    def forward(save: bool, states: States, weights: Weights) -> list[tuple[Any, ...]]:
        walked = program(_forward_program, walk, save)
        starts, inner = pieces(states), weights._replace(kernel=None)
        return [
            walked(_project(xs[i], weights.kernel), masks[i], starts[i], inner, length)
            for i in range(parts)
        ]

    @tf.custom_gradient
    def call(x: tf.Tensor, *more: tf.Tensor) -> Any:
        states, weights = more[:count], Weights(*more[count:])
        with record.stop_recording():  # else the tape would differentiate the programs themselves
            done = forward(save, states, weights)

        def gradient(d_outputs: tf.Tensor, *d_finals: tf.Tensor) -> list[tf.Tensor]:
            # Without a tape in sight nothing was kept; a caller outside may want it after all.
            kept = [d[2] for d in (done if save else forward(True, states, weights))]
            d_outputs = _cut(tf.convert_to_tensor(d_outputs), parts)
            starts, d_ends = pieces(states), pieces(d_finals)
            back = program(_backward_program, walk, True)
            inner = weights._replace(kernel=None)
            d_xs, d_starts, d_parts = [], [], []
            for i in range(parts):
                sums, d_start = back(
                    d_outputs[i], d_ends[i], masks[i], starts[i], inner, kept[i], length
                )
                d_projection, d_part = _weight_gradients(cell, xs[i], starts[i][0], sums, kept[i])
                d_xs.append(_input_gradient(d_projection, weights.kernel))
                d_starts.append(d_start)
                d_parts.append(d_part)
            d_states = [_join([d_start[k] for d_start in d_starts]) for k in range(count)]
            d_weights = [tf.add_n(same) for same in zip(*d_parts, strict=True)]
            return [_join(d_xs), *d_states, *d_weights]

        finals = [_join([piece[1][k] for piece in done]) for k in range(count)]
        return (_join([piece[0] for piece in done]), *finals), gradient

    outputs, *finals = call(x, *states, *[weight for weight in weights if weight is not None])
    return outputs, finals


@functools.lru_cache(maxsize=256)
def _program(
    body: Callable[..., Any], walk: _Walk, save: bool, compiled: bool, shapes: Any
) -> Callable[..., Any]:
    """One program; layers of equal shapes share it, and what XLA makes of it."""
    del shapes  # they keep programs apart that would be traced anew for each other
    function = functools.partial(body, walk, compiled, save)
    if not compiled:
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def _cut(value: tf.Tensor | None, parts: int) -> list[Any]:
    """Parts of a batch that are equal, or nearly so."""
    if value is None or parts == 1:
        return [value] * parts
    size = tf.shape(value)[0] if value.shape[0] is None else value.shape[0]
    return [value[size * i // parts : size * (i + 1) // parts] for i in range(parts)]


def _join(parts: list[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)


# --- The programs ---------------------------------------------------------------------------------


def _forward_program(
    walk: _Walk,
    compiled: bool,
    save: bool,
    projection: tf.Tensor,
    mask: tf.Tensor | None,
    states: States,
    weights: Weights,
    length: tf.Tensor | None,
) -> tuple[tf.Tensor, list[tf.Tensor], _Kept | None]:
    """Outputs, final states, and what the way back needs, if it is to be kept."""
    if not compiled and not save:
        after, finals = _infer(walk, projection, mask, states, weights)
        kept = None
    else:
        # XLA vectorises the tanh of a GRU only where its value is kept: 1.4 times faster so.
        keep = save or walk.cell == "gru"
        kept, finals = _forward(walk, projection, mask, states, weights, length, keep)
        after = kept.states
    outputs = _swap(after)
    if mask is not None:
        zero = tf.zeros([], outputs.dtype)
        outputs = tf.where(_shown(walk, mask)[:, :, None], outputs, zero)
    return outputs, finals, kept if save else None


def _forward(
    walk: _Walk,
    projection: tf.Tensor,
    mask: tf.Tensor | None,
    states: States,
    weights: Weights,
    length: tf.Tensor | None,
    keep: bool,
) -> tuple[_Kept, list[tf.Tensor]]:
    """The walk through `length` steps (all, if `None`)."""
    time = _size(projection, 0)
    mask_array = None if mask is None else _array(tf.transpose(mask)[:, :, None])
    step = functools.partial(_STEPS[walk.cell], weights=weights, scale=_scale(walk.cell, weights))
    keep_gates = keep and walk.cell != "simple_rnn"
    keep_extra = keep and walk.cell in ("lstm", "gru")
    gates = _array(projection)
    arrays = (_room(states[0], time),)
    if keep_extra:
        arrays += (_room(states[0], time),)
    if keep_gates:
        arrays += (gates,)  # written over the projection

    def body(k: tf.Tensor, states: States, arrays: Any) -> Any:
        made, extra, new = step((arrays[-1] if keep_gates else gates).read(k), states)
        if mask_array is not None:
            real = mask_array.read(k)
            new = [tf.where(real, a, b) for a, b in zip(new, states, strict=True)]
        values = [new[0]]
        if keep_extra:
            values.append(new[1] if walk.cell == "lstm" else extra)
        if keep_gates:
            values.append(made)
        written = tuple(a.write(k, v) for a, v in zip(arrays, values, strict=True))
        return k + 1, tuple(new), written

    end = time if length is None else length
    _, finals, arrays = tf.while_loop(
        lambda k, *_: k < end, body, (tf.constant(0), tuple(states), arrays)
    )
    stacked = [array.stack() for array in arrays]
    kept = _Kept(
        stacked[0], stacked[-1] if keep_gates else None, stacked[1] if keep_extra else None
    )
    return kept, list(finals)


def _backward_program(
    walk: _Walk,
    compiled: bool,
    save: bool,
    d_outputs: tf.Tensor,
    d_finals: States,
    mask: tf.Tensor | None,
    states: States,
    weights: Weights,
    kept: _Kept,
    length: tf.Tensor | None,
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Gradients by the sums of a step, each `<float>[time, batch, width]`, and by the states."""
    del save
    zero = tf.zeros([], d_outputs.dtype)
    time = _size(kept.states, 0)
    mask_array = None
    if mask is not None:
        d_outputs = tf.where(_shown(walk, mask)[:, :, None], d_outputs, zero)
        mask_array = _array(tf.transpose(mask)[:, :, None])
    before = _before(kept.states, states[0])
    d_array = _array(_swap(d_outputs))
    gates = [] if kept.gates is None else tf.split(kept.gates, len(_SCALES[walk.cell]), axis=2)
    sources = {
        "simple_rnn": lambda: [kept.states],
        "gru": lambda: [*gates, before, kept.extra],
        "gru_before": lambda: [*gates, before],
        "lstm": lambda: [*gates, kept.extra, _before(kept.extra, states[1])],
    }[walk.cell]()
    arrays = [_array(source) for source in sources]
    # Transposed once: in the loop a transposed factor costs 40 % more.
    transposed = tf.transpose(weights.recurrent)
    units = weights.units
    widths = {
        "simple_rnn": [units],
        "gru": [3 * units, units],
        "gru_before": [2 * units, units],
        "lstm": [4 * units],
    }[walk.cell]
    through = transposed[: widths[0]]

    def body(k: tf.Tensor, d: States, outs: Any) -> Any:
        t = k - 1
        d = [d[0] + d_array.read(t), *d[1:]]
        sums, direct = _BACK_STEPS[walk.cell]([a.read(t) for a in arrays], d, transposed)
        if mask_array is not None:
            real = mask_array.read(t)
            sums = [tf.where(real, s, zero) for s in sums]
            direct = [
                tf.where(real, zero if a is None else a, b) for a, b in zip(direct, d, strict=True)
            ]
        d_h = tf.matmul(sums[0], through)
        if direct[0] is not None:
            d_h += direct[0]
        written = tuple(out.write(t, s) for out, s in zip(outs, sums, strict=True))
        return t, (d_h, *direct[1:]), written

    outs = tuple(_room(states[0], time, width) for width in widths)
    end = tf.convert_to_tensor(time if length is None else length)
    _, d_states, outs = tf.while_loop(lambda k, *_: k > 0, body, (end, tuple(d_finals), outs))
    return [out.stack() for out in outs], list(d_states)


# --- The large products, outside the compiled programs: those fit layers of any input width -------


def _project(x: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """`<float>[batch, time, features]` to `<float>[time, batch, gates * units]`."""
    x = _swap(x)
    features, width = kernel.shape
    flat = tf.matmul(tf.reshape(x, [-1, features]), kernel)
    return tf.reshape(flat, [_size(x, 0), _size(x, 1), width])


def _weight_gradients(
    cell: Cell, x: tf.Tensor, first: tf.Tensor, sums: list[tf.Tensor], kept: _Kept
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """One large product for each weight, or for all of them.

    Args:
        cell: which.
        x: `<float>[batch, time, features]`.
        first: `<float>[batch, units]`, the initial state.
        sums: gradients by the recurrent products, and in a GRU by the candidate's sum.
        kept: by the forward walk.

    Returns:
        The gradient by the projection `<float>[time, batch, gates * units]`, and those by the
        weights in the order of `Weights`.
    """
    rows, features, units = [_size(x, 1), _size(x, 0)], x.shape[-1], first.shape[-1]
    x, h, *sums = (_flat(v) for v in (_swap(x), _before(kept.states, first), *sums))
    if cell in ("lstm", "simple_rnn"):
        product = _product(tf.concat([x, h, tf.ones_like(x[:, :1])], 1), sums[0])
        d_weights = [product[:features], product[features:-1], product[-1]]
        return tf.reshape(sums[0], [*rows, sums[0].shape[-1]]), d_weights
    d_projection = tf.concat([sums[0][:, : 2 * units], sums[1]], 1)
    d_kernel, d_bias = _product(x, d_projection), tf.reduce_sum(d_projection, 0)
    if cell == "gru":
        d_candidate = tf.reduce_sum(sums[0][:, 2 * units :], 0)
        d_recurrent_bias = tf.concat([d_bias[: 2 * units], d_candidate], 0)
        d_weights = [d_kernel, _product(h, sums[0]), d_bias, d_recurrent_bias]
    else:
        reset = _half(_flat(kept.gates[:, :, units : 2 * units]))
        d_recurrent = tf.concat([_product(h, sums[0]), _product(reset * h, sums[1])], 1)
        d_weights = [d_kernel, d_recurrent, d_bias]
    return tf.reshape(d_projection, [*rows, 3 * units]), d_weights


def _input_gradient(d_projection: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Gradient by the input `<float>[batch, time, features]`."""
    flat = tf.matmul(_flat(d_projection), kernel, transpose_b=True)
    time, batch = _size(d_projection, 0), _size(d_projection, 1)
    return _swap(tf.reshape(flat, [time, batch, kernel.shape[0]]))


# --- One step forward: (kept gates, extra, new states) --------------------------------------------


def _simple_rnn_step(p: tf.Tensor, states: States, weights: Weights, scale: tf.Tensor) -> Any:
    del scale
    (h,) = states
    return None, None, [tf.tanh(p + (tf.matmul(h, weights.recurrent) + weights.bias))]


def _lstm_step(p: tf.Tensor, states: States, weights: Weights, scale: tf.Tensor) -> Any:
    h, c = states
    gates = tf.tanh(scale * (p + (tf.matmul(h, weights.recurrent) + weights.bias)))
    i, f, g, o = tf.split(gates, 4, axis=1)
    c = _half(f) * c + _half(i) * g
    return gates, None, [_half(o) * tf.tanh(c), c]


def _gru_step(p: tf.Tensor, states: States, weights: Weights, scale: tf.Tensor) -> Any:
    del scale
    (h,) = states
    units = weights.units
    q = tf.matmul(h, weights.recurrent) + weights.recurrent_bias
    p = p + weights.bias
    zr = tf.tanh(0.5 * (p[:, : 2 * units] + q[:, : 2 * units]))
    z, r = _half(zr[:, :units]), _half(zr[:, units:])
    inner = q[:, 2 * units :]
    n = tf.tanh(p[:, 2 * units :] + r * inner)
    return tf.concat([zr, n], 1), inner, [n + z * (h - n)]


def _gru_before_step(p: tf.Tensor, states: States, weights: Weights, scale: tf.Tensor) -> Any:
    del scale
    (h,) = states
    units = weights.units
    p = p + weights.bias
    zr = tf.tanh(0.5 * (p[:, : 2 * units] + tf.matmul(h, weights.recurrent[:, : 2 * units])))
    z, r = _half(zr[:, :units]), _half(zr[:, units:])
    n = tf.tanh(p[:, 2 * units :] + tf.matmul(r * h, weights.recurrent[:, 2 * units :]))
    return tf.concat([zr, n], 1), None, [n + z * (h - n)]


_STEPS = {
    "simple_rnn": _simple_rnn_step,
    "gru": _gru_step,
    "gru_before": _gru_before_step,
    "lstm": _lstm_step,
}


# --- One step back: (gradients by the sums, gradients by the states before, past the product) -----
# The first of the sums is what the recurrent product leads back to the state.


def _simple_rnn_back(values: list[tf.Tensor], d: States, transposed: tf.Tensor) -> Any:
    del transposed
    (h,) = values
    return [d[0] * (1 - h * h)], [None]


def _lstm_back(values: list[tf.Tensor], d: States, transposed: tf.Tensor) -> Any:
    del transposed
    ai, af, g, ao, c, c_before = values
    d_h, d_c = d
    i, f, o = _half(ai), _half(af), _half(ao)
    tanh_c = tf.tanh(c)
    d_c = d_c + d_h * o * (1 - tanh_c * tanh_c)
    parts = [
        d_c * g * _slope(ai),
        d_c * c_before * _slope(af),
        d_c * i * (1 - g * g),
        d_h * tanh_c * _slope(ao),
    ]
    return [tf.concat(parts, 1)], [None, d_c * f]


def _gru_back(values: list[tf.Tensor], d: States, transposed: tf.Tensor) -> Any:
    del transposed
    az, ar, n, h, inner = values
    z, r = _half(az), _half(ar)
    d_n = d[0] * (1 - z) * (1 - n * n)
    d_z = d[0] * (h - n) * _slope(az)
    d_r = d_n * inner * _slope(ar)
    return [tf.concat([d_z, d_r, d_n * r], 1), d_n], [d[0] * z]


def _gru_before_back(values: list[tf.Tensor], d: States, transposed: tf.Tensor) -> Any:
    az, ar, n, h = values
    z, r = _half(az), _half(ar)
    d_n = d[0] * (1 - z) * (1 - n * n)
    d_z = d[0] * (h - n) * _slope(az)
    d_rh = tf.matmul(d_n, transposed[2 * h.shape[-1] :])
    d_r = d_rh * h * _slope(ar)
    return [tf.concat([d_z, d_r], 1), d_n], [d[0] * z + d_rh * r]


_BACK_STEPS = {
    "simple_rnn": _simple_rnn_back,
    "gru": _gru_back,
    "gru_before": _gru_before_back,
    "lstm": _lstm_back,
}


# --- Plain inference ------------------------------------------------------------------------------


def _infer(
    walk: _Walk, projection: tf.Tensor, mask: tf.Tensor | None, states: States, weights: Weights
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """States after each step `<float>[time, batch, units]`, and the final ones."""
    bias = weights.bias
    if walk.cell == "gru":
        # The gates' bias goes into the projection; the candidate's must wait for the reset gate.
        gates, candidate = tf.split(weights.recurrent_bias, [2 * weights.units, weights.units])
        bias += tf.concat([gates, tf.zeros_like(candidate)], 0)
        weights = weights._replace(recurrent_bias=candidate)
    projection += bias
    real = None if mask is None else tf.transpose(mask)[:, :, None]
    step = functools.partial(_infer_step, walk.cell, weights)
    if projection.shape[0] == 1:
        finals = step(
            _gate_sums(walk.cell, projection[0]), None if real is None else real[0], states
        )
        return finals[0][None], finals
    time = _size(projection, 0)
    chunks = (time + _UNROLL - 1) // _UNROLL
    rooms = _infer_chunks(
        walk.cell, step, _chunked(projection, chunks), _chunked(real, chunks), states
    )
    after = [tf.reshape(room, [-1, _size(room, 2), room.shape[3]]) for room in rooms]
    finals = [room[time + _UNROLL - 1] for room in after]
    return after[0][_UNROLL : _UNROLL + time], finals


def _chunked(value: tf.Tensor | None, count: Any) -> tf.TensorArray | None:
    """Cuts steps into `count` chunks `<float>[_UNROLL, batch, width]`, the last one filled up."""
    if value is None:
        return None
    missing = count * _UNROLL - _size(value, 0)
    value = tf.pad(value, [[0, missing], [0, 0], [0, 0]])
    array = tf.TensorArray(value.dtype, count, element_shape=[_UNROLL, *value.shape[1:]])
    return array.unstack(tf.reshape(value, [count, _UNROLL, _size(value, 1), value.shape[2]]))


def _infer_chunks(
    cell: Cell,
    step: Callable[..., list[tf.Tensor]],
    sums: tf.TensorArray,
    reals: tf.TensorArray | None,
    states: States,
) -> list[tf.Tensor]:
    """Each state after each step, `<float>[1 + chunks, _UNROLL, batch, units]`.

    The first chunk is the initial state: so the final one is found by its place, even after none.
    """
    count = sums.size()
    rooms = []
    for state in states:
        room = tf.TensorArray(state.dtype, count + 1, element_shape=[_UNROLL, *state.shape])
        rooms.append(room.write(0, tf.tile(state[None], [_UNROLL, 1, 1])))

    def body(k: tf.Tensor, states: States, rooms: Any) -> Any:
        masks = [None] * _UNROLL if reals is None else tf.unstack(reals.read(k), _UNROLL)
        made = []
        # Cut into gates for all steps of the chunk at once, which saves an op a step.
        parts = [tf.unstack(part, _UNROLL) for part in _gate_sums(cell, sums.read(k))]
        for *p, m in zip(*parts, masks, strict=True):
            states = step(p, m, states)
            made.append(states)
        after = [tf.stack(same) for same in zip(*made, strict=True)]
        rooms = tuple(room.write(k + 1, a) for room, a in zip(rooms, after, strict=True))
        return k + 1, tuple(states), rooms

    start = (tf.constant(0), tuple(states), tuple(rooms))
    ended = tf.while_loop(lambda k, *_: k < count, body, start, parallel_iterations=1)
    return [room.stack() for room in ended[2]]


def _gate_sums(cell: Cell, sums: tf.Tensor) -> list[tf.Tensor]:
    """The parts of the projection that `_infer_step` takes: a GRU's gates and candidate apart."""
    if cell not in ("gru", "gru_before"):
        return [sums]
    units = sums.shape[-1] // 3
    return tf.split(sums, [2 * units, units], axis=-1)


def _infer_step(
    cell: Cell, weights: Weights, p: list[tf.Tensor], real: tf.Tensor | None, states: States
) -> list[tf.Tensor]:
    """New states, in few ops; the bias is in the projection."""
    h, units = states[0], weights.units
    recurrent = weights.recurrent
    if cell == "simple_rnn":
        new = [tf.tanh(p[0] + tf.matmul(h, recurrent))]
    elif cell == "lstm":
        i, f, g, o = tf.split(p[0] + tf.matmul(h, recurrent), 4, axis=1)
        c = tf.sigmoid(f) * states[1] + tf.sigmoid(i) * tf.tanh(g)
        new = [tf.sigmoid(o) * tf.tanh(c), c]
    else:
        p_zr, p_n = p
        if cell == "gru":
            q_zr, q_n = tf.split(tf.matmul(h, recurrent), [2 * units, units], axis=1)
            z, r = tf.split(tf.sigmoid(p_zr + q_zr), 2, axis=1)
            n = tf.tanh(p_n + r * (q_n + weights.recurrent_bias))
        else:
            q_zr = tf.matmul(h, recurrent[:, : 2 * units])
            z, r = tf.split(tf.sigmoid(p_zr + q_zr), 2, axis=1)
            n = tf.tanh(p_n + tf.matmul(r * h, recurrent[:, 2 * units :]))
        new = [n + z * (h - n)]
    if real is None:
        return new
    return [tf.where(real, a, b) for a, b in zip(new, states, strict=True)]


# --- Small things ---------------------------------------------------------------------------------


def _half(gate: tf.Tensor) -> tf.Tensor:
    """The sigmoid of a sum, from the tanh of half of it."""
    return 0.5 * gate + 0.5


def _slope(gate: tf.Tensor) -> tf.Tensor:
    """The derivative of that sigmoid."""
    return 0.25 - 0.25 * gate * gate


def _swap(value: tf.Tensor) -> tf.Tensor:
    """Batch-major to time-major and back."""
    return tf.transpose(value, [1, 0, 2])


def _flat(value: tf.Tensor) -> tf.Tensor:
    """`[time, batch, width]` to `[time * batch, width]`."""
    return tf.reshape(value, [-1, value.shape[-1]])


def _size(value: tf.Tensor, axis: int) -> Any:
    """A dimension: a number where it is known."""
    return tf.shape(value)[axis] if value.shape[axis] is None else value.shape[axis]


def _scale(cell: Cell, weights: Weights) -> tf.Tensor:
    return tf.constant(np.repeat(_SCALES[cell], weights.units), weights.recurrent.dtype)


def _product(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.matmul(a, b, transpose_a=True)


def _array(value: tf.Tensor) -> tf.TensorArray:
    """An array that holds the rows of a tensor."""
    array = tf.TensorArray(value.dtype, _size(value, 0), element_shape=value.shape[1:])
    return array.unstack(value)


def _room(like: tf.Tensor, time: Any, width: int | None = None) -> tf.TensorArray:
    """An array with room for a `<float>[batch, width]` a step."""
    shape = [like.shape[0], width or like.shape[1]]
    return tf.TensorArray(like.dtype, time, element_shape=shape)


def _before(after: tf.Tensor, first: tf.Tensor) -> tf.Tensor:
    """The state before each step, `<float>[time, batch, units]`, from those after each."""
    return tf.concat([first[None], after[:-1]], 0)


def _shown(walk: _Walk, mask: tf.Tensor) -> tf.Tensor:
    """Where an output is the state `<bool>[batch, time]`; elsewhere it is zero."""
    if walk.zero_output:
        return mask
    # From a row's first real step on: before it there is no output to repeat.
    return tf.cumsum(tf.cast(mask, tf.int32), axis=1) > 0
