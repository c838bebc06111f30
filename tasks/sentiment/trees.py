"""The Stanford Sentiment Treebank: labelled trees, and the phrases in them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError

NEUTRAL = 2
_PIECE = re.compile(r"\(([0-4]) |([^\s()]+)|(\))")


class Span(NamedTuple):
    """A sentence or a phrase of it, with its label: 0, very negative, to 4, very positive."""

    text: str
    label: int


def read_trees(content: bytes, name: str | Path) -> list[list[Span]]:
    """Read the trees of one split.

    Args:
      content: of its file, one tree per line.
      name: of the file, for messages.

    Returns:
      For each sentence its spans, the sentence itself first; see `spans`.

    Raises:
      InputError: a line is no tree.
    """
    trees = []
    for number, line in enumerate(content.decode("utf-8").splitlines(), start=1):
        try:
            trees.append(spans(line))
        except ValueError as error:
            raise InputError(f"expected a labelled tree: {error}", name, number) from error
    return trees


def spans(line: str) -> list[Span]:
    """Return the spans of a tree in the form of the Penn Treebank, the whole sentence first.

    Raises:
      ValueError: the line is no tree.

    Example:
      >>> [tuple(span) for span in spans("(4 (3 lovely) (2 ending))")]
      [('lovely ending', 4), ('lovely', 3), ('ending', 2)]
    """
    words: list[str] = []
    found: list[Span | None] = []  # in the order in which they open
    unclosed: list[tuple[int, int, int]] = []  # place in `found`, label, first word
    end = 0
    for piece in _PIECE.finditer(line):
        is_outside = not unclosed and (found or piece[1] is None)
        if line[end : piece.start()].strip() or is_outside:
            raise ValueError("brackets or labels are missing")
        end = piece.end()
        label, word, _ = piece.groups()
        if label is not None:
            unclosed.append((len(found), int(label), len(words)))
            found.append(None)
        elif word is not None:
            words.append(word)
        elif unclosed:
            place, number, start = unclosed.pop()
            found[place] = Span(" ".join(words[start:]), number)
    if unclosed or line[end:].strip() or not all(span and span.text for span in found) or not words:
        raise ValueError("brackets or labels are missing")
    return [span for span in found if span is not None]


def phrases(trees: Sequence[list[Span]], held_out: Iterable[str]) -> Iterator[Span]:
    """Yield each distinct span of training trees that neither is nor contains a held-out sentence.

    Args:
      trees: spans of sentences, from `read_trees`.
      held_out: the sentences of the validation and test splits.

    Example:
      >>> tree = spans("(3 (2 Its) (4 (3 lovely) (2 ending)))")
      >>> [span.text for span in phrases([tree], ["lovely ending"])]
      ['Its', 'lovely', 'ending']
    """
    distinct = {_key(span.text): span for tree in trees for span in tree}
    joined = "\n".join(_key(tree[0].text) for tree in trees)
    # A few sentences stand in both; the other ones need no search in each phrase.
    repeated = [key for key in {_key(text) for text in held_out} if key in joined]
    for key, span in distinct.items():
        if not any(sentence in key for sentence in repeated):
            yield span


def _key(text: str) -> str:
    """Return the form in which texts are compared; the blanks at its ends delimit words."""
    return f" {text.lower()} "
