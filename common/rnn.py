"""Recurrent layers: the plain RNN, the GRU, the LSTM, bidirectional and deep RNNs.

`SimpleRNN`, `GRU` and `LSTM` are Keras's layers of the same names: the same arguments, the same
weights in the same order, the same numbers. Swap the import; weights and `.weights.h5` files are
interchangeable. `bidirectional` and `stack` build on these layers.

Shapes are written `<type>[dimensions]`. A mask is `<bool>[batch, time]`, true at real steps, and
comes from the length of each row (`length_mask`): rows are right-padded. On such masks every block
here guarantees:

* the final state of a row is its state at the last real step;
* padding values and the amount of padding never affect an output at a real step or a state;
* with `zero_output_for_mask=True`, which `bidirectional` and `stack` set, outputs at padded steps
  are zero;
* the outputs of a row of length zero are zero, and its state is the initial one.

The three layers do their work in Keras's `inner_loop(sequences, initial_state, mask, training)`,
which receives whole sequences and the initial states, and returns `(last output, outputs, states)`.
On a CPU the fused kernels of `common.rnn_kernels` replace it for every layer that they cover. Keras
computes all others, and every layer where there is a GPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from common import rnn_kernels

import keras
from keras import ops

Cell = Literal["simple_rnn", "gru", "lstm"]
Shape = tuple[int | None, ...]

__all__ = ["GRU", "LSTM", "DeepRNN", "SimpleRNN", "bidirectional", "length_mask", "stack"]


@keras.saving.register_keras_serializable("common")
class SimpleRNN(keras.layers.SimpleRNN):
    """Plain recurrent layer (Elman network).

    One step, with the input `x` `<float>[batch, features]` and the state `h`
    `<float>[batch, units]`, which is also the output:

        h <- tanh(x @ kernel + h @ recurrent_kernel + bias)

    The gradient of a late output with respect to an early input is a product of one factor
    `recurrent_kernel.T * tanh'` per step, so it shrinks or grows geometrically with the distance.
    This is why a plain RNN forgets; the gates of `GRU` and `LSTM` prevent it.

    Args: those of `keras.layers.SimpleRNN`. The most common ones:
      units: positive integer, the width of the state and the output.
      return_sequences: whether to return the output of every step or only the last one.
      return_state: whether to return the final state after the output.
      go_backwards: whether to read from the last step to the first. Outputs are in reading order,
        that is reversed; the mask that Keras passes on is not.
      zero_output_for_mask: whether outputs at padded steps are zero (`True`) or repeat the last
        real output (`False`, Keras's default). Leave it `False` together with
        `return_sequences=False`: the last output of a padded row would be zero.

    Weights: `kernel` `<float>[features, units]`, `recurrent_kernel` `<float>[units, units]`, `bias`
    `<float>[units]`.

    Call arguments:
      sequences: `<float>[batch, time, features]`.
      initial_state: list of one `<float>[batch, units]`; zeros if `None`.
      mask: `<bool>[batch, time]`; the state does not change at a false step.
      training: whether `dropout` and `recurrent_dropout` are active.

    Returns:
      `<float>[batch, time, units]` with `return_sequences`, else `<float>[batch, units]`; with
      `return_state` a tuple of it and the final state `<float>[batch, units]`.

    Example:
      >>> import numpy as np
      >>> ones = {"kernel_initializer": "ones", "recurrent_initializer": "ones"}
      >>> layer = SimpleRNN(1, return_sequences=True, **ones)
      >>> outputs = layer(np.array([[[0.5], [0.0], [0.0]]]))
      >>> outputs.numpy().ravel().round(4)  # tanh(0.5), the tanh of that, ...
      array([0.4621, 0.4318, 0.4068], dtype=float32)

    Reference:
      - [Elman, 1990: Finding structure in time](https://doi.org/10.1207/s15516709cog1402_1)
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool | None = False
    ) -> Any:
        """Run the fused kernel if it covers the layer, else Keras's computation."""
        if not rnn_kernels.covers(self, mask, training):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        return rnn_kernels.inner_loop("simple_rnn", self, sequences, initial_state, mask, training)


@keras.saving.register_keras_serializable("common")
class GRU(keras.layers.GRU):
    """Gated recurrent unit.

    One step, with the input `x` `<float>[batch, features]`, the state `h` `<float>[batch, units]`,
    which is also the output, the update gate `z`, the reset gate `r` and the candidate `n` (columns
    of the weights in this order):

        z = sigmoid(x @ W_z + h @ U_z + b_z)
        r = sigmoid(x @ W_r + h @ U_r + b_r)
        n = tanh(x @ W_n + b_n + r * (h @ U_n + recurrent_b_n))      with reset_after=True
        n = tanh(x @ W_n + b_n + (r * h) @ U_n)                      with reset_after=False
        h <- z * h + (1 - z) * n

    Where `z` is near one, the state and its gradient pass the step unchanged.

    Args: those of `keras.layers.GRU`. The most common ones:
      units: positive integer, the width of the state and the output.
      reset_after: whether the reset gate is applied after the recurrent product (`True`, the form
        of cuDNN and PyTorch, with a second bias) or before it (`False`, the form of the paper).
      return_sequences: whether to return the output of every step or only the last one.
      return_state: whether to return the final state after the output.
      go_backwards: whether to read from the last step to the first. Outputs are in reading order,
        that is reversed; the mask that Keras passes on is not.
      zero_output_for_mask: whether outputs at padded steps are zero (`True`) or repeat the last
        real output (`False`, Keras's default). Leave it `False` together with
        `return_sequences=False`: the last output of a padded row would be zero.

    Weights: `kernel` `<float>[features, 3 * units]`, `recurrent_kernel`
    `<float>[units, 3 * units]`, `bias` `<float>[2, 3 * units]` (input bias, recurrent bias) or,
    with `reset_after=False`, `<float>[3 * units]`.

    Call arguments:
      sequences: `<float>[batch, time, features]`.
      initial_state: list of one `<float>[batch, units]`; zeros if `None`.
      mask: `<bool>[batch, time]`; the state does not change at a false step.
      training: whether `dropout` and `recurrent_dropout` are active.

    Returns:
      `<float>[batch, time, units]` with `return_sequences`, else `<float>[batch, units]`; with
      `return_state` a tuple of it and the final state `<float>[batch, units]`.

    Example:
      >>> import numpy as np
      >>> x, length = np.ones((2, 10, 8)), np.array([10, 7])
      >>> output, state = GRU(4, return_state=True)(x, mask=length_mask(length, x))
      >>> output.shape, state.shape
      (TensorShape([2, 4]), TensorShape([2, 4]))
      >>> bool(ops.all(output == state))
      True

    Reference:
      - [Cho et al., 2014: Learning phrase representations using RNN encoder-decoder
        for statistical machine translation](https://arxiv.org/abs/1406.1078)
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool | None = False
    ) -> Any:
        """Run the fused kernel if it covers the layer, else Keras's computation."""
        if not rnn_kernels.covers(self, mask, training):
            loop = super().inner_loop
            return rnn_kernels.keras_loop(loop, self, sequences, initial_state, mask, training)
        return rnn_kernels.inner_loop(
            "gru" if self.reset_after else "gru_before",
            self,
            sequences,
            initial_state,
            mask,
            training,
        )


@keras.saving.register_keras_serializable("common")
class LSTM(keras.layers.LSTM):
    """Long short-term memory.

    One step, with the input `x` `<float>[batch, features]`, the state `h` `<float>[batch, units]`,
    which is also the output, the cell state `c` `<float>[batch, units]`, the input gate `i`, the
    forget gate `f`, the candidate `g` and the output gate `o` (columns of the weights in this
    order):

        i = sigmoid(x @ W_i + h @ U_i + b_i)      f and o in the same way
        g = tanh(x @ W_g + h @ U_g + b_g)
        c <- f * c + i * g
        h <- o * tanh(c)

    Where `f` is near one, the cell state and its gradient pass the step unchanged. The bias of `f`
    is initialised with one (`unit_forget_bias`), so that an untrained layer remembers.

    Args: those of `keras.layers.LSTM`. The most common ones:
      units: positive integer, the width of the state and the output.
      return_sequences: whether to return the output of every step or only the last one.
      return_state: whether to return the final `h` and `c` after the output.
      go_backwards: whether to read from the last step to the first. Outputs are in reading order,
        that is reversed; the mask that Keras passes on is not.
      zero_output_for_mask: whether outputs at padded steps are zero (`True`) or repeat the last
        real output (`False`, Keras's default). Leave it `False` together with
        `return_sequences=False`: the last output of a padded row would be zero.

    Weights: `kernel` `<float>[features, 4 * units]`, `recurrent_kernel`
    `<float>[units, 4 * units]`, `bias` `<float>[4 * units]`.

    Call arguments:
      sequences: `<float>[batch, time, features]`.
      initial_state: list of `h` and `c`, both `<float>[batch, units]`; zeros if `None`.
      mask: `<bool>[batch, time]`; the states do not change at a false step.
      training: whether `dropout` and `recurrent_dropout` are active.

    Returns:
      `<float>[batch, time, units]` with `return_sequences`, else `<float>[batch, units]`; with
      `return_state` a tuple of it and the final `h` and `c`, both `<float>[batch, units]`.

    Example:
      >>> import numpy as np
      >>> x, length = np.ones((2, 10, 8)), np.array([10, 7])
      >>> layer = LSTM(4, return_sequences=True, return_state=True)
      >>> outputs, h, c = layer(x, mask=length_mask(length, x))
      >>> outputs.shape, h.shape, c.shape
      (TensorShape([2, 10, 4]), TensorShape([2, 4]), TensorShape([2, 4]))
      >>> bool(ops.all(outputs[1, length[1] - 1] == h[1]))
      True

    Reference:
      - [Hochreiter and Schmidhuber, 1997: Long short-term memory](
        https://doi.org/10.1162/neco.1997.9.8.1735)
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool | None = False
    ) -> Any:
        """Run the fused kernel if it covers the layer, else Keras's computation."""
        if not rnn_kernels.covers(self, mask, training):
            loop = super().inner_loop
            return rnn_kernels.keras_loop(loop, self, sequences, initial_state, mask, training)
        return rnn_kernels.inner_loop("lstm", self, sequences, initial_state, mask, training)


def bidirectional(
    layer: keras.layers.RNN, merge_mode: str | None = "concat", **kwargs: Any
) -> keras.layers.Bidirectional:
    """Wrap a recurrent layer so that it reads a sequence in both directions.

    Two copies of `layer` with weights of their own run on the sequence: one from the first step to
    the last, one from the last to the first. The outputs of the second one are reversed, so that
    both outputs at an index belong to the same step. The backward copy reads the padding first and
    keeps its initial state there, so it starts at the last real step of each row.

    Args:
      layer: a recurrent layer that reads forwards. Its settings are copied, its weights are not.
      merge_mode: `"concat"`, `"sum"`, `"mul"` or `"ave"` of the two outputs, or `None` for both.
      **kwargs: further arguments of `keras.layers.Bidirectional`, such as `name`.

    Returns:
      A `keras.layers.Bidirectional`. It maps `<float>[batch, time, features]` to
      `<float>[batch, time, 2 * units]` with `"concat"`, else to `<float>[batch, time, units]`;
      outputs at padded steps are zero. If the layer does not return sequences, the forward output
      at the last real step is merged with the backward output at the first step, so that each has
      read the whole row. If the layer returns states, the forward states and then the backward ones
      follow the output.

    Raises:
      ValueError: the layer reads backwards.

    Example:
      >>> import numpy as np
      >>> x, length = np.ones((2, 10, 8)), np.array([10, 7])
      >>> layer = bidirectional(LSTM(4, return_sequences=True))
      >>> layer(x, mask=length_mask(length, x)).shape
      TensorShape([2, 10, 8])

    Reference:
      - [Schuster and Paliwal, 1997: Bidirectional recurrent neural networks](
        https://doi.org/10.1109/78.650093)
    """
    if layer.go_backwards:
        raise ValueError(
            f"Layer {layer.name!r} has go_backwards=True. Pass a layer that reads forwards: "
            "bidirectional() creates the backward copy itself."
        )
    kwargs.setdefault("dtype", layer.dtype_policy)
    # Keras sets zero_output_for_mask on both copies if they return sequences. Else it clears the
    # flag, since the last output of a padded row would be zero.
    return Bidirectional(layer, merge_mode=merge_mode, **kwargs)


@keras.saving.register_keras_serializable("common")
class Bidirectional(keras.layers.Bidirectional):
    """Keras's layer with each direction on one core; created by `bidirectional`."""

    def __init__(self, layer: keras.layers.RNN, *args: Any, **kwargs: Any):
        super().__init__(layer, *args, **kwargs)
        self.supports_masking = True  # a pre-release of Keras 3.16 has False, and warns
        # If each direction split its batch between two cores, as a single layer does, it would read
        # its weights twice per step.
        self.forward_layer.side_by_side = self.backward_layer.side_by_side = True


def stack(
    cell: Cell | type[keras.layers.RNN],
    units: int,
    layers: int,
    *,
    bidirectional: bool = False,
    dropout: float = 0.0,
    residual: bool = False,
    return_sequences: bool = True,
    return_state: bool = False,
    name: str | None = None,
    **kwargs: Any,
) -> DeepRNN:
    """Build a deep RNN: stacked recurrent layers of one kind and width.

    Args:
      cell: `SimpleRNN`, `GRU`, `LSTM` or another recurrent Keras layer class, or one of the names
        `"simple_rnn"`, `"gru"`, `"lstm"`.
      units: positive integer, the width of each layer and direction.
      layers: positive integer, the number of layers.
      bidirectional: whether each layer reads in both directions; its output then has the width
        `2 * units`.
      dropout: fraction of each layer's outputs to drop before the next layer, during training.
        Nothing is dropped before the first layer, after the last one, or between steps.
      residual: whether each layer after the first adds its input to its output. The first layer
        never does: it maps the features to the width of the stack.
      return_sequences: whether to return the output of every step or the final one.
      return_state: whether to return the final states of all layers after the output.
      name: name of the stack.
      **kwargs: further arguments of `cell`, such as `recurrent_initializer`, the same for every
        layer.

    Returns:
      A `DeepRNN`, which documents inputs and outputs.

    Raises:
      ValueError: unknown `cell`, invalid `layers`, or layers that cannot be stacked.

    Example:
      >>> import numpy as np
      >>> x, length = np.ones((2, 10, 40)), np.array([10, 7])
      >>> encoder = stack("lstm", 16, 3, bidirectional=True, dropout=0.2, residual=True)
      >>> encoder(x, mask=length_mask(length, x)).shape
      TensorShape([2, 10, 32])

    Reference:
      - [Graves et al., 2013: Speech recognition with deep recurrent neural networks](
        https://arxiv.org/abs/1303.5778)
    """
    layer_class = _layer_class(cell)
    if not isinstance(layers, int) or layers < 1:
        raise ValueError(f"layers must be a positive integer. Received: {layers!r}")
    recurrent = []
    for i in range(layers):
        layer = layer_class(
            units,
            return_sequences=True,
            return_state=True,
            zero_output_for_mask=True,
            name=f"layer_{i}",
            **kwargs,
        )
        if bidirectional:
            layer = keras.layers.Bidirectional(layer, name=layer.name, dtype=layer.dtype_policy)
        recurrent.append(layer)
    return DeepRNN(
        recurrent,
        dropout=dropout,
        residual=residual,
        return_sequences=return_sequences,
        return_state=return_state,
        name=name,
        dtype=recurrent[0].dtype_policy,
    )


def _layer_class(cell: Cell | type[keras.layers.RNN]) -> type[keras.layers.RNN]:
    """Return the layer class of this name; return a class unchanged."""
    if not isinstance(cell, str):
        return cell
    classes: dict[str, type[keras.layers.RNN]] = {
        "simple_rnn": SimpleRNN,
        "gru": GRU,
        "lstm": LSTM,
    }
    if cell not in classes:
        names = ", ".join(map(repr, classes))
        raise ValueError(f"cell must be one of {names}, or a layer class. Received: {cell!r}")
    return classes[cell]


@keras.saving.register_keras_serializable("common")
class DeepRNN(keras.layers.Layer):
    """Stacked recurrent layers, with dropout between them and residual connections.

    Created by `stack`. With the features `x`, layer by layer:

        y = layer_0(x)
        y = layer_k(dropout(y))              for k = 1, 2, ...
        y = y + layer_k(dropout(y))          instead, with `residual`

    The residual connection bypasses the dropout, so there is a path without dropout from the first
    layer to the output.

    Args:
      layers: list of recurrent layers that read forwards, or of `keras.layers.Bidirectional` of
        such layers with `merge_mode="concat"`. They return sequences and states.
      dropout: fraction of the outputs to drop between layers, during training.
      residual: whether each layer after the first adds its input to its output; all layers must
        then have the same width.
      return_sequences: whether to return the output of every step or the final one.
      return_state: whether to return the final states of all layers after the output.

    Call arguments:
      sequences: `<float>[batch, time, features]`.
      initial_state: flat list of the states of all layers, each `<float>[batch, units]`, in the
        order of `return_state`: layer by layer, the forward before the backward direction, `h`
        before `c` in an LSTM. Zeros if `None`.
      mask: `<bool>[batch, time]`, right-padded. Every layer receives it.
      training: whether dropout is active.

    Returns:
      With `return_sequences` `<float>[batch, time, width]`, zero at padded steps, where `width` is
      that of one layer (`2 * units` if bidirectional); the mask is passed on. Otherwise
      `<float>[batch, width]`: the output at the last real step, and in the backward half of a
      bidirectional stack the output at the first step, so that each half has read the whole row.
      It is zero for a row without real steps. With `return_state` a tuple of that and the final
      states.

    Raises:
      ValueError: a layer that cannot be stacked, or a residual connection between layers of
        different widths.

    Example:
      >>> import numpy as np
      >>> settings = {"return_sequences": True, "return_state": True}
      >>> layer = DeepRNN([GRU(4, **settings), GRU(4, **settings)], residual=True)
      >>> layer(np.ones((2, 10, 8))).shape
      TensorShape([2, 10, 4])

    Reference:
      - [Graves et al., 2013: Speech recognition with deep recurrent neural networks](
        https://arxiv.org/abs/1303.5778)
      - [He et al., 2016: Deep residual learning for image recognition](
        https://arxiv.org/abs/1512.03385)
    """

    def __init__(
        self,
        layers: Sequence[keras.layers.Layer],
        dropout: float = 0.0,
        residual: bool = False,
        return_sequences: bool = True,
        return_state: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.layers = list(layers)
        for layer in self.layers:
            _validate(layer)
        self.dropout = dropout
        self.residual = residual
        self.return_sequences = return_sequences
        self.return_state = return_state
        self.dropouts = [
            keras.layers.Dropout(dropout, name=f"dropout_{i}", dtype=self.dtype_policy)
            for i in range(1, len(self.layers))
        ]
        self.supports_masking = True

    def build(self, sequences_shape: Shape, initial_state_shape: Any = None) -> None:
        """Build every layer for the output width of the previous one."""
        shape = tuple(sequences_shape)
        for i, layer in enumerate(self.layers):
            layer.build(shape)
            input_shape, shape = shape, layer.compute_output_shape(shape)[0]
            if self.residual and i > 0 and input_shape[-1] != shape[-1]:
                raise ValueError(
                    f"Layer {layer.name!r} has input width {input_shape[-1]} and output width "
                    f"{shape[-1]}. A residual connection needs layers of one width."
                )

    def call(
        self,
        sequences: Any,
        initial_state: Sequence[Any] | None = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        """Run the stack; see the class for the arguments."""
        counts = [_state_count(layer) for layer in self.layers]
        if initial_state is not None and len(initial_state) != sum(counts):
            raise ValueError(
                f"initial_state must hold {sum(counts)} tensors. Received: {len(initial_state)}"
            )
        outputs, final = sequences, None
        states: list[Any] = []
        for i, (layer, count) in enumerate(zip(self.layers, counts, strict=True)):
            x = outputs if i == 0 else self.dropouts[i - 1](outputs, training=training)
            start = None
            if initial_state is not None:
                start = list(initial_state[len(states) : len(states) + count])
            new, *new_states = layer(x, initial_state=start, mask=mask, training=training)
            # The first state of a direction is its output at the step that it reads last.
            new_final = new_states[0]
            if isinstance(layer, keras.layers.Bidirectional):
                new_final = ops.concatenate([new_states[0], new_states[count // 2]], axis=-1)
            if self.residual and i > 0:
                outputs, final = outputs + new, final + new_final
            else:
                outputs, final = new, new_final
            states += new_states
        if self.return_sequences:
            output = outputs
        elif mask is None:
            output = final
        else:
            output = ops.where(ops.any(mask, axis=1, keepdims=True), final, ops.zeros_like(final))
        return (output, *states) if self.return_state else output

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        """Pass the mask on with sequences, not with final outputs and states."""
        output_mask = mask if self.return_sequences else None
        if self.return_state:
            return [output_mask] + [None] * sum(map(_state_count, self.layers))
        return output_mask

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with the configuration of each layer."""
        return {
            **super().get_config(),
            "layers": [keras.saving.serialize_keras_object(layer) for layer in self.layers],
            "dropout": self.dropout,
            "residual": self.residual,
            "return_sequences": self.return_sequences,
            "return_state": self.return_state,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> DeepRNN:
        """Create the layers again, without their weights."""
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})


def _validate(layer: keras.layers.Layer) -> None:
    """Raise `ValueError` for a layer that a `DeepRNN` cannot run."""
    if not (layer.return_sequences and layer.return_state):
        raise ValueError(f"Layer {layer.name!r} of a DeepRNN must return sequences and states.")
    if getattr(layer, "merge_mode", "concat") != "concat":
        raise ValueError(f"Layer {layer.name!r} of a DeepRNN must have merge_mode='concat'.")
    if getattr(layer, "go_backwards", False):
        raise ValueError(f"Layer {layer.name!r} of a DeepRNN must read forwards.")


def _state_count(layer: keras.layers.Layer) -> int:
    """Return the number of state tensors of a recurrent layer, in both directions together."""
    if isinstance(layer, keras.layers.Bidirectional):
        return len(layer.forward_layer.state_size) + len(layer.backward_layer.state_size)
    return len(layer.state_size)


def length_mask(length: Any, like: Any) -> Any:
    """Return the mask of right-padded rows, computed from their lengths inside the graph.

    Accepts tensors and, in a functional model, symbolic tensors; the mask is saved with the model.
    So a server may pad a batch with any values, as long as it passes the lengths.

    Args:
      length: `<int>[batch]`, the number of real steps of each row. Values above `time` count as
        `time`, values below 0 as 0.
      like: a tensor `[batch, time, ...]` that the mask is for; only its shape is used.

    Returns:
      `<bool>[batch, time]`, true at the first `length` steps of each row.

    Example:
      >>> import numpy as np
      >>> length_mask(np.array([3, 1, 0]), np.zeros((3, 4, 8))).numpy()
      array([[ True,  True,  True, False],
             [ True, False, False, False],
             [False, False, False, False]])
    """
    return LengthMask()(length, like)


@keras.saving.register_keras_serializable("common")
class LengthMask(keras.layers.Layer):
    """Layer that computes `length_mask`; its call arguments are the same."""

    def __init__(self, **kwargs: Any):
        # A precision policy must not cast the length.
        super().__init__(autocast=False, **kwargs)

    def call(self, length: Any, like: Any) -> Any:
        """Compare the index of each step with the length of its row."""
        steps = ops.arange(ops.shape(like)[1], dtype="int32")
        return steps[None, :] < ops.cast(length, "int32")[:, None]

    def compute_output_spec(self, length: Any, like: Any) -> keras.KerasTensor:
        """Return the shape and type of the mask."""
        return keras.KerasTensor(tuple(like.shape[:2]), dtype="bool")
