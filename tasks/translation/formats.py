"""Readers of the user's own files: tables, translation memories, and two parallel text files.

All of them may be compressed, with the ending `.gz`.
"""

from __future__ import annotations

import collections
import csv
import gzip
import itertools
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, NamedTuple

from common.datasets import find_splits
from common.errors import InputError
from common.files import count_lines, read_lines
from common.messages import Skipped

# A sentence and its translation.
Pair = tuple[str, str]
# The columns of source and target: a name in the header, a number from 1, or None.
Columns = tuple[str | None, str | None]

TABLES = (".tsv", ".txt", ".csv")
MEMORY = ".tmx"
QUOTED_LINES = 50  # of one record at most; a quotation mark in a sentence is not always closed
ATTRIBUTION = "CC-BY"  # begins the third column of the files of manythings.org
NAMES = {"ar": "arabic", "de": "german", "en": "english", "es": "spanish", "fr": "french"}
NAMES |= {"hi": "hindi", "it": "italian", "ja": "japanese", "ko": "korean", "nl": "dutch"}
NAMES |= {"pl": "polish", "pt": "portuguese", "ru": "russian", "th": "thai", "tr": "turkish"}
NAMES |= {"uk": "ukrainian", "zh": "chinese"}


class PlacedPair(NamedTuple):
    """A pair, and the number of its line or unit, from 1."""

    number: int
    pair: Pair


class SentencePairs(NamedTuple):
    """The pairs of a file.

    Attributes:
      pairs: (source, target), both with text.
      skipped: the rows without text on one side, or without one of the languages.
    """

    pairs: list[Pair]
    skipped: Skipped


def endings(languages: tuple[str, str]) -> tuple[str, ...]:
    """Return the endings of the files that `read_pairs` reads."""
    plain = (*TABLES, MEMORY, f".{languages[0]}")
    return (*plain, *(f"{ending}.gz" for ending in plain))


def read_pairs(
    path: Path, languages: tuple[str, str], columns: Columns = (None, None)
) -> SentencePairs:
    """Read the sentence pairs of a file; see `iterate_pairs`."""
    skipped: Skipped = []
    pairs = [row.pair for row in iterate_pairs(path, languages, columns, skipped)]
    return SentencePairs(pairs, skipped)


def iterate_pairs(
    path: Path, languages: tuple[str, str], columns: Columns, skipped: Skipped
) -> Iterator[PlacedPair]:
    """Yield sentence pairs from a table, a translation memory, or two parallel text files.

    Args:
      path: a `.tsv` or `.txt` file (fields separated by tabs), a `.csv` file (by commas), a `.tmx`
        file, or one of two parallel files. Parallel files have the same name and end in their
        language, such as `corpus.fr` and `corpus.en`. `.gz` may follow.
      languages: source and target language.
      columns: of a table; without them, those that the header names by the languages, or the first
        two.
      skipped: receives the rows without text on one side, or without one of the languages.

    Raises:
      InputError: the file has another ending, is malformed, or has no pair.
    """
    ending = _ending(path)
    if ending in TABLES:
        return iterate_table(
            path, languages, columns, skipped, separator="," if ending == ".csv" else "\t"
        )
    if ending == MEMORY:
        return iterate_memory(path, languages, skipped)
    source, target = files_of(path, languages)
    return iterate_parallel(source, target, skipped)


def _ending(path: Path) -> str:
    """Return the ending of a file, without `.gz`."""
    return (path.with_suffix("") if path.suffix.lower() == ".gz" else path).suffix.lower()


def files_of(path: Path, languages: tuple[str, str]) -> list[Path]:
    """Return the file of `iterate_pairs`, or the two parallel ones.

    Raises:
      InputError: the file has another ending.
    """
    if _ending(path) in (*TABLES, MEMORY):
        return [path]
    compressed = path.suffix.lower() == ".gz"
    inner = path.with_suffix("") if compressed else path
    files = [
        inner.with_suffix(f".{language}{'.gz' if compressed else ''}") for language in languages
    ]
    if path not in files:
        raise InputError(
            f"expected a {', '.join(TABLES)} or {MEMORY} file, or two parallel files that end in "
            f".{languages[0]} and .{languages[1]} (other languages: --source, --target_language)",
            path,
        )
    return files


def count_places(path: Path) -> int:
    """Return the number of lines of a file, or of units of a translation memory."""
    return count_lines(path, b"</tu>" if _ending(path) == MEMORY else b"\n")


def count_pairs(path: Path, languages: tuple[str, str], columns: Columns, most: int) -> int:
    """Return the number of training pairs of a file or folder, to choose settings by.

    At most `most` are counted, since a large file takes minutes to read.
    """
    files = find_splits(path, endings(languages))
    training = files.get("train", path)
    pairs = iterate_pairs(training, languages, columns, [])
    if "train" in files:
        return sum(1 for _ in itertools.islice(pairs, most))
    return 8 * sum(1 for _ in itertools.islice(pairs, -(-10 * most // 8))) // 10


# --- Tables ---------------------------------------------------------------------------------------


def iterate_table(
    path: Path,
    languages: tuple[str, str],
    columns: Columns,
    skipped: Skipped,
    *,
    separator: str,
) -> Iterator[PlacedPair]:
    """Yield the pairs of a table with a source and a target in each row.

    A row without text on one side is skipped. Fields in quotation marks may hold separators and
    line ends.

    Raises:
      InputError: a row has too few fields, a column is missing, or no row is left. The message
        names the file and the line.
    """
    rows = _read_commas(path) if separator == "," else _read_tabs(path)
    places: tuple[int, int] | None = None
    is_empty = True
    for number, fields in rows:
        if places is None:
            places, is_header = _find_columns(fields, languages, columns, path)
            if is_header:
                continue
        if len(fields) <= max(places) or (len(fields) > 2 and not _may_be_more(fields, places)):
            raise InputError(
                f"expected a source, a {'comma' if separator == ',' else 'tab'} and a target, got "
                f"{len(fields)} field(s); other columns: --source_column, --target_column",
                path,
                number,
            )
        source, target = (fields[place].strip() for place in places)
        if source and target:
            is_empty = False
            yield PlacedPair(number, (source, target))
        else:
            skipped.append((f"line {number}", "no target" if source else "no source"))
    if is_empty:
        raise InputError("no sentence pairs in this file", path)


def _may_be_more(fields: Sequence[str], places: tuple[int, int]) -> bool:
    """Return whether a row may have other columns: chosen ones, or an attribution."""
    return places != (0, 1) or fields[2].strip().startswith(ATTRIBUTION)


def _find_columns(
    fields: Sequence[str], languages: tuple[str, str], columns: Columns, path: Path
) -> tuple[tuple[int, int], bool]:
    """Return the places of source and target, and whether the first row is a header."""
    header = [field.strip().lower() for field in fields]
    names = [{language.lower(), NAMES.get(language.lower(), language)} for language in languages]
    by_name = [next((k for k, f in enumerate(header) if f in name), None) for name in names]
    places, is_header = [0, 1], None not in by_name and by_name[0] != by_name[1]
    for side, column in enumerate(columns):
        if column is None:
            found = by_name[side]
            places[side] = found if is_header and found is not None else side
        elif column.isdecimal():
            places[side] = int(column) - 1
        elif column.lower() in header:
            places[side], is_header = header.index(column.lower()), True
        else:
            raise InputError(f"no column {column!r} (found: {', '.join(fields)})", path, 1)
    if places[0] == places[1] and None in columns:
        # One flag names the column that the other side would have: the other one is meant.
        places[columns.index(None)] = 1 - min(places[0], 1)
    if places[0] == places[1] or min(places) < 0:
        raise InputError("--source_column and --target_column must be two columns, from 1", path)
    return (places[0], places[1]), is_header


def _read_commas(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line numbers and fields of a file with commas."""
    rows = csv.reader((line + "\n" for _, line in read_lines(path)), strict=True)
    try:
        for fields in rows:
            if fields:
                yield rows.line_num, fields
    except csv.Error as error:
        raise InputError(f"malformed: {error}", path, rows.line_num) from error


def _read_tabs(path: Path) -> Iterator[tuple[int, list[str]]]:
    """Yield the line numbers and fields of a file with tabs.

    A quotation mark at the beginning of a field is part of the sentence, unless the field is quoted
    as a whole. The field then ends at the closing mark, maybe some lines below.
    """
    rest = read_lines(path)
    lines: collections.deque[tuple[int, str]] = collections.deque()
    while lines or (lines := collections.deque(itertools.islice(rest, 1))):
        number, line = lines[0]
        fields, count = line.split("\t"), 1
        if any(field.startswith('"') for field in fields):
            lines.extend(itertools.islice(rest, QUOTED_LINES - len(lines)))
            quoted, quoted_lines = _read_quoted([line for _, line in lines])
            if quoted:
                fields, count = quoted, quoted_lines
        for _ in range(count):
            lines.popleft()
        if line.strip() or len(fields) > 1:
            yield number, fields


def _read_quoted(lines: Sequence[str]) -> tuple[list[str], int]:
    """Return the fields of the first record of lines, and its number of lines.

    There are no fields if the lines do not begin with a record in quotation marks.
    """
    for count in range(1, len(lines) + 1):
        rows = csv.reader([line + "\n" for line in lines[:count]], delimiter="\t", strict=True)
        try:
            (fields,) = list(rows)
        except csv.Error as error:
            if "unexpected end" in str(error):
                continue
            return [], 0
        except ValueError:  # the first line is a record of its own
            return [], 0
        return (fields, count) if len(fields) > 1 else ([], 0)
    return [], 0


# --- Translation memories -------------------------------------------------------------------------


def iterate_memory(
    path: Path, languages: tuple[str, str], skipped: Skipped
) -> Iterator[PlacedPair]:
    """Yield the pairs of a translation memory, TMX 1.4. Codes inside segments are dropped.

    Units without one of the languages, or without text in one, are skipped.

    Raises:
      InputError: the file is no XML, or has no unit with both languages.
    """
    is_empty = True
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else open(path, "rb") as file:
            for number, unit in enumerate(_units(file), start=1):
                source, target = (_segment(unit, language) for language in languages)
                if source and target:
                    is_empty = False
                    yield PlacedPair(number, (source, target))
                else:
                    missing = languages[1] if source else languages[0]
                    skipped.append((f"unit {number}", f"no text in {missing!r}"))
    except (OSError, EOFError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read: {reason}", path) from error
    except ElementTree.ParseError as error:
        raise InputError(f"malformed: {error}", path) from error
    if is_empty:
        raise InputError(f"no unit has both {languages[0]!r} and {languages[1]!r}", path)


def _units(file: BinaryIO | gzip.GzipFile) -> Iterator[ElementTree.Element]:
    """Yield the units of a translation memory; none is kept."""
    parents: list[ElementTree.Element] = []
    for event, element in ElementTree.iterparse(file, events=("start", "end")):
        if event == "start":
            parents.append(element)
            continue
        parents.pop()
        if _tag(element) == "tu":
            yield element
            if parents:
                parents[-1].remove(element)


def _tag(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _segment(unit: ElementTree.Element, language: str) -> str:
    """Return the text of a unit in a language; `en` also finds `en-US`."""
    for variant in unit:
        if _tag(variant) != "tuv":
            continue
        named = next((v for k, v in variant.attrib.items() if k.rpartition("}")[2] == "lang"), "")
        if named.lower() == language.lower() or named.lower().startswith(f"{language.lower()}-"):
            segment = next((part for part in variant if _tag(part) == "seg"), None)
            return "" if segment is None else " ".join(_text(segment).split())
    return ""


def _text(element: ElementTree.Element) -> str:
    """Return the text of a segment without its codes; highlighted text is text."""
    parts = [element.text or ""]
    for part in element:
        parts += [_text(part) if _tag(part) == "hi" else "", part.tail or ""]
    return "".join(parts)


# --- Parallel files -------------------------------------------------------------------------------


def iterate_parallel(source: Path, target: Path, skipped: Skipped) -> Iterator[PlacedPair]:
    """Yield the lines of two text files; line k of one is the translation of line k of the other.

    Lines without text on one side are skipped.

    Raises:
      InputError: the numbers of lines differ, or there are no pairs. The message names the file.
    """
    is_empty = True
    lines = itertools.zip_longest(read_lines(source), read_lines(target))
    counts = [0, 0]
    for row in lines:
        counts = [count + (line is not None) for count, line in zip(counts, row, strict=True)]
        texts = ["" if line is None else line[1].strip() for line in row]
        if all(texts):
            is_empty = False
            yield PlacedPair(counts[0], (texts[0], texts[1]))
        else:
            skipped.append((f"line {counts[0]}", "no target" if texts[0] else "no source"))
    if counts[0] != counts[1]:
        raise InputError(
            f"{counts[0]} lines, but {target} has {counts[1]}: "
            "line k of one must be the translation of line k of the other",
            source,
        )
    if is_empty:
        raise InputError("no sentence pairs in this file", source)
