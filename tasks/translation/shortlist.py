"""Short-lists: the target subwords that a translation of a sentence may contain.

A search scores all target subwords at each step. Most of them never translate any word of the
sentence. `learn` finds the likely translations of each source subword by IBM Model 1, and
`Shortlist.select` collects those of a sentence, with the subwords that are frequent in all
translations.

References:
  - [Brown et al., 1993: The mathematics of statistical machine translation](
    https://aclanthology.org/J93-2003)
  - [Jean et al., 2015: On using very large target vocabulary for neural machine translation](
    https://aclanthology.org/P15-1001)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tasks.translation.subwords import END, SPECIAL, Subwords

import numpy as np
import tensorflow as tf

FREQUENT = 256  # subwords that every translation may contain, besides the special ones
ROUNDS = 4  # of expectation maximisation
MOST_PAIRS = 150_000  # sentence pairs that are read; more change little
CELLS = 1 << 22  # pairs of subwords that are counted at once
IMPOSSIBLE = -1e9


def learned_from(pairs: int) -> np.ndarray:
    """Return the pairs of a corpus that are read: every n-th one, up to `MOST_PAIRS`."""
    return np.arange(0, pairs, max(1, -(-pairs // MOST_PAIRS)))


def learn(
    source: tf.RaggedTensor, target: tf.RaggedTensor, reader: Subwords, writer: Subwords, count: int
) -> dict[str, np.ndarray]:
    """Find the likely translations of each source subword.

    Args:
      source: ragged `<int32>[pairs, (time)]`, with the end symbol, which also takes the subwords
        that translate nothing.
      target: ragged `<int32>[pairs, (steps)]`.
      reader: subwords of the source language.
      writer: subwords of the target language.
      count: translations of each subword.

    Returns:
      `translations` `<int32>[source_size, count + 1]`, the last one being the subword itself where
      both languages have it, and `frequent` `<int32>[n]`. `END` takes an empty place.
    """
    sizes = (len(reader), len(writer))
    count = min(count, sizes[1])
    table = _model_1(source, target, sizes)
    best = np.argpartition(-table, count - 1, axis=1)[:, :count]
    best = np.where(np.take_along_axis(table, best, axis=1) > 0, best, END)
    places = {piece: place for place, piece in enumerate(writer.pieces.numpy().tolist())}
    same = [places.get(piece, END) for piece in reader.pieces.numpy().tolist()]
    frequency = np.bincount(target.flat_values, minlength=sizes[1])
    frequent = np.argsort(-frequency, kind="stable")[:FREQUENT]
    frequent = np.union1d(np.arange(len(SPECIAL)), frequent[frequency[frequent] > 0])
    return {
        "translations": np.concatenate([best, np.array(same)[:, None]], axis=1).astype(np.int32),
        "frequent": frequent.astype(np.int32),
    }


def merge(new: dict[str, np.ndarray], published: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return the short-lists of a model that knows two corpora."""
    return {
        "translations": np.concatenate([new["translations"], published["translations"]], axis=1),
        "frequent": np.union1d(new["frequent"], published["frequent"]),
    }


def _model_1(
    source: tf.RaggedTensor, target: tf.RaggedTensor, sizes: tuple[int, int]
) -> np.ndarray:
    """Return P(target subword | source subword) `<float>[source_size, target_size]`."""
    table = np.ones(sizes, np.float32)
    for _ in range(ROUNDS):
        counts = np.zeros(sizes[0] * sizes[1])
        for cell, place in co_occurrences(source, target, sizes[1]):
            weight = table.reshape(-1)[cell]
            total = np.bincount(place, weight)
            counts += np.bincount(cell, weight / total[place], minlength=len(counts))
        table = counts.reshape(sizes).astype(np.float32)
        table /= np.maximum(table.sum(axis=1, keepdims=True), 1e-9)
    return table


def co_occurrences(
    source: tf.RaggedTensor, target: tf.RaggedTensor, columns: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield all pairs of a source and a target subword of the same sentence pair, in parts.

    Args:
      source: ragged `<int32>[pairs, (time)]`.
      target: ragged `<int32>[pairs, (steps)]`.
      columns: number of target subwords.

    Yields:
      `<int64>[cells]`, the place of each in the flat table of `columns` columns; and
      `<int64>[cells]`, a number for each occurrence of a target subword.
    """
    counts = [side.row_lengths().numpy() for side in (source, target)]
    starts = [side.row_starts().numpy() for side in (source, target)]
    read, written = source.flat_values.numpy(), target.flat_values.numpy()
    parts = np.cumsum(counts[0] * counts[1]) // CELLS
    for part in np.unique(parts):
        rows = np.flatnonzero(parts == part)
        first, end = starts[1][rows[0]], starts[1][rows[-1]] + counts[1][rows[-1]]
        row = np.repeat(rows, counts[1][rows])  # of each target subword
        times = counts[0][row]
        place = np.repeat(np.arange(end - first), times)
        within = np.arange(len(place)) - np.repeat(np.cumsum(times) - times, times)
        left = read[np.repeat(starts[0][row], times) + within]
        yield left.astype(np.int64) * columns + written[first:end][place], place


class Selected(NamedTuple):
    """The subwords that the translations of a batch may contain.

    Attributes:
      tokens: `<int32>[symbols]`, those of all rows, in rising order; they begin with `SPECIAL`.
      penalty: `<float32>[batch, symbols]`, 0 for those of the row, else `IMPOSSIBLE`.
    """

    tokens: tf.Tensor
    penalty: tf.Tensor


class Shortlist(tf.Module):
    """The short-lists of a model.

    Args:
      path: file of the arrays of `learn`; it becomes an asset of every export.
      size: number of target subwords.
    """

    def __init__(self, path: str | Path, size: int):
        super().__init__()
        arrays = read(path)
        self.translations = tf.constant(arrays["translations"])
        self.frequent = tf.constant(np.isin(np.arange(size), arrays["frequent"]))
        self._asset = tf.saved_model.Asset(str(path))

    def select(self, ids: tf.Tensor, length: tf.Tensor) -> Selected:
        """Select the subwords for sources; those of a row depend on that row only.

        Args:
          ids: `<int32>[batch, time]`, with the end symbol.
          length: `<int32>[batch]`.
        """
        batch, size = tf.shape(ids)[0], tf.size(self.frequent)
        real = tf.sequence_mask(length, tf.shape(ids)[1])
        tokens = tf.gather(self.translations, tf.where(real, ids, END))
        places = (tf.range(batch) * size)[:, None, None] + tokens
        marks = tf.scatter_nd(
            tf.reshape(places, [-1, 1]), tf.ones([tf.size(places)], tf.int32), [batch * size]
        )
        allowed = (tf.reshape(marks, [batch, size]) > 0) | self.frequent
        tokens = tf.cast(tf.where(tf.reduce_any(allowed, axis=0))[:, 0], tf.int32)
        chosen = tf.gather(allowed, tokens, axis=1)
        return Selected(tokens, tf.where(chosen, 0.0, IMPOSSIBLE))


def write(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write the arrays of `learn`."""
    translations, frequent = arrays["translations"], arrays["frequent"]
    np.savez_compressed(path, translations=translations, frequent=frequent)


def read(path: str | Path) -> dict[str, np.ndarray]:
    """Read the arrays of `learn`."""
    with np.load(path, allow_pickle=False) as file:
        return dict(file)
