"""Linear-chain conditional random field: log-likelihood, Viterbi decoding, marginals.

A path `y` of states through a row of `length` steps has the score

    start[y_1] + sum_t emissions[t, y_t] + sum_t transitions[y_t-1, y_t] + end[y_length]

and the probability exp(score) / Z, where Z is the sum of exp(score) over all valid paths (Lafferty
et al. 2001). `Constraints` define the valid paths. An emission of `LOW` forbids a state at one
step.

The gradient of log Z with respect to the emissions is the marginals. It is computed by the
forward-backward algorithm (Rabiner 1989), not by automatic differentiation through a loop. The
recursions are in `common.linear_chain`. As in `common.rnn_kernels`, training compiles them by XLA
where `may_compile` allows it, once for each new shape, so use few lengths. An export contains a
plain loop.

Padding never affects the result: only the first `length` steps of a row are used. A row of length 0
has log Z 0, an empty path, and marginals 0.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from common import linear_chain
from common.linear_chain import Chain, Constraints, Scores, TensorLike
from common.log_space import LOW
from common.tensor_arrays import dimension, empty, unstack
from common.tensorflow_internals import is_recording

import keras
import numpy as np
import tensorflow as tf

__all__ = [
    "CRF",
    "LOW",
    "Constraints",
    "Scores",
    "log_likelihood",
    "log_likelihood_of_set",
    "log_normalizer",
    "log_score",
    "marginals",
    "trace_back",
    "viterbi",
    "viterbi_forward",
]


# --- Sums over paths ------------------------------------------------------------------------------


def log_normalizer(
    emissions: TensorLike,
    length: TensorLike,
    scores: Scores,
    constraints: Constraints | None = None,
) -> tf.Tensor:
    """Return log Z: the logarithm of the sum of exp(score) over all valid paths.

    Args:
      emissions: `<float>[batch, time, states]`, cast to float32. `LOW` forbids a state at a step.
      length: `<int>[batch]`, real steps of each row; clipped to `time`.
      scores: transition, start and end scores; those of forbidden transitions are ignored.
      constraints: valid paths; all if `None`.

    Returns:
      `<float32>[batch]`; 0 for a row of length 0, `LOW` or less for a row without a valid path.

    Example:
      >>> zero = Scores(np.zeros((2, 2)), np.zeros(2), np.zeros(2))
      >>> log_normalizer(np.zeros((1, 3, 2)), [3], zero).numpy()      # log 2^3
      array([2.0794415], dtype=float32)
    """
    return _log_normalizer(Chain(emissions, length, scores, constraints))


def log_score(
    emissions: TensorLike,
    tags: TensorLike,
    length: TensorLike,
    scores: Scores,
    constraints: Constraints | None = None,
) -> tf.Tensor:
    """Return the score of one path per row.

    Args:
      emissions: `<float>[batch, time, states]`.
      tags: `<int>[batch, time]`, the states of the path; values after `length` are ignored.
      length: `<int>[batch]`.
      scores: transition, start and end scores.
      constraints: valid paths; all if `None`.

    Returns:
      `<float32>[batch]`; 0 for a row of length 0, `LOW` or less for an invalid path.

    Example:
      >>> scores = Scores(np.array([[0.0, 10.0], [0.0, 0.0]]), np.zeros(2), np.zeros(2))
      >>> log_score([[[1.0, 0.0], [0.0, 2.0]]], [[0, 1]], [2], scores).numpy()   # 1 + 10 + 2
      array([13.], dtype=float32)
    """
    emissions = tf.cast(emissions, tf.float32)
    constraints = constraints or Constraints.none(emissions.shape[-1])
    transitions, start, end = constraints.apply(scores)
    # An additional step, so that a row of length 0 has a first step.
    emissions = tf.pad(emissions, [[0, 0], [0, 1], [0, 0]])
    tags = tf.pad(tf.cast(tags, tf.int32), [[0, 0], [0, 1]])
    time = tf.shape(emissions)[1]
    length = tf.clip_by_value(tf.cast(length, tf.int32), 0, time - 1)
    real = tf.range(time)[None, :] < length[:, None]
    tags = tf.where(real, tags, 0)
    emitted = tf.gather(emissions, tags, batch_dims=2)
    moved = tf.gather_nd(transitions, tf.stack([tags[:, :-1], tags[:, 1:]], axis=-1))
    last = tf.gather(tags, tf.maximum(length - 1, 0), batch_dims=1)
    # Multiplying by 0 instead would turn an emission that is not finite into NaN.
    total = tf.reduce_sum(tf.where(real, emitted, 0.0), axis=1)
    total += tf.reduce_sum(tf.where(real[:, 1:], moved, 0.0), axis=1)
    total += tf.gather(start, tags[:, 0]) + tf.gather(end, last)
    return tf.where(length > 0, total, 0.0)


def log_likelihood(
    emissions: TensorLike,
    tags: TensorLike,
    length: TensorLike,
    scores: Scores,
    constraints: Constraints | None = None,
) -> tf.Tensor:
    """Return the log-probability of one path per row.

    Args:
      emissions: see `log_score`, like the other arguments.
      tags: see there.
      length: see there.
      scores: see there.
      constraints: see there.

    Returns:
      `<float32>[batch]`, at most 0; 0 for a row of length 0.

    Example:
      >>> zero = Scores(np.zeros((2, 2)), np.zeros(2), np.zeros(2))
      >>> paths = log_likelihood(np.zeros((1, 3, 2)), [[0, 1, 1]], [3], zero)
      >>> tf.exp(paths).numpy().round(3)      # one of 2^3
      array([0.125], dtype=float32)
    """
    path = log_score(emissions, tags, length, scores, constraints)
    return path - log_normalizer(emissions, length, scores, constraints)


def log_likelihood_of_set(
    emissions: TensorLike,
    allowed: TensorLike,
    length: TensorLike,
    scores: Scores,
    constraints: Constraints | None = None,
) -> tf.Tensor:
    """Return the log-probability of a set of paths, for partially labelled data.

    Args:
      emissions: `<float>[batch, time, states]`.
      allowed: `<bool>[batch, time, states]`, states of the set's paths at each step: one state at a
        labelled step, several or all at an unlabelled one.
      length: `<int>[batch]`.
      scores: transition, start and end scores.
      constraints: valid paths; all if `None`.

    Returns:
      `<float32>[batch]`, at most 0 except for rounding.
    """
    emissions = tf.cast(emissions, tf.float32)
    inside = log_normalizer(tf.where(allowed, emissions, LOW), length, scores, constraints)
    return inside - log_normalizer(emissions, length, scores, constraints)


def marginals(
    emissions: TensorLike,
    length: TensorLike,
    scores: Scores,
    constraints: Constraints | None = None,
) -> tf.Tensor:
    """Return the probability of each state at each step, over all valid paths.

    Args:
      emissions: `<float>[batch, time, states]`.
      length: `<int>[batch]`.
      scores: transition, start and end scores.
      constraints: valid paths; all if `None`.

    Returns:
      `<float32>[batch, time, states]`, 0 after `length`. No gradient flows through it.
    """
    chain = Chain(emissions, length, scores, constraints)
    values, real, incoming = chain.emissions, chain.real, chain.incoming
    _, _, alphas = chain.run(linear_chain.forward, values, real, incoming, chain.start, chain.end)
    weight = tf.ones_like(values[0, 0])
    probabilities, _ = chain.run(
        linear_chain.backward, values, real, incoming, chain.outgoing, chain.end, alphas, weight
    )
    return chain.to_rows(probabilities)


def _log_normalizer(chain: Chain) -> tf.Tensor:
    """Return log Z as one op, whose gradient is the backward pass."""
    save = is_recording()
    real, outgoing = chain.real, tf.stop_gradient(chain.outgoing)

    @tf.custom_gradient
    def call(emissions: tf.Tensor, incoming: tf.Tensor, start: tf.Tensor, end: tf.Tensor) -> Any:
        arguments = (emissions, incoming, start, end)

        def forward(values: tf.Tensor, *scores: tf.Tensor) -> tuple[tf.Tensor, ...]:
            return chain.run(linear_chain.forward, values, real, *scores)

        # Without stop_gradient a tape would differentiate the loop itself.
        total, last, alphas = forward(*map(tf.stop_gradient, arguments))

        def gradient(d_total: tf.Tensor) -> list[tf.Tensor]:
            saved = alphas if save else forward(*arguments)[2]
            d_emissions, d_incoming = chain.run(
                linear_chain.backward, emissions, real, incoming, outgoing, end, saved, d_total
            )
            d_start = tf.reduce_sum(d_emissions[0], axis=1, keepdims=True)
            d_last = linear_chain.softmax(last + end) * tf.where(chain.length > 0, d_total, 0.0)
            d_end = tf.reduce_sum(d_last, axis=1, keepdims=True)
            return [d_emissions, d_incoming, d_start, d_end]

        return tf.where(chain.length > 0, total, 0.0), gradient

    return call(chain.emissions, chain.incoming, chain.start, chain.end)


# --- The best path --------------------------------------------------------------------------------


def viterbi(
    emissions: TensorLike,
    length: TensorLike,
    scores: Scores,
    constraints: Constraints | None = None,
) -> tuple[tf.Tensor, tf.Tensor]:
    """Return the valid path with the highest score, and that score (Viterbi 1967).

    Args:
      emissions: `<float>[batch, time, states]`.
      length: `<int>[batch]`.
      scores: transition, start and end scores.
      constraints: valid paths; all if `None`.

    Returns:
      The states of the path `<int32>[batch, time]`, 0 after `length`, and its score
      `<float32>[batch]`. If a row has no valid path, the score is `LOW` or less and the states are
      arbitrary.

    Example:
      >>> scores = Scores(np.array([[0.0, 0.0], [-9.0, 0.0]]), np.zeros(2), np.zeros(2))
      >>> tags, score = viterbi([[[0.0, 1.0], [3.0, 0.0], [0.0, 2.0]]], [3], scores)
      >>> tags.numpy(), score.numpy()
      (array([[0, 0, 1]], dtype=int32), array([5.], dtype=float32))
    """
    emissions = tf.cast(emissions, tf.float32)
    constraints = constraints or Constraints.none(emissions.shape[-1])
    last, total, pointers = viterbi_forward(emissions, length, scores, constraints)
    last += constraints.apply(scores).end
    best = tf.reduce_max(last, axis=-1)
    tags = trace_back(pointers, tf.argmax(last, axis=-1, output_type=tf.int32), length, constraints)
    length = tf.minimum(tf.cast(length, tf.int32), tf.shape(emissions)[1])
    return tags, tf.where(length > 0, total + best, 0.0)


def viterbi_forward(
    emissions: TensorLike, length: TensorLike, scores: Scores, constraints: Constraints
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Run the forward pass of `viterbi` alone.

    To decode a long row in pieces, prepend one step to every piece except the first. Its emissions
    are `previous - scores.start`, where `previous` are the scores `[batch, states]` that the
    preceding piece returned. The constraints of such a piece must allow every start. Drop its first
    backpointers.

    Args:
      emissions: `<float>[batch, time, states]`.
      length: `<int>[batch]`.
      scores: transition and start scores; the end scores are not added.
      constraints: valid paths.

    Returns:
      The score of the best path to each state at the last real step, less the largest one,
      `<float32>[batch, states]`; that largest score `<float32>[batch]`; and backpointers
      `<uint8>[batch, time, states]` for `trace_back`: the place of each state's best predecessor in
      `constraints.sources`.
    """
    chain = Chain(emissions, length, scores, constraints)
    last, total, pointers = chain.run(
        linear_chain.viterbi, chain.emissions, chain.real, chain.incoming, chain.start
    )
    return tf.transpose(last), total[0], chain.to_rows(pointers)


def trace_back(
    pointers: TensorLike, last: TensorLike, length: TensorLike, constraints: Constraints
) -> tf.Tensor:
    """Return the best path that ends in given states.

    Args:
      pointers: `<uint8>[batch, time, states]`, the backpointers of `viterbi_forward`.
      last: `<int32>[batch]`, the state at the last real step of each row.
      length: `<int>[batch]`.
      constraints: the constraints of the forward pass.

    Returns:
      `<int32>[batch, time]`, 0 after `length`.
    """
    pointers = tf.convert_to_tensor(pointers)
    states = constraints.states
    predecessors = tf.constant(constraints.sources.index.reshape(-1))
    time = dimension(pointers, 1)
    length = tf.minimum(tf.cast(length, tf.int32), time)
    pointer_array = unstack(tf.transpose(pointers, [1, 0, 2]))
    path = empty(time, pointers.shape[:1], tf.int32)

    def body(t: tf.Tensor, state: tf.Tensor, path: tf.TensorArray) -> tuple:
        real = t < length
        path = path.write(t, tf.where(real, state, 0))
        pointer = tf.cast(tf.gather(pointer_array.read(t), state, batch_dims=1), tf.int32)
        predecessor = tf.gather(predecessors, pointer * states + state)
        return t - 1, tf.where(real, predecessor, state), path

    start = (tf.convert_to_tensor(time - 1), tf.cast(last, tf.int32), path)
    _, _, path = tf.while_loop(lambda t, *_: t >= 0, body, start)
    return tf.transpose(path.stack())


# --- The layer ------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("common")
class CRF(keras.layers.Layer):
    """Linear-chain CRF over emissions, with learned transitions and hard constraints.

    The call decodes: it returns the best valid path. For training, use `log_likelihood` with the
    emissions, which the model returns as another output. The layer computes in float32 under every
    precision policy.

    Args:
      states: positive integer, the number of states.
      transitions: `<bool>[states, states]`, whether the column's state may follow the row's state;
        all if `None`. A forbidden transition is never decoded and is excluded from the normalizer.
      start: `<bool>[states]`, states in which a path may start.
      end: `<bool>[states]`, states in which a path may end.

    Call arguments:
      emissions: `<float>[batch, time, states]`.
      length: `<int>[batch]`, real steps of each row.

    Returns:
      `<int32>[batch, time]`, the best path, 0 after `length`.

    Example:
      >>> ids = keras.Input((None,), dtype="int32", name="ids")
      >>> length = keras.Input((), dtype="int32", name="length")
      >>> emissions = keras.layers.Embedding(100, 5)(ids)
      >>> crf = CRF(5, name="crf")
      >>> outputs = {"emissions": emissions, "tags": crf(emissions, length)}
      >>> model = keras.Model({"ids": ids, "length": length}, outputs)
      >>> outputs = model({"ids": np.ones((2, 4), int), "length": np.array([4, 2])})
      >>> outputs["tags"].shape
      TensorShape([2, 4])
      >>> loss = -crf.log_likelihood(outputs["emissions"], np.zeros((2, 4)), [4, 2])
      >>> loss.shape
      TensorShape([2])

    Reference:
      - [Lafferty et al., 2001: Conditional random fields](
        https://repository.upenn.edu/handle/20.500.14332/6188)
      - [Lample et al., 2016: Neural architectures for named entity recognition](
        https://arxiv.org/abs/1603.01360)
    """

    def __init__(
        self,
        states: int,
        transitions: Sequence[Sequence[bool]] | np.ndarray | None = None,
        start: Sequence[bool] | np.ndarray | None = None,
        end: Sequence[bool] | np.ndarray | None = None,
        **kwargs: Any,
    ):
        kwargs["dtype"] = "float32"  # sums over many steps lose too much precision in bfloat16
        super().__init__(**kwargs)
        if not isinstance(states, int) or states < 1:
            raise ValueError(f"states must be a positive integer. Received: {states!r}")
        self.states = states
        allowed = np.ones((states, states), bool) if transitions is None else transitions
        self.constraints = Constraints(allowed, start, end)
        if self.constraints.states != states:
            raise ValueError(
                f"transitions must be a table of {states} states. "
                f"Received: {self.constraints.states}"
            )

    def build(self, emissions_shape: Sequence[int | None], *_: Any) -> None:
        """Create the transition, start and end scores, initialised to 0."""
        if emissions_shape[-1] != self.states:
            raise ValueError(
                f"emissions must have {self.states} states. Received shape: {emissions_shape}"
            )
        self.transitions = self.add_weight((self.states, self.states), "zeros", name="transitions")
        self.start = self.add_weight((self.states,), "zeros", name="start")
        self.end = self.add_weight((self.states,), "zeros", name="end")

    @property
    def scores(self) -> Scores:
        """The learned scores."""
        return Scores(*map(tf.convert_to_tensor, (self.transitions, self.start, self.end)))

    def call(self, emissions: TensorLike, length: TensorLike) -> tf.Tensor:
        """Return the best valid path; see the class."""
        return self.viterbi(emissions, length)[0]

    def compute_output_spec(
        self, emissions: keras.KerasTensor, length: keras.KerasTensor
    ) -> keras.KerasTensor:
        """Return the shape and type of the path."""
        return keras.KerasTensor(tuple(emissions.shape[:2]), dtype="int32")

    def viterbi(self, emissions: TensorLike, length: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
        """Return the best path and its score; see the function `viterbi`."""
        return viterbi(emissions, length, self.scores, self.constraints)

    def log_likelihood(
        self, emissions: TensorLike, tags: TensorLike, length: TensorLike
    ) -> tf.Tensor:
        """Return the log-probability of a path; see the function `log_likelihood`."""
        return log_likelihood(emissions, tags, length, self.scores, self.constraints)

    def log_likelihood_of_set(
        self, emissions: TensorLike, allowed: TensorLike, length: TensorLike
    ) -> tf.Tensor:
        """Return the log-probability of a set of paths; see `log_likelihood_of_set`."""
        return log_likelihood_of_set(emissions, allowed, length, self.scores, self.constraints)

    def log_normalizer(self, emissions: TensorLike, length: TensorLike) -> tf.Tensor:
        """Return log Z; see the function `log_normalizer`."""
        return log_normalizer(emissions, length, self.scores, self.constraints)

    def marginals(self, emissions: TensorLike, length: TensorLike) -> tf.Tensor:
        """Return the probability of each state; see the function `marginals`."""
        return marginals(emissions, length, self.scores, self.constraints)

    def get_config(self) -> dict[str, Any]:
        """Return the arguments, with tables as lists."""
        return {
            **super().get_config(),
            "states": self.states,
            "transitions": self.constraints.transitions.tolist(),
            "start": self.constraints.start.tolist(),
            "end": self.constraints.end.tolist(),
        }
