"""Looking back at all steps of a sequence with weights that sum to one."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

Pooling = Literal["mean", "max", "last", "attention"]
Attention = Literal["additive", "dot"]


@keras.saving.register_keras_serializable("common")
class MaskedPooling(keras.layers.Layer):
    """Turns a masked sequence into one vector, and says which steps it took it from.

    - `mean`: the mean over the real steps; each has the same weight.
    - `max`: the maximum of each feature over the real steps; a step's weight is the share of
      features that it won.
    - `last`: forward features from the last real step.
    - `attention`: a weighted mean, the weights being the softmax over the real steps of
      `v . tanh(W x + b)` (the word attention of Yang et al. 2016).

    Call arguments:
      inputs: `<float>[batch, time, features]`.
      mask: `<bool>[batch, time]`, the right-padded real steps; None takes all.

    Returns:
      `(<float>[batch, features], <float>[batch, time] weights)`. A row without real steps gives
      zeros in both, never NaN.

    Example:
      >>> x = np.array([[[1.0], [3.0], [99.0]]], "float32")
      >>> MaskedPooling("mean")(x, mask=np.array([[True, True, False]]))
      ([[2.0]], [[0.5, 0.5, 0.0]])
    """

    def __init__(self, mode: Pooling = "attention", units: int = 64, **kwargs: Any):
        """Makes the layer; `units` is the width of attention's hidden layer."""
        super().__init__(**kwargs)
        if mode not in ("mean", "max", "last", "attention"):
            raise ValueError(f"mode must be mean, max, last or attention, got {mode!r}")
        self.mode, self.units = mode, units
        self.supports_masking = True

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        """Makes attention's weights; the other modes have none."""
        if self.mode == "attention":
            self.kernel = self.add_weight((input_shape[-1], self.units), name="kernel")
            self.bias = self.add_weight((self.units,), initializer="zeros", name="bias")
            self.query = self.add_weight((self.units,), "random_normal", name="query")

    def call(self, inputs: Any, mask: Any = None) -> tuple[Any, Any]:
        """Pools; see the class."""
        # Weights are computed in float32: a mean over hundreds of steps loses digits in bfloat16.
        real = ops.ones(ops.shape(inputs)[:2], bool) if mask is None else mask
        kept = ops.cast(real, "float32")
        values = ops.cast(inputs, "float32")
        if self.mode == "max":
            lowest = ops.where(real[..., None], values, -1e9)
            pooled = ops.where(ops.any(real, axis=1)[:, None], ops.max(lowest, axis=1), 0.0)
            won = ops.cast(ops.equal(lowest, pooled[:, None, :]), "float32") * kept[..., None]
            weights = ops.mean(won / ops.maximum(ops.sum(won, axis=1, keepdims=True), 1.0), axis=-1)
            return ops.cast(pooled, self.compute_dtype), weights
        if self.mode == "attention":
            hidden = ops.tanh(ops.matmul(inputs, self.kernel) + self.bias)
            scores = ops.cast(ops.matmul(hidden, self.query[:, None])[..., 0], "float32")
            scores = ops.where(real, scores, -1e9)
            raised = ops.exp(scores - ops.max(scores, axis=1, keepdims=True)) * kept
        elif self.mode == "last":
            following = ops.concatenate([kept[:, 1:], ops.zeros_like(kept[:, :1])], axis=1)
            raised = kept - following
        else:
            raised = kept
        weights = raised / ops.maximum(ops.sum(raised, axis=1, keepdims=True), 1e-9)
        pooled = ops.sum(ops.where(real[..., None], values, 0.0) * weights[..., None], axis=1)
        return ops.cast(pooled, self.compute_dtype), weights

    def compute_mask(self, inputs: Any, mask: Any = None) -> None:
        """A pooled vector has no time left to mask."""
        return None

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        return {**super().get_config(), "mode": self.mode, "units": self.units}


def masked_softmax(scores: Any, mask: Any) -> Any:
    """Softmax over the real steps, in float32.

    Args:
      scores: `<float>[batch, queries, time]`.
      mask: `<bool>[batch, time]`, the real steps; None takes all.

    Returns:
      `<float32>[batch, queries, time]`, zero at padded steps. A row without real steps gives zeros.

    Example:
      >>> masked_softmax(np.zeros((1, 1, 3)), np.array([[True, True, False]]))
      [[[0.5, 0.5, 0.0]]]
    """
    scores = ops.cast(scores, "float32")
    if mask is None:
        return ops.softmax(scores, axis=-1)
    real = ops.cast(mask, "float32")[:, None, :]
    # Finite, so that a row of nothing but padding has a maximum to subtract.
    scores = ops.where(ops.cast(real, "bool"), scores, -1e9)
    raised = ops.exp(scores - ops.max(scores, axis=-1, keepdims=True)) * real
    return raised / ops.maximum(ops.sum(raised, axis=-1, keepdims=True), 1e-9)


class _MemoryAttention(keras.layers.Layer):
    """What both kinds of attention share: scores to weights, weights to contexts."""

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units
        self.supports_masking = True

    def keys(self, memory: Any) -> Any:
        """What queries are compared with, `<float>[batch, time, units]`; the same at every step."""
        return ops.matmul(memory, self.memory_kernel)

    def call(self, query: Any, memory: Any, mask: Any = None, keys: Any = None) -> tuple[Any, Any]:
        """Looks the queries up; see the class."""
        keys = self.keys(memory) if keys is None else keys
        weights = masked_softmax(self.scores(query, keys), mask)
        context = ops.matmul(ops.cast(weights, memory.dtype), memory)
        return ops.cast(context, self.compute_dtype), weights

    def compute_mask(self, *args: Any, **kwargs: Any) -> None:
        """Queries bring no mask along."""
        return None

    def get_config(self) -> dict[str, Any]:
        """The arguments that make the same layer again."""
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("common")
class DotProductAttention(_MemoryAttention):
    """Multiplicative attention: looks back at a memory by comparing products.

        score(query, memory_t) = query . (memory_t @ W) / sqrt(units)

    with `W` `<float>[features, units]`: the form "general" of Luong et al. 2015, scaled as in
    Vaswani et al. 2017, so that the softmax starts out flat whatever the width.

    Args:
      units: width of the queries.

    Call arguments:
      query: `<float>[batch, queries, units]`; all steps of a decoder, or one.
      memory: `<float>[batch, time, features]`, what is looked at.
      mask: `<bool>[batch, time]`, its real steps; None takes all.
      keys: `keys(memory)`, if it was computed before, as in a loop over steps.

    Returns:
      `(<float>[batch, queries, features] contexts, <float32>[batch, queries, time] weights)`.
      Weights sum to one over the real steps and are zero elsewhere; a row without real steps gives
      zeros in both.

    Example:
      >>> attention = DotProductAttention(2)
      >>> context, weights = attention(query, memory, mask=mask)   # [8, 5, 2], [8, 9, 4], [8, 9]
      >>> context.shape, weights.shape
      (8, 5, 4), (8, 5, 9)

    Reference:
      - [Luong et al., 2015: Effective approaches to attention-based neural machine translation](
        https://arxiv.org/abs/1508.04025)
    """

    def build(self, query_shape: Any, memory_shape: Any, *args: Any) -> None:
        """Makes the weights."""
        if query_shape[-1] != self.units:
            raise ValueError(f"queries of width {self.units} expected, got {query_shape[-1]}")
        self.memory_kernel = self.add_weight((memory_shape[-1], self.units), name="memory_kernel")

    def scores(self, query: Any, keys: Any) -> Any:
        """`<float>[batch, queries, time]` before the softmax."""
        return ops.matmul(query, ops.swapaxes(keys, 1, 2)) * self.units**-0.5


@keras.saving.register_keras_serializable("common")
class AdditiveAttention(_MemoryAttention):
    """Additive attention: looks back at a memory through a small network.

        score(query, memory_t) = v . tanh(query @ W_q + memory_t @ W_m + b)

    (Bahdanau et al. 2015). It costs a tanh for each unit, query and step, where
    `DotProductAttention` costs a multiplication.

    Args:
      units: width of the small network.

    Call arguments and returns: those of `DotProductAttention`, but that queries may be of any
    width.

    Example:
      >>> attention = AdditiveAttention(16)
      >>> context, weights = attention(query, memory, mask=mask)   # [8, 5, 2], [8, 9, 4], [8, 9]
      >>> context.shape, weights.shape
      (8, 5, 4), (8, 5, 9)

    Reference:
      - [Bahdanau et al., 2015: Neural machine translation by jointly learning to align and
        translate](https://arxiv.org/abs/1409.0473)
    """

    def build(self, query_shape: Any, memory_shape: Any, *args: Any) -> None:
        """Makes the weights."""
        self.query_kernel = self.add_weight((query_shape[-1], self.units), name="query_kernel")
        self.memory_kernel = self.add_weight((memory_shape[-1], self.units), name="memory_kernel")
        self.bias = self.add_weight((self.units,), initializer="zeros", name="bias")
        self.score = self.add_weight((self.units, 1), name="score")

    def scores(self, query: Any, keys: Any) -> Any:
        """`<float>[batch, queries, time]` before the softmax."""
        query = ops.matmul(query, self.query_kernel) + self.bias
        return ops.matmul(ops.tanh(query[:, :, None] + keys[:, None]), self.score)[..., 0]


def make_attention(kind: Attention, units: int, **kwargs: Any) -> keras.layers.Layer:
    """The attention layer of this name."""
    layers = {"additive": AdditiveAttention, "dot": DotProductAttention}
    if kind not in layers:
        raise ValueError(f"attention must be one of {', '.join(layers)}, got {kind!r}")
    return layers[kind](units, **kwargs)
