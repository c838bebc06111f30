"""CoNLL files and the schemes of their tags: the form in which users bring annotated sentences.

Each line holds a token and its tag, among any number of columns, and a blank line ends a sentence.
The tags may follow IOB1, IOB2, IO, BIOES or BILOU, or be bare types; sentences always have IOB2
tags, in which every entity starts with a `B-` tag.
"""

from __future__ import annotations

import collections
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from common.datasets import find_splits, split_rows
from common.errors import InputError
from common.files import read_lines
from common.messages import say

OUTSIDE = "O"
SUFFIXES = (".conll", ".txt", ".tsv", ".iob", ".iob2", ".bio")
UNTYPED = "ENTITY"  # the type of tags without one: B, I and O
BAD_SENTENCES = 0.01  # fraction of a file that may be skipped; above, the file is refused
LISTED = 3  # problems that a message lists

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


def read_splits(
    path: Path, *, seed: int, columns: Columns = FIRST_AND_LAST
) -> tuple[dict[str, list[Sentence]], tuple[str, ...]]:
    """Read the user's sentences and split them.

    A type that does not occur in the training sentences cannot be learned; a message says that its
    entities count as missed.

    Args:
      path: a CoNLL file, split 80/10/10, or a folder with a file per split.
      seed: seed of the split of a single file.
      columns: see `read_conll`.

    Returns:
      `(splits, types)`: the sentences of `train`, `validation` and `test`, and the entity types of
      all of them.

    Raises:
      InputError: a file is missing or malformed, or the training sentences have no entity.
    """
    files = find_splits(path, SUFFIXES)
    splits = {split: read_conll(file, columns=columns) for split, file in files.items()}
    source = files.get("train", path)
    splits = split_rows(splits["all"], seed) if "all" in splits else splits
    types = {split: _types_of(rows) for split, rows in splits.items()}
    known = types["train"]
    if not known:
        raise InputError("every tag is O: expected entities (B-TYPE)", source)
    for split in ("validation", "test"):
        if unknown := sorted(set(types[split]) - set(known)):
            say(
                f"{path.name}: entities of type {', '.join(unknown)} occur in the {split} "
                "sentences, but not in the training sentences; they count as missed"
            )
    return splits, tuple(sorted(set().union(*types.values())))


def _types_of(rows: Iterable[Sentence]) -> tuple[str, ...]:
    """Return the entity types of sentences."""
    return entity_types(tag for row in rows for tag in row.tags)


def count_training_sentences(path: Path) -> int:
    """Return the approximate number of training sentences that `--data` names.

    Raises:
      InputError: a file is missing or not UTF-8.
    """
    files = find_splits(path, SUFFIXES)
    blocks = sum(1 for _ in _blocks(files.get("train", path)))
    return blocks if "train" in files else round(0.8 * blocks)


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


def read_conll(path: Path, *, columns: Columns = FIRST_AND_LAST) -> list[Sentence]:
    """Read a CoNLL file.

    Each line holds a token and its tag. Tabs, or else blanks, separate the columns; those at the
    end of a line are ignored. A blank line ends a sentence. Comment lines (`# ...`) and
    `-DOCSTART-` lines are ignored. Messages on standard error say what was converted, dropped or
    skipped.

    Args:
      path: the file, UTF-8, with tags in any scheme of `to_iob2`.
      columns: the columns of the token and of its tag.

    Returns:
      The sentences, with tags in IOB2.

    Raises:
      InputError: more than 1 in 100 sentences are malformed, or there is none. The message names
        the first malformed line and what was expected.
    """
    blocks = list(_blocks(path))
    width = _width(blocks, columns, path)
    good: list[list[_Token]] = []
    problems: list[tuple[int, str]] = []
    dropped = 0
    for block in _without_comments(blocks, width, columns):
        if problem := _problem(block, width, columns):
            problems.append(problem)
            continue
        rows = [_Token(row.number, row.pick(columns.token), row.pick(columns.tag)) for row in block]
        words = [row for row in rows if not _is_blank(row.token)]
        dropped += len(rows) - len(words)
        good += [words] if words else []
    if problems and len(problems) > BAD_SENTENCES * len(blocks):
        number, message = problems[0]
        raise InputError(message, path, number)
    if not good:
        raise InputError("no sentences in this file", path)
    if problems:
        listed = "; ".join(f"line {number}: {message}" for number, message in problems[:LISTED])
        say(f"{path.name}: {len(problems)} of {len(blocks)} sentences were skipped ({listed})")
    if dropped:
        say(f"{path.name}: lines without a token were dropped: {dropped}")
    if message := _describe_scheme(good):
        say(f"{path.name}: {message}")
    return [
        Sentence([row.token for row in block], to_iob2(row.tag for row in block)) for block in good
    ]


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


def _width(blocks: Sequence[Sequence[_Line]], columns: Columns, path: Path) -> int:
    """Return the number of columns of most lines.

    Raises:
      InputError: there is only one column, or a given column does not exist.
    """
    lines = [line for block in blocks for line in block]
    # A file may begin with many comments.
    lines = [line for line in lines if not line.starts_with_hash()] or lines
    if not lines:
        raise InputError("no sentences in this file", path)
    [(width, _)] = collections.Counter(len(line.fields) for line in lines).most_common(1)
    first = next(line.number for line in lines if len(line.fields) == width)
    if width < 2:
        raise InputError("expected two or more columns, a token and its tag, got 1", path, first)
    for name, column in columns._asdict().items():
        if abs(column) > width:
            raise InputError(f"--{name}_column {column}: there are {width} columns", path, first)
    return width


def _without_comments(
    blocks: Iterable[Sequence[_Line]], width: int, columns: Columns
) -> Iterator[list[_Line]]:
    """Yield the sentences without comments.

    A line that starts with a hash and has all columns and a tag is a token, such as `#London`.
    """

    def is_token(line: _Line) -> bool:
        if not line.starts_with_hash():
            return True
        tag = line.pick(columns.tag) if len(line.fields) == width else ""
        return tag == OUTSIDE or bool(_TAG.fullmatch(tag))

    for block in blocks:
        if tokens := [line for line in block if is_token(line)]:
            yield tokens


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


def _describe_scheme(blocks: Iterable[Sequence[_Token]]) -> str:
    """Describe the scheme of a file's tags, unless it is IOB2, and the tags that break it.

    Args:
      blocks: the sentences.

    Returns:
      A message, or "".
    """
    begins: list[int] = []  # lines where B or S starts an entity that need not be separated
    continues: list[int] = []  # lines where I or E does
    open_ends: list[int] = []  # lines of last tokens that no E or S marks
    letters: set[str] = set()
    separates = False
    for block in blocks:
        before, line = ("", ""), 0
        for row in [*block, _Token(0, "", OUTSIDE)]:
            prefix, _ = current = parse_tag(row.tag) or ("", "")
            if prefix:
                letters.add(row.tag[0] if _TAG.fullmatch(row.tag) else "")
            ended = _ends(before, current)
            if before[0] in ("B", "I") and (ended or prefix in ("B", "S")):
                open_ends.append(line)
            if prefix and ended:
                (begins if prefix in "BS" else continues).append(row.line)
            separates = separates or (prefix == "B" and not ended)
            before, line = current, row.line
    is_closed = bool(letters & set("ELSUW"))
    fewer = min(continues, begins, key=len)
    if is_closed:
        scheme = "BILOU" if letters & set("LU") else "BIOES"
        breaks = sorted({*continues, *open_ends})
    elif fewer is continues:
        scheme, breaks = "IOB2", continues
    else:
        scheme = "bare types" if "" in letters else "IOB1" if separates or begins else "IO"
        breaks = begins
    parts = [] if scheme == "IOB2" else [f"its tags ({scheme}) were converted to IOB2"]
    if breaks:
        parts.append(
            f"tags that break the scheme {scheme}: {len(breaks)} (first: line {breaks[0]}); they "
            "were read as they stand"
        )
    return "; ".join(parts)
