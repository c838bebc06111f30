"""CoNLL files and the schemes of their tags: the form in which users bring annotated sentences.

Each line holds a token and its tag, among any number of columns, and a blank line ends a sentence.
The tags may follow IOB1, IOB2, IO, BIOES or BILOU, or be bare types; sentences always have IOB2
tags, in which every entity starts with a `B-` tag.
"""

from __future__ import annotations

import collections
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.datasets import find_splits
from common.errors import InputError
from common.files import read_lines
from common.messages import say

OUTSIDE = "O"
SUFFIXES = (".conll", ".txt", ".tsv", ".iob", ".iob2", ".bio")
UNTYPED = "ENTITY"  # the type of tags without one: B, I and O
BAD_SENTENCES = 0.01  # fraction of a file that may be skipped; above, the file is refused
LISTED = 3  # problems that a message lists
MEASURED = 1_000_000  # lines from which the number of columns is known

# Prefixes of a tag in all schemes -> Begin, Inside, End or Single.
_PREFIXES = {**dict(zip("BIES", "BIES", strict=True)), "M": "I", "L": "E", "U": "S", "W": "S"}
_TAG = re.compile(rf"([{''.join(_PREFIXES)}])(?:[-_](\S+))?")
_BARE_TYPE = re.compile(r"[^\W\d_]\S*")


class Sentence(NamedTuple):
    """Tokens and their tags in IOB2: `O`, `B-PER`, `I-PER`, ...; one tag per token."""

    tokens: list[str]
    tags: list[str]


Span = tuple[str, int, int]  # type, first token, end (excluded)


class Columns(NamedTuple):
    """The columns of a CoNLL file, counted from 1, or from the end if negative."""

    token: int
    tag: int


FIRST_AND_LAST = Columns(token=1, tag=-1)


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


def entities(tags: Sequence[str]) -> list[Span]:
    """Return the entities that IOB2 tags mark: `(type, first token, end)`, the end excluded.

    Example:
      >>> entities(["B-PER", "I-PER", "O", "B-LOC"])
      [('PER', 0, 2), ('LOC', 3, 4)]
    """
    spans: list[Span] = []
    for index, tag in enumerate(tags):
        if tag.startswith("B-"):
            spans.append((tag[2:], index, index + 1))
        elif tag.startswith("I-"):
            spans[-1] = (*spans[-1][:2], index + 1)
    return spans


def parse_tag(tag: str) -> tuple[str, str] | None:
    """Return the prefix of a tag (`B`, `I`, `E`, `S`, or "" for none) and its entity type.

    A bare type counts as `I`; `O` has the type "". The result is None if it is no tag.

    Example:
      >>> [parse_tag(tag) for tag in ("U-PER", "PER", "B", "O", "7")]
      [('S', 'PER'), ('I', 'PER'), ('B', 'ENTITY'), ('', ''), None]
    """
    if tag == OUTSIDE:
        return "", ""
    if match := _TAG.fullmatch(tag):
        return _PREFIXES[match[1]], match[2] or UNTYPED
    return ("I", tag) if _BARE_TYPE.fullmatch(tag) else None


def to_iob2(tags: Iterable[str]) -> list[str]:
    """Convert the tags of a sentence from any scheme to IOB2; IOB2 tags stay as they are.

    Tags that break their scheme are read as they stand: an entity starts at each `B-`, where the
    type changes, and after an entity that is marked as ended.

    Example:
      >>> to_iob2(["I-PER", "I-PER", "B-PER", "O", "I-LOC"])
      ['B-PER', 'I-PER', 'B-PER', 'O', 'B-LOC']
      >>> to_iob2(["B-PER", "L-PER", "U-LOC", "LOC"])
      ['B-PER', 'I-PER', 'B-LOC', 'B-LOC']
    """
    converted = []
    before = ("", "")
    for tag in tags:
        prefix, entity_type = current = parse_tag(tag) or ("", "")
        if not prefix:
            converted.append(OUTSIDE)
        else:
            begins = prefix in "BS" or _ends(before, current)
            converted.append(f"{'B' if begins else 'I'}-{entity_type}")
        before = current
    return converted


def _ends(before: tuple[str, str], current: tuple[str, str]) -> bool:
    """Return whether no entity continues from one parsed tag to the next, whatever its prefix."""
    return before[1] != current[1] or before[0] in ("", "E", "S")


# --- files ----------------------------------------------------------------------------------------


def count_training_sentences(path: Path, most: int) -> int:
    """Return the approximate number of training sentences that `--data` names.

    At most `most` are counted, since a large file takes minutes to read.

    Raises:
      InputError: a file is missing or not UTF-8.
    """
    files = find_splits(path, SUFFIXES)
    blocks = _blocks(files.get("train", path))
    if "train" in files:
        return sum(1 for _ in itertools.islice(blocks, most))
    return round(0.8 * sum(1 for _ in itertools.islice(blocks, -(-10 * most // 8))))


class _Line(NamedTuple):
    """A line of a file, split into columns."""

    number: int
    fields: list[str]

    def pick(self, column: int) -> str:
        """Return a column, counted from 1, or from the end if negative."""
        return self.fields[column - 1 if column > 0 else column]

    def starts_with_hash(self) -> bool:
        return self.fields[0].startswith("#")


class _Token(NamedTuple):
    line: int
    token: str
    tag: str


class PlacedSentence(NamedTuple):
    """A sentence, and the number of its last line."""

    line: int
    sentence: Sentence


def read_conll(path: Path, *, columns: Columns = FIRST_AND_LAST) -> list[Sentence]:
    """Read a CoNLL file; messages on standard error are those of `iterate_conll`."""
    messages: list[str] = []
    rows = [row.sentence for row in iterate_conll(path, columns, messages)]
    for message in messages:
        say(f"{path.name}: {message}")
    return rows


def iterate_conll(path: Path, columns: Columns, messages: list[str]) -> Iterator[PlacedSentence]:
    """Yield the sentences of a CoNLL file, with tags in IOB2.

    Each line holds a token and its tag. Tabs, or else blanks, separate the columns; those at the
    end of a line are ignored. A blank line ends a sentence. Comment lines (`# ...`) and
    `-DOCSTART-` lines are ignored.

    Args:
      path: the file, UTF-8, with tags in any scheme of `to_iob2`.
      columns: the columns of the token and of its tag.
      messages: receives what was converted, dropped or skipped.

    Raises:
      InputError: more than 1 in 100 sentences are malformed, or there is none. The message names
        the first malformed line and what was expected.
    """
    width = _width(path, columns)
    scheme = _Scheme()
    problems: list[tuple[int, str]] = []  # the first ones
    total = bad = dropped = good = 0
    for every in _blocks(path):
        total += 1
        block = _without_comments(every, width, columns)
        if problem := _problem(block, width, columns):
            bad += 1
            problems += [problem] * (bad <= LISTED)
            continue
        rows = [_Token(row.number, row.pick(columns.token), row.pick(columns.tag)) for row in block]
        words = [row for row in rows if not _is_blank(row.token)]
        dropped += len(rows) - len(words)
        if words:
            good += 1
            scheme.add(words)
            tags = to_iob2(row.tag for row in words)
            yield PlacedSentence(words[-1].line, Sentence([row.token for row in words], tags))
    if bad > BAD_SENTENCES * total:
        number, message = problems[0]
        raise InputError(message, path, number)
    if not good:
        raise InputError("no sentences in this file", path)
    if bad:
        listed = "; ".join(f"line {number}: {message}" for number, message in problems)
        messages.append(f"{bad} of {total} sentences were skipped ({listed})")
    if dropped:
        messages.append(f"lines without a token were dropped: {dropped}")
    if message := scheme.describe():
        messages.append(message)


def _is_blank(text: str) -> bool:
    """Return whether a text has no visible character."""
    return not any(c.isprintable() and not c.isspace() for c in text)


def _blocks(path: Path) -> Iterator[list[_Line]]:
    """Yield the lines of each sentence, comments included."""
    block: list[_Line] = []
    for number, line in read_lines(path):
        line = line.rstrip()
        if "\t" in line:  # a tab at the start says that the first column is empty
            fields = [field.strip(" ") for field in line.split("\t")]
        else:
            fields = [field for field in line.split(" ") if field]
        if not any(fields) or _is_blank(line) or "-DOCSTART-" in fields:
            if block:
                yield block
            block = []
        else:
            block.append(_Line(number, fields))
    if block:
        yield block


def _width(path: Path, columns: Columns) -> int:
    """Return the number of columns of most lines at the beginning of a file.

    Raises:
      InputError: there is only one column, or a given column does not exist.
    """
    # A file may begin with many comments, which count if there is nothing else.
    counts = {True: collections.Counter[int](), False: collections.Counter[int]()}
    first: dict[tuple[bool, int], int] = {}
    lines = itertools.chain.from_iterable(_blocks(path))
    for line in itertools.islice(lines, MEASURED):
        kind, count = line.starts_with_hash(), len(line.fields)
        counts[kind][count] += 1
        first.setdefault((kind, count), line.number)
    kind = not counts[False]
    if not counts[kind]:
        raise InputError("no sentences in this file", path)
    [(width, _)] = counts[kind].most_common(1)
    line_number = first[kind, width]
    if width < 2:
        message = "expected two or more columns, a token and its tag, got 1"
        raise InputError(message, path, line_number)
    for name, column in columns._asdict().items():
        if abs(column) > width:
            message = f"--{name}_column {column}: there are {width} columns"
            raise InputError(message, path, line_number)
    return width


def _without_comments(block: Sequence[_Line], width: int, columns: Columns) -> list[_Line]:
    """Return a sentence without comments.

    A line that starts with a hash and has all columns and a tag is a token, such as `#London`.
    """

    def is_token(line: _Line) -> bool:
        if not line.starts_with_hash():
            return True
        tag = line.pick(columns.tag) if len(line.fields) == width else ""
        return tag == OUTSIDE or bool(_TAG.fullmatch(tag))

    return [line for line in block if is_token(line)]


def _problem(block: Sequence[_Line], width: int, columns: Columns) -> tuple[int, str] | None:
    """Return the line and the description of the first problem of a sentence, if any."""
    for line in block:
        count = len(line.fields)
        if count != width and (min(columns) < 0 or count < max(columns)):
            return line.number, f"expected {width} columns as on most lines, got {count}"
        tag = line.pick(columns.tag)
        if parse_tag(tag) is None:
            return line.number, f"expected a tag such as O, B-TYPE, I-TYPE or TYPE, got {tag!r}"
    return None


class _Lines:
    """The number of some lines, and the first of them."""

    def __init__(self) -> None:
        self.count, self.first, self.last = 0, 0, 0

    def add(self, line: int) -> None:
        """Count a line, once."""
        if line != self.last:
            self.first = self.first or line
            self.count += 1
            self.last = line


class _Scheme:
    """The scheme of the tags of a file, and the tags that break it."""

    def __init__(self) -> None:
        self.begins = _Lines()  # where B or S starts an entity that need not be separated
        self.continues = _Lines()  # where I or E does
        self.breaks = _Lines()  # where I or E does, or where no E or S marks a last token
        self.letters: set[str] = set()
        self.separates = False

    def add(self, block: Iterable[_Token]) -> None:
        """Take the tags of a sentence into account."""
        before, line = ("", ""), 0
        for row in [*block, _Token(0, "", OUTSIDE)]:
            prefix, _ = current = parse_tag(row.tag) or ("", "")
            if prefix:
                self.letters.add(row.tag[0] if _TAG.fullmatch(row.tag) else "")
            ended = _ends(before, current)
            if before[0] in ("B", "I") and (ended or prefix in ("B", "S")):
                self.breaks.add(line)
            if prefix and ended:
                (self.begins if prefix in "BS" else self.continues).add(row.line)
            if prefix and ended and prefix not in "BS":
                self.breaks.add(row.line)
            self.separates = self.separates or (prefix == "B" and not ended)
            before, line = current, row.line

    def describe(self) -> str:
        """Describe the scheme, unless it is IOB2, and the tags that break it; or return ""."""
        is_closed = bool(self.letters & set("ELSUW"))
        if is_closed:
            scheme = "BILOU" if self.letters & set("LU") else "BIOES"
            breaks = self.breaks
        elif self.continues.count <= self.begins.count:
            scheme, breaks = "IOB2", self.continues
        else:
            is_iob1 = self.separates or self.begins.count
            scheme = "bare types" if "" in self.letters else "IOB1" if is_iob1 else "IO"
            breaks = self.begins
        parts = [] if scheme == "IOB2" else [f"its tags ({scheme}) were converted to IOB2"]
        if breaks.count:
            parts.append(
                f"tags that break the scheme {scheme}: {breaks.count} (first: line "
                f"{breaks.first}); they were read as they stand"
            )
        return "; ".join(parts)
