"""Genes and records: the annotation of a DNA sequence.

A gene is the coding part (CDS) of one transcript: its exons without untranslated regions. Positions
are 0-based and ranges half-open, on the forward strand.
"""

from __future__ import annotations

import bisect
import dataclasses
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

LABELS = ".CcIi"  # intergenic; coding and intron, in small letters on the reverse strand


@dataclasses.dataclass(frozen=True, order=True)
class Gene:
    """The coding part of a gene.

    Attributes:
      exons: coding ranges `(start, end)` in ascending order, with the stop codon.
      strand: 1 or -1.
      has_start: whether the gene includes its start codon; otherwise it runs off the record there.
      has_stop: whether the gene includes its stop codon; otherwise it runs off the record there.
      phase: number of bases before the first whole codon; 0 for a gene with a start codon.
      pseudo: whether this is a pseudogene, which is excluded from training and scoring.
    """

    exons: tuple[tuple[int, int], ...]
    strand: int
    has_start: bool = True
    has_stop: bool = True
    phase: int = 0
    pseudo: bool = False

    @property
    def start(self) -> int:
        """Position of the leftmost base."""
        return self.exons[0][0]

    @property
    def end(self) -> int:
        """Position after the rightmost base."""
        return self.exons[-1][1]

    @property
    def coding_length(self) -> int:
        """Number of coding bases."""
        return sum(end - start for start, end in self.exons)

    @property
    def stop(self) -> int | None:
        """Position of the last base of the stop codon, which identifies the stop codon."""
        if not self.has_stop:
            return None
        return self.end - 1 if self.strand == 1 else self.start

    def without_stop(self) -> tuple[tuple[int, int], ...]:
        """Return the exons without the stop codon, the form in which gene finders are scored.

        Example:
          >>> Gene(((0, 9), (20, 22)), 1).without_stop()
          ((0, 8),)
        """
        if not self.has_stop:
            return self.exons
        rest, exons = 3, []
        for start, end in self.exons if self.strand == -1 else reversed(self.exons):
            removed = min(rest, end - start)
            rest -= removed
            if end - start > removed:
                forward = self.strand == 1
                exons.append((start, end - removed) if forward else (start + removed, end))
        return tuple(sorted(exons))

    def shifted(self, by: int) -> Gene:
        """Return the gene moved to the right by `by` bases."""
        exons = tuple((start + by, end + by) for start, end in self.exons)
        return dataclasses.replace(self, exons=exons)

    def mirrored(self, length: int) -> Gene:
        """Return the gene on the reverse complement of a record of `length` bases."""
        exons = tuple((length - end, length - start) for start, end in reversed(self.exons))
        return dataclasses.replace(self, exons=exons, strand=-self.strand)


@dataclasses.dataclass(frozen=True)
class Record:
    """A DNA sequence and its annotated genes.

    Attributes:
      name: identifier of the sequence.
      sequence: IUPAC letters.
      genes: the genes in ascending order.
    """

    name: str
    sequence: str
    genes: tuple[Gene, ...] = ()


def cut(record: Record, size: int) -> list[Record]:
    """Cut a record between genes into pieces of about `size` bases.

    A piece is longer where a gene requires it. A rest of up to 1.5 `size` bases is not cut.

    Example:
      >>> record = Record("chr1", "A" * 28, (Gene(((4, 13),), 1), Gene(((16, 25),), 1)))
      >>> [piece.name for piece in cut(record, 10)]
      ['chr1:1-14', 'chr1:15-28']
    """
    length = len(record.sequence)
    if length <= size * 3 // 2:
        return [record]
    places = _intergenic_places(record) if record.genes else list(range(size, length, size))
    bounds = [0]
    while length - bounds[-1] > size * 3 // 2:
        index = bisect.bisect_left(places, bounds[-1] + size)
        if index == len(places):
            break
        bounds.append(places[index])
    bounds.append(length)
    return [_part(record, start, end) for start, end in itertools.pairwise(bounds)]


def _intergenic_places(record: Record) -> list[int]:
    """Return the middle of each intergenic range."""
    places, covered = [], 0
    for gene in sorted(record.genes):
        if gene.start > covered:
            places.append((covered + gene.start) // 2)
        covered = max(covered, gene.end)
    if len(record.sequence) > covered:
        places.append((covered + len(record.sequence)) // 2)
    return places


def _part(record: Record, start: int, end: int) -> Record:
    """Return a part of a record with the genes inside it; its name counts bases from 1."""
    inside = [g.shifted(-start) for g in record.genes if start <= g.start <= g.end <= end]
    name = f"{record.name}:{start + 1}-{end}"
    return Record(name, record.sequence[start:end], tuple(inside))


def labels_of(genes: Iterable[Gene], size: int) -> np.ndarray:
    """Return the label of each base, `<int8>[size]`, as an index of `LABELS`.

    Where genes overlap, the labels are those of the gene with more coding bases.

    Example:
      >>> labels_of([Gene(((1, 3), (4, 6)), 1)], size=7)
      array([0, 1, 1, 3, 1, 1, 0], dtype=int8)
    """
    labels = np.zeros(size, np.int8)
    for gene in sorted(genes, key=lambda gene: gene.coding_length):
        coding, intron = (1, 3) if gene.strand == 1 else (2, 4)
        labels[gene.start : gene.end] = intron
        for start, end in gene.exons:
            labels[start:end] = coding
    return labels


def to_text(labels: np.ndarray | Sequence[int]) -> str:
    """Return label indices as letters.

    Example:
      >>> to_text([0, 1, 3, 2])
      '.CIc'
    """
    return np.frombuffer(LABELS.encode(), np.uint8)[np.asarray(labels)].tobytes().decode()
