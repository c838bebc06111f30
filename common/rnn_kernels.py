"""Fused forward and backward passes of the recurrent layers on a CPU.

A recurrent layer on TensorFlow runs a dozen small ops per step, and automatic differentiation
accumulates the weight gradients step by step. Here instead

* the input of all steps is projected by one matrix product before the scan over time;
* the gates are one `tanh` over the whole row, since `sigmoid(v) = tanh(v / 2) / 2 + 1 / 2`;
* training saves the gates, which overwrite the projection, and one backward scan computes the
  gradients of the gate sums; the gradients of all weights are then single large products.

`common.rnn_cells` holds the equations of the cells and the large products, `common.rnn_scan` the
scans over time. This module chooses how they run and makes them differentiable.

A scan is one `tf.while_loop` over time-major arrays. It has two forms, and `inner_loop` chooses
between them by the width of the layer and by the context:

* Compiled by XLA, which fuses the elementwise work of a step and updates the arrays in place:
  inside a `tf.function` on a CPU, from 32 units. The batch is split between two programs, which run
  on two cores. The two directions of `common.rnn.bidirectional` run on one core each instead.
* Plain: in eager mode, under a distribution strategy, inside a `jit_compile` function, and in
  exports. Compiled functions fail under a strategy and gain nothing inside another one, and TF
  Serving rejects them on a CPU by default. Trace exports inside `portable()`.

`covers` decides for which layers this module is used. Keras computes all others, and every layer
where there is a GPU. bfloat16 and float16 are computed in float32 and cast back.

XLA compiles a program anew for every shape, which takes most of a second. So there are few shapes:

* Only the scan is compiled. The large products, which depend on the width of the input, are not,
  and sequences are reversed outside. All layers of equal cell and units share their programs,
  for any input width and direction.
* A dimension that is known only at run time is padded: up to 8 rows to a power of two, more to
  multiples of 8, and beyond 128 to eighths of a power of two. Steps are padded in the same way,
  from 8 on. Lengths up to 1024 give at most 40 shapes.
* The scan stops at the last requested step, so padded steps cost only their part of the large
  products. Padded rows have gradients of exactly zero.

Limits: second derivatives do not go through the compiled form (nest gradient tapes in eager mode,
where the form is plain). Every padded step that the caller passes is computed, and rows are not
sorted by length, since `common.data.batches` already groups rows of similar length. Keras's
`model.export` must be called inside `portable()`, as `common.serving.publish` does for its own
tracing.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from common import rnn_cells, rnn_scan
from common.rnn_cells import Activations, Cell, States, Weights
from common.rnn_scan import Scan
from common.start_up import cores
from common.tensor_arrays import dimension
from common.tensorflow_internals import is_compiling, is_recording, is_saving

import numpy as np
import tensorflow as tf
from etils import epy

with epy.lazy_imports():
    import keras

__all__ = [
    "Weights",
    "covers",
    "inner_loop",
    "is_portable",
    "keras_loop",
    "may_compile",
    "portable",
    "run",
]

_MIN_COMPILED_UNITS = 32  # training a smaller model takes less time than compiling it

_portable = contextvars.ContextVar("portable", default=False)


# --- Interface of the layers ----------------------------------------------------------------------


@contextlib.contextmanager
def portable() -> Iterator[None]:
    """Trace functions without compiled ones inside, so that any server can run them.

    Example:
      >>> function = tf.function(lambda x: x + 1, input_signature=[tf.TensorSpec([None])])
      >>> with portable():
      ...     concrete = function.get_concrete_function()
      ...     is_portable()
      True
    """
    token = _portable.set(True)
    try:
        yield
    finally:
        _portable.reset(token)


def is_portable() -> bool:
    """Return whether the caller is inside `portable()`.

    Example:
      >>> is_portable()
      False
    """
    return _portable.get()


def covers(
    layer: keras.layers.RNN, mask: tf.Tensor | Sequence[tf.Tensor] | None, training: bool | None
) -> bool:
    """Return whether `inner_loop` equals the layer's own, and no GPU would be faster.

    Args:
      layer: a `SimpleRNN`, `GRU` or `LSTM`.
      mask: mask that the layer's `inner_loop` received.
      training: whether dropout is active.

    Example:
      >>> covers(keras.layers.LSTM(4), None, False)
      True
      >>> covers(keras.layers.LSTM(4, activation="relu"), None, False)
      False
    """
    cell = layer.cell
    sigmoid = getattr(cell, "recurrent_activation", keras.activations.sigmoid)
    step_mask = _first(mask)
    return (
        cell.activation is keras.activations.tanh
        and sigmoid is keras.activations.sigmoid
        and getattr(cell, "implementation", 2) == 2
        and not layer.unroll
        and not layer.stateful
        and getattr(layer, "use_cudnn", "auto") is not True  # Keras raises on a CPU
        and not (training and cell.recurrent_dropout)
        and (step_mask is None or len(step_mask.shape) == 2)
        and not tf.config.list_logical_devices("GPU")
    )


def inner_loop(
    cell: Cell,
    layer: keras.layers.RNN,
    sequences: tf.Tensor,
    initial_state: tf.Tensor | Sequence[tf.Tensor],
    mask: tf.Tensor | Sequence[tf.Tensor] | None,
    training: bool | None,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Compute the same as Keras's `layer.inner_loop`, for a layer that `covers` accepts.

    Args:
      cell: cell of the layer.
      layer: its weights and settings are used.
      sequences: `<float>[batch, time, features]`.
      initial_state: `<float>[batch, units]`, or a list of them.
      mask: `<bool>[batch, time]`, a list that begins with it, or `None`.
      training: whether `dropout` is active.

    Returns:
      The last output `<float>[batch, units]`, the outputs `<float>[batch, time or 1, units]` and
      the list of final states `<float>[batch, units]`.
    """
    if training and layer.cell.dropout:
        dropout_mask = layer.cell.get_dropout_mask(sequences[:, 0, :])
        sequences = sequences * dropout_mask[:, None, :]
    step_mask = _first(mask)
    outputs, states = run(
        cell,
        tf.convert_to_tensor(sequences),
        list(initial_state) if isinstance(initial_state, (list, tuple)) else [initial_state],
        None if step_mask is None else tf.cast(step_mask, tf.bool),
        _layer_weights(cell, layer.cell),
        go_backwards=layer.go_backwards,
        zero_output=layer.zero_output_for_mask,
        compiled=layer.units >= _MIN_COMPILED_UNITS and may_compile(),
        side_by_side=getattr(layer, "side_by_side", False),
    )
    last = outputs[:, -1]
    return last, outputs if layer.return_sequences else last[:, None], states


def keras_loop(
    loop: Callable[..., Any],
    layer: keras.layers.RNN,
    sequences: tf.Tensor,
    initial_state: tf.Tensor | Sequence[tf.Tensor],
    mask: tf.Tensor | Sequence[tf.Tensor] | None,
    training: bool | None,
) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
    """Run Keras's `inner_loop` of a `GRU` or `LSTM`, for rows without a real step, too.

    cuDNN refuses a batch with such a row. So the row runs one step of zeros, and its results are
    replaced by zeros and by its initial state.

    Args:
      loop: `inner_loop` of Keras's layer.
      layer: the layer.
      sequences: see `inner_loop`, like the other arguments and the results.
      initial_state: see there.
      mask: see there.
      training: see there.
    """
    step_mask = _first(mask)
    if step_mask is None or not layer.use_cudnn or not tf.config.list_logical_devices("GPU"):
        return loop(sequences, initial_state, mask, training=training)
    step_mask = tf.cast(step_mask, tf.bool)
    empty = tf.logical_not(tf.reduce_any(step_mask, axis=1, keepdims=True))
    is_first = tf.range(tf.shape(step_mask)[1])[None] == 0
    sequences, zero = tf.convert_to_tensor(sequences), tf.zeros([], layer.compute_dtype)
    last, outputs, states = loop(
        tf.where(empty[:, :, None], tf.cast(zero, sequences.dtype), sequences),
        initial_state,
        step_mask | (empty & is_first),
        training=training,
    )
    outputs = tf.where(empty[:, :, None], zero, outputs)
    return tf.where(empty, zero, last), outputs, rnn_cells.select(empty, initial_state, states)


def _first(mask: Any) -> Any:
    return mask[0] if isinstance(mask, (list, tuple)) else mask


def _layer_weights(cell: Cell, layer: keras.layers.Layer) -> Weights:
    """Return the weights of a Keras cell, with zeros if it has no bias."""
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
    """Return whether the function that is being traced may contain compiled functions.

    Example:
      >>> may_compile()  # in eager mode
      False
    """
    return (
        tf.inside_function()
        and not _portable.get()
        and not is_saving()
        and not tf.distribute.has_strategy()
        and not is_compiling()
    )


# --- A scan of whole sequences --------------------------------------------------------------------


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
    """Scan sequences; differentiable with respect to every argument except the mask.

    Args:
      cell: `"simple_rnn"`, `"gru"` (reset after the recurrent product), `"gru_before"` or `"lstm"`.
      x: `<float>[batch, time, features]`.
      states: initial states, each `<float>[batch, units]`; `h` and `c` in an `"lstm"`.
      mask: `<bool>[batch, time]`; the states do not change at a false step.
      weights: weights of the cell.
      go_backwards: whether to read from the last step to the first. Outputs are in reading order.
      zero_output: whether outputs at masked steps are zero; else they repeat the last real output.
      compiled: whether XLA compiles the scan; only inside a `tf.function`.
      side_by_side: whether another scan runs at the same time, so that this one uses one core only.

    Returns:
      Outputs `<float>[batch, time, units]` and the list of final states `<float>[batch, units]`.

    Example:
      >>> weights = Weights(tf.ones([1, 1]), tf.ones([1, 1]), tf.zeros([1]))
      >>> x = tf.constant([[[0.5], [0.0]]])
      >>> outputs, states = run("simple_rnn", x, [tf.zeros([1, 1])], None, weights)
      >>> outputs.numpy().round(4).ravel()  # tanh(0.5), and the tanh of that
      array([0.4621, 0.4318], dtype=float32)
    """
    scan = Scan(cell, zero_output)
    dtype = x.dtype
    if go_backwards:  # reversed here, so that both directions share all programs
        x, mask = tf.reverse(x, [1]), None if mask is None else tf.reverse(mask, [1])
    if dtype in (tf.bfloat16, tf.float16):
        x, states, weights = tf.nest.map_structure(
            lambda v: None if v is None else tf.cast(v, tf.float32), (x, list(states), weights)
        )
    save = is_recording()
    if compiled:
        parts = 1 if side_by_side or len(cores()) == 1 else 2
        outputs, final_states = _run_padded(scan, x, states, mask, weights, save, parts)
    else:
        batch = _Batch(scan, x, mask, parts=1, compiled=False)
        if _portable.get() and not save:
            # No gradient function is exported: `tf.saved_model.load` would keep it for ever.
            ((outputs, final_states, _),) = batch.forward(batch.xs, states, weights, save)
        else:
            outputs, final_states = _differentiable_scan(batch, states, weights, save)
    return tf.cast(outputs, dtype), [tf.cast(state, dtype) for state in final_states]


def _run_padded(
    scan: Scan,
    x: tf.Tensor,
    states: States,
    mask: tf.Tensor | None,
    weights: Weights,
    save: bool,
    parts: int,
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Run compiled on one of few shapes, with the batch split into `parts` parts or fewer."""
    batch, time = x.shape[:2]
    # A batch of unknown size is assumed to be large in training and small in serving.
    if (batch is None and not save) or (batch is not None and batch < 8):
        parts = 1
    true_batch, true_time = tf.unstack(tf.shape(x)[:2])
    rows = steps = 0
    if batch is None:
        # Training skips the smallest sizes: a step costs little compared with a compilation.
        least = 8 if save else 1
        rows = parts * _round_up((true_batch + parts - 1) // parts, least) - true_batch
    if time is None:
        steps = _round_up(true_time, 8) - true_time
    if batch is None or time is None:
        # Padded steps follow the real ones, and the scan stops before them.
        padding = [[0, rows], [0, steps]]
        x = tf.pad(x, [*padding, [0, 0]])
        mask = None if mask is None else tf.pad(mask, padding)
        states = [tf.pad(state, [[0, rows], [0, 0]]) for state in states]
    length = true_time if time is None else None
    padded = _Batch(scan, x, mask, parts, compiled=True, length=length)
    outputs, final_states = _differentiable_scan(padded, states, weights, save)
    if batch is None or time is None:
        outputs = outputs[:true_batch, :true_time]
        final_states = [state[:true_batch] for state in final_states]
    return outputs, final_states


def _round_up(size: tf.Tensor, least: int) -> tf.Tensor:
    """Round up to one of few sizes.

    The sizes are powers of two up to 8, multiples of 8 up to 128, then eighths of a power of two.

    Args:
      size: `<int>[]`.
      least: the smallest size to return, a power of two up to 8.

    Example:
      >>> [int(_round_up(tf.constant(size), 1)) for size in (1, 3, 9, 130)]
      [1, 4, 16, 144]
    """
    # The octave of size - 1. If rounding gives a wrong one, the result is still large enough.
    logarithm = tf.math.log(tf.cast(tf.maximum(size - 1, 1), tf.float32) + 0.5) / np.log(2.0)
    octave = tf.cast(tf.floor(logarithm), tf.int32)
    multiple = tf.bitwise.left_shift(1, tf.maximum(octave - 3, 3))
    power = tf.bitwise.left_shift(1, octave + 1)
    small = tf.where(size <= 1, 1, power)
    large = (size + multiple - 1) // multiple * multiple
    return tf.maximum(tf.where(size <= 8, small, large), least)


# --- The differentiable op ------------------------------------------------------------------------


@dataclasses.dataclass(eq=False)
class _Batch:
    """A batch of sequences, split into parts that are scanned by programs of their own.

    Attributes:
      scan: settings.
      x: `<float>[batch, time, features]`.
      mask: `<bool>[batch, time]`, or `None`.
      parts: number of parts.
      compiled: whether XLA compiles the programs.
      length: number of steps to run, or `None` for all.
      masks: mask of each part.
      xs: input of each part.
    """

    scan: Scan
    x: tf.Tensor
    mask: tf.Tensor | None
    parts: int
    compiled: bool
    length: tf.Tensor | None = None
    masks: list[Any] = dataclasses.field(init=False)
    xs: list[Any] = dataclasses.field(init=False)

    def __post_init__(self) -> None:
        self.masks = _split(self.mask, self.parts)
        self.xs = _split(self.x, self.parts)

    def forward(
        self, xs: Sequence[tf.Tensor], states: States, weights: Weights, save: bool
    ) -> list[tuple[tf.Tensor, list[tf.Tensor], Any]]:
        """Return outputs, final states and activations (`None` without `save`) of each part."""
        program = self._program(
            rnn_scan.forward_program, (self.scan, self.compiled, save), weights.units
        )
        starts, inner = _split_each(states, self.parts), weights._replace(kernel=None)
        return [
            program(rnn_cells.project(x, weights.kernel), mask, start, inner, self.length)
            for x, mask, start in zip(xs, self.masks, starts, strict=True)
        ]

    def backward(
        self,
        d_outputs: tf.Tensor,
        d_final_states: States,
        states: States,
        weights: Weights,
        activations: list[Activations],
    ) -> list[tf.Tensor]:
        """Return the gradients of `x`, of the initial states and of the weights, in this order."""
        d_outputs = _split(d_outputs, self.parts)
        starts = _split_each(states, self.parts)
        d_ends = _split_each(d_final_states, self.parts)
        program = self._program(rnn_scan.backward_program, (self.scan,), weights.units)
        inner = weights._replace(kernel=None)
        d_xs, d_starts, d_parts = [], [], []
        for i in range(self.parts):
            start, saved = starts[i], activations[i]
            d_sums, d_start = program(
                d_outputs[i], d_ends[i], self.masks[i], start, inner, saved, self.length
            )
            d_projection, d_part = rnn_cells.weight_gradients(
                self.scan.cell, self.xs[i], start[0], d_sums, saved
            )
            d_xs.append(rnn_cells.input_gradient(d_projection, weights.kernel))
            d_starts.append(d_start)
            d_parts.append(d_part)
        d_states = _join_each(d_starts)
        d_weights = [tf.add_n(parts) for parts in zip(*d_parts, strict=True)]
        return [_join(d_xs), *d_states, *d_weights]

    def _program(
        self, body: Callable[..., Any], settings: tuple[Any, ...], units: int
    ) -> Callable[..., Any]:
        return _program(body, settings, self.compiled, tuple(self.x.shape[:2]), units)


def _differentiable_scan(
    batch: _Batch, states: States, weights: Weights, save: bool
) -> tuple[tf.Tensor, list[tf.Tensor]]:
    """Return outputs and final states, by one op whose gradient is the backward scan."""
    count = len(states)

    @tf.custom_gradient
    def scan(x: tf.Tensor, *more: tf.Tensor) -> Any:
        del x  # `batch` holds its parts
        states, weights = more[:count], Weights(*more[count:])
        # Without stop_gradient a tape would differentiate the programs themselves.
        xs, starts, constants = tf.nest.map_structure(
            lambda v: None if v is None else tf.stop_gradient(v), (batch.xs, states, weights)
        )
        results = batch.forward(xs, starts, constants, save)

        def gradient(d_outputs: tf.Tensor, *d_final_states: tf.Tensor) -> list[tf.Tensor]:
            # Without a tape nothing was saved, but a caller outside the function may have one.
            recomputed = results if save else batch.forward(batch.xs, states, weights, save=True)
            activations = [part[2] for part in recomputed]
            d_outputs = tf.convert_to_tensor(d_outputs)
            return batch.backward(d_outputs, d_final_states, states, weights, activations)

        final_states = _join_each([part[1] for part in results])
        return (_join([part[0] for part in results]), *final_states), gradient

    arguments = [weight for weight in weights if weight is not None]
    outputs, *final_states = scan(batch.x, *states, *arguments)
    return outputs, final_states


@functools.lru_cache(maxsize=256)
def _program(
    body: Callable[..., Any],
    settings: tuple[Any, ...],
    compiled: bool,
    shape: tuple[int | None, ...],
    units: int,
) -> Callable[..., Any]:
    """Return `body` with its settings bound; layers of equal shapes share it and its compilation.

    Args:
      body: `rnn_scan.forward_program` or `rnn_scan.backward_program`.
      settings: its first arguments.
      compiled: whether XLA compiles it.
      shape: batch and time. Like `units` it is only part of the cache key: it separates programs
        that would be traced again for each other.
      units: width of the state.
    """
    del shape, units
    function = functools.partial(body, *settings)
    if not compiled:
        return function
    return tf.function(function, jit_compile=True, autograph=False)


def _split(value: tf.Tensor | None, parts: int) -> list[Any]:
    """Split a batch into parts of equal size, or nearly so."""
    if value is None or parts == 1:
        return [value] * parts
    size = dimension(value, 0)
    return [value[size * i // parts : size * (i + 1) // parts] for i in range(parts)]


def _split_each(states: States, parts: int) -> list[list[tf.Tensor]]:
    """Return the states of each part."""
    return [list(part) for part in zip(*[_split(s, parts) for s in states], strict=True)]


def _join(parts: list[tf.Tensor]) -> tf.Tensor:
    return parts[0] if len(parts) == 1 else tf.concat(parts, 0)


def _join_each(parts: list[list[tf.Tensor]]) -> list[tf.Tensor]:
    """Return the states of the whole batch, given those of each part."""
    return [_join(list(states)) for states in zip(*parts, strict=True)]
