"""Writers of predicted genes: GFF3, GenBank, FASTA of proteins and of genes, plain values."""

from __future__ import annotations

import dataclasses
import itertools
import textwrap
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import quote

from tasks.dna.genes import Gene, Record, to_text
from tasks.dna.nucleotides import reverse_complement_letters, stop_codons
from tasks.dna.predictions import PredictedGene, Prediction

SOURCE = "sequence-suite"
# The standard genetic code, in the order TCAG of NCBI.
_CODONS = ("".join(letters) for letters in itertools.product("TCAG", repeat=3))
_AMINO_ACIDS = "FFLLSSSSYY**CC*WLLLLPPPPHHQQRRRRIIIMTTTTNNKKSSRRVVVVAAAADDEEGGGG"
STANDARD_CODE = dict(zip(_CODONS, _AMINO_ACIDS, strict=True))
_TGA = {4: "W", 25: "G"}  # what TGA means where it is no stop codon


# --- Sequences of genes ---------------------------------------------------------------------------


def coding_sequence(gene: Gene, sequence: str) -> str:
    """Return the coding bases of a gene in its reading direction.

    Example:
      >>> coding_sequence(Gene(((1, 4), (6, 9)), -1), "AAAACCTTTG")
      'AAATTT'
    """
    letters = "".join(sequence[start:end] for start, end in gene.exons).upper()
    return letters if gene.strand == 1 else reverse_complement_letters(letters)


def translate(gene: Gene, sequence: str, code: int = 11) -> str:
    """Return the protein of a gene, without the stop codon.

    A start codon is methionine, whichever it is; an incomplete codon at an edge is left out, and a
    codon with an ambiguous base is X unless all its readings agree.

    Example:
      >>> translate(Gene(((0, 12),), 1), "GTGAAANNNTGA")
      'MKX'
    """
    letters = coding_sequence(gene, sequence)[gene.phase :].replace("U", "T")
    codons = [letters[n : n + 3] for n in range(0, len(letters) - 2, 3)]
    protein = [_amino_acid(codon, code) for codon in codons]
    if gene.has_start and protein:
        protein[0] = "M"
    if gene.has_stop and protein:
        protein.pop()
    return "".join(protein)


def _amino_acid(codon: str, code: int) -> str:
    if codon == "TGA" and "TGA" not in stop_codons(code):
        return _TGA[code]
    if codon[:2] in ("GC", "CG", "CC", "GG", "AC", "GT", "TC", "CT") and codon[2] not in "ACGT":
        codon = codon[:2] + "A"  # the third base does not matter
    return STANDARD_CODE.get(codon, "X")


def fasta_lines(
    record: Record, prediction: Prediction, first: int, *, protein: bool, code: int
) -> Iterator[str]:
    """Yield the genes or the proteins of a record as FASTA, with the place of each.

    Args:
      record: its name and its sequence are used.
      prediction: its genes.
      first: number of the first gene, as in the GFF3 file.
      protein: proteins instead of genes.
      code: the genetic code.
    """
    for number, predicted in enumerate(prediction.genes, start=first):
        gene = predicted.gene
        text = (
            translate(gene, record.sequence, code)
            if protein
            else coding_sequence(gene, record.sequence)
        )
        strand = "+" if gene.strand == 1 else "-"
        place = f"{record.name}:{gene.start + 1}-{gene.end}({strand})"
        yield f">gene{number} {place} partial={partial_ends(gene)}"
        yield from textwrap.wrap(text, 60)


def partial_ends(gene: Gene) -> str:
    """Return whether the left and the right end of a gene run off its record, as Prodigal does.

    Example:
      >>> partial_ends(Gene(((0, 9),), 1, has_start=False))
      '10'
    """
    ends = (gene.has_start, gene.has_stop)[:: gene.strand]
    return "".join("0" if complete else "1" for complete in ends)


# --- GFF3 -----------------------------------------------------------------------------------------


def gff_lines(
    record: Record, predicted: Iterable[Gene | PredictedGene], first: int
) -> Iterator[str]:
    """Yield the GFF3 lines of a record's genes; the CDS includes the stop codon, as in GFF3.

    Args:
      record: only its name and its length are used.
      predicted: its genes.
      first: number of the first gene, so that identifiers are unique in a file.
    """
    name = quote(record.name, safe=".:^*$@!+_?-|")
    yield f"##sequence-region {name} 1 {len(record.sequence)}"
    for number, item in enumerate(predicted, start=first):
        found = item if isinstance(item, PredictedGene) else PredictedGene(item)
        gene = found.gene
        strand = "+" if gene.strand == 1 else "-"
        score = "." if found.score is None else f"{found.score:.2f}"
        place = f"{gene.start + 1}\t{gene.end}\t{score}\t{strand}\t."
        more = "" if gene.has_start and gene.has_stop else f";partial={partial_ends(gene)}"
        more += "".join(f";{key}={value}" for key, value in _details(found).items())
        own, parent = f"ID=mrna{number}", f"Parent=gene{number}"
        yield f"{name}\t{SOURCE}\tgene\t{place}\tID=gene{number}{more}"
        yield f"{name}\t{SOURCE}\tmRNA\t{place}\t{own};{parent}{more}"
        for low, high, phase in _phased_exons(gene):
            yield (
                f"{name}\t{SOURCE}\tCDS\t{low + 1}\t{high}\t{score}\t{strand}\t{phase}\t"
                f"ID=cds{number};Parent=mrna{number}{more}"
            )


def _details(found: PredictedGene) -> dict[str, str]:
    """Return what the model says of a gene, as attributes of GFF3."""
    values = {
        "confidence": found.confidence,
        "start_confidence": found.start_confidence,
        "start_type": found.start_codon,
        "rbs_motif": found.motif,
    }
    return {key: quote(f"{v}", safe=" ()'+") for key, v in values.items() if v is not None}


def _phased_exons(gene: Gene) -> list[tuple[int, int, int]]:
    """Return `(start, end, phase)` of each exon, by position."""
    rows, phase = [], gene.phase
    for low, high in gene.exons if gene.strand == 1 else reversed(gene.exons):
        rows.append((low, high, phase))
        phase = (phase - (high - low)) % 3
    return sorted(rows)


# --- GenBank --------------------------------------------------------------------------------------


def genbank_lines(record: Record, prediction: Prediction, first: int, code: int) -> Iterator[str]:
    """Yield a record with its genes and their proteins as GenBank."""
    size = len(record.sequence)
    name = record.name.replace(" ", "_")
    yield f"LOCUS       {name:<16} {size:>11} bp    DNA     linear   UNK 01-JAN-1980"
    yield f"DEFINITION  {record.name}."
    yield f"ACCESSION   {record.name}"
    yield f"VERSION     {record.name}"
    yield "FEATURES             Location/Qualifiers"
    yield from _feature("source", f"1..{size}", {"mol_type": "genomic DNA"})
    for number, found in enumerate(prediction.genes, start=first):
        tag = {"locus_tag": f"gene{number}"}
        place = _location(found.gene)
        yield from _feature("gene", place, tag)
        details = {
            "codon_start": found.gene.phase + 1,
            "transl_table": code,
            "translation": translate(found.gene, record.sequence, code),
        }
        if notes := _details(found):
            details["note"] = "; ".join(f"{key} {value}" for key, value in notes.items())
        yield from _feature("CDS", place, {**tag, **details})
    yield "ORIGIN"
    for start in range(0, size, 60):
        line = record.sequence[start : start + 60].lower()
        blocks = " ".join(line[n : n + 10] for n in range(0, len(line), 10))
        yield f"{start + 1:>9} {blocks}"
    yield "//"


def _location(gene: Gene) -> str:
    """Return the location of a gene, such as `complement(join(<1..9,20..30))`."""
    ends = partial_ends(gene)
    parts = [[f"{start + 1}", f"{end}"] for start, end in gene.exons]
    parts[0][0] = "<" * int(ends[0]) + parts[0][0]
    parts[-1][1] = ">" * int(ends[1]) + parts[-1][1]
    place = ",".join("..".join(part) for part in parts)
    place = f"join({place})" if len(parts) > 1 else place
    return f"complement({place})" if gene.strand == -1 else place


def _feature(kind: str, place: str, qualifiers: dict[str, Any]) -> Iterator[str]:
    margin = " " * 21
    lines = textwrap.wrap(place, 58, break_on_hyphens=False) or [place]
    yield f"     {kind:<16}{lines[0]}"
    yield from (margin + line for line in lines[1:])
    for key, value in qualifiers.items():
        text = f"/{key}={value}" if isinstance(value, int) else f'/{key}="{value}"'
        for line in textwrap.wrap(text, 58, break_on_hyphens=False):
            yield margin + line


# --- Plain values ---------------------------------------------------------------------------------


def describe(record: Record, prediction: Prediction) -> dict[str, Any]:
    """Return a prediction as plain values; positions are 1-based and inclusive, as in GFF3."""
    return {
        "name": record.name,
        "labels": to_text(prediction.labels),
        "genes": [_describe_gene(found) for found in prediction.genes],
    }


def _describe_gene(found: PredictedGene) -> dict[str, Any]:
    gene = found.gene
    more = {
        field.name: value
        for field in dataclasses.fields(found)
        if field.name != "gene" and (value := getattr(found, field.name)) is not None
    }
    return {
        "strand": "+" if gene.strand == 1 else "-",
        "cds": [[start + 1, end] for start, end in gene.exons],
        "complete": gene.has_start and gene.has_stop,
        **more,
    }
