"""Annotations: the genes of GenBank and GFF3, in one form.

The stop codon is part of a gene, adjacent exons are joined, genes are in ascending order. A gene
across the origin of a circular record becomes two, which run off its ends. Of the transcripts of a
gene the longest is kept. Genes whose parts are on both strands or out of order (trans-splicing)
cannot be drawn as exons and introns: they count as pseudogenes, neither in training nor in scores.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from common.errors import InputError, require
from common.messages import Skipped, report_skipped, say
from tasks.dna.genes import Gene, Record
from tasks.dna.nucleotides import (
    GENETIC_CODES,
    encode,
    reverse_complement_letters,
    stop_codons,
)

if TYPE_CHECKING:
    from Bio.SeqFeature import SeqFeature
    from Bio.SeqRecord import SeqRecord


class _Part(NamedTuple):
    """A range of a feature, 0-based and half-open; parts are in reading order."""

    start: int
    end: int
    strand: int


class _Notes:
    """Counts of what a reader changed or left out, for one message per file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: collections.Counter[str] = collections.Counter()

    def say(self) -> None:
        """Print all counts."""
        if self.counts:
            listed = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
            say(f"{self.path}: {listed}")


def _genes_of_parts(gene: Gene, parts: Sequence[_Part], size: int, notes: _Notes) -> list[Gene]:
    """Return the gene or genes of parts in reading order.

    Args:
      gene: its flags are used, its exons and strand are replaced.
      parts: the parts.
      size: bases of the record if it is circular, 0 if it is linear.
      notes: counts what is not one range with introns.
    """
    strand = parts[0].strand
    ordered = [part.start * strand for part in parts]
    breaks = [n for n in range(1, len(parts)) if ordered[n] <= ordered[n - 1]]
    exons = tuple(sorted((part.start, part.end) for part in parts))
    whole = dataclasses.replace(gene, exons=exons, strand=strand)
    if any(part.strand != strand for part in parts) or len(breaks) > 1 or (breaks and not size):
        notes.counts["genes whose parts are on both strands or out of order (not used)"] += 1
        return [dataclasses.replace(whole, pseudo=True)]
    if not breaks:
        return [whole]
    notes.counts["genes across the origin of a circular record (cut there)"] += 1
    before, after = parts[: breaks[0]], parts[breaks[0] :]
    length = sum(part.end - part.start for part in before) - gene.phase
    halves = []
    for half, flags in (
        (before, {"has_stop": False}),
        (after, {"has_start": False, "phase": -length % 3}),
    ):
        exons = tuple(sorted((part.start, part.end) for part in half))
        halves.append(dataclasses.replace(gene, exons=exons, strand=strand, **flags))
    return halves


# --- GenBank --------------------------------------------------------------------------------------


def parse_genbank(text: str, path: Path, *, annotated: bool = True) -> list[Record]:
    """Return the records of a GenBank text; the genes are the CDS features.

    Args:
      text: the content.
      path: the file, for messages.
      annotated: whether to read the genes.

    Raises:
      InputError: the text is malformed, or Biopython is not installed.
    """
    require("Bio", "dna")
    from Bio import BiopythonParserWarning, BiopythonWarning, SeqIO

    records: list[Record] = []
    skipped: Skipped = []
    notes = _Notes(path)
    with warnings.catch_warnings():
        # Biopython warns of each old or bare LOCUS line; the checks below suffice.
        warnings.simplefilter("ignore", BiopythonParserWarning)
        warnings.simplefilter("ignore", BiopythonWarning)
        try:
            for entry in SeqIO.parse(io.StringIO(text), "genbank"):
                record = _genbank_record(entry, path, notes, annotated=annotated)
                if record.sequence:
                    records.append(record)
                else:
                    skipped.append((record.name, "has no sequence"))
        except InputError:
            raise
        except Exception as error:  # Biopython's errors are of many types
            raise InputError(
                f"malformed GenBank after {len(records)} records: {error}", path
            ) from error
    if not records and not skipped:
        raise InputError("no record in this file", path)
    total = len(records) + len(skipped)
    report_skipped(path, skipped, total=total, unit="records", limit=1.0)
    notes.say()
    return records


def _genbank_record(entry: SeqRecord, path: Path, notes: _Notes, *, annotated: bool) -> Record:
    from Bio.Seq import UndefinedSequenceError

    name = entry.name if entry.id in (None, "", "<unknown id>") else entry.id
    try:
        sequence = str(entry.seq).upper()
    except UndefinedSequenceError:
        return Record(name, "")
    if (encode(sequence) < 0).any():
        raise InputError(f"record {name!r} has letters that are not IUPAC letters of DNA", path)
    if not annotated:
        return Record(name, sequence)
    is_circular = entry.annotations.get("topology") == "circular"
    size = len(sequence) if is_circular else 0
    genes: list[tuple[Gene, int]] = []
    for feature in entry.features:
        if feature.type == "CDS":
            code = _code(feature.qualifiers.get("transl_table", ["11"])[0])
            gene, parts = _genbank_gene(feature, name, path)
            genes += [(one, code) for one in _genes_of_parts(gene, parts, size, notes)]
    _note_codes((code for _, code in genes), notes)
    return Record(name, sequence, _normalise(genes, sequence))


def _code(text: str) -> int:
    """Return the number of a genetic code; 11 for one that is not known here."""
    return int(text) if text.isdigit() and int(text) in GENETIC_CODES else 11


def _note_codes(codes: Iterable[int], notes: _Notes) -> None:
    for code in codes:
        if stop_codons(code) != stop_codons(11):
            notes.counts[f"genes of genetic code {code} (train with --genetic_code {code})"] += 1


def _genbank_gene(feature: SeqFeature, name: str, path: Path) -> tuple[Gene, list[_Part]]:
    from Bio.SeqFeature import AfterPosition, BeforePosition

    location = feature.location
    if location is None:
        raise InputError(f"record {name!r}: a CDS has a location that cannot be read", path)
    parts = [
        _Part(int(part.start), int(part.end), -1 if part.strand == -1 else 1)
        for part in location.parts
    ]
    open_left = any(isinstance(part.start, BeforePosition) for part in location.parts)
    open_right = any(isinstance(part.end, AfterPosition) for part in location.parts)
    qualifiers = feature.qualifiers
    forward = parts[0].strand == 1
    gene = Gene(
        exons=(),
        strand=parts[0].strand,
        has_start=not (open_left if forward else open_right),
        has_stop=not (open_right if forward else open_left),
        phase=int(qualifiers.get("codon_start", ["1"])[0]) - 1,
        pseudo="pseudo" in qualifiers or "pseudogene" in qualifiers,
    )
    return gene, parts


# --- GFF3 -----------------------------------------------------------------------------------------


class _Cds(NamedTuple):
    """A CDS line of GFF3: an exon, 0-based and half-open; `phase` is `None` for a dot."""

    start: int
    end: int
    strand: int
    phase: int | None
    pseudo: bool
    code: int


class _Features(NamedTuple):
    """The content of the lines of a GFF3 file.

    Attributes:
      transcripts: the CDS of each transcript, by record and identifier.
      gene_of: the gene of each transcript.
      pseudogenes: identifiers of pseudogenes.
      circular: names of circular records.
    """

    transcripts: dict[tuple[str, str], list[_Cds]]
    gene_of: dict[str, str]
    pseudogenes: set[str]
    circular: set[str]


def parse_gff(
    text: str, path: Path, sequences: Mapping[str, str]
) -> dict[str, list[tuple[Gene, int]]]:
    """Return the genes of each record, each with its genetic code.

    The CDS lines of one transcript are one gene. Names are unescaped where the sequences' are not.

    Args:
      text: the features.
      path: the file, for messages.
      sequences: the sequences of the records, by name.

    Raises:
      InputError: the text is malformed, or does not fit the sequences. Names the line.
    """
    notes = _Notes(path)
    features = _read_features(text, path, sequences)
    genes: dict[str, list[tuple[Gene, int]]] = {}
    for (name, transcript), parts in _longest_transcripts(features, notes).items():
        size = len(sequences[name])
        strand = parts[0].strand
        parts = sorted(parts, reverse=strand == -1)
        ranges = _around_origin(parts, size) if name in features.circular else None
        phase = parts[0].phase
        if phase is None:
            phase = sum(part.end - part.start for part in parts) % 3
        pseudo = any(part.pseudo for part in parts)
        pseudo |= bool({transcript, features.gene_of.get(transcript)} & features.pseudogenes)
        gene = Gene(exons=(), strand=strand, phase=phase, pseudo=pseudo)
        ranges = ranges or [_Part(part.start, part.end, part.strand) for part in parts]
        found = _genes_of_parts(gene, ranges, size if name in features.circular else 0, notes)
        genes.setdefault(name, []).extend((one, parts[0].code) for one in found)
    _note_codes((code for listed in genes.values() for _, code in listed), notes)
    notes.say()
    return genes


def _around_origin(parts: Sequence[_Cds], size: int) -> list[_Part] | None:
    """Return the parts of a gene that goes on beyond the end of a circular record."""
    if max(part.end for part in parts) <= size:
        return None
    ranges = []
    for part in parts:
        pieces = [(part.start, min(part.end, size)), (max(0, part.start - size), part.end - size)]
        kept = [_Part(low, high, part.strand) for low, high in pieces if low < high]
        ranges += kept if part.strand == 1 else kept[::-1]
    return ranges


def _read_features(text: str, path: Path, sequences: Mapping[str, str]) -> _Features:
    features = _Features({}, {}, set(), set())
    rows = list(_rows(text, path))
    for number, fields, attributes in rows:
        name, kind = _record_name(fields[0], sequences), fields[2]
        if attributes.get("Is_circular", "").lower() == "true":
            features.circular.add(name)
        if kind == "pseudogene" or "pseudo" in attributes:
            features.pseudogenes.add(attributes.get("ID", f"line {number}"))
        if kind != "CDS" and "ID" in attributes and "Parent" in attributes:
            features.gene_of[attributes["ID"]] = attributes["Parent"].split(",")[0]
    for number, fields, attributes in rows:
        if fields[2] == "CDS":
            name = _record_name(fields[0], sequences)
            cds = _cds(fields, attributes, sequences, name in features.circular, path, number)
            parent = attributes.get("Parent") or attributes.get("ID") or f"line {number}"
            for transcript in parent.split(","):
                features.transcripts.setdefault((name, transcript), []).append(cds)
    return features


def _rows(text: str, path: Path) -> Iterator[tuple[int, list[str], dict[str, str]]]:
    """Yield the line number, the fields and the attributes of each feature."""
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != 9:
            raise InputError(f"expected 9 fields between tabs, got {len(fields)}", path, number)
        pairs = (part.strip().partition("=") for part in fields[8].split(";"))
        yield number, fields, {key: unquote(value) for key, _, value in pairs}


def _record_name(field: str, sequences: Mapping[str, str]) -> str:
    """Return the name of a record, which GFF3 escapes."""
    return field if field in sequences else unquote(field)


def _longest_transcripts(features: _Features, notes: _Notes) -> dict[tuple[str, str], list[_Cds]]:
    """Return the transcripts, of each gene only the one with the most coding bases."""
    best: dict[tuple[str, str], tuple[str, str]] = {}
    for key, parts in features.transcripts.items():
        gene = key[0], features.gene_of.get(key[1], key[1])
        size = sum(part.end - part.start for part in parts)
        other = best.get(gene)
        if other is not None:
            notes.counts["further transcripts of a gene (the longest is used)"] += 1
            if size <= sum(part.end - part.start for part in features.transcripts[other]):
                continue
        best[gene] = key
    return {key: features.transcripts[key] for key in best.values()}


def _cds(
    fields: list[str],
    attributes: Mapping[str, str],
    sequences: Mapping[str, str],
    is_circular: bool,
    path: Path,
    line: int,
) -> _Cds:
    """Check and convert the fields of a CDS line."""
    name, _, _, start, end, _, strand, phase, _ = fields
    name = _record_name(name, sequences)
    if name not in sequences:
        raise InputError(f"no sequence is named {name!r}", path, line)
    if not (start.isdigit() and end.isdigit() and strand in ("+", "-") and phase in (*"012.",)):
        raise InputError(
            "expected a start, an end, a strand (+ or -) and a phase (0, 1, 2 or .)", path, line
        )
    length = len(sequences[name])
    if not 1 <= int(start) <= int(end) <= (2 if is_circular else 1) * length:
        raise InputError(f"{start}..{end} is outside record {name!r} (1..{length})", path, line)
    return _Cds(
        int(start) - 1,
        int(end),
        1 if strand == "+" else -1,
        None if phase == "." else int(phase),
        "pseudo" in attributes,
        _code(attributes.get("transl_table", "11")),
    )


# --- One form of genes ----------------------------------------------------------------------------


def make_records(
    sequences: Mapping[str, str], genes: Mapping[str, Iterable[tuple[Gene, int]]]
) -> list[Record]:
    """Return a record for each sequence, its genes in one form.

    Args:
      sequences: the sequences by name.
      genes: genes of the sequences by name, as in the file, with their genetic codes.

    Example:
      >>> genes = {"chr1": [(Gene(((1, 7),), 1), 11)]}
      >>> (record,) = make_records({"chr1": "CATGGCCTAAC"}, genes)
      >>> record.genes[0].exons      # with the stop codon TAA
      ((1, 10),)
    """
    return [
        Record(name, sequence, _normalise(genes.get(name, ()), sequence))
        for name, sequence in sequences.items()
    ]


def _normalise(genes: Iterable[tuple[Gene, int]], sequence: str) -> tuple[Gene, ...]:
    """Bring genes to one form: with the stop codon, adjacent exons joined, in ascending order.

    Of transcripts with the same exons only the first is used. A gene that reaches the end of its
    record without a start or stop codon runs off there.
    """
    normalised: dict[tuple[tuple[tuple[int, int], ...], int], Gene] = {}
    for gene, code in genes:
        exons: list[tuple[int, int]] = []
        for start, end in gene.exons:
            if exons and exons[-1][1] == start:
                exons[-1] = exons[-1][0], end
            else:
                exons.append((start, end))
        gene = _with_stop(dataclasses.replace(gene, exons=tuple(exons)), sequence, code)
        if gene.has_start:
            gene = dataclasses.replace(gene, phase=0)
        normalised.setdefault((gene.exons, gene.strand), gene)
    return tuple(sorted(normalised.values()))


def _with_stop(gene: Gene, sequence: str, code: int) -> Gene:
    """Add the stop codon that follows a gene, and clear its flags at the end of the record."""
    if gene.strand == -1:
        # The same on the other strand, for which the surroundings of the gene suffice.
        low, high = max(0, gene.start - 3), min(len(sequence), gene.end + 3)
        other = reverse_complement_letters(sequence[low:high])
        turned = _with_stop(gene.shifted(-low).mirrored(high - low), other, code)
        return turned.mirrored(high - low).shifted(low)
    coding = "".join(sequence[start:end] for start, end in gene.exons)
    has_start, has_stop, exons = gene.has_start, gene.has_stop, gene.exons
    if has_start and gene.start == 0 and coding[1:3] != "TG":
        has_start = False
    if has_stop and coding[-3:] not in stop_codons(code):
        if sequence[gene.end : gene.end + 3] in stop_codons(code):
            exons = (*exons[:-1], (exons[-1][0], gene.end + 3))
        elif gene.end == len(sequence):
            has_stop = False
    return dataclasses.replace(gene, exons=exons, has_start=has_start, has_stop=has_stop)
