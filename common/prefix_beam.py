"""The beam of a prefix search over the frames of `common.ctc` (Hannun et al. 2014)."""

from __future__ import annotations

from typing import NamedTuple

from common.log_space import LOW, log_add
from common.ngram import Ngram, Tables
from common.tensor_arrays import empty

import tensorflow as tf

__all__ = ["Beam", "Fusion", "extend", "initial_beam", "trace_back"]

# An odd multiplier makes h -> h * m + c one-to-one modulo 2^64 (Knuth's MMIX constant).
_HASH = 6364136223846793005
CANDIDATES = 128  # symbols that may be appended at a frame, the most likely ones


class Beam(NamedTuple):
    """The prefixes of a search; each tensor is `[batch, width]`.

    Attributes:
      blank: log-probability of the prefix's paths that end in a blank.
      label: log-probability of its paths that end in its last symbol.
      last: the last symbol; -1 if the prefix is empty.
      state: state of the language model.
      fused: the terms of language model and bonus in the rank.
      name: hash of the prefix; paths that read the same have equal names.
      parent: hash of the prefix without its last symbol.
    """

    blank: tf.Tensor
    label: tf.Tensor
    last: tf.Tensor
    state: tf.Tensor
    fused: tf.Tensor
    name: tf.Tensor
    parent: tf.Tensor


def initial_beam(batch: tf.Tensor, width: int, state: int) -> Beam:
    """Return a beam with the empty prefix in the first slot."""
    zeros = tf.zeros([batch, width], tf.int32)
    return Beam(
        blank=tf.tile(tf.where(tf.range(width) == 0, 0.0, LOW)[None, :], [batch, 1]),
        label=tf.fill([batch, width], LOW),
        last=zeros - 1,
        state=zeros + state,
        fused=tf.zeros([batch, width]),
        # Empty slots have names of their own, which are no prefix's name.
        name=tf.tile(tf.range(-1, -width - 1, -1, dtype=tf.int64)[None, :], [batch, 1]),
        parent=tf.fill([batch, width], tf.constant(-width - 1, tf.int64)),
    )


class Fusion(NamedTuple):
    """Shallow fusion: the terms of a rank that do not come from the network.

    Attributes:
      tables: those of the language model; `None` without one.
      weight: `<float32>[]`, of the language model.
      bonus: `<float32>[]`, per symbol.
    """

    tables: Tables | None
    weight: tf.Tensor
    bonus: tf.Tensor

    @classmethod
    def create(
        cls, language_model: Ngram | None, weight: float | tf.Tensor, bonus: float | tf.Tensor
    ) -> Fusion:
        """Read the tables of the language model."""
        tables = None if language_model is None else language_model.tables
        return cls(tables, tf.cast(weight, tf.float32), tf.cast(bonus, tf.float32))

    def gains(self, state: tf.Tensor, symbols: tf.Tensor | None) -> tf.Tensor:
        """Return the gain of next symbols, or one gain for all.

        Args:
          state: `<int32>[batch, width]`.
          symbols: `<int32>[batch, candidates]`; None for all symbols.

        Returns:
          `<float32>[batch, width, candidates]` or `<float32>[]`.
        """
        if self.tables is None:
            return self.bonus
        if symbols is None:
            return self.bonus + self.weight * self.tables.read_rows(state)
        log_probs, _ = self.tables.look_up(state[:, :, None], symbols[:, None, :])
        return self.bonus + self.weight * log_probs

    def add_end(self, score: tf.Tensor, state: tf.Tensor, end: int) -> tf.Tensor:
        """Add the language model's score of the end of the text, the symbol `end`."""
        if self.tables is None:
            return score
        log_probs, _ = self.tables.look_up(state, tf.constant(end))
        return score + self.weight * log_probs

    def advance(self, beam: Beam, symbol: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Return `state` and `fused` of the beam after a symbol; unchanged where it is -1."""
        is_new = symbol >= 0
        fused = beam.fused + tf.where(is_new, self.bonus, 0.0)
        if self.tables is None:
            return beam.state, fused
        log_probs, next_state = self.tables.look_up(beam.state, tf.maximum(symbol, 0))
        fused += tf.where(is_new, self.weight * log_probs, 0.0)
        return tf.where(is_new, next_state, beam.state), fused


def extend(beam: Beam, log_probs: tf.Tensor, fusion: Fusion) -> tuple[Beam, tf.Tensor, tf.Tensor]:
    """Advance the beam by one frame.

    Args:
      beam: the prefixes.
      log_probs: `<float32>[batch, symbols]`, of the frame, the blank last.
      fusion: the other terms of the rank.

    Returns:
      The next beam, the slots that its prefixes come from, and the symbols that were appended (-1
      if none), both `<int32>[batch, width]`.
    """
    width = beam.blank.shape[1]
    blank, label, longer = _continuations(beam, log_probs)
    same_rank = log_add(blank, label) + beam.fused
    candidates = _candidates(log_probs)
    if candidates is not None:
        longer = tf.gather(longer, candidates, axis=2, batch_dims=1)
    count = longer.shape[2]
    longer_rank = longer + beam.fused[:, :, None] + fusion.gains(beam.state, candidates)
    ranks = tf.concat([same_rank, tf.reshape(longer_rank, [-1, width * count])], axis=1)
    rank, index = tf.math.top_k(ranks, width)
    is_new = index >= width
    place = tf.maximum(index - width, 0)
    slot = tf.where(is_new, place // count, index)
    symbol = place % count
    if candidates is not None:
        symbol = tf.gather(candidates, symbol, batch_dims=1)
    symbol = tf.where(is_new, symbol, -1)
    old = Beam(*(tf.gather(value, slot, batch_dims=1) for value in beam))
    blank = tf.gather(blank, slot, batch_dims=1)
    label = tf.gather(label, slot, batch_dims=1)
    appended = tf.gather(tf.reshape(longer, [-1, width * count]), place, batch_dims=1)
    state, fused = fusion.advance(old, symbol)
    name = old.name * _HASH + tf.cast(symbol, tf.int64) + 1
    # A slot without a prefix gets a name of its own, so that no path is merged into it.
    valid = rank > LOW / 2
    unique = -2 - width - tf.range(width, dtype=tf.int64)[None, :]
    extended = Beam(
        blank=tf.where(is_new | ~valid, LOW, blank),
        label=tf.where(valid, tf.where(is_new, appended, label), LOW),
        last=tf.where(is_new, symbol, old.last),
        state=state,
        fused=fused,
        name=tf.where(valid, tf.where(is_new, name, old.name), unique),
        parent=tf.where(is_new, old.name, old.parent),
    )
    return extended, slot, symbol


def _candidates(log_probs: tf.Tensor) -> tf.Tensor | None:
    """Return the most likely symbols of a frame.

    Args:
      log_probs: `<float32>[batch, symbols + 1]`, of the frame.

    Returns:
      `<int32>[batch, CANDIDATES]`, or None if all symbols are few enough to be tried.
    """
    symbols = log_probs.shape[1] - 1
    if symbols <= CANDIDATES:
        return None
    return tf.math.top_k(log_probs[:, :symbols], CANDIDATES).indices


def _continuations(beam: Beam, log_probs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Return the log-probabilities of all continuations of a beam by one frame.

    Returns:
      Paths of the same prefix that end in a blank `[batch, width]`, paths of the same prefix that
      end in its last symbol `[batch, width]`, and paths of each prefix with one more symbol
      `[batch, width, symbols]`.
    """
    width, symbols = beam.blank.shape[1], log_probs.shape[1] - 1
    total = log_add(beam.blank, beam.label)
    blank = total + log_probs[:, symbols:]
    is_empty = beam.last < 0
    last = tf.maximum(beam.last, 0)
    label = tf.where(is_empty, LOW, beam.label + tf.gather(log_probs, last, batch_dims=1))
    # The last symbol again is a new symbol only after a blank.
    is_last = tf.one_hot(beam.last, symbols, on_value=True, off_value=False)
    before = tf.where(is_last, beam.blank[:, :, None], total[:, :, None])
    longer = before + log_probs[:, None, :symbols]
    # A longer prefix may be in the beam already: merge its paths with those of that slot.
    is_parent = (beam.name[:, :, None] == beam.parent[:, None, :]) & ~is_empty[:, None, :]
    source = tf.argmax(tf.cast(is_parent, tf.int32), axis=1, output_type=tf.int32)
    flat = tf.reshape(longer, [-1, width * symbols])
    merged = tf.gather(flat, source * symbols + last, batch_dims=1)
    label = log_add(label, tf.where(tf.reduce_any(is_parent, axis=1), merged, LOW))
    is_merged = tf.cast(is_parent, tf.float32) @ tf.cast(is_last, tf.float32) > 0
    return blank, label, tf.where(is_merged, LOW, longer)


def trace_back(
    slots: tf.TensorArray, symbols: tf.TensorArray, slot: tf.Tensor, time: int | tf.Tensor
) -> tf.Tensor:
    """Return the symbols appended at each frame, `<int32>[batch, width, time]`, -1 if none.

    Args:
      slots: the slot of each prefix at the frame before, `time` times `<int32>[batch, width]`.
      symbols: the symbol appended to it, of the same shape.
      slot: `<int32>[batch, width]`, the slots of the final prefixes.
      time: number of frames.
    """
    path = empty(time, [None, slot.shape[1]], tf.int32)

    def body(t: tf.Tensor, slot: tf.Tensor, path: tf.TensorArray) -> tuple:
        path = path.write(t, tf.gather(symbols.read(t), slot, batch_dims=1))
        return t - 1, tf.gather(slots.read(t), slot, batch_dims=1), path

    _, _, path = tf.while_loop(
        lambda t, *_: t >= 0,
        body,
        (tf.convert_to_tensor(time - 1), slot, path),
        maximum_iterations=time,
    )
    return tf.transpose(path.stack(), [1, 2, 0])
