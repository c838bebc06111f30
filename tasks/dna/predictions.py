"""Genes of records of any length, predicted by an export in bounded memory."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

from common.errors import InputError
from common.serving.served import Served
from tasks.dna.genes import Gene, labels_of
from tasks.dna.nucleotides import encode

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.dna import frame_streaming, paths, streaming


@dataclasses.dataclass(frozen=True)
class PredictedGene:
    """A gene with what the model says of it; `None` where the model says nothing.

    Attributes:
      gene: the gene.
      score: log-odds that it is a gene, less the cost of its start.
      confidence: probability of the gene, whatever its start.
      start_confidence: probability of its start, if it is a gene.
      start_codon: the codon, or "edge" if the gene begins before its record.
      motif: what precedes the start: bases of the ribosome-binding motif and its distance.
    """

    gene: Gene
    score: float | None = None
    confidence: float | None = None
    start_confidence: float | None = None
    start_codon: str | None = None
    motif: str | None = None

    @property
    def start(self) -> int:
        """Position of the leftmost base, from 0."""
        return self.gene.start

    @property
    def end(self) -> int:
        """Position after the rightmost base."""
        return self.gene.end

    @property
    def strand(self) -> int:
        """1, or -1 for the reverse strand."""
        return self.gene.strand


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The genes of a record.

    Attributes:
      genes: in ascending order.
      labels: `<int>[bases]`, the label of each base, an index of `LABELS`.
      genetic_code: the code by which they were read.
    """

    genes: tuple[PredictedGene, ...]
    labels: np.ndarray
    genetic_code: int = 11

    @property
    def plain(self) -> list[Gene]:
        """The genes alone."""
        return [predicted.gene for predicted in self.genes]


@dataclasses.dataclass(frozen=True)
class Reading:
    """Options of the prediction of records.

    Attributes:
      adapt: whether the records are of one organism, whose tables are counted in them.
      genetic_code: NCBI's number; None: that of the training data; "auto": the one that fits.
      mask: whether no gene lies across runs of `MASKED` or more N.
    """

    adapt: bool = True
    genetic_code: int | Literal["auto"] | None = None
    mask: bool = False


def predict(
    served: Served,
    sequences: Iterable[str],
    *,
    batch_size: int,
    reading: Reading = Reading(),  # immutable
) -> Iterator[tuple[str, Prediction]]:
    """Yield each sequence with its prediction, in order.

    Args:
      served: the export.
      sequences: read lazily.
      batch_size: short records per request.
      reading: how they are read.

    Raises:
      InputError: a sequence has a letter outside IUPAC, or the export does not support `reading`.
    """
    if not served.settings["config"]["spliced"]:
        yield from frame_streaming.predict(served, sequences, batch_size, reading)
        return
    if reading.genetic_code not in (None, 1, 11) or reading.mask:
        raise InputError("--mask and --genetic_code are for models of genes without introns")
    grammar = streaming.grammar_of(served)
    for sequence, states in streaming.predict_paths(served, sequences, batch_size=batch_size):
        genes = tuple(map(PredictedGene, paths.genes_of(grammar, states)))
        yield sequence, Prediction(genes, grammar.labels[states])


def encode_checked(sequence: str) -> np.ndarray:
    """Return the codes of a sequence, `<int32>[bases]`.

    Raises:
      InputError: it has a letter outside IUPAC.
    """
    bases = encode(sequence)
    if (bases < 0).any():
        place = int(np.argmax(bases < 0))
        raise InputError(f"{sequence[place]!r} at base {place + 1} is no IUPAC letter of DNA")
    return bases


def from_table(
    table: Mapping[str, np.ndarray],
    start_codons: Sequence[str],
    motifs: Sequence[str],
    size: int,
    genetic_code: int,
) -> Prediction:
    """Return the prediction of a record from its row of the signature `genes`.

    Args:
      table: the columns, each `[genes]`.
      start_codons: those of the model.
      motifs: the name of each entry of `binding`.
      size: bases of the record.
      genetic_code: the code by which it was read.
    """
    found = []
    for number in range(len(table["start"])):
        value = {name: column[number].item() for name, column in table.items()}
        partial, kind = value["partial"], value["kind"]
        begins = not partial & 1
        gene = Gene(
            exons=((value["start"], value["end"]),),
            strand=value["strand"],
            has_start=begins,
            has_stop=not partial & 2,
            phase=value["phase"],
        )
        found.append(
            PredictedGene(
                gene,
                round(value["score"], 2),
                round(value["confidence"], 4),
                round(value["start_confidence"], 4),
                start_codons[kind] if begins else "edge",
                motifs[value["binding"]] if begins else "none",
            )
        )
    genes = tuple(sorted(found, key=lambda predicted: predicted.gene))
    labels = labels_of((predicted.gene for predicted in genes), size)
    return Prediction(genes, labels, genetic_code)
