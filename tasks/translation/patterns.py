"""Sentence pairs from patterns: templates in two languages, with lists that fill their slots.

A file of patterns has a pair on each line, its two sides parted by a tab:

    # a comment
    [drink]
    un café             a coffee
    du thé              some tea

    [patterns]
    je voudrais {drink}.        I'd like {drink}.
    avez-vous {drink}?          do you have {drink}?

`[name]` begins a list, and `{name}` in a pattern stands for each pair of that list, the same one on
both sides. A pattern with several slots gives every combination of their lists. The first letter of
a sentence is made a capital.
"""

from __future__ import annotations

import itertools
import re
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.files import read_lines

__all__ = ["expand"]

PATTERNS = "patterns"
SLOT = re.compile(r"\{([^{}]*)\}")


class Line(NamedTuple):
    """A pair and where it stands."""

    number: int
    source: str
    target: str


def expand(path: str | Path) -> list[tuple[str, str]]:
    """Writes out all sentence pairs of a file of patterns.

    Args:
      path: the file, UTF-8, in the form that this module describes.

    Returns:
      `(source, target)` pairs in the order of the patterns, the last slot's list running fastest.

    Raises:
      InputError: names the file and the line which is no pair, whose sides have different slots,
        which names a list that is not there, or which gives a source sentence a second time; or the
        list that no pattern uses.

    Example:
      >>> expand("drinks.txt")[3]  # the file above
      ('Avez-vous du thé?', 'Do you have some tea?')
    """
    lists = _read(path)
    unused = lists.keys() - {PATTERNS}
    pairs: dict[str, str] = {}
    for number, *sides in lists.get(PATTERNS, []):
        names, others = (list(dict.fromkeys(SLOT.findall(side))) for side in sides)
        if set(names) != set(others):
            raise InputError("expected the same slots on both sides", path, number)
        for name in names:
            if name not in lists or name == PATTERNS:
                raise InputError(f"there is no list [{name}]", path, number)
        unused -= set(names)
        for chosen in itertools.product(*(lists[name] for name in names)):
            source = _fill(
                sides[0], {n: line.source for n, line in zip(names, chosen, strict=True)}
            )
            target = _fill(
                sides[1], {n: line.target for n, line in zip(names, chosen, strict=True)}
            )
            if source in pairs:
                raise InputError(f"gives {source!r} a second time", path, number)
            pairs[source] = target
    if unused:
        raise InputError(f"no pattern uses the list [{min(unused)}]", path)
    if not pairs:
        raise InputError("no patterns in this file: expected a line [patterns] and pairs", path)
    return list(pairs.items())


def _fill(template: str, choice: dict[str, str]) -> str:
    sentence = SLOT.sub(lambda slot: choice[slot[1]], template)
    return sentence[:1].upper() + sentence[1:]


def _read(path: str | Path) -> dict[str, list[Line]]:
    """The lists of a file by name; the patterns are the one called `patterns`."""
    lists: dict[str, list[Line]] = {}
    name = None
    for number, line in read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1]
            if name in lists:
                raise InputError(f"a second list [{name}]", path, number)
            lists[name] = []
            continue
        sides = [side.strip() for side in line.split("\t")]
        if name is None:
            raise InputError("expected the name of a list in brackets first", path, number)
        if len(sides) != 2 or not all(sides):
            raise InputError("expected a pair, its sides parted by a tab", path, number)
        lists[name].append(Line(number, *sides))
    return lists
