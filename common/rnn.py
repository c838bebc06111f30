"""Recurrent layers: the plain RNN, the GRU, the LSTM, bidirectional and deep.

`SimpleRNN`, `GRU` and `LSTM` are Keras's layers of the same names: the same arguments, the same
weights in the same order, the same numbers. Swap the import; weights and `.weights.h5` files go
from one to the other and back. `bidirectional` and `stack` build on them.

Shapes are written `<type>[dimensions]`. A mask is `<bool>[batch, time]`, true at real steps, and
comes from the length of each row (`length_mask`): real steps first, padding behind them. On such
masks every block here keeps four promises:

* the state after a row is its state at the last real step: padding never moves it;
* whatever stands in the padding, and however much of it there is, changes no output at a real step
  and no state;
* with `zero_output_for_mask=True`, which `bidirectional` and `stack` set, outputs at padded steps
  are zero;
* a row of length zero gives zeros, and its state stays the initial one.

All three layers do their work in Keras's `inner_loop(sequences, initial_state, mask, training)`,
which gets whole sequences with the states resolved and returns `(last output, outputs, states)`. On
a CPU the fused walks of `common.rnn_kernels` take its place there, and nowhere else, for every
layer that they cover; Keras computes the rest, and everything where there is a GPU.
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

    One step, with `x` `<float>[batch, features]` the input and `h` `<float>[batch, units]` the
    state, which is the output too:

        h <- tanh(x @ kernel + h @ recurrent_kernel + bias)

    The gradient of a late output reaches an early input through one factor
    `recurrent_kernel.T * tanh'` a step, so it shrinks (or grows) geometrically with the distance.
    That is why the plain RNN forgets, and what the gates of `GRU` and `LSTM` are for.

    Args: those of `keras.layers.SimpleRNN`. The ones used most:
        units: Positive integer, the width of the state and the output.
        return_sequences: Whether to return the output of every step or of the last one only.
        return_state: Whether to return the final state behind the output.
        go_backwards: Whether to read from the last step to the first. Outputs come in reading
            order, that is reversed; the mask that Keras passes on beside them does not.
        zero_output_for_mask: Whether outputs at padded steps are zero (`True`) or repeat the last
            real output (`False`, Keras's default). Leave it `False` together with
            `return_sequences=False`: the last output of a padded row would be a zero.

    Weights: `kernel` `<float>[features, units]`, `recurrent_kernel` `<float>[units, units]`, `bias`
    `<float>[units]`.

    Call arguments:
        sequences: `<float>[batch, time, features]`.
        initial_state: List of one `<float>[batch, units]`; zeros when `None`.
        mask: `<bool>[batch, time]`; at a false step the state stays what it was.
        training: Whether `dropout` and `recurrent_dropout` are active.

    Returns:
        `<float>[batch, time, units]` with `return_sequences`, else `<float>[batch, units]`; with
        `return_state` a tuple of it and the final state `<float>[batch, units]`.

    Example:
    >>> ones = {"kernel_initializer": "ones", "recurrent_initializer": "ones"}
    >>> layer = SimpleRNN(1, return_sequences=True, **ones)
    >>> layer(np.array([[[0.5], [0.0], [0.0]]]))[0, :, 0]     # tanh(0.5), tanh of that, ...
    [0.4621, 0.4318, 0.4068]

    Reference:
        - [Elman, 1990: Finding structure in time](https://doi.org/10.1207/s15516709cog1402_1)
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool | None = False
    ) -> Any:
        """The fused walk where it covers the layer, else Keras's computation."""
        if not rnn_kernels.covers(self, mask, training):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        return rnn_kernels.inner_loop("simple_rnn", self, sequences, initial_state, mask, training)


@keras.saving.register_keras_serializable("common")
class GRU(keras.layers.GRU):
    """Gated recurrent unit.

    One step, with `x` `<float>[batch, features]` the input, `h` `<float>[batch, units]` the state,
    which is the output too, and `z`, `r`, `n` the update gate, the reset gate and the candidate
    (columns of the weights in this order):

        z = sigmoid(x @ W_z + h @ U_z + b_z)
        r = sigmoid(x @ W_r + h @ U_r + b_r)
        n = tanh(x @ W_n + b_n + r * (h @ U_n + recurrent_b_n))      with reset_after=True
        n = tanh(x @ W_n + b_n + (r * h) @ U_n)                      with reset_after=False
        h <- z * h + (1 - z) * n

    Where `z` is near one the state is carried over unchanged, and so is its gradient.

    Args: those of `keras.layers.GRU`. The ones used most:
        units: Positive integer, the width of the state and the output.
        reset_after: Whether the reset gate is applied after the recurrent product (`True`, the form
            of cuDNN and PyTorch, with a second bias) or before it (`False`, the form of the paper).
        return_sequences: Whether to return the output of every step or of the last one only.
        return_state: Whether to return the final state behind the output.
        go_backwards: Whether to read from the last step to the first. Outputs come in reading
            order, that is reversed; the mask that Keras passes on beside them does not.
        zero_output_for_mask: Whether outputs at padded steps are zero (`True`) or repeat the last
            real output (`False`, Keras's default). Leave it `False` together with
            `return_sequences=False`: the last output of a padded row would be a zero.

    Weights: `kernel` `<float>[features, 3 * units]`, `recurrent_kernel`
    `<float>[units, 3 * units]`, `bias` `<float>[2, 3 * units]` (input bias, recurrent bias) or,
    with `reset_after=False`, `<float>[3 * units]`.

    Call arguments:
        sequences: `<float>[batch, time, features]`.
        initial_state: List of one `<float>[batch, units]`; zeros when `None`.
        mask: `<bool>[batch, time]`; at a false step the state stays what it was.
        training: Whether `dropout` and `recurrent_dropout` are active.

    Returns:
        `<float>[batch, time, units]` with `return_sequences`, else `<float>[batch, units]`; with
        `return_state` a tuple of it and the final state `<float>[batch, units]`.

    Example:
    >>> layer = GRU(4, return_state=True)
    >>> output, state = layer(x, mask=length_mask(length, x))     # x [32, 10, 8], length [32]
    >>> output.shape, state.shape                                 # and output == state
    (32, 4), (32, 4)

    Reference:
        - [Cho et al., 2014: Learning phrase representations using RNN encoder-decoder
          for statistical machine translation](https://arxiv.org/abs/1406.1078)
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool | None = False
    ) -> Any:
        """The fused walk where it covers the layer, else Keras's computation."""
        if not rnn_kernels.covers(self, mask, training):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        cell = "gru" if self.reset_after else "gru_before"
        return rnn_kernels.inner_loop(cell, self, sequences, initial_state, mask, training)


@keras.saving.register_keras_serializable("common")
class LSTM(keras.layers.LSTM):
    """Long short-term memory.

    One step, with `x` `<float>[batch, features]` the input, `h` `<float>[batch, units]` the state,
    which is the output too, `c` `<float>[batch, units]` the cell, and `i`, `f`, `g`, `o` the input
    gate, the forget gate, the candidate and the output gate (columns of the weights in this order):

        i = sigmoid(x @ W_i + h @ U_i + b_i)      and likewise f and o
        g = tanh(x @ W_g + h @ U_g + b_g)
        c <- f * c + i * g
        h <- o * tanh(c)

    Where `f` is near one the cell is carried over unchanged, and so is its gradient. The bias of
    `f` starts at one (`unit_forget_bias`), so that a new layer remembers.

    Args: those of `keras.layers.LSTM`. The ones used most:
        units: Positive integer, the width of the state and the output.
        return_sequences: Whether to return the output of every step or of the last one only.
        return_state: Whether to return the final `h` and `c` behind the output.
        go_backwards: Whether to read from the last step to the first. Outputs come in reading
            order, that is reversed; the mask that Keras passes on beside them does not.
        zero_output_for_mask: Whether outputs at padded steps are zero (`True`) or repeat the last
            real output (`False`, Keras's default). Leave it `False` together with
            `return_sequences=False`: the last output of a padded row would be a zero.

    Weights: `kernel` `<float>[features, 4 * units]`, `recurrent_kernel`
    `<float>[units, 4 * units]`, `bias` `<float>[4 * units]`.

    Call arguments:
        sequences: `<float>[batch, time, features]`.
        initial_state: List of `h` and `c`, both `<float>[batch, units]`; zeros when `None`.
        mask: `<bool>[batch, time]`; at a false step both states stay what they were.
        training: Whether `dropout` and `recurrent_dropout` are active.

    Returns:
        `<float>[batch, time, units]` with `return_sequences`, else `<float>[batch, units]`; with
        `return_state` a tuple of it and the final `h` and `c`, both `<float>[batch, units]`.

    Example:
    >>> layer = LSTM(4, return_sequences=True, return_state=True)
    >>> output, h, c = layer(x, mask=length_mask(length, x))     # x [32, 10, 8], length [32]
    >>> output.shape, h.shape, c.shape                       # output[0, length[0] - 1] == h[0]
    (32, 10, 4), (32, 4), (32, 4)

    Reference:
        - [Hochreiter and Schmidhuber, 1997: Long short-term memory](
          https://doi.org/10.1162/neco.1997.9.8.1735)
    """

    def inner_loop(
        self, sequences: Any, initial_state: Any, mask: Any, training: bool | None = False
    ) -> Any:
        """The fused walk where it covers the layer, else Keras's computation."""
        if not rnn_kernels.covers(self, mask, training):
            return super().inner_loop(sequences, initial_state, mask, training=training)
        return rnn_kernels.inner_loop("lstm", self, sequences, initial_state, mask, training)


def bidirectional(
    layer: keras.layers.RNN, merge_mode: str | None = "concat", **kwargs: Any
) -> keras.layers.Bidirectional:
    """Reads a sequence in both directions.

    Two copies of `layer` with weights of their own run side by side, one from the first step to the
    last, one from the last to the first; the second one's outputs are turned round, so that both
    speak of the same step. Under a mask the backward copy keeps its initial state through the
    padding that it meets first, and starts at each row's last real step: padding changes nothing.

    Args:
        layer: A recurrent layer that reads forwards. It is only copied: its settings, not its
            weights.
        merge_mode: `"concat"`, `"sum"`, `"mul"` or `"ave"` of the two outputs, or `None` for both.
        **kwargs: Further arguments of `keras.layers.Bidirectional`, such as `name`.

    Returns:
        A `keras.layers.Bidirectional`. On `<float>[batch, time, features]` it gives
        `<float>[batch, time, 2 * units]` with `"concat"`, `<float>[batch, time, units]` otherwise,
        and zeros at padded steps. Where the layer does not return sequences, it gives the forward
        output at the last real step beside the backward output at the first step: each has then
        seen the whole row. Where the layer returns states, the forward states and then the backward
        ones follow.

    Example:
    >>> layer = bidirectional(LSTM(4, return_sequences=True))
    >>> layer(x, mask=length_mask(length, x)).shape     # x [32, 10, 8], length [32]
    (32, 10, 8)

    Reference:
        - [Schuster and Paliwal, 1997: Bidirectional recurrent neural networks](
          https://doi.org/10.1109/78.650093)
    """
    if layer.go_backwards:
        raise ValueError(
            "bidirectional() makes the backward copy itself: give it a layer that reads forwards. "
            f"Layer {layer.name!r} has go_backwards=True."
        )
    kwargs.setdefault("dtype", layer.dtype_policy)
    # Keras sets zero_output_for_mask on both copies where they return sequences, and clears it
    # where they do not, since there the last output of a padded row would be a zero.
    return Bidirectional(layer, merge_mode=merge_mode, **kwargs)


@keras.saving.register_keras_serializable("common")
class Bidirectional(keras.layers.Bidirectional):
    """Keras's layer, each of whose directions keeps one core busy; made by `bidirectional`."""

    def __init__(self, layer: keras.layers.RNN, *args: Any, **kwargs: Any):
        super().__init__(layer, *args, **kwargs)
        # Cut in two for two cores, as a layer alone is, each would read its weights twice a step.
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
    """Builds a deep RNN: recurrent layers of one kind and width, one upon the other.

    Args:
        cell: `SimpleRNN`, `GRU`, `LSTM` or another recurrent Keras layer class, or one of the names
            `"simple_rnn"`, `"gru"`, `"lstm"`.
        units: Positive integer, the width of each layer, per direction.
        layers: Positive integer, how many layers.
        bidirectional: Whether each layer reads in both directions; its output is then `2 * units`
            wide.
        dropout: Fraction of each layer's outputs to drop on the way into the next layer, while
            training. Nothing is dropped before the first layer, behind the last one, or on the way
            from step to step.
        residual: Whether each layer from the second on adds its input to its output. The first
            layer never does: it takes the features to the width of the stack.
        return_sequences: Whether to return the output of every step or the final one.
        return_state: Whether to return the final states of all layers behind the output.
        name: Name of the stack.
        **kwargs: Further arguments of `cell`, such as `recurrent_initializer`, the same for every
            layer.

    Returns:
        A `DeepRNN`; see there for what it takes and gives.

    Example:
    >>> encoder = stack("lstm", 128, 3, bidirectional=True, dropout=0.2, residual=True)
    >>> encoder(x, mask=length_mask(length, x)).shape     # x [32, 10, 40], length [32]
    (32, 10, 256)

    Reference:
        - [Graves et al., 2013: Speech recognition with deep recurrent neural networks](
          https://arxiv.org/abs/1303.5778)
    """
    cells = {"simple_rnn": SimpleRNN, "gru": GRU, "lstm": LSTM}
    if isinstance(cell, str):
        if cell not in cells:
            names = ", ".join(map(repr, cells))
            raise ValueError(f"cell must be one of {names}, or a layer class. Received: {cell!r}")
        cell = cells[cell]
    if not isinstance(layers, int) or layers < 1:
        raise ValueError(f"layers must be a positive integer. Received: {layers!r}")
    recurrent = []
    for i in range(layers):
        layer = cell(
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


@keras.saving.register_keras_serializable("common")
class DeepRNN(keras.layers.Layer):
    """Recurrent layers one upon the other, with dropout between them and residual connections.

    Made by `stack`. With `x` the features, layer by layer:

        y = layer_0(x)
        y = layer_k(dropout(y))              for k = 1, 2, ...
        y = y + layer_k(dropout(y))          instead, with `residual`

    The residual connection goes past the dropout, so that an undisturbed path leads from the first
    layer to the output.

    Args:
        layers: List of recurrent layers that read forwards, or of `keras.layers.Bidirectional` of
            such with `merge_mode="concat"`, which return sequences and states.
        dropout: Fraction of the outputs to drop between layers, while training.
        residual: Whether each layer from the second on adds its input to its output; all layers
            must then be equally wide.
        return_sequences: Whether to return the output of every step or the final one.
        return_state: Whether to return the final states of all layers behind the output.

    Call arguments:
        sequences: `<float>[batch, time, features]`.
        initial_state: Flat list of the states of all layers, each `<float>[batch, units]`, in the
            order in which `return_state` gives them: layer by layer, in a bidirectional one forward
            and then backward, in an LSTM `h` and then `c`. Zeros when `None`.
        mask: `<bool>[batch, time]`, real steps first. Every layer gets it.
        training: Whether dropout is active.

    Returns:
        With `return_sequences` `<float>[batch, time, width]`, zero at padded steps, where `width`
        is that of one layer (`2 * units` if bidirectional); the mask is passed on. Otherwise
        `<float>[batch, width]`: the output at the last real step, and in the backward half of a
        bidirectional stack the output at the first step, so that each half has seen the whole row;
        zero where a row has no real step. With `return_state` a tuple of that and the final states.

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
            _check(layer)
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
        """Builds every layer for the width that the one below it gives."""
        shape = tuple(sequences_shape)
        for i, layer in enumerate(self.layers):
            layer.build(shape)
            below, shape = shape, layer.compute_output_shape(shape)[0]
            if self.residual and i > 0 and below[-1] != shape[-1]:
                raise ValueError(
                    f"A residual connection needs layers of one width. "
                    f"Layer {layer.name!r} takes {below[-1]} and gives {shape[-1]}."
                )

    def call(
        self,
        sequences: Any,
        initial_state: Sequence[Any] | None = None,
        mask: Any = None,
        training: bool = False,
    ) -> Any:
        """Runs the stack; see the class."""
        counts = [_state_count(layer) for layer in self.layers]
        if initial_state is not None and len(initial_state) != sum(counts):
            raise ValueError(
                f"initial_state must hold {sum(counts)} tensors. Received: {len(initial_state)}"
            )
        y, final, states = sequences, None, []
        for i, (layer, count) in enumerate(zip(self.layers, counts, strict=True)):
            x = y if i == 0 else self.dropouts[i - 1](y, training=training)
            start = None
            if initial_state is not None:
                start = list(initial_state[len(states) : len(states) + count])
            out, *new = layer(x, initial_state=start, mask=mask, training=training)
            # The first state of a direction is its output at the step that it reads last.
            end = new[0]
            if isinstance(layer, keras.layers.Bidirectional):
                end = ops.concatenate([new[0], new[count // 2]], axis=-1)
            if self.residual and i > 0:
                y, final = y + out, final + end
            else:
                y, final = out, end
            states += new
        if self.return_sequences:
            output = y
        elif mask is None:
            output = final
        else:
            output = ops.where(ops.any(mask, axis=1, keepdims=True), final, ops.zeros_like(final))
        return (output, *states) if self.return_state else output

    def compute_mask(self, sequences: Any, mask: Any = None) -> Any:
        """The mask goes on with sequences, not with final outputs and states."""
        output_mask = mask if self.return_sequences else None
        if self.return_state:
            return [output_mask] + [None] * sum(map(_state_count, self.layers))
        return output_mask

    def get_config(self) -> dict[str, Any]:
        """The layers' own configurations and the arguments."""
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
        """Makes the layers again, without their weights."""
        layers = [keras.saving.deserialize_keras_object(layer) for layer in config["layers"]]
        return cls(**{**config, "layers": layers})


def _check(layer: keras.layers.Layer) -> None:
    """Refuses a layer that a `DeepRNN` would run wrongly."""
    if not (layer.return_sequences and layer.return_state):
        raise ValueError(f"Layer {layer.name!r} of a DeepRNN must return sequences and states.")
    if getattr(layer, "merge_mode", "concat") != "concat":
        raise ValueError(f"Layer {layer.name!r} of a DeepRNN must have merge_mode='concat'.")
    if getattr(layer, "go_backwards", False):
        raise ValueError(f"Layer {layer.name!r} of a DeepRNN must read forwards.")


def _state_count(layer: keras.layers.Layer) -> int:
    """How many state tensors a recurrent layer, or both its directions together, has."""
    if isinstance(layer, keras.layers.Bidirectional):
        return len(layer.forward_layer.state_size) + len(layer.backward_layer.state_size)
    return len(layer.state_size)


def length_mask(length: Any, like: Any) -> Any:
    """The mask of right-padded rows, made from their lengths inside the graph.

    Works on tensors and, in a functional model, on symbolic ones, and is saved with the model. So a
    server may pad a batch with whatever it likes, as long as it passes the lengths.

    Args:
        length: `<int>[batch]`, the number of real steps of each row. More than `time` counts as
            `time`, less than 0 as 0.
        like: A tensor `[batch, time, ...]` that the mask is for; only its shape matters.

    Returns:
        `<bool>[batch, time]`, true at the first `length` steps of each row.

    Example:
    >>> length_mask(np.array([3, 1, 0]), np.zeros((3, 4, 8)))
    [[True, True, True, False], [True, False, False, False], [False, False, False, False]]
    """
    return LengthMask()(length, like)


@keras.saving.register_keras_serializable("common")
class LengthMask(keras.layers.Layer):
    """The layer behind `length_mask`, with the same arguments when called."""

    def __init__(self, **kwargs: Any):
        # A precision policy must not cast the length.
        super().__init__(autocast=False, **kwargs)

    def call(self, length: Any, like: Any) -> Any:
        """Compares each step's number with the length of its row."""
        steps = ops.arange(ops.shape(like)[1], dtype="int32")
        return steps[None, :] < ops.cast(length, "int32")[:, None]

    def compute_output_spec(self, length: Any, like: Any) -> keras.KerasTensor:
        """The shape of the mask."""
        return keras.KerasTensor(tuple(like.shape[:2]), dtype="bool")
