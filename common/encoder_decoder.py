"""Encoder-decoder with attention, for targets whose length differs from that of the source.

`build` returns a model that consists of two models:

* `encoder` reads the source in both directions. Its output at each step is the memory; a projection
  of the embedding is added to it, since the translation of a rare word depends on the word itself
  ([Kuang et al., 2018](https://aclanthology.org/P18-1164) concatenate both). Its final states are
  concatenated into the summary, from which the decoder's first states are computed.
* `decoder` writes the target, and attends to the memory at every step. With `LexicalAnswer` it also
  has a straight way from the attended tokens to their translations.

The whole model trains both by teacher forcing: the decoder receives the true target so far.

`encode` and `make_step` run the same layers one step at a time. `make_step` returns the function
`step(state, token) -> (state, scores)` of `common.decoding`. Layers are looked up by
name, so both functions also accept a model that was loaded from a file.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeAlias

from common.attention import Attention, LexicalAnswer, make_attention
from common.decoding import Step
from common.rnn import GRU, LSTM, length_mask, stack
from common.tensor_arrays import dimension, empty

import keras
import tensorflow as tf
from keras import ops

Cell: TypeAlias = Literal["gru", "lstm"]
State: TypeAlias = dict[str, Any]

SOURCE_EMBEDDING, TARGET_EMBEDDING = "source_embedding", "target_embedding"
LEXICAL = "lexical"


@keras.saving.register_keras_serializable("common")
class AttentionDecoder(keras.layers.Layer):
    """Deep recurrent decoder that attends to a memory at every step.

    With `x_t` the input, `h_t` the output of the first layer and `g_t` that of the last layer:

        h_t = layer_0(x_t)                       with input feeding: layer_0([x_t; y_{t-1}])
        c_t = attention(h_t, memory)
        g_t = layer_k([z_t; c_t])                for k = 1, 2, ...; z_t: output of layer k - 1
        y_t = tanh([g_t; c_t] @ W)               with one layer, `g_t` is `h_t`

    With one layer, this is the global attention of Luong et al. 2015. With more layers, the upper
    ones receive every context, as in Wu et al. 2016. The contexts tell them what was translated
    before, so they replace input feeding. In training, all steps of a layer then run as one fused
    recurrence, and all contexts are one product. With input feeding, training runs step by step.

    Args:
      cell: `"gru"` or `"lstm"`.
      units: width of each layer.
      layers: number of layers.
      features: width of the output `y`.
      attention: `"dot"` or `"additive"`.
      input_feeding: whether the previous output is part of the input.
      dropout: fraction of the layer inputs and of the outputs to drop in training.

    Call arguments:
      inputs: `<float>[batch, steps, width]`.
      memory: `<float>[batch, time, features]`.
      memory_mask: `<bool>[batch, time]`, the real steps of the memory.
      summary: `<float>[batch, features]`, from which the first states are computed.
      training: whether dropout is active.

    Returns:
      `(<float>[batch, steps, features] y, <float32>[batch, steps, time] attention weights)`.

    Example:
      >>> decoder = AttentionDecoder("gru", units=8, layers=2, features=6)
      >>> memory, mask = tf.ones([2, 7, 4]), tf.ones([2, 7], tf.bool)
      >>> y, weights = decoder(tf.ones([2, 5, 3]), memory, mask, tf.ones([2, 4]))
      >>> y.shape, weights.shape
      (TensorShape([2, 5, 6]), TensorShape([2, 5, 7]))

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
        kinds: dict[str, type[keras.layers.RNN]] = {"gru": GRU, "lstm": LSTM}
        policy = self.dtype_policy
        self.recurrent = [
            kinds[cell](units, return_sequences=True, name=f"layer_{k}", dtype=policy)
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
        """Build every layer for the width of its input."""
        batch, steps, width = inputs_shape
        memory = memory_shape[-1]
        input_width = width + self.features * self.input_feeding
        for layer in self.recurrent:
            layer.build((batch, steps, input_width))
            input_width = self.units + memory
        self.attention.build((batch, steps, self.units), memory_shape)
        self.answer.build((batch, steps, self.units + memory))
        self.bridge.build(summary_shape)

    def start(self, summary: Any) -> State:
        """Return the state before the first step: nested tensors `[batch, ...]`."""
        count = len(self.recurrent) * self._state_count
        state: State = {"cells": ops.split(self.bridge(summary), count, axis=-1)}
        if self.input_feeding:
            first = state["cells"][0]
            state["answer"] = ops.zeros((ops.shape(first)[0], self.features), first.dtype)
        return state

    def call(
        self, inputs: Any, memory: Any, memory_mask: Any, summary: Any, training: bool = False
    ) -> tuple[Any, Any]:
        """Run all steps; see the class."""
        keys = self.attention.keys(memory)
        state = self.start(summary)
        if self.input_feeding:
            return self._call_by_step(inputs, state, memory, memory_mask, keys, training)
        h, context, weights = inputs, None, None
        for k, layer in enumerate(self.recurrent):
            x = self.dropout(h, training=training) if k else h
            h = layer(x, initial_state=self._cell_states(state, k), training=training)
            if k == 0:
                context, weights = self.attention(h, memory, mask=memory_mask, keys=keys)
            if k + 1 < len(self.recurrent):
                h = ops.concatenate([h, context], axis=-1)
        output = self.answer(ops.concatenate([h, context], axis=-1))
        return self.dropout(output, training=training), weights

    def _cell_states(self, state: State, k: int) -> list[Any]:
        """Return the states of layer `k`."""
        return state["cells"][k * self._state_count : (k + 1) * self._state_count]

    def _call_by_step(
        self, inputs: Any, state: State, memory: Any, mask: Any, keys: Any, training: bool
    ) -> tuple[Any, Any]:
        """Run all steps in a loop, as input feeding requires."""
        steps = tf.shape(inputs)[1]
        by_step = tf.transpose(inputs, [1, 0, 2])
        outputs = empty(steps, (inputs.shape[0], self.features), inputs.dtype)
        attention = empty(steps, (memory.shape[0], memory.shape[1]), tf.float32)

        def body(k: Any, state: State, outputs: Any, attention: Any) -> tuple:
            output, weights, state = self.step(
                by_step[k], state, memory, mask, keys=keys, training=training
            )
            return k + 1, state, outputs.write(k, output), attention.write(k, weights)

        _, _, outputs, attention = tf.while_loop(
            lambda k, *_: k < steps,
            body,
            (0, state, outputs, attention),
            maximum_iterations=steps,
        )
        return (
            tf.transpose(outputs.stack(), [1, 0, 2]),
            tf.transpose(attention.stack(), [1, 0, 2]),
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
        """Run one step with the weights of `call`.

        Args:
          inputs: `<float>[rows, width]`. `rows` is the batch size of the memory or a multiple of
            it; then adjacent rows (the hypotheses of a beam) attend to one memory.
          state: the state of `start` or of the previous step.
          memory: `<float>[batch, time, features]`.
          mask: `<bool>[batch, time]`.
          keys: `attention.keys(memory)`, to reuse it across steps.
          training: whether dropout is active.

        Returns:
          `(<float>[rows, features] y, <float32>[rows, time] attention weights, state)`.
        """
        batch, time = ops.shape(memory)[0], ops.shape(memory)[1]
        cells: list[Any] = []
        h = ops.concatenate([inputs, state["answer"]], axis=-1) if self.input_feeding else inputs
        context = weights = None
        for k, layer in enumerate(self.recurrent):
            x = self.dropout(h, training=training) if k else h
            h, new = layer.cell(x, self._cell_states(state, k), training=training)
            cells += new if isinstance(new, (list, tuple)) else [new]
            if k == 0:
                query = ops.reshape(h, (batch, -1, self.units))
                context, weights = self.attention(query, memory, mask=mask, keys=keys)
                context = ops.reshape(context, (-1, memory.shape[-1]))
                weights = ops.reshape(weights, (-1, time))
            if k + 1 < len(self.recurrent):
                h = ops.concatenate([h, context], axis=-1)
        output = self.answer(ops.concatenate([h, context], axis=-1))
        output = self.dropout(output, training=training)
        following: State = {"cells": cells}
        if self.input_feeding:
            following["answer"] = output
        return output, weights, following

    def compute_output_spec(
        self, inputs: Any, memory: Any, memory_mask: Any, summary: Any, training: bool = False
    ) -> tuple[keras.KerasTensor, keras.KerasTensor]:
        """Return the shapes and types of the outputs of `call`."""
        batch, steps = inputs.shape[:2]
        return (
            keras.KerasTensor((batch, steps, self.features), dtype=self.compute_dtype),
            keras.KerasTensor((batch, steps, memory.shape[1]), dtype="float32"),
        )

    def compute_mask(self, *args: Any, **kwargs: Any) -> list[None]:
        """Return no mask: the caller knows the length of the target."""
        return [None, None]

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
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
    lexical: bool = False,
    dropout: float = 0.2,
    word_dropout: float = 0.0,
    name: str = "encoder_decoder",
) -> keras.Model:
    """Build the encoder, the decoder and the whole model.

    The embedding of the target is also the output matrix, which scores the next token (tied
    embeddings, Press & Wolf 2017).

    Args:
      source_size: number of source tokens.
      target_size: number of target tokens.
      shared: whether source and target have the same embedding; their sizes must then be equal.
      embedding: width of the embeddings.
      cell: kind of recurrent layer.
      units: width of each layer; each direction of the encoder has half of it.
      encoder_layers: number of bidirectional layers, with residual connections from the second on.
      decoder_layers: number of layers of the `AttentionDecoder`.
      attention: see `AttentionDecoder`.
      input_feeding: see there.
      lexical: whether the answers have a `LexicalAnswer`.
      dropout: fraction of the embeddings, layer inputs and outputs to drop in training.
      word_dropout: fraction of the tokens whose whole embedding is dropped in training, on both
        sides (Gal & Ghahramani 2016).
      name: name of the whole model.

    Returns:
      A functional model with the layers `encoder` and `decoder`. Inputs: `ids`
      `<int32>[batch, time]`, `length` `<int32>[batch]`, `target_ids` `<int32>[batch, steps]` (the
      start token, then the target). Outputs: `answers` `<float>[batch, steps, embedding]`, which
      `token_embedding(model)(outputs, reverse=True)` converts to scores of the next token, and
      `attention` `<float32>[batch, steps, time]`.

    Raises:
      ValueError: if `units` is odd, or the sizes differ although `shared` is true.

    Example:
      >>> model = build(source_size=10, target_size=20, embedding=8, units=6)
      >>> ids, target_ids = tf.ones([2, 5], tf.int32), tf.ones([2, 4], tf.int32)
      >>> inputs = {"ids": ids, "length": tf.constant([5, 3]), "target_ids": target_ids}
      >>> outputs = model(inputs)["answers"]
      >>> token_embedding(model)(outputs, reverse=True).shape
      TensorShape([2, 4, 20])
    """
    if units % 2:
        raise ValueError(f"units must be even, for the encoder's two directions; got {units}")
    if shared and source_size != target_size:
        raise ValueError(
            "shared=True requires source_size and target_size to be equal, "
            f"got {source_size} and {target_size}"
        )
    encoder = _build_encoder(embedding, cell, units, encoder_layers, dropout, word_dropout)
    decoder = _build_decoder(
        embedding,
        cell,
        units,
        decoder_layers,
        attention,
        input_feeding,
        lexical,
        dropout,
        word_dropout,
    )
    # The embeddings are in neither model, because source and target may share one.
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
    source = _embed(source_tokens, ids)
    encoded = encoder({"vectors": source, "length": length})
    encoded |= {"tokens": source} if lexical else {}
    outputs = decoder({**encoded, "vectors": _embed(target_tokens, target_ids), "length": length})
    inputs = {"ids": ids, "length": length, "target_ids": target_ids}
    return keras.Model(inputs, outputs, name=name)


def _build_encoder(
    embedding: int, cell: Cell, units: int, layers: int, dropout: float, word_dropout: float
) -> keras.Model:
    """Build the model from embedded source tokens to memory and summary."""
    vectors = keras.Input((None, embedding), name="vectors")
    length = keras.Input((), dtype="int32", name="length")
    tokens = _drop_tokens(vectors, dropout, word_dropout)
    memory, *states = stack(
        cell,
        units // 2,
        layers,
        bidirectional=True,
        dropout=dropout,
        residual=True,
        return_state=True,
        name="layers",
    )(tokens, mask=length_mask(length, vectors))
    # The final output of each direction of the last layer.
    last = states[-len(states) // layers :]
    summary = ops.concatenate([last[0], last[len(last) // 2]], axis=-1)
    # The attention also reads the tokens themselves.
    memory = memory + keras.layers.Dense(units, use_bias=False, name="shortcut")(tokens)
    memory = keras.layers.Dropout(dropout)(memory)
    return keras.Model(
        {"vectors": vectors, "length": length},
        {"memory": memory, "summary": summary},
        name="encoder",
    )


def _build_decoder(
    embedding: int,
    cell: Cell,
    units: int,
    layers: int,
    attention: Attention,
    input_feeding: bool,
    lexical: bool,
    dropout: float,
    word_dropout: float,
) -> keras.Model:
    """Build the model from embedded target tokens, memory and summary to outputs and attention."""
    inputs = {
        "vectors": keras.Input((None, embedding), name="vectors"),
        "memory": keras.Input((None, units), name="memory"),
        "length": keras.Input((), dtype="int32", name="length"),
        "summary": keras.Input((units,), name="summary"),
    }
    outputs, weights = AttentionDecoder(
        cell,
        units,
        layers,
        embedding,
        attention=attention,
        input_feeding=input_feeding,
        dropout=dropout,
        name="layers",
    )(
        _drop_tokens(inputs["vectors"], dropout, word_dropout),
        inputs["memory"],
        length_mask(inputs["length"], inputs["memory"]),
        inputs["summary"],
    )
    if lexical:
        inputs["tokens"] = keras.Input((None, embedding), name="tokens")
        tokens = _drop_tokens(inputs["tokens"], dropout, word_dropout)
        outputs = outputs + LexicalAnswer(dropout, name=LEXICAL)(weights, tokens)
    return keras.Model(inputs, {"answers": outputs, "attention": weights}, name="decoder")


def _drop_tokens(vectors: Any, dropout: float, word_dropout: float) -> Any:
    """Drop features of embedded tokens, and whole tokens, in training."""
    tokens = keras.layers.Dropout(dropout)(vectors)
    return keras.layers.Dropout(word_dropout, noise_shape=(None, None, 1))(tokens)


def _embed(embedding: keras.layers.Embedding, tokens: Any) -> Any:
    """Return the vectors of tokens, scaled to a standard deviation of one at initialization."""
    return embedding(tokens) * embedding.output_dim**0.5


def _embeddings(
    model: keras.Model,
) -> tuple[keras.layers.Embedding, keras.layers.ReversibleEmbedding]:
    """Return the embeddings of source and target: the same layer twice if it is shared."""
    layers = {layer.name: layer for layer in model.layers}
    target = layers[TARGET_EMBEDDING]
    return layers.get(SOURCE_EMBEDDING, target), target


def token_embedding(model: keras.Model) -> keras.layers.ReversibleEmbedding:
    """Return the embedding of the target tokens; with `reverse=True` it scores tokens."""
    return _embeddings(model)[1]


class Encoded(NamedTuple):
    """An encoded source, as input of the decoder.

    Attributes:
      memory: `<float>[batch, time, features]`.
      mask: `<bool>[batch, time]`.
      keys: `<float>[batch, time, units]`.
      state: state of the decoder before the first step.
      tokens: `<float>[batch, time, embedding]`, the vectors of the tokens for a `LexicalAnswer`.
    """

    memory: tf.Tensor
    mask: tf.Tensor
    keys: tf.Tensor
    state: State
    tokens: tf.Tensor | tuple[()] = ()


def encode(model: keras.Model, ids: tf.Tensor, length: tf.Tensor) -> Encoded:
    """Encode sources.

    Args:
      model: the model of `build`.
      ids: `<int32>[batch, time]`.
      length: `<int32>[batch]`.
    """
    length = tf.convert_to_tensor(length)
    vectors = _embed(_embeddings(model)[0], ids)
    encoded = model.get_layer("encoder")({"vectors": vectors, "length": length}, training=False)
    layers, lexical = _decoder_layers(model)
    memory = encoded["memory"]
    return Encoded(
        memory,
        length_mask(length, ids),
        layers.attention.keys(memory),
        layers.start(encoded["summary"]),
        () if lexical is None else vectors,
    )


def _decoder_layers(model: keras.Model) -> tuple[AttentionDecoder, LexicalAnswer | None]:
    """Return the recurrent layers of the decoder, and the lexical answer if there is one."""
    layers = {layer.name: layer for layer in model.get_layer("decoder").layers}
    return layers["layers"], layers.get(LEXICAL)


def make_step(
    model: keras.Model,
    encoded: Encoded,
    *,
    never: Sequence[int] = (),
    tokens: tf.Tensor | None = None,
) -> Step:
    """Return the step function for the searches of `common.decoding`.

    Args:
      model: the model of `build`.
      encoded: the sources, from `encode`. The rows of the step may be a multiple of their batch;
        see `AttentionDecoder.step`.
      never: tokens that are never written, such as padding.
      tokens: `<int32>[symbols]`, the only tokens that may be written. The step then receives and
        scores places in this list instead of tokens, and so does `never`.

    Returns:
      `step(state, token <int32>[rows]) -> (state, scores <float32>[rows, tokens])`. Its optional
      third argument replaces `encoded`, such as by a part of its rows: the context of
      `common.decoding.beam_search`, without the state.

    Example:
      >>> from common.decoding import greedy
      >>> model = build(source_size=10, target_size=20, embedding=8, units=6)
      >>> encoded = encode(model, tf.ones([1, 5], tf.int32), tf.constant([5]))
      >>> step = make_step(model, encoded, never=[0])
      >>> greedy(step, encoded.state, tf.constant([1]), end=2, max_length=4).tokens.shape
      TensorShape([1, 4])
    """
    embedding = token_embedding(model)
    layers, lexical = _decoder_layers(model)
    table = tf.cast(embedding.embeddings, embedding.compute_dtype)
    table = table if tokens is None else tf.gather(table, tokens)
    # Laid out once, outside the loop over steps; a product with a bias is one operation.
    kernel = tf.transpose(table)
    places = tf.range(dimension(table, 0))
    is_never = tf.reduce_any(places[:, None] == tf.constant(list(never), tf.int32), axis=1)
    bias = tf.cast(tf.where(is_never, -1e9, 0.0), table.dtype)

    def step(state: State, token: tf.Tensor, source: Encoded = encoded) -> tuple[State, tf.Tensor]:
        vectors = tf.gather(table, token) * embedding.output_dim**0.5
        output, weights, state = layers.step(
            vectors, state, source.memory, source.mask, keys=source.keys
        )
        if lexical is not None:
            # Adjacent rows attend to one source.
            batch, time = tf.unstack(tf.shape(source.mask))
            words = lexical(tf.reshape(weights, [batch, -1, time]), source.tokens)
            output += tf.reshape(words, tf.shape(output))
        scores = tf.nn.bias_add(tf.matmul(output, kernel), bias)
        return state, tf.cast(scores, tf.float32)

    return step
