"""Reading the user's own texts: CSV, TSV and JSON Lines, and how they are split.

A row without a text, without a label (where labels are read) or with a wrong number of fields is
skipped; the rows are counted and the first ones are named on standard error.

Quotes follow RFC 4180 in `.csv`. In `.tsv` a quote is a character, unless quotes enclose the whole
field. `1` and `1.0` are one class. Texts with the same words stay in one split.
"""

from __future__ import annotations

import codecs
import collections
import contextlib
import csv
import dataclasses
import itertools
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.datasets import SPLITS
from common.errors import InputError
from common.messages import Skipped, report_skipped
from common.tables import hash_text

import numpy as np

SUFFIXES = (".csv", ".tsv", ".jsonl")
JOINED = 1000  # lines of a TSV file that one quoted field may span


@dataclasses.dataclass(frozen=True)
class Layout:
    """Layout of a file: columns, delimiter and encoding.

    Attributes:
      text_column: name of the column, or of the JSON key, of the texts.
      label_column: that of the labels.
      delimiter: between the fields; None: a comma for `.csv`, a tab for `.tsv`.
      encoding: of the file.
    """

    text_column: str = "text"
    label_column: str = "label"
    delimiter: str | None = None
    encoding: str = "utf-8"

    def __post_init__(self) -> None:
        """Validate the flags."""
        if self.delimiter is not None and (len(self.delimiter) != 1 or self.delimiter in '"\r\n'):
            raise InputError(f"--delimiter must be one character, got {self.delimiter!r}")
        try:
            is_bytewise = "\n".encode(self.encoding) == b"\n"  # so that files have lines
        except LookupError as error:
            raise InputError(f"--encoding: no encoding {self.encoding!r}") from error
        if not is_bytewise:
            raise InputError(
                f"--encoding {self.encoding}: convert the file to UTF-8, as iconv does"
            )


class Row(NamedTuple):
    """A line of a file, with its text and its label ("" where no labels are read)."""

    line: int
    text: str
    label: str


# --- rows -----------------------------------------------------------------------------------------


def read_rows(path: Path, layout: Layout, *, labelled: bool) -> Iterator[Row]:
    """Yield the valid rows of a file; the others are counted, and reported at its end.

    Args:
      path: a file with an ending of `SUFFIXES`.
      layout: how it is read.
      labelled: whether rows need a label. If not, empty texts are rows, too.

    Raises:
      InputError: the file cannot be read, has no such column, or no valid row; names the file and
        the line.
    """
    skipped: Skipped = []
    valid = 0
    for row in read_valid(path, layout, skipped, labelled=labelled):
        valid += 1
        yield row
    report_skipped(path, skipped, total=valid + len(skipped), unit="rows", limit=1.0)


def read_valid(path: Path, layout: Layout, skipped: Skipped, *, labelled: bool) -> Iterator[Row]:
    """Yield the valid rows of a file, and append the others to `skipped`; see `read_rows`."""
    columns = [layout.text_column, *[layout.label_column] * labelled]
    valid = False
    read = _json_fields if path.suffix.lower() == ".jsonl" else _table_fields
    for line, fields in read(path, layout, columns):
        if isinstance(fields, str):
            skipped.append((f"line {line}", fields))
            continue
        text = fields[layout.text_column].strip()
        label = canonical(fields[layout.label_column]) if labelled else ""
        if labelled and not (text and label):
            skipped.append((f"line {line}", "no label" if text else "no text"))
        else:
            valid = True
            yield Row(line, text, label)
    if skipped and not valid:
        raise InputError(f"no row can be used ({skipped[0][0]}: {skipped[0][1]})", path)


def canonical(label: str) -> str:
    """Return the one form of equal labels: numbers are written as short as possible.

    Example:
      >>> [canonical(label) for label in ("1", " 1.0", "2.50", "so-so", "nan")]
      ['1', '1', '2.5', 'so-so', '']
    """
    label = label.strip()
    if label.lower() in ("nan", "null", "none"):  # as libraries write missing values
        return ""
    with contextlib.suppress(ValueError, OverflowError):
        number = float(label)
        return str(int(number)) if number == int(number) else repr(number)
    return label


def _lines(path: Path, encoding: str) -> Iterator[tuple[int, str]]:
    """Yield the numbered lines of a file, without their ends.

    Raises:
      InputError: the file cannot be read or decoded.
    """
    is_utf8 = codecs.lookup(encoding).name == "utf-8"
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below; only errors of `open` are caught)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", path) from error
    with file:
        for number, raw in enumerate(file, start=1):
            raw = raw.removeprefix(b"\xef\xbb\xbf") if number == 1 and is_utf8 else raw
            try:
                line = raw.decode(encoding)
            except UnicodeDecodeError as error:
                raise InputError(
                    f"not {encoding.upper()} at byte {error.start + 1} of the line; pass "
                    "--encoding, such as latin-1 or cp1252",
                    path,
                    number,
                ) from error
            yield number, line.rstrip("\r\n")


Fields = Mapping[str, str] | str  # a row, or why it is none


def _json_fields(
    path: Path, layout: Layout, columns: Sequence[str]
) -> Iterator[tuple[int, Fields]]:
    """Yield the objects of a JSON Lines file."""
    for number, line in _lines(path, layout.encoding):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError:
            yield number, "no JSON"
            continue
        if not isinstance(row, dict):
            yield number, "no JSON object"
        elif missing := [name for name in columns if row.get(name) is None]:
            yield number, f"no key {missing[0]!r}"
        else:
            yield number, {name: _as_text(row[name]) for name in columns}


def _as_text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _table_fields(
    path: Path, layout: Layout, columns: Sequence[str]
) -> Iterator[tuple[int, Fields]]:
    """Yield the rows of a CSV or TSV file with a header."""
    delimiter = layout.delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    read = _tsv_rows if delimiter == "\t" else _csv_rows
    rows = read(path, layout.encoding, delimiter)
    _, header = next(rows, (1, []))
    names = [name.strip() for name in header]
    if not any(names):
        raise InputError(f"empty file; expected a header with {' and '.join(columns)}", path)
    places = {column: _place(column, names, path, layout) for column in columns}
    for line, row in rows:
        if len(row) == len(names):
            yield line, {name: row[place] for name, place in places.items()}
        elif row:  # editors leave empty lines at the end
            yield line, f"{len(row)} fields, expected {len(names)}"


def _place(column: str, names: Sequence[str], path: Path, layout: Layout) -> int:
    """Return the place of a column, by its exact name or else in any case."""
    lowered = [name.lower() for name in names]
    for name, known in ((column, list(names)), (column.lower(), lowered)):
        if name in known:
            return known.index(name)
    flag = "--text_column" if column == layout.text_column else "--label_column"
    raise InputError(
        f"no column {column!r} (found: {', '.join(names)[:200]}). Rename it or pass {flag}", path, 1
    )


def _csv_rows(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a CSV file; quotes follow RFC 4180 and may include line ends."""
    lines = (line + "\n" for _, line in _lines(path, encoding))
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    csv.field_size_limit(1 << 30)
    start = 1  # line of the row that is read
    try:
        for row in rows:
            yield start, row
            start = rows.line_num + 1
    except csv.Error as error:
        message = f"malformed from here on: {error}. A quote in a quoted field must be doubled"
        raise InputError(message, path, start) from error


def _tsv_rows(path: Path, encoding: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of a TSV file.

    Most TSV files have no quoting, so a quote is a character, unless quotes enclose a whole field.
    Such a field may include line ends if that gives the row the fields of the header.
    """
    waiting: collections.deque[tuple[int, str]] = collections.deque()
    lines = _lines(path, encoding)
    width = 0
    while True:
        if not waiting:
            waiting.extend(itertools.islice(lines, 1))
        if not waiting:
            return
        number, line = waiting.popleft()
        fields = line.split(delimiter) if line else []
        if _is_open(fields):
            fields = _join_lines(fields, waiting, lines, width, delimiter)
        width = width or len(fields)
        yield number, [_unquote(field) for field in fields]


def _is_open(fields: Sequence[str]) -> bool:
    """Return whether the last field opens a quote that it does not close."""
    return bool(fields) and fields[-1].startswith('"') and fields[-1].count('"') % 2 == 1


def _join_lines(
    fields: list[str],
    waiting: collections.deque[tuple[int, str]],
    lines: Iterator[tuple[int, str]],
    width: int,
    delimiter: str,
) -> list[str]:
    """Return the fields of a row whose last field goes on in the next lines, if it does.

    Lines that were read but belong to other rows are left in `waiting`.
    """
    joined = fields
    for count in range(1, JOINED):
        if len(waiting) < count:
            waiting.extend(itertools.islice(lines, 1))
        if len(waiting) < count:
            break
        following = waiting[count - 1][1].split(delimiter)
        if len(fields) >= width and len(following) >= width:  # a row of its own
            break
        joined = [*joined[:-1], f"{joined[-1]}\n{following[0]}", *following[1:]]
        if len(joined) == width and not _is_open(joined):
            for _ in range(count):
                waiting.popleft()
            return joined
    return fields


def _unquote(field: str) -> str:
    """Remove the quotes that enclose a field, and undouble those inside.

    Example:
      >>> _unquote('"a ""good"" film"'), _unquote('"Good" and "bad"'), _unquote('"Good')
      ('a "good" film', '"Good" and "bad"', '"Good')
    """
    inner = re.fullmatch(r'"((?:[^"]|"")*)"', field, re.DOTALL)
    return inner[1].replace('""', '"') if inner else field


# --- labels and splits ----------------------------------------------------------------------------


def order_labels(labels: Iterator[str] | Sequence[str], path: Path) -> tuple[str, ...]:
    """Return the distinct labels from worst to best: numbers by value, words alphabetically.

    Args:
      labels: of all rows, in the form of `canonical`.
      path: of the file, for messages.

    Raises:
      InputError: there are not 2 to 10 different labels.
    """
    distinct = sorted(set(labels))
    if not distinct:
        raise InputError("no texts in this file", path)
    if len(distinct) == 1:
        raise InputError(f"every label is {distinct[0]!r}; expected 2 to 10 classes", path)
    if len(distinct) > 10:
        raise InputError(f"{len(distinct)} different labels; expected 2 to 10 classes", path)
    with contextlib.suppress(ValueError):
        return tuple(sorted(distinct, key=float))
    return tuple(distinct)


def index_labels(rows: Sequence[Row], labels: Sequence[str], path: Path) -> list[tuple[str, int]]:
    """Return `(text, index of the label)` pairs.

    Raises:
      InputError: a label is unknown, or there are no rows.
    """
    index = {label: number for number, label in enumerate(labels)}
    for row in rows:
        if row.label not in index:
            raise unknown_label(row, labels, path)
    if not rows:
        raise InputError("no texts in this file", path)
    return [(row.text, index[row.label]) for row in rows]


def unknown_label(row: Row, labels: Sequence[str], path: Path) -> InputError:
    """Return the error of a row whose label is none of the classes."""
    return InputError(f"unknown label {row.label!r}; expected {', '.join(labels)}", path, row.line)


def normalise(text: str) -> str:
    """Reduce a text to its words in lower case, by which duplicates are recognised.

    Example:
      >>> normalise("It's  GOOD!")
      'it s good'
    """
    return " ".join(re.findall(r"\w+", text.lower()))


def row_key(text: str) -> int:
    """Return a hash of 64 bits of the words of a text; of the text itself if it has none."""
    return hash_text(normalise(text) or text)


def split_stratified(keys: np.ndarray, classes: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Split rows 80/10/10 into train, validation and test, each class by itself.

    Texts with the same words stay together, in the place of their first label. A class of fewer
    than three distinct texts is in the training split alone.

    Args:
      keys: `<uint64>[rows]`, the `row_key` of each row.
      classes: `<int>[rows]`.
      seed: seed of the order.

    Returns:
      The numbers of the rows of each split, in random order within a class.

    Raises:
      InputError: fewer than ten rows.
    """
    if len(keys) < 10:
        raise InputError(f"{len(keys)} examples are too few to split; at least 10 are needed")
    # Groups of rows with the same words, numbered by their first row.
    _, first, group = np.unique(keys, return_index=True, return_inverse=True)
    by_first = np.argsort(first)
    number = np.empty_like(by_first)
    number[by_first] = np.arange(len(by_first))
    group_classes = classes[first[by_first]]
    generator = np.random.default_rng(seed)
    places, parts = np.empty_like(number), np.zeros(len(number), np.int8)
    start = 0
    for label in np.unique(group_classes):
        members = np.flatnonzero(group_classes == label)
        members = members[generator.permutation(len(members))]
        tenth = max(1, round(len(members) / 10)) if len(members) >= 3 else 0
        parts[members[:tenth]] = SPLITS.index("test")
        parts[members[tenth : 2 * tenth]] = SPLITS.index("validation")
        places[members] = np.arange(start, start + len(members))
        start += len(members)
    group = number[group]
    order = np.argsort(places[group], kind="stable")
    parts = parts[group[order]]
    if not (parts == SPLITS.index("test")).any():
        raise InputError("every class has fewer than 3 distinct texts: nothing is left to test on")
    return {split: order[parts == index] for index, split in enumerate(SPLITS)}
