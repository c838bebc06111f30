"""Readers of annotated sequences: GenBank, FASTA, and GFF3.

Genes of every format are brought to one form: the stop codon is part of the gene, adjacent exons
are joined, genes are in ascending order.
"""

from __future__ import annotations

import dataclasses
import gzip
import io
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.errors import InputError, require
from tasks.dna.genes import Gene, Record
from tasks.dna.nucleotides import STOP_CODONS, encode, reverse_complement_letters

if TYPE_CHECKING:
    from Bio.SeqFeature import SeqFeature
    from Bio.SeqRecord import SeqRecord

SUFFIXES = tuple(
    f"{name}{packed}"
    for name in (".gb", ".gbk", ".gbff", ".genbank", ".fa", ".fasta", ".fna", ".gff3", ".gff")
    for packed in ("", ".gz")
)


def read_records(path: Path) -> list[Record]:
    """Read a GenBank file, a FASTA file, or a GFF3 file with sequences.

    The content decides the format, and whether the file is compressed by gzip. The genes of a FASTA
    file come from the GFF3 file of the same name, if there is one: see `gff_path`.

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
        return make_records(sequences, parse_gff(read_text(annotation), annotation, sequences))
    first_line = head.split("\n", 1)[0]
    if head.startswith("##gff") or "\t" in first_line:
        features, mark, fasta = text.partition("##FASTA")
        if not mark:
            raise InputError("GFF3 without sequences: pass the FASTA file, or add ##FASTA", path)
        sequences = parse_fasta(fasta, path, features.count("\n") + 1)
        return make_records(sequences, parse_gff(features, path, sequences))
    if not head:
        raise InputError("empty file; expected GenBank, FASTA or GFF3", path)
    raise InputError(f"expected GenBank, FASTA or GFF3, got {first_line[:40]!r}", path)


def read_text(path: Path) -> str:
    """Return the text of a file, which may be compressed by gzip.

    Raises:
      InputError: the file cannot be read, or is not UTF-8.
    """
    try:
        raw = path.read_bytes()
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
    except (OSError, EOFError, zlib.error) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"cannot read: {reason}", path) from None
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise InputError("not text in UTF-8", path, line) from error


def gff_path(path: Path) -> Path | None:
    """Return the GFF3 file of a FASTA file, `None` if there is none.

    For `x.fa` or `x.fa.gz` it is the first of `x.gff3`, `x.gff`, `x.gff3.gz` and `x.gff.gz`.
    """
    name = path.name.removesuffix(".gz")
    stem = path.with_name(name.rsplit(".", 1)[0])
    for suffix in (".gff3", ".gff", ".gff3.gz", ".gff.gz"):
        candidate = stem.with_name(stem.name + suffix)
        if candidate.is_file():
            return candidate
    return None


# --- FASTA ----------------------------------------------------------------------------------------


def read_fasta(lines: Iterable[str], path: Path | str, first: int = 1) -> Iterator[tuple[str, str]]:
    """Yield `(name, sequence in capital letters)`, with one record in memory at a time.

    Args:
      lines: the lines of the file.
      path: the file, for messages.
      first: number of the first line.

    Raises:
      InputError: the text is malformed. Names the file and the line.

    Example:
      >>> list(read_fasta([">chr1 first", "acg", "TTN", ">chr2", "A"], "genome.fa"))
      [('chr1', 'ACGTTN'), ('chr2', 'A')]
    """
    name, header = "", 0  # header: line number of the record, 0 before the first one
    parts: list[str] = []
    for number, line in enumerate(lines, start=first):
        line = line.strip()
        if line.startswith(">"):
            if header:
                yield _fasta_record(name, parts, path, header)
            name, parts, header = (line[1:].split() or [f"record_{number}"])[0], [], number
        elif line:
            if not header:
                raise InputError("expected a line that begins with '>'", path, number)
            if (encode(line) < 0).any():
                wrong = next(letter for letter in line if encode(letter)[0] < 0)
                raise InputError(f"{wrong!r} is not an IUPAC letter of DNA", path, number)
            parts.append(line.upper())
    if not header:
        raise InputError("no sequence in this file", path)
    yield _fasta_record(name, parts, path, header)


def _fasta_record(name: str, parts: list[str], path: Path | str, line: int) -> tuple[str, str]:
    if not parts:
        raise InputError(f"record {name!r} has no bases", path, line)
    return name, "".join(parts)


def parse_fasta(text: str, path: Path, first: int = 1) -> dict[str, str]:
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


# --- GenBank --------------------------------------------------------------------------------------


def parse_genbank(text: str, path: Path) -> list[Record]:
    """Return the records of a GenBank text; the genes are the CDS features.

    Args:
      text: the content.
      path: the file, for messages.

    Raises:
      InputError: the text is malformed, or Biopython is not installed.
    """
    require("Bio", "dna")
    from Bio import BiopythonParserWarning, BiopythonWarning, SeqIO

    records: list[Record] = []
    with warnings.catch_warnings():
        # Biopython warns of each old or bare LOCUS line; the checks below suffice.
        warnings.simplefilter("ignore", BiopythonParserWarning)
        warnings.simplefilter("ignore", BiopythonWarning)
        try:
            for entry in SeqIO.parse(io.StringIO(text), "genbank"):
                records.append(_genbank_record(entry, path))
        except InputError:
            raise
        except Exception as error:  # Biopython's errors are of many types
            raise InputError(
                f"malformed GenBank after {len(records)} records: {error}", path
            ) from error
    if not records:
        raise InputError("no record in this file", path)
    return records


def _genbank_record(entry: SeqRecord, path: Path) -> Record:
    from Bio.Seq import UndefinedSequenceError

    try:
        sequence = str(entry.seq).upper()
    except UndefinedSequenceError:
        raise InputError(f"record {entry.id!r} has no sequence", path) from None
    name = entry.name if entry.id in (None, "", "<unknown id>") else entry.id
    if (encode(sequence) < 0).any():
        raise InputError(f"record {name!r} has letters that are not IUPAC letters of DNA", path)
    features = [feature for feature in entry.features if feature.type == "CDS"]
    genes = [_genbank_gene(feature, name, path) for feature in features]
    return Record(name, sequence, _normalise(genes, sequence))


def _genbank_gene(feature: SeqFeature, name: str, path: Path) -> Gene:
    from Bio.SeqFeature import AfterPosition, BeforePosition

    location = feature.location
    if location is None:
        raise InputError(f"record {name!r}: a CDS has a location that cannot be read", path)
    strand = -1 if location.parts[0].strand == -1 else 1
    exons = sorted((int(part.start), int(part.end)) for part in location.parts)
    open_left = any(isinstance(part.start, BeforePosition) for part in location.parts)
    open_right = any(isinstance(part.end, AfterPosition) for part in location.parts)
    qualifiers = feature.qualifiers
    return Gene(
        exons=tuple(exons),
        strand=strand,
        has_start=not (open_left if strand == 1 else open_right),
        has_stop=not (open_right if strand == 1 else open_left),
        phase=int(qualifiers.get("codon_start", ["1"])[0]) - 1,
        pseudo="pseudo" in qualifiers or "pseudogene" in qualifiers,
    )


# --- GFF3 -----------------------------------------------------------------------------------------


class _Cds(NamedTuple):
    """A CDS line of GFF3: an exon, 0-based and half-open."""

    start: int
    end: int
    strand: int
    phase: int
    pseudo: bool


def parse_gff(text: str, path: Path, sequences: Mapping[str, str]) -> dict[str, list[Gene]]:
    """Return the genes of each record; the CDS lines of one transcript are one gene.

    Args:
      text: the content.
      path: the file, for messages.
      sequences: the sequences of the records, by name.

    Raises:
      InputError: the text is malformed, or does not fit the sequences. Names the line.
    """
    transcripts: dict[tuple[str, str], list[_Cds]] = {}
    pseudogenes = set()
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 9:
            raise InputError(f"expected 9 fields between tabs, got {len(fields)}", path, number)
        kind, attributes = fields[2], _attributes(fields[8])
        if kind == "pseudogene" or "pseudo" in attributes:
            pseudogenes.add(attributes.get("ID", ""))
        if kind == "CDS":
            parent = attributes.get("Parent") or attributes.get("ID") or f"line {number}"
            pseudo = "pseudo" in attributes or parent in pseudogenes
            cds = _cds(fields, sequences, pseudo, path, number)
            transcripts.setdefault((fields[0], parent), []).append(cds)
    genes: dict[str, list[Gene]] = {}
    for (name, _), parts in transcripts.items():
        parts.sort()
        strand = parts[0].strand
        gene = Gene(
            exons=tuple((part.start, part.end) for part in parts),
            strand=strand,
            phase=parts[0 if strand == 1 else -1].phase,
            pseudo=any(part.pseudo for part in parts),
        )
        genes.setdefault(name, []).append(gene)
    return genes


def _attributes(column: str) -> dict[str, str]:
    """Parse the last column of GFF3, `key=value;key=value`."""
    pairs = (part.strip().partition("=") for part in column.split(";"))
    return {key: value for key, _, value in pairs}


def _cds(
    fields: list[str], sequences: Mapping[str, str], pseudo: bool, path: Path, line: int
) -> _Cds:
    """Check and convert the fields of a CDS line."""
    name, _, _, start, end, _, strand, phase, _ = fields
    if name not in sequences:
        raise InputError(f"no sequence is named {name!r}", path, line)
    if not (start.isdigit() and end.isdigit() and strand in "+-" and phase in ("0", "1", "2")):
        raise InputError("expected a start, an end, a strand (+ or -) and a phase", path, line)
    if not 1 <= int(start) <= int(end) <= len(sequences[name]):
        length = len(sequences[name])
        raise InputError(f"{start}..{end} is outside record {name!r} (1..{length})", path, line)
    return _Cds(int(start) - 1, int(end), 1 if strand == "+" else -1, int(phase), pseudo)


# --- One form of genes ----------------------------------------------------------------------------


def make_records(sequences: Mapping[str, str], genes: Mapping[str, Iterable[Gene]]) -> list[Record]:
    """Return a record for each sequence, its genes in one form.

    Args:
      sequences: the sequences by name.
      genes: genes of the sequences by name, as in the file.

    Example:
      >>> (record,) = make_records({"chr1": "CATGGCCTAAC"}, {"chr1": [Gene(((1, 7),), 1)]})
      >>> record.genes[0].exons      # with the stop codon TAA
      ((1, 10),)
    """
    return [
        Record(name, sequence, _normalise(genes.get(name, ()), sequence))
        for name, sequence in sequences.items()
    ]


def _normalise(genes: Iterable[Gene], sequence: str) -> tuple[Gene, ...]:
    """Bring genes to one form: with the stop codon, adjacent exons joined, in ascending order.

    Of transcripts with the same exons only the first is used. A gene that reaches the end of its
    record without a start or stop codon runs off there.
    """
    normalised: dict[tuple[tuple[tuple[int, int], ...], int], Gene] = {}
    for gene in genes:
        exons: list[tuple[int, int]] = []
        for start, end in gene.exons:
            if exons and exons[-1][1] == start:
                exons[-1] = exons[-1][0], end
            else:
                exons.append((start, end))
        gene = _with_stop(dataclasses.replace(gene, exons=tuple(exons)), sequence)
        if gene.has_start:
            gene = dataclasses.replace(gene, phase=0)
        normalised.setdefault((gene.exons, gene.strand), gene)
    return tuple(sorted(normalised.values()))


def _with_stop(gene: Gene, sequence: str) -> Gene:
    """Add the stop codon that follows a gene, and clear its flags at the end of the record."""
    if gene.strand == -1:
        # The same on the other strand, for which the surroundings of the gene suffice.
        low, high = max(0, gene.start - 3), min(len(sequence), gene.end + 3)
        other = reverse_complement_letters(sequence[low:high])
        turned = _with_stop(gene.shifted(-low).mirrored(high - low), other)
        return turned.mirrored(high - low).shifted(low)
    coding = "".join(sequence[start:end] for start, end in gene.exons)
    has_start, has_stop, exons = gene.has_start, gene.has_stop, gene.exons
    if has_start and gene.start == 0 and coding[1:3] != "TG":
        has_start = False
    if has_stop and coding[-3:] not in STOP_CODONS:
        if sequence[gene.end : gene.end + 3] in STOP_CODONS:
            exons = (*exons[:-1], (exons[-1][0], gene.end + 3))
        elif gene.end == len(sequence):
            has_stop = False
    return dataclasses.replace(gene, exons=exons, has_start=has_start, has_stop=has_stop)
