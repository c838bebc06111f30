"""A dictionary of rare words, which training reads as further pairs.

A rare word stands in few training pairs, between many other words. IBM Model 1 finds out which of
them translate it, from the other pairs in which those stand. `learn` returns the words that are
likely translations of each other in both directions.

References:
  - [Brown et al., 1993: The mathematics of statistical machine translation](
    https://aclanthology.org/J93-2003)
  - [Liang et al., 2006: Alignment by agreement](https://aclanthology.org/N06-1014)
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterable, Sequence

from tasks.translation.formats import Pair
from tasks.translation.shortlist import co_occurrences

import numpy as np
import tensorflow as tf

AGREEMENT = 0.15  # least product of the probabilities in both directions
OCCURRENCES = range(2, 301)  # of a source word; others are known too little, or well anyway
ROUNDS = 6  # of expectation maximisation
CELLS = 1 << 24  # pairs of words that are counted, under 1 GB of memory; further text is not read


def learn(pairs: Iterable[Pair]) -> list[Pair]:
    """Find rare words with their translations.

    Args:
      pairs: sentences with their translations.

    Returns:
      Source words in small letters and target words in their usual case, sorted.

    Example:
      >>> learn([("Le chat dort.", "The cat sleeps."), ("Un chat !", "A cat!"), ("Le", "The")])
      [('chat', 'cat'), ('le', 'the')]
    """
    source, target = _Words(), _Words()
    count = 0
    for pair in pairs:
        read, written = (re.findall(r"\w+", sentence) for sentence in pair)
        count += (len(read) + 1) * (len(written) + 1)
        if count > CELLS:
            break
        source.add(read)
        target.add(written)
    if not count:
        return []
    cells, forward = _model_1(source.numbers(), target.numbers(), len(target.names))
    others, backward = _model_1(target.numbers(), source.numbers(), len(source.names))
    others = others % len(source.names) * len(target.names) + others // len(source.names)
    _, one, other = np.intersect1d(cells, others, assume_unique=True, return_indices=True)
    agreed = forward[one] * backward[other] >= AGREEMENT
    words = [divmod(cell, len(target.names)) for cell in cells[one][agreed].tolist()]
    return sorted(
        (source.names[read], target.usual_form(written))
        for read, written in words
        if source.counts[read] in OCCURRENCES
        and source.names[read].isalpha()
        and target.names[written].isalpha()
    )


class _Words:
    """The words of the sentences of one language, numbered in small letters from 1.

    Word 0 stands in every sentence, and takes what translates nothing.
    """

    def __init__(self) -> None:
        self.names = [""]
        self.counts = [0]  # sentences with each word
        self._forms: list[collections.Counter[str]] = [collections.Counter()]
        self._places = {"": 0}
        self._rows: list[list[int]] = []

    def add(self, words: Sequence[str]) -> None:
        """Add a sentence."""
        row = [0]
        for k, word in enumerate(words):
            name = word.lower()
            place = self._places.setdefault(name, len(self.names))
            if place == len(self.names):
                self.names.append(name)
                self.counts.append(0)
                self._forms.append(collections.Counter())
            row.append(place)
            # The first word of a sentence has a capital anyway.
            self._forms[place][word if k else name] += 1
        for place in set(row):
            self.counts[place] += 1
        self._rows.append(row)

    def numbers(self) -> tf.RaggedTensor:
        """Return ragged `<int32>[sentences, (words)]`."""
        lengths = [len(row) for row in self._rows]
        flat = np.fromiter(itertools.chain.from_iterable(self._rows), np.int32, sum(lengths))
        return tf.RaggedTensor.from_row_lengths(flat, lengths)

    def usual_form(self, place: int) -> str:
        """Return a word as most sentences write it."""
        return self._forms[place].most_common(1)[0][0]


def _model_1(
    source: tf.RaggedTensor, target: tf.RaggedTensor, columns: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return which words stand in the same pair, and P(target word | source word) of each.

    Returns:
      `<int64>[n]`, the places of source and target word in a flat table of `columns` columns, in
      rising order, and `<float>[n]`.
    """
    cells, places, first = [], [], 0
    for cell, place in co_occurrences(source, target, columns):
        cells.append(cell)
        places.append(place + first)
        first += int(place[-1]) + 1
    known, cell = np.unique(np.concatenate(cells), return_inverse=True)
    place = np.concatenate(places)
    word = known // columns
    probability = np.ones(len(known))
    for _ in range(ROUNDS):
        weight = probability[cell]
        weight /= np.bincount(place, weight)[place]
        counts = np.bincount(cell, weight)
        probability = counts / np.bincount(word, counts)[word]
    return known, probability
