"""Encoder and decoder with attention: from a sequence to another of another length.

`build` makes three models that share their weights:

* `encoder` reads the source in both directions: what it makes of each step is the memory, and its
  final states together are the summary with which the decoder starts;
* `decoder` writes the target, and looks back at the memory at every step;
* the whole, which trains them by teacher forcing: the decoder is given the true target so far.

`encode` and `make_step` run the same layers one step at a time: `step(state, token) -> (state,
log-probabilities)` is what `common.decoding` searches with. Everything goes by the names of the
layers, so it works with a model that was loaded from a file, too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

from common.attention import Attention, make_attention
from common.rnn import GRU, LSTM, length_mask, stack

import keras
import tensorflow as tf
from keras import ops

Cell = Literal["gru", "lstm"]
State = dict[str, Any]

SOURCE_EMBEDDING, TARGET_EMBEDDING = "source_embedding", "target_embedding"
Step = Callable[[State, tf.Tensor], tuple[State, tf.Tensor]]


@keras.saving.register_keras_serializable("common")
class AttentionDecoder(keras.layers.Layer):
    """Deep recurrent decoder that looks back at a memory at every step.

    With `x_t` the input, `h_t` the output of the first layer and `g_t` that of the last:

        h_t = layer_0(x_t)                       with input feeding: layer_0([x_t; y_{t-1}])
        c_t = attention(h_t, memory)
        g_t = layer_k([below; c_t])              for k = 1, 2, ..., dropout in front
        y_t = tanh([g_t; c_t] @ W)               `g_t` is `h_t` where there is one layer only

    One layer is the global attention of Luong et al. 2015. With more, the layers above see every
    context, hence what was translated before, as in Wu et al. 2016; so they stand in for input
    feeding, and all steps of a layer are one fused walk and all contexts one product. With input
    feeding the steps of training must follow one another.

    Args:
      cell: `"gru"` or `"lstm"`.
      units: width of each layer.
      layers: how many.
      features: width of the answer `y`.
      attention: `"dot"` or `"additive"`.
      input_feeding: whether the last answer is part of the input.
      dropout: share of inputs of layers and of answers dropped in training.

    Call arguments:
      inputs: `<float>[batch, steps, width]`.
      memory: `<float>[batch, time, features]`.
      memory_mask: `<bool>[batch, time]`, the real steps of the memory.
      summary: `<float>[batch, features]`, from which the first states are made.
      training: whether dropout is active.

    Returns:
      `(<float>[batch, steps, features] y, <float32>[batch, steps, time] attention)`.

    Reference:
      - [Luong et al., 2015](https://arxiv.org/abs/1508.04025)
      - [Wu et al., 2016: Google's neural machine translation system](
        https://arxiv.org/abs/1609.08144)
    """

    def __init__(
        self,
        cell: Cell,
        units: int,
        layers: int,
        features: int,
        *,
        attention: Attention = "dot",
        input_feeding: bool = False,
        dropout: float = 0.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if layers < 1:
            raise ValueError(f"layers must be 1 or more, got {layers}")
        self._arguments = {
            "cell": cell,
            "units": units,
            "layers": layers,
            "features": features,
            "attention": attention,
            "input_feeding": input_feeding,
            "dropout": dropout,
        }
        self.units, self.features, self.input_feeding = units, features, input_feeding
        kind = {"gru": GRU, "lstm": LSTM}[cell]
        policy = self.dtype_policy
        self.recurrent = [
            kind(units, return_sequences=True, name=f"layer_{k}", dtype=policy)
            for k in range(layers)
        ]
        self.attention = make_attention(attention, units, name="attention", dtype=policy)
        self.answer = keras.layers.Dense(
            features, activation="tanh", use_bias=False, name="answer", dtype=policy
        )
        self._state_count = 2 if cell == "lstm" else 1
        self.bridge = keras.layers.Dense(
            units * layers * self._state_count, activation="tanh", name="bridge", dtype=policy
        )
        self.dropout = keras.layers.Dropout(dropout, name="dropout", dtype=policy)
        self.supports_masking = True

    def build(
        self, inputs_shape: Any, memory_shape: Any, memory_mask_shape: Any, summary_shape: Any
    ) -> None:
        """Builds every layer for the widths that reach it."""
        batch, steps, width = inputs_shape
        memory = memory_shape[-1]
        below = width + self.features * self.input_feeding
        for layer in self.recurrent:
            layer.build((batch, steps, below))
            below = self.units + memory
        self.attention.build((batch, steps, self.units), memory_shape)
        self.answer.build((batch, steps, self.units + memory))
        self.bridge.build(summary_shape)

    def start(self, summary: Any) -> State:
        """The state before the first step; every tensor in it has the batch first."""
        count = len(self.recurrent) * self._state_count
        state = {"cells": ops.split(self.bridge(summary), count, axis=-1)}
        if self.input_feeding:
            first = state["cells"][0]
            state["answer"] = ops.zeros((ops.shape(first)[0], self.features), first.dtype)
        return state

    def call(
        self, inputs: Any, memory: Any, memory_mask: Any, summary: Any, training: bool = False
    ) -> tuple[Any, Any]:
        """All steps at once; see the class."""
        keys = self.attention.keys(memory)
        state = self.start(summary)
        if self.input_feeding:
            return self._feed(inputs, state, memory, memory_mask, keys, training)
        cells = state["cells"]
        h, context, weights = inputs, None, None
        for k, layer in enumerate(self.recurrent):
            first = cells[k * self._state_count : (k + 1) * self._state_count]
            h = layer(
                self.dropout(h, training=training) if k else h,
                initial_state=first,
                training=training,
            )
            if k == 0:
                context, weights = self.attention(h, memory, mask=memory_mask, keys=keys)
            if k + 1 < len(self.recurrent):
                h = ops.concatenate([h, context], axis=-1)
        answer = self.answer(ops.concatenate([h, context], axis=-1))
        return self.dropout(answer, training=training), weights

    def _feed(
        self, inputs: Any, state: State, memory: Any, mask: Any, keys: Any, training: bool
    ) -> tuple[Any, Any]:
        steps = tf.shape(inputs)[1]
        turned = tf.transpose(inputs, [1, 0, 2])
        arrays = tuple(
            tf.TensorArray(dtype, steps, element_shape=shape)
            for dtype, shape in (
                (inputs.dtype, (inputs.shape[0], self.features)),
                (tf.float32, (memory.shape[0], memory.shape[1])),
            )
        )

        def body(k: Any, state: State, arrays: Any) -> Any:
            answer, weights, state = self.step(
                turned[k], state, memory, mask, keys=keys, training=training
            )
            return k + 1, state, (arrays[0].write(k, answer), arrays[1].write(k, weights))

        *_, arrays = tf.while_loop(
            lambda k, *_: k < steps, body, (0, state, arrays), maximum_iterations=steps
        )
        return tf.transpose(arrays[0].stack(), [1, 0, 2]), tf.transpose(
            arrays[1].stack(), [1, 0, 2]
        )

    def step(
        self,
        inputs: Any,
        state: State,
        memory: Any,
        mask: Any,
        *,
        keys: Any = None,
        training: bool = False,
    ) -> tuple[Any, Any, State]:
        """One step, with the same weights as `call`.

        Args:
          inputs: `<float>[rows, width]`; `rows` is the batch of the memory, or a multiple of it:
            then neighbouring rows (the hypotheses of a beam) look back at one memory.
          state: of `start`, or of the step before.
          memory: `<float>[batch, time, features]`.
          mask: `<bool>[batch, time]`.
          keys: `attention.keys(memory)`, if it was computed before.
          training: whether dropout is active.

        Returns:
          `(<float>[rows, features] y, <float32>[rows, time] attention, state)`.
        """
        batch, time = ops.shape(memory)[0], ops.shape(memory)[1]
        cells, states = state["cells"], []
        h = ops.concatenate([inputs, state["answer"]], axis=-1) if self.input_feeding else inputs
        context = weights = None
        for k, layer in enumerate(self.recurrent):
            first = cells[k * self._state_count : (k + 1) * self._state_count]
            x = self.dropout(h, training=training) if k else h
            h, new = layer.cell(x, first, training=training)
            states += new if isinstance(new, (list, tuple)) else [new]
            if k == 0:
                query = ops.reshape(h, (batch, -1, self.units))
                context, weights = self.attention(query, memory, mask=mask, keys=keys)
                context = ops.reshape(context, (-1, memory.shape[-1]))
                weights = ops.reshape(weights, (-1, time))
            if k + 1 < len(self.recurrent):
                h = ops.concatenate([h, context], axis=-1)
        answer = self.answer(ops.concatenate([h, context], axis=-1))
        answer = self.dropout(answer, training=training)
        state = {"cells": states} | ({"answer": answer} if self.input_feeding else {})
        return answer, weights, state

    def compute_output_spec(
        self, inputs: Any, memory: Any, memory_mask: Any, summary: Any, training: bool = False
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Shapes and types of what `call` returns."""
        batch, steps = inputs.shape[:2]
        return (
            keras.KerasTensor((batch, steps, self.features), dtype=self.compute_dtype),
            keras.KerasTensor((batch, steps, memory.shape[1]), dtype="float32"),
        )

    def compute_mask(self, *args: Any, **kwargs: Any) -> list[None]:
        """No mask goes on: who takes the answers knows the target's length."""
        return [None, None]

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        return {**super().get_config(), **self._arguments}


def build(
    *,
    source_size: int,
    target_size: int,
    shared: bool = False,
    embedding: int = 256,
    cell: Cell = "lstm",
    units: int = 256,
    encoder_layers: int = 1,
    decoder_layers: int = 2,
    attention: Attention = "dot",
    input_feeding: bool = False,
    dropout: float = 0.2,
    name: str = "encoder_decoder",
) -> keras.Model:
    """Builds encoder, decoder and the whole.

    The embedding of the target is also the matrix that turns answers into scores of the next token
    (tied, Press & Wolf 2017).

    Args:
      source_size: number of source tokens.
      target_size: number of target tokens.
      shared: one embedding for both, whose sizes must be equal then.
      embedding: width of the embeddings.
      cell: kind of recurrent layer.
      units: width of each layer; each direction of the encoder has half of them.
      encoder_layers: how many bidirectional layers.
      decoder_layers: see `AttentionDecoder`, like the rest.
      attention: see there.
      input_feeding: see there.
      dropout: share dropped of embeddings, of inputs of layers and of answers, in training.
      name: of the whole.

    Returns:
      The whole, a functional model with layers `encoder` and `decoder`. Inputs: `ids`
      `<int32>[batch, time]`, `length` `<int32>[batch]`, `target_ids` `<int32>[batch, steps]` (the
      start token, then the target). Outputs: `answers` `<float>[batch, steps, embedding]`, which
      `scores` turns into scores of the next token, and `attention` `<float32>[batch, steps, time]`.
    """
    if units % 2:
        raise ValueError(f"units must be even, for the encoder's two directions; got {units}")
    if shared and source_size != target_size:
        raise ValueError(f"shared tokens, but {source_size} and {target_size} of them")

    vectors = keras.Input((None, embedding), name="vectors")
    length = keras.Input((), dtype="int32", name="length")
    memory, *states = stack(
        cell,
        units // 2,
        encoder_layers,
        bidirectional=True,
        dropout=dropout,
        return_state=True,
        name="layers",
    )(keras.layers.Dropout(dropout)(vectors), mask=length_mask(length, vectors))
    # The final output of each direction, of the last layer.
    last = states[-len(states) // encoder_layers :]
    summary = ops.concatenate([last[0], last[len(last) // 2]], axis=-1)
    memory = keras.layers.Dropout(dropout)(memory)
    encoder = keras.Model(
        {"vectors": vectors, "length": length},
        {"memory": memory, "summary": summary},
        name="encoder",
    )

    inputs = {
        "vectors": keras.Input((None, embedding), name="vectors"),
        "memory": keras.Input((None, units), name="memory"),
        "length": keras.Input((), dtype="int32", name="length"),
        "summary": keras.Input((units,), name="summary"),
    }
    answers, weights = AttentionDecoder(
        cell,
        units,
        decoder_layers,
        embedding,
        attention=attention,
        input_feeding=input_feeding,
        dropout=dropout,
        name="layers",
    )(
        keras.layers.Dropout(dropout)(inputs["vectors"]),
        inputs["memory"],
        length_mask(inputs["length"], inputs["memory"]),
        inputs["summary"],
    )
    decoder = keras.Model(inputs, {"answers": answers, "attention": weights}, name="decoder")

    # The embeddings stand outside of both, since they may share one.
    initializer = keras.initializers.RandomNormal(stddev=embedding**-0.5)
    target_tokens = keras.layers.ReversibleEmbedding(
        target_size, embedding, embeddings_initializer=initializer, name=TARGET_EMBEDDING
    )
    source_tokens = target_tokens
    if not shared:
        source_tokens = keras.layers.Embedding(
            source_size, embedding, embeddings_initializer=initializer, name=SOURCE_EMBEDDING
        )
    ids = keras.Input((None,), dtype="int32", name="ids")
    length = keras.Input((), dtype="int32", name="length")
    target_ids = keras.Input((None,), dtype="int32", name="target_ids")
    encoded = encoder({"vectors": _look_up(source_tokens, ids), "length": length})
    outputs = decoder({**encoded, "vectors": _look_up(target_tokens, target_ids), "length": length})
    inputs = {"ids": ids, "length": length, "target_ids": target_ids}
    return keras.Model(inputs, outputs, name=name)


def _look_up(embedding: keras.layers.Embedding, tokens: Any) -> Any:
    """Vectors of tokens, whose features spread about one when all is new."""
    return embedding(tokens) * embedding.output_dim**0.5


def _embeddings(
    model: keras.Model,
) -> tuple[keras.layers.Embedding, keras.layers.ReversibleEmbedding]:
    """Of source and target; one layer twice, where it is shared."""
    layers = {layer.name: layer for layer in model.layers}
    target = layers[TARGET_EMBEDDING]
    return layers.get(SOURCE_EMBEDDING, target), target


def token_embedding(model: keras.Model) -> keras.layers.ReversibleEmbedding:
    """The embedding of the target's tokens; in reverse it scores them."""
    return _embeddings(model)[1]


class Encoded(NamedTuple):
    """A source as the decoder sees it.

    Attributes:
      memory: `<float>[batch, time, features]`.
      mask: `<bool>[batch, time]`.
      keys: `<float>[batch, time, units]`.
      state: of the decoder before the first step.
    """

    memory: tf.Tensor
    mask: tf.Tensor
    keys: tf.Tensor
    state: State


def encode(model: keras.Model, ids: tf.Tensor, length: tf.Tensor) -> Encoded:
    """Reads the source: `<int32>[batch, time]`, `<int32>[batch]`."""
    length = tf.convert_to_tensor(length)
    vectors = _look_up(_embeddings(model)[0], ids)
    encoded = model.get_layer("encoder")({"vectors": vectors, "length": length}, training=False)
    layers = model.get_layer("decoder").get_layer("layers")
    memory = encoded["memory"]
    mask = length_mask(length, ids)
    return Encoded(memory, mask, layers.attention.keys(memory), layers.start(encoded["summary"]))


def make_step(model: keras.Model, encoded: Encoded, *, never: Sequence[int] = ()) -> Step:
    """Makes the function that decoders search with.

    Args:
      model: of `build`.
      encoded: of `encode`. Rows of the step may be a multiple of its batch; see
        `AttentionDecoder.step`.
      never: tokens that are not written, such as padding.

    Returns:
      `step(state, token <int32>[rows]) -> (state, log-probabilities <float32>[rows, tokens])`.
    """
    embedding = token_embedding(model)
    layers = model.get_layer("decoder").get_layer("layers")
    barred = None
    if never:
        barred = tf.tensor_scatter_nd_add(
            tf.zeros(embedding.input_dim), [[t] for t in never], [-1e9] * len(never)
        )

    def step(state: State, token: tf.Tensor) -> tuple[State, tf.Tensor]:
        answer, _, state = layers.step(
            _look_up(embedding, token), state, encoded.memory, encoded.mask, keys=encoded.keys
        )
        scores = tf.cast(embedding(answer, reverse=True), tf.float32)
        return state, tf.nn.log_softmax(scores if barred is None else scores + barred)

    return step
