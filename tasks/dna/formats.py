"""Readers of sequences: FASTA, and files with annotations (GenBank, GFF3); also compressed.

`tasks.dna.annotations` parses the annotations.
"""

from __future__ import annotations

import bz2
import gzip
import io
import itertools
import lzma
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TextIO

from common.errors import InputError
from common.messages import Skipped, report_skipped
from tasks.dna.annotations import make_records, parse_genbank, parse_gff
from tasks.dna.genes import Record
from tasks.dna.nucleotides import encode

SUFFIXES = tuple(
    f"{name}{packed}"
    for name in (".gb", ".gbk", ".gbff", ".genbank", ".fa", ".fasta", ".fna", ".gff3", ".gff")
    for packed in ("", ".gz", ".bz2", ".xz")
)
_OPENERS = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ": lzma.open}
_DAMAGED = (OSError, EOFError, zlib.error, lzma.LZMAError)
# What ends the features of GFF3 and begins its sequences; some writers leave out the directive.
_FASTA = re.compile(r"^(##FASTA[^\n]*|(?=>))", re.MULTILINE)


def open_text(path: Path) -> TextIO:
    """Open a text file in UTF-8, which may be compressed by gzip, bzip2 or xz.

    Raises:
      OSError: the file cannot be read.
    """
    return _opener(path)(path, "rt", encoding="utf-8-sig")


def _opener(path: Path) -> Any:
    """Return the function that opens a file, which may be compressed."""
    with open(path, "rb") as file:
        head = file.read(6)
    return next((opener for magic, opener in _OPENERS.items() if head.startswith(magic)), open)


def read_text(path: Path) -> str:
    """Return the text of a file, which may be compressed; see `open_text`.

    Raises:
      InputError: the file cannot be read, or is not UTF-8.
    """
    try:
        with _opener(path)(path, "rb") as file:
            raw = file.read()
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read: {reason}", path) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError("not text in UTF-8", path, line) from error


def read_records(path: Path) -> list[Record]:
    """Read a GenBank file, a FASTA file, or a GFF3 file with sequences, with their genes.

    The content decides the format. The genes of a FASTA file come from the GFF3 file of the same
    name, if there is one: see `gff_path`.

    Raises:
      InputError: the file is malformed. Names the file, and the line or record where possible.
    """
    text = read_text(path)
    head = text[:4096].lstrip()
    if head.startswith("LOCUS"):
        return parse_genbank(text, path)
    if head.startswith(">"):
        sequences = parse_fasta(text, path)
        annotation = gff_path(path)
        if annotation is None:
            return make_records(sequences, {})
        features = split_gff(read_text(annotation))[0]
        return make_records(sequences, parse_gff(features, annotation, sequences))
    if is_gff(head):
        features, fasta = split_gff(text)
        sequences = _sequences_of_gff(features, fasta, path)
        return make_records(sequences, parse_gff(features, path, sequences))
    raise _unknown(head, path)


def read_sequences(path: Path) -> Iterator[Record]:
    """Yield the records of a file without their annotation, which is not parsed.

    Of a FASTA file only one record is in memory at a time.

    Raises:
      InputError: the file is malformed.
    """
    try:
        with open_text(path) as lines:
            first = next((line for line in lines if line.strip()), "")
            if first.lstrip().startswith(">"):
                for name, sequence in read_fasta(itertools.chain([first], lines), path):
                    yield Record(name, sequence)
                return
    except UnicodeDecodeError as error:
        raise InputError("not text in UTF-8", path) from error
    except _DAMAGED as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read: {reason}", path) from None
    text = read_text(path)
    head = text[:4096].lstrip()
    if head.startswith("LOCUS"):
        yield from parse_genbank(text, path, annotated=False)
    elif is_gff(head):
        sequences = _sequences_of_gff(*split_gff(text), path)
        yield from make_records(sequences, {})
    else:
        raise _unknown(head, path)


def is_gff(head: str) -> bool:
    """Return whether a text begins as GFF3."""
    return head.startswith("##gff") or "\t" in head.split("\n", 1)[0]


def split_gff(text: str) -> tuple[str, str]:
    r"""Return the features of a GFF3 text, and its sequences as FASTA.

    Example:
      >>> split_gff("##gff-version 3\n>a\nACGT\n")      # without ##FASTA, as some writers do
      ('##gff-version 3\n', '>a\nACGT\n')
    """
    mark = _FASTA.search(text)
    return (text, "") if mark is None else (text[: mark.start()], text[mark.end() :])


def _sequences_of_gff(features: str, fasta: str, path: Path) -> dict[str, str]:
    if not fasta.strip():
        raise InputError("GFF3 without sequences: pass the FASTA file, or add ##FASTA", path)
    return parse_fasta(fasta, path, features.count("\n") + 1)


def _unknown(head: str, path: Path) -> InputError:
    if not head:
        return InputError("empty file; expected GenBank, FASTA or GFF3", path)
    first_line = head.split("\n", 1)[0]
    return InputError(f"expected GenBank, FASTA or GFF3, got {first_line[:40]!r}", path)


def gff_path(path: Path) -> Path | None:
    """Return the GFF3 file of a FASTA file, `None` if there is none.

    For `x.fa` or `x.fa.gz` it is the first of `x.gff3`, `x.gff`, and these compressed.
    """
    name = path.name
    for packed in (".gz", ".bz2", ".xz"):
        name = name.removesuffix(packed)
    stem = path.with_name(name.rsplit(".", 1)[0])
    for packed in ("", ".gz", ".bz2", ".xz"):
        for suffix in (".gff3", ".gff"):
            candidate = stem.with_name(stem.name + suffix + packed)
            if candidate.is_file():
                return candidate
    return None


# --- FASTA ----------------------------------------------------------------------------------------


def read_fasta(lines: Iterable[str], path: Path | str, first: int = 1) -> Iterator[tuple[str, str]]:
    """Yield `(name, sequence in capital letters)`, with one record in memory at a time.

    A record without bases is skipped and counted.

    Args:
      lines: the lines of the file.
      path: the file, for messages.
      first: number of the first line.

    Raises:
      InputError: the text is malformed, or no record has bases. Names the file and the line.

    Example:
      >>> list(read_fasta([">chr1 first", "acg", "TTN", ">chr2", "A"], "genome.fa"))
      [('chr1', 'ACGTTN'), ('chr2', 'A')]
    """
    name, header, total = "", 0, 0  # header: line number of the record, 0 before the first one
    parts: list[str] = []
    skipped: Skipped = []
    for number, line in enumerate(lines, start=first):
        line = line.strip()
        if line.startswith(">"):
            if header and parts:
                yield name, "".join(parts)
            elif header:
                skipped.append((f"line {header}", f"record {name!r} has no bases"))
            name, parts, header = (line[1:].split() or [f"record_{number}"])[0], [], number
            total += 1
        elif line:
            if not header:
                raise InputError("expected a line that begins with '>'", path, number)
            if (encode(line) < 0).any():
                wrong = next(letter for letter in line if encode(letter)[0] < 0)
                raise InputError(f"{wrong!r} is not an IUPAC letter of DNA", path, number)
            parts.append(line.upper())
    if not header:
        raise InputError("no sequence in this file", path)
    if parts:
        yield name, "".join(parts)
    else:
        skipped.append((f"line {header}", f"record {name!r} has no bases"))
    report_skipped(path, skipped, total=total, unit="records", limit=1.0)


def parse_fasta(text: str, path: Path | str, first: int = 1) -> dict[str, str]:
    """Return the sequences of a FASTA text by name.

    Args:
      text: the content.
      path: the file, for messages.
      first: line number of the first line of `text`.

    Raises:
      InputError: the text is malformed, or two records have one name.
    """
    sequences: dict[str, str] = {}
    for name, sequence in read_fasta(io.StringIO(text), path, first):
        if name in sequences:
            raise InputError(f"two records are named {name!r}", path)
        sequences[name] = sequence
    return sequences
