"""Attention and pooling: weighted means over the steps of a sequence.

`MaskedPooling` reduces a sequence to one vector. `DotProductAttention` and `AdditiveAttention`
compare queries with a memory; `make_attention` creates them by name. `LexicalAnswer` translates the
tokens that a decoder attends to.
"""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

Pooling = Literal["mean", "max", "last", "attention"]
Attention = Literal["additive", "dot"]


@keras.saving.register_keras_serializable("common")
class MaskedPooling(keras.layers.Layer):
    """Reduce a masked sequence to one vector, and return the weight of each step.

    - `mean`: the mean over the real steps; all have the same weight.
    - `max`: the maximum of each feature over the real steps; the weight of a step is the fraction
      of features that have their maximum there.
    - `last`: the features of the last real step.
    - `attention`: a weighted mean. The weights are the softmax over the real steps of
      `v . tanh(W x + b)` (the word attention of Yang et al. 2016).

    Args:
      mode: `"mean"`, `"max"`, `"last"` or `"attention"`.
      units: width of the hidden layer of `attention`.

    Call arguments:
      inputs: `<float>[batch, time, features]`.
      mask: `<bool>[batch, time]`, true at real steps, right-padded; `None` if all steps are real.

    Returns:
      `(<float>[batch, features], <float>[batch, time] weights)`. Both are zero, never NaN, for a
      row without real steps.

    Raises:
      ValueError: unknown `mode`.

    Example:
      >>> import numpy as np
      >>> x = np.array([[[1.0], [3.0], [99.0]]], "float32")
      >>> pooled, weights = MaskedPooling("mean")(x, mask=np.array([[True, True, False]]))
      >>> pooled.numpy(), weights.numpy()
      (array([[2.]], dtype=float32), array([[0.5, 0.5, 0. ]], dtype=float32))

    Reference:
      - [Yang et al., 2016: Hierarchical attention networks for document classification](
        https://aclanthology.org/N16-1174)
    """

    def __init__(self, mode: Pooling = "attention", units: int = 64, **kwargs: Any):
        super().__init__(**kwargs)
        if mode not in ("mean", "max", "last", "attention"):
            raise ValueError(f"mode must be mean, max, last or attention, got {mode!r}")
        self.mode, self.units = mode, units
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Create the weights of `attention`; the other modes have none."""
        if self.mode == "attention":
            self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")
            self.bias = self.add_weight((self.units,), initializer="zeros", name="bias")
            self.query = self.add_weight((self.units,), "random_normal", name="query")

    def call(self, inputs: Any, mask: Any = None) -> tuple[Any, Any]:
        """Pool the steps; see the class for the arguments."""
        # Weights are computed in float32: a mean over hundreds of steps loses digits in bfloat16.
        real = ops.ones(ops.shape(inputs)[:2], bool) if mask is None else mask
        valid = ops.cast(real, "float32")
        values = ops.cast(inputs, "float32")
        if self.mode == "max":
            pooled, weights = self._maximum(values, real, valid)
            return ops.cast(pooled, self.compute_dtype), weights
        if self.mode == "attention":
            hidden = ops.tanh(ops.matmul(inputs, self.kernel) + self.bias)
            scores = ops.cast(ops.matmul(hidden, self.query[:, None])[..., 0], "float32")
            scores = ops.where(real, scores, -1e9)
            unnormalised = ops.exp(scores - ops.max(scores, axis=1, keepdims=True)) * valid
        elif self.mode == "last":
            following = ops.concatenate([valid[:, 1:], ops.zeros_like(valid[:, :1])], axis=1)
            unnormalised = valid - following
        else:
            unnormalised = valid
        weights = unnormalised / ops.maximum(ops.sum(unnormalised, axis=1, keepdims=True), 1e-9)
        pooled = ops.sum(ops.where(real[..., None], values, 0.0) * weights[..., None], axis=1)
        return ops.cast(pooled, self.compute_dtype), weights

    def _maximum(self, values: Any, real: Any, valid: Any) -> tuple[Any, Any]:
        """Return the maxima `<float>[batch, features]` and the weights `<float>[batch, time]`."""
        masked = ops.where(real[..., None], values, -1e9)
        pooled = ops.where(ops.any(real, axis=1)[:, None], ops.max(masked, axis=1), 0.0)
        equal = ops.cast(ops.equal(masked, pooled[:, None, :]), "float32") * valid[..., None]
        ties = ops.maximum(ops.sum(equal, axis=1, keepdims=True), 1.0)
        return pooled, ops.mean(equal / ties, axis=-1)

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """Return `None`: a pooled vector has no time axis."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {**super().get_config(), "mode": self.mode, "units": self.units}


def masked_softmax(scores: Any, mask: Any) -> Any:
    """Return the softmax over the real steps, in float32.

    Args:
      scores: `<float>[batch, queries, time]`.
      mask: `<bool>[batch, time]`, true at real steps; `None` if all steps are real.

    Returns:
      `<float32>[batch, queries, time]`, zero at padded steps and for a row without real steps.

    Example:
      >>> import numpy as np
      >>> masked_softmax(np.zeros((1, 1, 3)), np.array([[True, True, False]])).numpy()
      array([[[0.5, 0.5, 0. ]]], dtype=float32)
    """
    scores = ops.cast(scores, "float32")
    if mask is None:
        return ops.softmax(scores, axis=-1)
    real = ops.cast(mask, "float32")[:, None, :]
    # A finite score, so that a row without real steps has a finite maximum to subtract.
    scores = ops.where(ops.cast(real, "bool"), scores, -1e9)
    unnormalised = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True)) * real
    return unnormalised / ops.maximum(ops.sum(unnormalised, axis=-1, keepdims=True), 1e-9)


class _MemoryAttention(keras.layers.Layer):
    """Attention from scores to weights and contexts; a subclass computes the scores."""

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.supports_masking = True

    def keys(self, memory: Any) -> Any:
        """Return the keys `<float>[batch, time, units]`, which do not depend on the queries."""
        return ops.matmul(memory, self.memory_kernel)

    def call(self, query: Any, memory: Any, mask: Any = None, keys: Any = None) -> tuple[Any, Any]:
        """Compare queries with the memory; see the subclasses for the arguments."""
        keys = self.keys(memory) if keys is None else keys
        weights = masked_softmax(self.scores(query, keys), mask)
        context = ops.matmul(ops.cast(weights, memory.dtype), memory)
        return ops.cast(context, self.compute_dtype), weights

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Return `None`: the mask of the memory does not apply to contexts."""
        return None

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("common")
class DotProductAttention(_MemoryAttention):
    """Multiplicative attention: scores are scaled dot products of queries and keys.

        score(query, memory_t) = query . (memory_t @ W) / sqrt(units)

    with `W` `<float>[features, units]`: the form "general" of Luong et al. 2015, scaled as in
    Vaswani et al. 2017, so that the initial softmax is nearly uniform for any width.

    Args:
      units: width of the queries.

    Call arguments:
      query: `<float>[batch, queries, units]`; all steps of a decoder, or one.
      memory: `<float>[batch, time, features]`, the sequence that is attended to.
      mask: `<bool>[batch, time]`, its real steps; `None` if all steps are real.
      keys: `keys(memory)`, if computed before, as in a loop over steps.

    Returns:
      `(<float>[batch, queries, features] contexts, <float32>[batch, queries, time] weights)`.
      Weights sum to one over the real steps and are zero elsewhere; contexts and weights are zero
      for a row without real steps.

    Raises:
      ValueError: the width of the queries is not `units`.

    Example:
      >>> import numpy as np
      >>> query, memory = np.ones((8, 5, 2)), np.ones((8, 9, 4))
      >>> mask = np.arange(9) < np.full((8, 1), 7)
      >>> context, weights = DotProductAttention(2)(query, memory, mask=mask)
      >>> context.shape, weights.shape
      (TensorShape([8, 5, 4]), TensorShape([8, 5, 9]))

    Reference:
      - [Luong et al., 2015: Effective approaches to attention-based neural machine translation](
        https://arxiv.org/abs/1508.04025)
    """

    def build(self, query_shape: Any, memory_shape: Any, *args: Any) -> None:
        """Create the weights."""
        if query_shape[-1] != self.units:
            raise ValueError(f"queries must have width {self.units}, got {query_shape[-1]}")
        self.memory_kernel = self.add_weight((memory_shape[-1], self.units), name="memory_kernel")

    def scores(self, query: Any, keys: Any) -> Any:
        """Return the scores `<float>[batch, queries, time]`, before the softmax."""
        return ops.matmul(query, ops.swapaxes(keys, 1, 2)) * self.units**-0.5


@keras.saving.register_keras_serializable("common")
class AdditiveAttention(_MemoryAttention):
    """Additive attention: a small network computes the scores from queries and keys.

        score(query, memory_t) = v . tanh(query @ W_q + memory_t @ W_m + b)

    It costs a tanh for each unit, query and step, where `DotProductAttention` costs a
    multiplication.

    Args:
      units: width of the network.

    Call arguments and returns: those of `DotProductAttention`, with queries of any width.

    Example:
      >>> import numpy as np
      >>> query, memory = np.ones((8, 5, 2)), np.ones((8, 9, 4))
      >>> mask = np.arange(9) < np.full((8, 1), 7)
      >>> context, weights = AdditiveAttention(16)(query, memory, mask=mask)
      >>> context.shape, weights.shape
      (TensorShape([8, 5, 4]), TensorShape([8, 5, 9]))

    Reference:
      - [Bahdanau et al., 2015: Neural machine translation by jointly learning to align and
        translate](https://arxiv.org/abs/1409.0473)
    """

    def build(self, query_shape: Any, memory_shape: Any, *args: Any) -> None:
        """Create the weights."""
        self.query_kernel = self.add_weight((query_shape[-1], self.units), name="query_kernel")
        self.memory_kernel = self.add_weight((memory_shape[-1], self.units), name="memory_kernel")
        self.bias = self.add_weight((self.units,), initializer="zeros", name="bias")
        self.score = self.add_weight((self.units, 1), name="score")

    def scores(self, query: Any, keys: Any) -> Any:
        """Return the scores `<float>[batch, queries, time]`, before the softmax."""
        query = ops.matmul(query, self.query_kernel) + self.bias
        return ops.matmul(ops.tanh(query[:, :, None] + keys[:, None]), self.score)[..., 0]


def make_attention(kind: Attention, units: int, **kwargs: Any) -> keras.layers.Layer:
    """Create the attention layer of this name.

    Args:
      kind: `"additive"` or `"dot"`.
      units: width of the layer.
      **kwargs: further arguments of the layer, such as `name`.

    Raises:
      ValueError: unknown `kind`.

    Example:
      >>> type(make_attention("dot", 8)).__name__
      'DotProductAttention'
    """
    layers = {"additive": AdditiveAttention, "dot": DotProductAttention}
    if kind not in layers:
        raise ValueError(f"attention must be one of {', '.join(layers)}, got {kind!r}")
    return layers[kind](units, **kwargs)


@keras.saving.register_keras_serializable("common")
class LexicalAnswer(keras.layers.Layer):
    """The part of an answer that depends on the attended source tokens alone.

    With `a_t(s)` the attention of step `t` to the source step `s`, whose token has the vector
    `x_s`:

        f_t = tanh(sum over s of a_t(s) x_s)
        y_t = f_t + tanh(f_t @ W)

    Added to the answer of the decoder, it leads straight from a source token to its translation,
    past all states. So rare words are confused less often with others that fit the sentence.

    Args:
      dropout: fraction of the outputs to drop in training.

    Call arguments:
      weights: `<float>[batch, steps, time]`, the attention.
      tokens: `<float>[batch, time, features]`, the vectors of the source tokens.
      training: whether dropout is active.

    Returns:
      `<float>[batch, steps, features]`.

    Example:
      >>> layer = LexicalAnswer()
      >>> layer(ops.ones([2, 5, 7]), ops.ones([2, 7, 3])).shape
      TensorShape([2, 5, 3])

    Reference:
      - [Nguyen & Chiang, 2018: Improving lexical choice in neural machine translation](
        https://aclanthology.org/N18-1031), equations 5 and 6. Here the output matrix is that of
        the answers.
    """

    def __init__(self, dropout: float = 0.0, **kwargs: Any):
        super().__init__(**kwargs)
        self._rate = dropout
        self.dropout = keras.layers.Dropout(dropout, name="dropout", dtype=self.dtype_policy)
        self.supports_masking = True

    def build(self, weights_shape: Any, tokens_shape: Any) -> None:
        """Create the square kernel."""
        self.kernel = self.add_weight((tokens_shape[-1], tokens_shape[-1]), name="kernel")

    def call(self, weights: Any, tokens: Any, training: bool = False) -> Any:
        """Translate the attended tokens; see the class."""
        words = ops.tanh(ops.matmul(ops.cast(weights, self.compute_dtype), tokens))
        words = words + ops.tanh(ops.matmul(words, self.kernel))
        return self.dropout(words, training=training)

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Return no mask: the caller knows the length of the target."""

    def get_config(self) -> dict[str, Any]:
        """Return the arguments of the layer."""
        return {**super().get_config(), "dropout": self._rate}
