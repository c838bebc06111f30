"""Reading the user's own reviews: CSV and TSV files with the columns `text` and `label`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from common.errors import InputError
from common.files import read_table

SUFFIXES = (".csv", ".tsv")


def read_reviews(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield `(line number, text, label)` for each row of a file.

    Raises:
      InputError: a row is invalid; the message names the file and the line.
    """
    for line, row in read_table(path, ("text", "label")):
        text, label = row["text"].strip(), row["label"].strip()
        if not text:
            raise InputError("empty text", path, line)
        if not label:
            raise InputError("empty label", path, line)
        yield line, text, label


def read_examples(path: Path, labels: tuple[str, ...]) -> list[tuple[str, int]]:
    """Read a file as `(text, index of the label)` pairs.

    Raises:
      InputError: a row is invalid, a label is not among `labels`, or there are no rows.
    """
    examples = []
    for line, text, label in read_reviews(path):
        if label not in labels:
            raise InputError(f"unknown label {label!r}; expected {', '.join(labels)}", path, line)
        examples.append((text, labels.index(label)))
    if not examples:
        raise InputError("no reviews in this file", path)
    return examples


def read_labels(path: Path) -> tuple[str, ...]:
    """Return the labels of a file from worst to best: numbers by value, words alphabetically.

    Raises:
      InputError: a row is invalid, or there are not 2 to 10 different labels.
    """
    labels = {label for _, _, label in read_reviews(path)}
    if not labels:
        raise InputError("no reviews in this file", path)
    if len(labels) == 1:
        raise InputError(f"every label is {labels.pop()!r}; expected 2 to 10 classes", path)
    if len(labels) > 10:
        raise InputError(f"{len(labels)} different labels; expected 2 to 10 classes", path)
    try:
        return tuple(sorted(labels, key=float))
    except ValueError:
        return tuple(sorted(labels))
