"""CoNLL files and IOB tags: the form in which users bring annotated sentences.

Each line holds a token and its tag, and a blank line ends a sentence. In IOB2 every entity starts
with a `B-` tag. In IOB1 an entity starts with `I-`, and `B-` only separates it from a directly
preceding entity of the same type. Both are read; sentences always have IOB2 tags.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from common.datasets import find_splits, split_rows
from common.errors import InputError
from common.files import read_lines

OUTSIDE = "O"
SUFFIXES = (".conll", ".txt", ".tsv", ".iob", ".bio")


class Sentence(NamedTuple):
    """Tokens and their tags in IOB2: `O`, `B-PER`, `I-PER`, ...; one tag per token."""

    tokens: list[str]
    tags: list[str]


# --- tags -----------------------------------------------------------------------------------------


def tag_names(types: Iterable[str]) -> tuple[str, ...]:
    """Return the IOB2 tags of entity types, in the order of their indices.

    Example:
      >>> tag_names(["PER", "LOC"])
      ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER')
    """
    return (OUTSIDE, *(f"{prefix}-{name}" for name in sorted(set(types)) for prefix in "BI"))


def entity_types(tags: Iterable[str]) -> tuple[str, ...]:
    """Return the entity types that occur in tags, in alphabetical order.

    Example:
      >>> entity_types(["B-PER", "I-PER", "O", "B-LOC"])
      ('LOC', 'PER')
    """
    return tuple(sorted({tag[2:] for tag in tags if tag != OUTSIDE}))


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """Return the entities that IOB2 tags mark: `(type, first token, end)`, the end excluded.

    Example:
      >>> entities(["B-PER", "I-PER", "O", "B-LOC"])
      [('PER', 0, 2), ('LOC', 3, 4)]
    """
    spans: list[tuple[str, int, int]] = []
    for index, tag in enumerate(tags):
        if tag.startswith("B-"):
            spans.append((tag[2:], index, index + 1))
        elif tag.startswith("I-"):
            spans[-1] = (*spans[-1][:2], index + 1)
    return spans


def to_iob2(tags: Sequence[str]) -> list[str]:
    """Convert the tags of a sentence from IOB1 to IOB2; IOB2 tags stay as they are.

    Example:
      >>> to_iob2(["I-PER", "I-PER", "B-PER", "O", "I-LOC"])
      ['B-PER', 'I-PER', 'B-PER', 'O', 'B-LOC']
    """
    return [
        f"B-{tag[2:]}" if tag.startswith("I-") and previous[2:] != tag[2:] else tag
        for previous, tag in zip((OUTSIDE, *tags), tags, strict=False)
    ]


# --- files ----------------------------------------------------------------------------------------


def read_splits(path: Path, *, seed: int) -> tuple[dict[str, list[Sentence]], tuple[str, ...]]:
    """Read the user's sentences and split them.

    Args:
      path: a CoNLL file, split 80/10/10, or a folder with a file per split.
      seed: seed of the split of a single file.

    Returns:
      `(splits, types)`: the sentences of `train`, `validation` and `test`, and the entity types of
      the training file.

    Raises:
      InputError: a file is missing or malformed, or an entity type does not occur in the training
        file.
    """
    files = find_splits(path, SUFFIXES)
    splits = {split: read_conll(file) for split, file in files.items()}
    training = splits["train"] if "train" in splits else splits["all"]
    types = _types_of(training)
    if not types:
        raise InputError("every tag is O: expected entities (B-TYPE)", files.get("train", path))
    for split, rows in splits.items():
        if unknown := set(_types_of(rows)) - set(types):
            raise InputError(
                f"has entities of type {', '.join(sorted(unknown))}, which do not occur in the "
                f"training file; types there: {', '.join(types)}",
                files[split],
            )
    return (split_rows(splits["all"], seed) if "all" in splits else splits), types


def _types_of(rows: Iterable[Sentence]) -> tuple[str, ...]:
    """Return the entity types of sentences."""
    return entity_types(tag for row in rows for tag in row.tags)


def read_conll(path: Path, *, drop_empty: bool = False) -> list[Sentence]:
    """Read a CoNLL file.

    Each line holds a token and, in the last of 2 or 4 columns, its tag. Tabs or spaces separate the
    columns. A blank line ends a sentence; `-DOCSTART-` lines are ignored.

    Args:
      path: the file, UTF-8, with tags in IOB1 or IOB2.
      drop_empty: drop lines that have a tag but no token. By default such a line is an error.

    Returns:
      The sentences, with tags in IOB2.

    Raises:
      InputError: the file is malformed. The message names the line and what was expected.
    """
    rows: list[Sentence] = []
    line_numbers: list[list[int]] = []  # of each token
    columns: int | None = None
    starts_sentence = True
    for number, line in read_lines(path):
        fields = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))
        if not line.strip() or fields[0] == "-DOCSTART-":
            starts_sentence = True
            continue
        columns = columns or len(fields)
        _check_columns(fields, columns, path, number)
        token, tag = fields[0].strip(), fields[-1].strip()
        if drop_empty and not token:
            continue
        _check_token(token, tag, path, number)
        if starts_sentence:
            rows.append(Sentence([], []))
            line_numbers.append([])
            starts_sentence = False
        rows[-1].tokens.append(token)
        rows[-1].tags.append(tag)
        line_numbers[-1].append(number)
    if not rows:
        raise InputError("no sentences in this file", path)
    _check_scheme(rows, line_numbers, path)
    return [Sentence(row.tokens, to_iob2(row.tags)) for row in rows]


def _check_columns(fields: Sequence[str], columns: int, path: Path, line: int) -> None:
    """Refuse a line with another number of columns than 2, 4, or that of the first line."""
    if columns not in (2, 4):
        raise InputError(
            f"expected 2 or 4 columns, the token first and its tag last, got {len(fields)}",
            path,
            line,
        )
    if len(fields) != columns:
        raise InputError(
            f"expected {columns} columns as on the previous lines, got {len(fields)}", path, line
        )


def _check_token(token: str, tag: str, path: Path, line: int) -> None:
    """Refuse an empty token and a malformed tag."""
    if not token:
        raise InputError("expected a token in the first column", path, line)
    if not re.fullmatch(r"O|[BI]-\S+", tag):
        raise InputError(f"expected a tag O, B-TYPE or I-TYPE, got {tag!r}", path, line)


def _check_scheme(
    rows: Sequence[Sentence], line_numbers: Sequence[Sequence[int]], path: Path
) -> None:
    """Refuse a file that mixes IOB1 and IOB2: some entities start with `B-`, others with `I-`."""
    first: dict[str, tuple[int, str]] = {}  # prefix -> where it first starts an entity
    for row, numbers in zip(rows, line_numbers, strict=True):
        previous_tags = (OUTSIDE, *row.tags)
        for previous, tag, number in zip(previous_tags, row.tags, numbers, strict=False):
            if tag != OUTSIDE and previous[2:] != tag[2:]:
                first.setdefault(tag[0], (number, tag))
    if len(first) == 2:
        (line, tag), (other_line, other) = sorted(first.values(), reverse=True)
        raise InputError(
            f"{tag} starts an entity here, but {other} starts one in line {other_line}: expected "
            "IOB2, where every entity starts with B-, or IOB1, where B- only follows an entity of "
            "the same type",
            path,
            line,
        )
