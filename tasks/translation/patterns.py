"""Sentence pairs from patterns: templates in two languages whose slots are filled from lists.

A pattern file has one pair on each line, with a tab between source and target:

    # a comment
    [drink]
    un café             a coffee
    du thé              some tea

    [patterns]
    je voudrais {drink}.        I'd like {drink}.
    avez-vous {drink}?          do you have {drink}?

`[name]` starts a list. The slot `{name}` in a pattern is replaced by each pair of that list, the
same pair on both sides. A pattern with several slots is expanded to every combination of their
lists. The first letter of each sentence is capitalised.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError
from common.files import read_lines

__all__ = ["expand"]

PATTERNS = "patterns"
SLOT = re.compile(r"\{([^{}]*)\}")


class Line(NamedTuple):
    """A pair with its line number."""

    number: int
    source: str
    target: str


def expand(path: str | Path) -> list[tuple[str, str]]:
    """Expand a pattern file to all its sentence pairs.

    Args:
      path: UTF-8 file in the format of this module.

    Returns:
      `(source, target)` pairs in the order of the patterns; the list of the last slot varies
      fastest.

    Raises:
      InputError: a line is no pair, the two sides have different slots, a list is missing or
        unused, or a source sentence occurs twice. The message names the file and the line.

    Example:
      >>> pairs = expand(Path(__file__).with_name("phrases") / "patterns.txt")
      >>> len(pairs)
      5253
      >>> pairs[0]
      ("Je voudrais un café, s'il vous plaît.", "I'd like a coffee, please.")
    """
    lists = _read_lists(path)
    unused = lists.keys() - {PATTERNS}
    pairs: dict[str, str] = {}
    for pattern in lists.get(PATTERNS, []):
        slots = list(dict.fromkeys(SLOT.findall(pattern.source)))
        if set(slots) != set(SLOT.findall(pattern.target)):
            raise InputError("expected the same slots on both sides", path, pattern.number)
        for slot in slots:
            if slot not in lists or slot == PATTERNS:
                raise InputError(f"no list [{slot}] in this file", path, pattern.number)
        unused -= set(slots)
        for lines in itertools.product(*(lists[slot] for slot in slots)):
            fillers = dict(zip(slots, lines, strict=True))
            source = _fill(pattern.source, {slot: line.source for slot, line in fillers.items()})
            target = _fill(pattern.target, {slot: line.target for slot, line in fillers.items()})
            if source in pairs:
                raise InputError(f"duplicate source sentence {source!r}", path, pattern.number)
            pairs[source] = target
    if unused:
        raise InputError(f"no pattern uses the list [{min(unused)}]", path)
    if not pairs:
        raise InputError("no patterns in this file: expected a line [patterns] and pairs", path)
    return list(pairs.items())


def _fill(template: str, fillers: Mapping[str, str]) -> str:
    sentence = SLOT.sub(lambda slot: fillers[slot[1]], template)
    return sentence[:1].upper() + sentence[1:]


def _read_lists(path: str | Path) -> dict[str, list[Line]]:
    """Return the lists of a file by name; the patterns are the list `patterns`."""
    lists: dict[str, list[Line]] = {}
    name = None
    for number, line in read_lines(path):
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1]
            if name in lists:
                raise InputError(f"duplicate list [{name}]", path, number)
            lists[name] = []
            continue
        sides = [side.strip() for side in line.split("\t")]
        if name is None:
            raise InputError("expected the name of a list in brackets first", path, number)
        if len(sides) != 2 or not all(sides):
            raise InputError("expected a source, a tab and a target", path, number)
        lists[name].append(Line(number, *sides))
    return lists
