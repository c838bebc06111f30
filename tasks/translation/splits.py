"""Splits of sentence pairs that have no sentence in common.

Sentences that differ only in case and punctuation count as the same. Pairs with a common sentence
on either side form a group, and all pairs of a group go to the same split. The acceptance sentences
are excluded from every training split.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Sequence
from typing import TypeVar

from common.datasets import split_rows

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
    # Union-find over row numbers and (side, sentence) keys.
    parent: dict[int | tuple[int, str], int | tuple[int, str]] = {}

    def root(node: int | tuple[int, str]) -> int | tuple[int, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    rows = list(rows)
    for number, row in enumerate(rows):
        for side, sentence in enumerate(row):
            if key := normalise(sentence):
                parent[root((side, key))] = root(number)
    groups = collections.defaultdict(list)
    for number, row in enumerate(rows):
        groups[root(number)].append(row)
    return list(groups.values())


def split_groups(rows: Iterable[Row], seed: int) -> dict[str, list[Row]]:
    """Split the groups of `group_rows` 80/10/10 at random.

    Args:
      rows: a sentence in each language.
      seed: seed of the shuffle.

    Returns:
      The rows of each split.

    Raises:
      InputError: there are fewer than ten groups.
    """
    return {split: flatten(groups) for split, groups in split_rows(group_rows(rows), seed).items()}


def flatten(groups: Sequence[Sequence[Row]]) -> list[Row]:
    """Return the rows of all groups, in order."""
    return [row for group in groups for row in group]
