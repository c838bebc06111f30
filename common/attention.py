"""Looking back at all steps of a sequence with weights that sum to one."""

from __future__ import annotations

from typing import Any, Literal

import keras
from keras import ops

Pooling = Literal["mean", "max", "last", "attention"]


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
