"""Find the genes in your own DNA with an exported model.

    python -m tasks.dna.predict AGCCCCTGTGAGGAACTAG
    python -m tasks.dna.predict genome.fa --output genes.gff3 --proteins genes.faa
    python -m tasks.dna.predict known.gb.gz --plot tracks.png --region 1-40000
    zcat genome.fa.gz | python -m tasks.dna.predict - > genes.gff3

For a sequence on the command line the labels are printed, one letter per base: `.` intergenic, `C`
coding and `I` intron on the forward strand, `c` and `i` on the reverse strand. For files (FASTA,
GenBank, GFF3 with FASTA; also .gz, .bz2, .xz) and for standard input (FASTA, or one sequence per
line) the genes are written as GFF3. Records may have any length.

A model of genes without introns first learns from the input itself how its organism writes genes.
All records of a call must be of one organism; otherwise, as for metagenomes, pass --no-adapt.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal, TextIO

from common import plots
from common.commands import cli
from common.commands.config import BatchPredictConfig, Count, Picture
from common.errors import InputError
from common.files import open_output
from common.serving.model import Model
from common.serving.served import Served, load_export
from tasks.dna import formats, outputs
from tasks.dna.config import TASK
from tasks.dna.genes import LABELS, Gene, Record, to_text
from tasks.dna.nucleotides import encode
from tasks.dna.predictions import PredictedGene, Prediction, Reading, predict

import numpy as np
import tyro

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 60_000  # bases in a picture without --region


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(BatchPredictConfig):
    """Flags of `predict`."""

    PART: ClassVar[str] = ".gff3"

    sequences: tyro.conf.Positional[tuple[str, ...]] = ()
    """sequences of IUPAC letters, or files as for --file; - reads standard input"""
    file: tuple[Path, ...] = ()
    """files of records: FASTA, GenBank or GFF3 with FASTA, also compressed"""
    proteins: Path | None = None
    """write the proteins to this FASTA file"""
    genes: Path | None = None
    """write the coding sequences to this FASTA file"""
    genbank: Path | None = None
    """write the records with their genes to this GenBank file"""
    adapt: bool = True
    """learn from the records, which are of one organism; for models of genes without introns"""
    genetic_code: Literal[1, 4, 11, 25, "auto"] | None = None
    """number of the genetic code (transl_table) (default: that of the training data)"""
    mask: bool = False
    """no gene lies across a run of 50 or more N; for models of genes without introns"""
    plot: Picture | None = None
    """draw the tracks of the first record, predicted and known genes, to this picture file;
    a name that ends in -dark gets dark colours"""
    region: str | None = None
    """the part to draw, such as 1-40000, counted from 1 (default: the first 60,000 bases)"""
    batch_size: Count = 8
    """short records per request"""

    def __post_init__(self) -> None:
        """Validate flags that the type system cannot express."""
        super().__post_init__()
        if not self.sequences and not self.file:
            raise InputError("no sequence given: write it on the command line, or pass --file PATH")
        if self.workers > 1 and (self.proteins or self.genes or self.genbank):
            raise InputError("--proteins, --genes and --genbank need --workers 1: files share them")


# --- From Python ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Annotation:
    """A sequence with its genes and the label of each base.

    Attributes:
      sequence: the bases, in capital letters.
      genes: in ascending order; positions are 0-based, the end is excluded.
      labels: a letter of `.CcIi` per base: intergenic, coding and intron, in small letters on the
        reverse strand.
      genetic_code: NCBI's number of the code by which the genes were read.

    Example:
      >>> from tasks.dna.genes import Gene
      >>> gene = PredictedGene(Gene(((0, 12),), 1), confidence=0.9)
      >>> found = Annotation("GTGAAACCCTGA", (gene,), "CCCCCCCCCCCC")
      >>> (found.genes[0].start, found.genes[0].end, found.genes[0].strand), found.proteins
      ((0, 12, 1), ('MKP',))
    """

    sequence: str
    genes: tuple[PredictedGene, ...]
    labels: str
    genetic_code: int = 11

    @property
    def proteins(self) -> tuple[str, ...]:
        """The protein of each gene, without the stop codon."""
        code = self.genetic_code
        return tuple(outputs.translate(found.gene, self.sequence, code) for found in self.genes)


def load(
    path: str | Path | None = None, *, batch_size: int = 8, adapt: bool = True
) -> Model[str, Annotation]:
    """Load a published model as a function of sequences; see `common.serving.model`.

    The sequences of a call are of one organism, from which the model learns, unless `adapt` is
    false.

    Example::

        model = load()
        model("AGCCCCTGTGAGGAACTAG").labels  # one letter per base
    """
    served, reading = load_export(path, TASK), Reading(adapt)

    def answer(sequences: Iterable[str]) -> Iterator[Annotation]:
        rows = (checked(text, f"sequence {n}") for n, text in enumerate(sequences, start=1))
        for sequence, found in predict(served, rows, batch_size=batch_size, reading=reading):
            labels = to_text(found.labels)
            yield Annotation(sequence, found.genes, labels, found.genetic_code)

    return Model(served, answer)


# --- Input ----------------------------------------------------------------------------------------


def read(flags: Predict) -> Iterator[tuple[Record, bool]]:
    """Yield the records, and whether each is a plain sequence, whose labels are printed."""
    for number, word in enumerate(flags.sequences, start=1):
        if is_file(word):
            yield from ((record, False) for record in read_file(Path(word), flags))
            continue
        if word != "-":
            yield Record(f"sequence_{number}", checked(word, f"sequence {number}")), True
            continue
        lines = (line.decode("utf-8", "replace") for line in sys.stdin.buffer)
        first = next((line for line in lines if line.strip()), "")
        every = itertools.chain([first], lines)
        if first.lstrip().startswith(">"):
            for name, sequence in formats.read_fasta(every, "standard input"):
                yield Record(name, sequence), False
        else:
            for count, line in enumerate(every, start=1):
                if line.strip():
                    sequence = checked(line.strip(), f"standard input, sequence {count}")
                    yield Record(f"line_{count}", sequence), True
    for path in flags.file:
        yield from ((record, False) for record in read_file(path, flags))


def checked(sequence: str, where: str) -> str:
    """Return a sequence in capital letters.

    Raises:
      InputError: it is empty, or has a letter outside IUPAC.
    """
    if not sequence:
        raise InputError(f"{where} is empty")
    bad = encode(sequence) < 0
    if bad.any():
        place = int(np.argmax(bad))
        raise InputError(f"{where}: {sequence[place]!r} at base {place + 1} is no IUPAC letter")
    return sequence.upper()


def is_file(word: str) -> bool:
    """Return whether a word is the name of a file: no sequence has a dot or a slash."""
    return any(mark in word for mark in "./\\")


def read_file(path: Path, flags: Predict) -> Iterator[Record]:
    """Yield the records of a file; the annotation is parsed only for the picture."""
    if flags.plot:
        yield from formats.read_records(path)
    else:
        yield from formats.read_sequences(path)


# --- Picture --------------------------------------------------------------------------------------


def parse_region(text: str | None, size: int) -> tuple[int, int]:
    """Return the bases `[low, high)` that a picture shows.

    Raises:
      InputError: the region is malformed or outside the record.
    """
    if text is None:
        return 0, min(size, SHOWN)
    match = re.fullmatch(r"(\d+)-(\d+)", text.replace(",", ""))
    if match is None or not 1 <= int(match[1]) <= int(match[2]):
        raise InputError(f"--region must look like 1-40000, got {text!r}")
    if int(match[1]) > size:
        raise InputError(f"--region {text} lies beyond the record's {size} bases")
    return int(match[1]) - 1, min(int(match[2]), size)


def draw(
    served: Served, record: Record, predicted: Iterable[Gene], path: Path, region: str | None
) -> None:
    """Draw predicted and known genes as tracks, below the probability that a base is coding."""
    low, high = parse_region(region, len(record.sequence))
    tracks = [("predicted", list(predicted))]
    if annotated := [gene for gene in record.genes if not gene.pseudo]:
        tracks.append(("known", annotated))
    probabilities = np.zeros((0, len(LABELS)), np.float32)  # of a region that fits a request
    if high - low <= served.settings["max_bases"]:
        part = np.array([record.sequence[low:high]], object)
        probabilities = served.call("explain", sequence=part)["probabilities"][0]
    with plots.picture(path, (12, 2.5 + 0.9 * len(tracks))) as figure:
        ratios = [1.2, 0.9 * len(tracks)]
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=ratios)
        _draw_probabilities(upper, probabilities, low)
        upper.set_title(record.name)
        draw_tracks(lower, tracks, low, high)


def _draw_probabilities(axes: Axes, probabilities: np.ndarray, low: int) -> None:
    """Draw the coding probability of each base: the forward strand up, the reverse one down."""
    place = np.arange(low + 1, low + len(probabilities) + 1)
    axes.fill_between(place, probabilities[:, 1], color="C0", linewidth=0, label="forward")
    axes.fill_between(place, -probabilities[:, 2], color="C1", linewidth=0, label="reverse")
    axes.axhline(0, color="grey", linewidth=0.5)
    axes.set(ylim=(-1.05, 1.05), ylabel="P(coding)")
    axes.legend(loc="upper right")


def draw_tracks(
    axes: Axes, tracks: Sequence[tuple[str, Sequence[Gene]]], low: int, high: int
) -> None:
    """Draw the genes of each track within `[low, high)`, a row for each strand."""
    heights, names = [], []
    for row, (name, listed) in enumerate(tracks):
        for strand, sign in ((1, "+"), (-1, "-")):
            height = -(2 * row + (strand == -1))
            heights.append(height)
            names.append(f"{name} {sign}")
            inside = (g for g in listed if g.strand == strand and g.end > low and g.start < high)
            colour = "C0" if strand == 1 else "C1"
            _draw_genes(axes, inside, height, colour, head=(high - low) / 80)
    axes.set_yticks(heights, names)
    axes.set(xlim=(low + 1, high), xlabel="base", ylim=(min(heights) - 0.7, 0.7))


def _draw_genes(axes: Axes, listed: Iterable[Gene], height: int, colour: str, head: float) -> None:
    """Draw genes as arrows: introns as lines, exons as boxes, the last exon with a head.

    Small arrows along a gene point in its direction. A margin keeps neighbours apart.
    """
    paper = axes.get_facecolor()
    for gene in listed:
        axes.plot([gene.start + 1, gene.end], [height] * 2, color=colour, linewidth=1, zorder=1)
        arrow = "$>$" if gene.strand == 1 else "$<$"
        for place in np.arange(gene.start + 2 * head, gene.end - 2 * head, 2 * head):
            in_exon = any(start <= place < end for start, end in gene.exons)
            fill = paper if in_exon else colour
            axes.plot(place, height, marker=arrow, color=fill, markersize=5, zorder=3)
        last = gene.exons[-1 if gene.strand == 1 else 0]
        for start, end in gene.exons:
            tip, tail = (end, start) if gene.strand == 1 else (start, end)
            neck = tip - gene.strand * (min(head, end - start) if (start, end) == last else 0)
            low, high = height - 0.3, height + 0.3
            axes.fill(
                [tail, neck, tip, neck, tail],
                [low, low, height, high, high],
                facecolor=colour,
                edgecolor=paper,
                linewidth=0.8,
                zorder=2,
            )


# --- The command ----------------------------------------------------------------------------------


class Writer:
    """The files of a run: labels or GFF3, and those of further flags.

    Args:
      flags: the flags.
      files: the open file of each flag that writes one; `output` is always there.
    """

    def __init__(self, flags: Predict, files: Mapping[str, TextIO]):
        self.flags, self.files = flags, files
        self.number = 1  # of the next gene
        self.has_header = False

    def write(self, record: Record, prediction: Prediction, *, is_plain: bool) -> None:
        """Write a record to all files."""
        out, first, code = self.files["output"], self.number, prediction.genetic_code
        self.number += len(prediction.genes)
        if self.flags.json:
            print(json.dumps(outputs.describe(record, prediction)), file=out)
        elif is_plain:
            print(to_text(prediction.labels), file=out)
        else:
            if not self.has_header:
                print("##gff-version 3", file=out)
                self.has_header = True
            self._lines("output", outputs.gff_lines(record, prediction.genes, first))
            cli.say(f"{record.name}: {len(record.sequence):,} bases, {len(prediction.genes)} genes")
        for name, protein in (("proteins", True), ("genes", False)):
            lines = outputs.fasta_lines(record, prediction, first, protein=protein, code=code)
            self._lines(name, lines)
        self._lines("genbank", outputs.genbank_lines(record, prediction, first, code))

    def _lines(self, name: str, lines: Iterable[str]) -> None:
        if name in self.files:
            for line in lines:
                print(line, file=self.files[name])


def write(flags: Predict, served: Served, writer: Writer) -> tuple[Record, list[Gene]] | None:
    """Predict and write record by record; return the first one for the picture."""
    pending: list[tuple[Record, bool]] = []

    def sequences() -> Iterator[str]:
        for record, is_plain in read(flags):
            pending.append((record, is_plain))
            yield record.sequence

    reading = Reading(flags.adapt, flags.genetic_code, flags.mask)
    first = None
    for _, prediction in predict(served, sequences(), batch_size=flags.batch_size, reading=reading):
        record, is_plain = pending.pop(0)
        first = first or (record, prediction.plain)
        writer.write(record, prediction, is_plain=is_plain)
    return first


def main(argv: list[str]) -> None:
    """Predict and write; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model, TASK)
    with contextlib.ExitStack() as stack:
        files = {"output": stack.enter_context(open_output(flags.output))}
        for name in ("proteins", "genes", "genbank"):
            if (path := getattr(flags, name)) is not None:
                files[name] = stack.enter_context(open_output(path))
        first = write(flags, served, Writer(flags, files))
        if first is None:  # existing output files stay as they are
            raise InputError("the input is empty: there is no sequence in it")
    if flags.plot:
        draw(served, *first, flags.plot, flags.region)


if __name__ == "__main__":
    cli.run(main)
