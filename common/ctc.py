"""Connectionist temporal classification: loss, alignment, greedy and prefix beam search.

A network predicts a probability for each symbol and for the blank at every frame. A path has one
symbol per frame. It reads as the text that remains after merging repeats and then removing blanks.
The probability of a text is the sum over all paths that read as it (Graves et al. 2006). **The
blank is the last symbol**, as in `tf.nn`.

The loss is computed by TensorFlow's kernel on a CPU, and by a scan of ours under XLA and on a GPU.

All functions use true lengths: frames after `frames` and labels after `label_length` never affect
the result. (`keras.losses.CTC` counts padded frames as real ones.)

A label of n symbols, of which r repeat their predecessor, needs n + r frames, because a blank must
separate repeats: see `frames_needed`. Check for pairs that do not fit before training.

`beam_search` searches over prefixes, frame by frame (Hannun et al. 2014). It can add a language
model over the same symbols (shallow fusion), an `Ngram`. The search is graph code without custom
ops, so every server can run it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, TypeAlias

from common.log_space import LOW as LOW
from common.log_space import log_add, log_sum_exp
from common.ngram import Ngram as Ngram
from common.prefix_beam import Beam, Fusion, extend, initial_beam, trace_back
from common.tensor_arrays import dimension, empty, unstack
from common.tensorflow_internals import is_compiling

import numpy as np
import tensorflow as tf

TensorLike: TypeAlias = tf.types.experimental.TensorLike

__all__ = [
    "LOW",
    "Hypotheses",
    "Ngram",
    "align",
    "beam_search",
    "compact",
    "frames_needed",
    "greedy",
    "log_likelihood",
    "loss",
    "skip_blanks",
]


def frames_needed(labels: TensorLike, label_length: TensorLike) -> tf.Tensor:
    """Return the minimum number of frames for each label: its length plus its repeats.

    Args:
      labels: `<int>[batch, label]`.
      label_length: `<int>[batch]`.

    Returns:
      `<int32>[batch]`.

    Example:
      >>> frames_needed([[3, 3, 5], [1, 2, 2]], [3, 2]).numpy()
      array([4, 2], dtype=int32)
    """
    labels = tf.cast(labels, tf.int32)
    label_length = tf.cast(label_length, tf.int32)
    repeats = (labels[:, 1:] == labels[:, :-1]) & tf.sequence_mask(
        label_length - 1, tf.shape(labels)[1] - 1
    )
    return label_length + tf.reduce_sum(tf.cast(repeats, tf.int32), axis=1)


# --- Loss -----------------------------------------------------------------------------------------


def loss(
    log_probs: TensorLike, labels: TensorLike, frames: TensorLike, label_length: TensorLike
) -> tf.Tensor:
    """Return the negative log-likelihood of each label, for training.

    Args:
      log_probs: `<float>[batch, time, symbols]`, log-softmax over the symbols, the blank last.
      labels: `<int>[batch, label]`, without blanks.
      frames: `<int>[batch]`, real frames of each row.
      label_length: `<int>[batch]`.

    Returns:
      `<float32>[batch]`; infinite, with a gradient of 0, if a label does not fit.

    Example:
      >>> log_probs = np.log([[[0.5, 0.5], [0.5, 0.5]]])     # one symbol and the blank
      >>> loss(log_probs, [[0]], [2], [1]).numpy().round(4)   # -log(3 of 4 paths)
      array([0.2877], dtype=float32)
    """
    if is_compiling() or tf.config.list_logical_devices("GPU"):
        likelihood = log_likelihood(log_probs, labels, frames, label_length)
        return tf.where(likelihood > LOW / 2, -likelihood, np.inf)
    return _loss_by_kernel(tf.cast(log_probs, tf.float32), labels, frames, label_length)


def _loss_by_kernel(
    log_probs: tf.Tensor, labels: TensorLike, frames: TensorLike, label_length: TensorLike
) -> tf.Tensor:
    """Compute `loss` by TensorFlow's kernel for CPUs, in half the time of the lattice.

    The kernel takes no empty labels and no labels that do not fit. Such rows get another label, and
    their results are replaced: the empty label has one path, the blanks.
    """
    blank = log_probs.shape[-1] - 1
    time = tf.shape(log_probs)[1]
    frames = tf.clip_by_value(tf.cast(frames, tf.int32), 0, time)
    length = tf.cast(label_length, tf.int32)
    labels = tf.pad(tf.cast(labels, tf.int32), [[0, 0], [0, 1]])  # at least one column
    is_empty = length == 0
    is_regular = (frames_needed(labels, length) <= frames) & ~is_empty
    present = tf.sequence_mask(tf.where(is_regular, length, 1), tf.shape(labels)[1])
    symbols = tf.boolean_mask(tf.where(is_regular[:, None], labels, 0), present)
    real = tf.sequence_mask(frames, time)

    @tf.custom_gradient
    def call(log_probs: tf.Tensor) -> tuple[tf.Tensor, Any]:
        values, slopes = tf.raw_ops.CTCLoss(
            inputs=tf.transpose(log_probs, [1, 0, 2]),
            labels_indices=tf.where(present),
            labels_values=symbols,
            sequence_length=tf.maximum(frames, 1),
            ignore_longer_outputs_than_inputs=True,
        )
        blanks = tf.reduce_sum(tf.where(real, log_probs[:, :, blank], 0.0), axis=1)
        irregular = tf.where(is_empty, -blanks, np.inf)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            # The kernel's gradient is that of the logits: softmax minus probability.
            probability = tf.exp(log_probs) - tf.transpose(slopes, [1, 0, 2])
            of_blanks = tf.one_hot(tf.where(is_empty, blank, -1), blank + 1)[:, None, :]
            probability = tf.where(is_regular[:, None, None], probability, of_blanks)
            return tf.where(real[:, :, None], -probability, 0.0) * upstream[:, None, None]

        return tf.where(is_regular, values, irregular), gradient

    return call(log_probs)


def log_likelihood(
    log_probs: TensorLike, labels: TensorLike, frames: TensorLike, label_length: TensorLike
) -> tf.Tensor:
    """Return the log-probability of each label: the sum over all its paths.

    The gradient is the probability of each symbol at each frame given the label. It is computed by
    a backward pass (Graves et al. 2006, equation 16), not by automatic differentiation through the
    loop.

    Args:
      log_probs: see `loss`, like the other arguments.
      labels: see there.
      frames: see there.
      label_length: see there.

    Returns:
      `<float32>[batch]`; about `LOW`, with a gradient of 0, if a label does not fit. For a row
      without frames, the empty label has log-probability 0.
    """

    @tf.custom_gradient
    def call(log_probs: tf.Tensor) -> tuple[tf.Tensor, Any]:
        lattice = _Lattice(log_probs, labels, frames, label_length)
        sums, last = lattice.forward()
        total = lattice.total(last)

        def gradient(upstream: tf.Tensor) -> tf.Tensor:
            return lattice.backward(sums, total) * upstream[:, None, None]

        return total, gradient

    return call(tf.cast(log_probs, tf.float32))


class _Lattice:
    """The paths of a label over the states blank, first symbol, blank, second symbol, ..., blank.

    A path stays in a state, moves to the next one, or skips a blank between two different symbols.

    Attributes:
      time: number of frames.
      frames: `<int32>[batch]`, clipped to `time`.
      length: `<int32>[batch]`, of the label.
      one_hot: `<float32>[batch, states, symbols]`, the symbol of each state.
      skip: `<float32>[batch, states]`, 0 if the blank before the state may be skipped, else `LOW`.
      start: `<float32>[batch, states]`, 0 if a path may start in the state, else `LOW`.
      end: `<float32>[batch, states]`, 0 if a path may end in the state, else `LOW`.
      emissions: `<float32>[time, batch, states]`, the log-probability of each state's symbol.
    """

    def __init__(
        self,
        log_probs: tf.Tensor,
        labels: TensorLike,
        frames: TensorLike,
        label_length: TensorLike,
    ):
        symbols = log_probs.shape[-1]
        batch, self.time = tf.shape(log_probs)[0], dimension(log_probs, 1)
        labels = tf.cast(labels, tf.int32)
        width = dimension(labels, 1)
        self.frames = tf.clip_by_value(tf.cast(frames, tf.int32), 0, self.time)
        self.length = tf.cast(label_length, tf.int32)
        blank = tf.fill([batch, width + 1], symbols - 1)
        pairs = tf.reshape(tf.stack([blank[:, :-1], labels], axis=2), [batch, 2 * width])
        state_symbols = tf.concat([pairs, blank[:, -1:]], axis=1)
        # Padding of the labels may contain any value.
        state_symbols = tf.clip_by_value(state_symbols, 0, symbols - 1)
        self.one_hot = tf.one_hot(state_symbols, symbols, dtype=tf.float32)
        place = tf.range(2 * width + 1)[None, :]
        last = 2 * self.length[:, None]
        real = place <= last
        changes = state_symbols != tf.roll(state_symbols, 2, axis=1)
        skips = (place % 2 == 1) & (place >= 3) & changes
        self.skip = tf.where(skips & real, 0.0, LOW)
        self.start = tf.where((place < 2) & real, 0.0, LOW)
        self.end = tf.where((place == last) | (place == last - 1), 0.0, LOW)
        emissions = tf.gather(log_probs, state_symbols, axis=2, batch_dims=1)
        emissions = tf.where(real[:, None, :], emissions, LOW)
        self.emissions = tf.transpose(tf.maximum(emissions, LOW), [1, 0, 2])

    def forward(self, *, best: bool = False) -> tuple[tf.Tensor, tf.Tensor]:
        """Scan the frames from the first to the last.

        Args:
          best: whether to take the maximum over paths instead of their sum.

        Returns:
          `<float32>[time, batch, states]`, the log of the sum over all paths to a state (with
          `best`, `<int32>`: by how many states the best path advanced at this frame), and
          `<float32>[batch, states]`, the sum (or maximum) at the last real frame.
        """
        emissions = unstack(self.emissions)
        dtype = tf.int32 if best else tf.float32
        history = empty(self.time, self.emissions.shape[1:], dtype)

        def body(t: tf.Tensor, score: tf.Tensor, history: tf.TensorArray) -> tuple:
            paths = tf.stack([score, _shift(score, 1), _shift(score, 2) + self.skip])
            merged = tf.reduce_max(paths, axis=0) if best else log_sum_exp(paths)
            # No state is left before the first frame.
            new = tf.where(t == 0, score, merged) + emissions.read(t)
            new = tf.where((t < self.frames)[:, None], tf.maximum(new, LOW), score)
            stored = tf.argmax(paths, axis=0, output_type=tf.int32) if best else new
            return t + 1, new, history.write(t, stored)

        _, last, history = tf.while_loop(
            lambda t, *_: t < self.time,
            body,
            (tf.constant(0), self.start, history),
            maximum_iterations=self.time,
        )
        return history.stack(), last

    def total(self, last: tf.Tensor) -> tf.Tensor:
        """Return the log-probability `[batch]` of the whole label."""
        total = tf.reduce_logsumexp(last + self.end, axis=1)
        empty_label = tf.where(self.length == 0, 0.0, LOW)
        return tf.where(self.frames > 0, tf.maximum(total, LOW), empty_label)

    def backward(self, sums: tf.Tensor, total: tf.Tensor) -> tf.Tensor:
        """Scan the frames from the last to the first.

        Args:
          sums: `<float32>[time, batch, states]`, from `forward`.
          total: `<float32>[batch]`, from `total`.

        Returns:
          `<float32>[batch, time, symbols]`, the probability of each symbol given the label.
        """
        emissions, sum_array = unstack(self.emissions), unstack(sums)
        states = empty(self.time, sums.shape[1:], tf.float32)

        def body(t: tf.Tensor, after: tf.Tensor, states: tf.TensorArray) -> tuple:
            # `after`: log of the sum over all continuations of a state, without its own frame.
            probability = tf.exp(tf.minimum(sum_array.read(t) + after - total[:, None], 0.0))
            real = (t < self.frames)[:, None]
            states = states.write(t, tf.where(real, probability, 0.0))
            here = tf.maximum(after + emissions.read(t), LOW)
            # `skip` is stored at the target of the transition.
            paths = [here, _shift(here, -1), _shift(here + self.skip, -2)]
            return t - 1, tf.where(real, log_sum_exp(tf.stack(paths)), after), states

        _, _, states = tf.while_loop(
            lambda t, *_: t >= 0,
            body,
            (tf.convert_to_tensor(self.time - 1), self.end, states),
            maximum_iterations=self.time,
        )
        probabilities = tf.transpose(states.stack(), [1, 0, 2])
        fits = (total > LOW / 2) & (self.frames > 0)
        return tf.where(fits[:, None, None], probabilities, 0.0) @ self.one_hot


def align(
    log_probs: TensorLike, labels: TensorLike, frames: TensorLike, label_length: TensorLike
) -> tf.Tensor:
    """Return the most likely path of each label: the symbol at each frame.

    Args:
      log_probs: see `loss`, like the other arguments.
      labels: see there.
      frames: see there.
      label_length: see there.

    Returns:
      `<int32>[batch, time]`: the place in the label of the symbol at each frame, -1 for the blank
      and after `frames`. Arbitrary if a label does not fit.

    Example:
      >>> log_probs = np.log([[[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]])
      >>> align(log_probs, [[0, 1]], [3], [2]).numpy()
      array([[-1,  0,  1]], dtype=int32)
    """
    lattice = _Lattice(tf.cast(log_probs, tf.float32), labels, frames, label_length)
    moves, last = lattice.forward(best=True)
    move_array = unstack(moves)
    path = empty(lattice.time, [None], tf.int32)

    def body(t: tf.Tensor, state: tf.Tensor, path: tf.TensorArray) -> tuple:
        real = t < lattice.frames
        path = path.write(t, tf.where(real & (state % 2 == 1), state // 2, -1))
        move = tf.gather(move_array.read(t), state, batch_dims=1)
        return t - 1, tf.where(real, tf.maximum(state - move, 0), state), path

    state = tf.argmax(last + lattice.end, axis=1, output_type=tf.int32)
    _, _, path = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (tf.convert_to_tensor(lattice.time - 1), state, path),
        maximum_iterations=lattice.time,
    )
    return tf.transpose(path.stack())


# --- Decoding -------------------------------------------------------------------------------------


class Hypotheses(NamedTuple):
    """Decoded texts, best first in each row.

    Attributes:
      tokens: `<int32>[batch, width, time]`, -1 after `length`.
      length: `<int32>[batch, width]`.
      log_probability: `<float>[batch, width]`, of the text under the network alone, summed over
        the paths that the search kept (all paths if `width` is large enough).
      score: `<float>[batch, width]`, by which the hypotheses are ranked; `LOW` in an empty slot.
    """

    tokens: tf.Tensor
    length: tf.Tensor
    log_probability: tf.Tensor
    score: tf.Tensor


def greedy(log_probs: TensorLike, frames: TensorLike) -> Hypotheses:
    """Decode the most likely path: merge repeats, then remove blanks.

    Args:
      log_probs: `<float>[batch, time, symbols]`, the blank last.
      frames: `<int>[batch]`.

    Returns:
      Hypotheses of width 1. Their `log_probability` and `score` are those of the one path.

    Example:
      >>> log_probs = np.log([[[0.1, 0.1, 0.8], [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]]])
      >>> greedy(log_probs, [3]).tokens.numpy()
      array([[[ 0,  1, -1]]], dtype=int32)
    """
    log_probs = tf.cast(log_probs, tf.float32)
    real = tf.sequence_mask(frames, tf.shape(log_probs)[1])
    best = tf.argmax(log_probs, axis=-1, output_type=tf.int32)
    previous = tf.pad(best[:, :-1], [[0, 0], [1, 0]], constant_values=-1)
    emitted = real & (best != previous) & (best != log_probs.shape[-1] - 1)
    tokens, length = compact(tf.where(emitted, best, -1))
    score = tf.reduce_sum(tf.where(real, tf.reduce_max(log_probs, axis=-1), 0.0), axis=1)
    return Hypotheses(tokens[:, None], length[:, None], score[:, None], score[:, None])


def beam_search(
    log_probs: TensorLike,
    frames: TensorLike,
    *,
    width: int,
    language_model: Ngram | None = None,
    weight: float | tf.Tensor = 0.5,
    bonus: float | tf.Tensor = 0.0,
) -> Hypotheses:
    """Search for the most likely texts by prefix beam search (Hannun et al. 2014, algorithm 1).

    A text is ranked by

        log P(text | audio) + weight * log P(text, end of text) + bonus * number of symbols

    The first term is a sum over paths. The search stores the paths of a prefix that end in a blank
    separately from those that end in its last symbol, and merges paths that read the same.

    Args:
      log_probs: `<float>[batch, time, symbols]`, the blank last.
      frames: `<int>[batch]`.
      width: number of prefixes to keep at each frame. Of more than 128 symbols the most likely ones
        of the frame are tried.
      language_model: over the same symbols without the blank; `None` uses the network alone.
      weight: scalar weight of the language model.
      bonus: scalar added for each symbol; it offsets a language model's preference for short texts.

    Returns:
      `width` hypotheses per row.

    Example:
      >>> log_probs = np.log([[[0.4, 0.6], [0.4, 0.6]]])   # "0" has three paths, "" has one
      >>> beam_search(log_probs, [2], width=2).length.numpy()
      array([[1, 0]], dtype=int32)
    """
    log_probs = tf.cast(log_probs, tf.float32)
    time = dimension(log_probs, 1)
    frames = tf.clip_by_value(tf.cast(frames, tf.int32), 0, time)
    frame_array = unstack(tf.transpose(log_probs, [1, 0, 2]))
    fusion = Fusion.create(language_model, weight, bonus)
    state = 0 if language_model is None else language_model.start
    beam = initial_beam(tf.shape(log_probs)[0], width, state)
    slots, symbols = (empty(time, [None, width], tf.int32) for _ in range(2))

    def body(t: tf.Tensor, beam: Beam, slots: tf.TensorArray, symbols: tf.TensorArray) -> tuple:
        extended, slot, symbol = extend(beam, frame_array.read(t), fusion)
        real = (t < frames)[:, None]
        beam = Beam(*(tf.where(real, a, b) for a, b in zip(extended, beam, strict=True)))
        slots = slots.write(t, tf.where(real, slot, tf.range(width)))
        return t + 1, beam, slots, symbols.write(t, tf.where(real, symbol, -1))

    _, beam, slots, symbols = tf.while_loop(
        lambda t, *_: t < time,
        body,
        (tf.constant(0), beam, slots, symbols),
        maximum_iterations=time,
    )
    log_probability = log_add(beam.blank, beam.label)
    score = fusion.add_end(log_probability + beam.fused, beam.state, log_probs.shape[-1] - 1)
    score, slot = tf.math.top_k(tf.maximum(score, LOW), width)
    tokens, length = compact(trace_back(slots, symbols, slot, time))
    log_probability = tf.gather(log_probability, slot, batch_dims=1)
    return Hypotheses(tokens, length, tf.maximum(log_probability, LOW), score)


def skip_blanks(
    log_probs: TensorLike, frames: TensorLike, certainty: float = 0.999
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Remove frames that are certainly blank, so that a search has fewer frames (Chen et al. 2016).

    The first frame of each run of blanks stays, because it separates equal symbols.

    Args:
      log_probs: `<float>[batch, time, symbols]`, the blank last.
      frames: `<int>[batch]`.
      certainty: smallest probability of the blank in a removed frame.

    Returns:
      The remaining frames, `<float32>[batch, less time, symbols]`, their number `<int32>[batch]`,
      and the sum of the log-probabilities of the blanks in the removed ones, `<float32>[batch]`,
      which every path of `log_probs` without other symbols there has in addition.

    Example:
      >>> log_probs = np.log([[[0.8, 0.2], [1e-9, 1.0], [1e-9, 1.0], [0.3, 0.7]]])
      >>> less, count, _ = skip_blanks(log_probs, [4])
      >>> np.exp(less[0, :, 0]).round(1), count.numpy()
      (array([0.8, 0. , 0.3], dtype=float32), array([3], dtype=int32))

    Reference:
      Chen et al. (2016), Phone Synchronous Decoding with CTC Lattice.
    """
    log_probs = tf.cast(log_probs, tf.float32)
    real = tf.sequence_mask(frames, tf.shape(log_probs)[1])
    blank = log_probs[:, :, -1]
    is_blank = blank >= math.log(certainty)
    is_removed = is_blank & tf.pad(is_blank[:, :-1], [[0, 0], [1, 0]]) & real
    removed = tf.reduce_sum(tf.where(is_removed, blank, 0.0), axis=1)
    is_kept = real & ~is_removed
    count = tf.reduce_sum(tf.cast(is_kept, tf.int32), axis=1)
    order = tf.argsort(tf.cast(~is_kept, tf.int32), axis=1, stable=True)
    order = order[:, : tf.reduce_max(tf.concat([count, [1]], axis=0))]
    return tf.gather(log_probs, order, batch_dims=1), count, removed


def compact(symbols: TensorLike) -> tuple[tf.Tensor, tf.Tensor]:
    """Move all symbols except -1 to the front.

    Args:
      symbols: `<int32>[..., time]`.

    Returns:
      The symbols with -1 at the end, and their number without -1, `<int32>[...]`.

    Example:
      >>> tokens, length = compact([[-1, 3, -1, 5]])
      >>> tokens.numpy(), length.numpy()
      (array([[ 3,  5, -1, -1]], dtype=int32), array([2], dtype=int32))
    """
    symbols = tf.convert_to_tensor(symbols)
    is_gap = tf.cast(symbols < 0, tf.int32)
    order = tf.argsort(is_gap, axis=-1, stable=True)
    length = tf.shape(symbols)[-1] - tf.reduce_sum(is_gap, axis=-1)
    return tf.gather(symbols, order, batch_dims=symbols.shape.rank - 1), length


def _shift(value: tf.Tensor, by: int) -> tf.Tensor:
    """Shift `[batch, states]` by some states (down if negative), filling with `LOW`."""
    if by > 0:
        return tf.pad(value, [[0, 0], [by, 0]], constant_values=LOW)[:, : tf.shape(value)[1]]
    return tf.pad(value, [[0, 0], [0, -by]], constant_values=LOW)[:, -by:]
