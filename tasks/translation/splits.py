"""Splits of sentence pairs that have no sentence in common.

Sentences that differ only in case and punctuation count as the same. Pairs with a common sentence
on either side form a group, and all pairs of a group go to the same split. The acceptance sentences
are excluded from every training split.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from common.datasets import SPLITS, split_numbers
from common.tables import hash_text

import numpy as np

# A sentence in each language.
Row = TypeVar("Row", bound=tuple[str, ...])

# The sentence of the acceptance example and its translations.
ACCEPTANCE = (
    "Voulez-vous chanter avec moi?",
    "Do you want to sing with me?",
    "Would you like to sing with me?",
)


def normalise(text: str) -> str:
    """Return the words of a sentence in lower case, without punctuation.

    Example:
      >>> normalise("Voulez-vous chanter ?")
      'voulez vous chanter'
    """
    return " ".join(re.findall(r"\w+", text.lower()))


_ACCEPTANCE = frozenset(map(normalise, ACCEPTANCE))


def is_acceptance(*sentences: str) -> bool:
    """Return True if one of the sentences is an acceptance sentence.

    Example:
      >>> is_acceptance("Chantons !", "Do you want to sing with me")
      True
    """
    return any(normalise(sentence) in _ACCEPTANCE for sentence in sentences)


def sentence_key(text: str) -> int:
    """Return a hash of 64 bits of the words of a sentence; 0 if it has none."""
    words = normalise(text)
    return hash_text(words) if words else 0


def group_numbers(keys: Sequence[np.ndarray]) -> np.ndarray:
    """Number the groups of rows that have a key in common, directly or through other rows.

    Args:
      keys: `<uint64>[rows]` for each side, the `sentence_key` of each row.

    Returns:
      `<int>[rows]`, the number of the group of each row; groups are in the order of their first
      rows.

    Example:
      >>> group_numbers([np.array([3, 4, 5], np.uint64), np.array([7, 8, 7], np.uint64)])
      array([0, 1, 0])
    """
    # The first row of its group, as far as it is known: first that of the same key, then that of
    # the row which was first before.
    first = np.arange(len(keys[0]), dtype=np.int32)
    sides = [_equal_keys(side) for side in keys]
    while True:
        before = first.copy()
        for order, starts in sides:
            if len(order):
                lowest = np.minimum.reduceat(first[order], starts)
                first[order] = np.repeat(lowest, np.diff(starts, append=len(order)))
        first = first[first]
        if np.array_equal(first, before):
            return np.unique(first, return_inverse=True)[1]


def _equal_keys(keys: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows with a key, sorted by it, and the places where another key begins."""
    order = np.argsort(keys, kind="stable").astype(np.int32)
    order = order[np.count_nonzero(keys == 0) :]
    ordered = keys[order]
    return order, np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1])[: len(ordered)])


def group_rows(rows: Iterable[Row]) -> list[list[Row]]:
    """Group rows that have a sentence in common, directly or through other rows.

    Args:
      rows: a sentence in each language; "" where the translation is missing.

    Returns:
      The groups in the order of their first rows.

    Example:
      >>> group_rows([("Va !", "Go."), ("Entre.", "Come in."), ("Pars.", "go")])
      [[('Va !', 'Go.'), ('Pars.', 'go')], [('Entre.', 'Come in.')]]
    """
    rows = list(rows)
    if not rows:
        return []
    sides = zip(*([sentence_key(sentence) for sentence in row] for row in rows), strict=True)
    numbers = group_numbers([np.array(side, np.uint64) for side in sides])
    groups: list[list[Row]] = [[] for _ in range(int(numbers.max()) + 1)]
    for number, row in zip(numbers.tolist(), rows, strict=True):
        groups[number].append(row)
    return groups


def split_groups(keys: Sequence[np.ndarray], seed: int) -> dict[str, np.ndarray]:
    """Split rows 80/10/10 at random; those of a group of `group_numbers` stay together.

    Args:
      keys: see `group_numbers`.
      seed: seed of the shuffle.

    Returns:
      The numbers of the rows of each split, group by group.

    Raises:
      InputError: there are fewer than ten groups.
    """
    groups = group_numbers(keys)
    parts = split_numbers(int(groups.max()) + 1, seed)
    places = np.empty(sum(map(len, parts.values())), np.int32)
    split_of = np.empty(len(places), np.int8)
    for index, split in enumerate(SPLITS):
        places[parts[split]] = np.arange(len(parts[split]))
        split_of[parts[split]] = index
    rows = {split: np.flatnonzero(split_of[groups] == k) for k, split in enumerate(SPLITS)}
    return {
        split: numbers[np.argsort(places[groups[numbers]], kind="stable")]
        for split, numbers in rows.items()
    }


def flatten(groups: Sequence[Sequence[Row]]) -> list[Row]:
    """Return the rows of all groups, in order."""
    return [row for group in groups for row in group]
