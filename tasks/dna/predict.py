"""Find the genes in your own DNA with an exported model.

    python -m tasks.dna.predict AGCCCCTGTGAGGAACTAG
    python -m tasks.dna.predict --file genome.fa --output genes.gff3
    python -m tasks.dna.predict --file known.gb.gz --plot tracks.png --region 1-40000
    zcat genome.fa.gz | python -m tasks.dna.predict - > genes.gff3

For a sequence on the command line the labels are printed, one letter per base: `.` intergenic, `C`
coding and `I` intron on the forward strand, `c` and `i` on the reverse strand. For files (FASTA,
GenBank, GFF3 with FASTA; also .gz) and for standard input (FASTA, or one sequence per line) the
genes are written as GFF3. Records may have any length.
"""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO
from urllib.parse import quote

from common.commands import cli
from common.commands.config import BatchPredictConfig, Count, Picture
from common.errors import InputError
from common.files import open_output
from common.serving.served import Served, load_export
from tasks.dna import formats, genes
from tasks.dna.config import TASK
from tasks.dna.genes import Gene, Record
from tasks.dna.nucleotides import encode

import numpy as np
import tyro

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SHOWN = 60_000  # bases in a picture without --region


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(BatchPredictConfig):
    """Flags of `predict`."""

    sequences: tyro.conf.Positional[tuple[str, ...]] = ()
    """sequences of IUPAC letters; - reads standard input"""
    file: tuple[Path, ...] = ()
    """files of records: FASTA, GenBank or GFF3 with FASTA, also compressed"""
    plot: Picture | None = None
    """draw the tracks of the first record, predicted and known genes, to this picture file"""
    region: str | None = None
    """the part to draw, such as 1-40000, counted from 1 (default: the first 60,000 bases)"""
    batch_size: Count = 8
    """short records per request"""

    def __post_init__(self) -> None:
        """Validate flags that the type system cannot express."""
        super().__post_init__()
        if not self.sequences and not self.file:
            raise InputError("no sequence given: write it on the command line, or pass --file PATH")


# --- Input ----------------------------------------------------------------------------------------


def read(flags: Predict) -> Iterator[tuple[Record, bool]]:
    """Yield the records, and whether each is a plain sequence, whose labels are printed."""
    for number, word in enumerate(flags.sequences, start=1):
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
        yield from ((record, False) for record in read_file(path))


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


def read_file(path: Path) -> Iterator[Record]:
    """Yield the records of a file; of a FASTA file only one is held in memory."""
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig") as lines:
            first = next((line for line in lines if line.strip()), "")
            if first.startswith(">") and formats.gff_path(path) is None:
                for name, sequence in formats.read_fasta(itertools.chain([first], lines), path):
                    yield Record(name, sequence)
                return
    except UnicodeDecodeError as error:
        raise InputError("not text in UTF-8", path) from error
    except (OSError, EOFError) as error:
        raise InputError(
            f"cannot read: {getattr(error, 'strerror', None) or error}", path
        ) from None
    yield from formats.read_records(path)


# --- Output ---------------------------------------------------------------------------------------


def gff_lines(record: Record, predicted: Iterable[Gene], first: int) -> Iterator[str]:
    """Yield the GFF3 lines of a record's genes; the CDS includes the stop codon, as in GFF3.

    Args:
      record: only its name and its length are used.
      predicted: its genes.
      first: number of the first gene, so that identifiers are unique in a file.
    """
    name = quote(record.name, safe=".:^*$@!+_?-|")
    yield f"##sequence-region {name} 1 {len(record.sequence)}"
    for number, gene in enumerate(predicted, start=first):
        strand = "+" if gene.strand == 1 else "-"
        start, end = gene.start + 1, gene.end
        partial = "" if gene.has_start and gene.has_stop else ";partial=true"
        place = f"{start}\t{end}\t.\t{strand}\t."
        own, parent = f"ID=mrna{number}", f"Parent=gene{number}"
        yield f"{name}\tsequence-suite\tgene\t{place}\tID=gene{number}{partial}"
        yield f"{name}\tsequence-suite\tmRNA\t{place}\t{own};{parent}{partial}"
        for low, high, phase in _phased_exons(gene):
            yield (
                f"{name}\tsequence-suite\tCDS\t{low + 1}\t{high}\t.\t{strand}\t{phase}\t"
                f"ID=cds{number};Parent=mrna{number}{partial}"
            )


def _phased_exons(gene: Gene) -> list[tuple[int, int, int]]:
    """Return `(start, end, phase)` of each exon, by position."""
    rows, phase = [], gene.phase
    for low, high in gene.exons if gene.strand == 1 else reversed(gene.exons):
        rows.append((low, high, phase))
        phase = (phase - (high - low)) % 3
    return sorted(rows)


def describe(record: Record, labels: str, predicted: Iterable[Gene]) -> dict[str, Any]:
    """Return a prediction as plain values; positions are 1-based and inclusive, as in GFF3."""
    return {
        "name": record.name,
        "labels": labels,
        "genes": [
            {
                "strand": "+" if gene.strand == 1 else "-",
                "cds": [[start + 1, end] for start, end in gene.exons],
                "complete": gene.has_start and gene.has_stop,
            }
            for gene in predicted
        ],
    }


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
    from matplotlib.figure import Figure

    low, high = parse_region(region, len(record.sequence))
    tracks = [("predicted", list(predicted))]
    if annotated := [gene for gene in record.genes if not gene.pseudo]:
        tracks.append(("known", annotated))
    figure = Figure(figsize=(12, 2.5 + 0.9 * len(tracks)), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 0.9 * len(tracks)])
    if high - low <= served.settings["max_bases"]:
        part = np.array([record.sequence[low:high]], object)
        probabilities = served.call("explain", sequence=part)["probabilities"][0]
        _draw_probabilities(upper, probabilities, low)
    upper.set(ylim=(-1.05, 1.05), ylabel="P(coding)", title=record.name)
    upper.axhline(0, color="black", linewidth=0.5)
    heights, names = [], []
    for row, (name, listed) in enumerate(tracks):
        for strand, sign in ((1, "+"), (-1, "-")):
            height = -(2 * row + (strand == -1))
            heights.append(height)
            names.append(f"{name} {sign}")
            inside = (g for g in listed if g.strand == strand and g.end > low and g.start < high)
            _draw_genes(lower, inside, height, "tab:blue" if strand == 1 else "tab:orange")
    lower.set_yticks(heights, names)
    lower.set(xlim=(low + 1, high), xlabel="base", ylim=(min(heights) - 0.7, 0.7))
    figure.savefig(path, dpi=120)


def _draw_probabilities(axes: Axes, probabilities: np.ndarray, low: int) -> None:
    """Draw the coding probability of each base: the forward strand up, the reverse one down."""
    place = np.arange(low + 1, low + len(probabilities) + 1)
    axes.fill_between(place, probabilities[:, 1], color="tab:blue", linewidth=0, label="forward")
    axes.fill_between(place, -probabilities[:, 2], color="tab:orange", linewidth=0, label="reverse")
    axes.legend(loc="upper right", fontsize=8)


def _draw_genes(axes: Axes, listed: Iterable[Gene], height: int, colour: str) -> None:
    """Draw genes as lines, and their exons as boxes."""
    for gene in listed:
        axes.plot([gene.start + 1, gene.end], [height] * 2, color=colour, linewidth=1, zorder=1)
        boxes = [(start + 1, end - start) for start, end in gene.exons]
        axes.broken_barh(boxes, (height - 0.3, 0.6), facecolors=colour, zorder=2)


# --- The command ----------------------------------------------------------------------------------


def write(flags: Predict, served: Served, out: TextIO) -> tuple[Record, list[Gene]] | None:
    """Predict and write record by record; return the first one for the picture."""
    from tasks.dna import paths, streaming  # here, since they import TensorFlow

    grammar = streaming.grammar_of(served)
    pending: list[tuple[Record, bool]] = []

    def sequences() -> Iterator[str]:
        for record, is_plain in read(flags):
            pending.append((record, is_plain))
            yield record.sequence

    first, number, has_header = None, 1, False
    predictions = streaming.predict_paths(served, sequences(), batch_size=flags.batch_size)
    for _, states in predictions:
        record, is_plain = pending.pop(0)
        predicted = paths.genes_of(grammar, states)
        first = first or (record, predicted)
        labels = genes.to_text(grammar.labels[states])
        if flags.json:
            print(json.dumps(describe(record, labels, predicted)), file=out)
        elif is_plain:
            print(labels, file=out)
        else:
            if not has_header:
                print("##gff-version 3", file=out)
                has_header = True
            for line in gff_lines(record, predicted, number):
                print(line, file=out)
            number += len(predicted)
            cli.say(f"{record.name}: {len(record.sequence):,} bases, {len(predicted)} genes")
    return first


def main(argv: list[str]) -> None:
    """Predict and write; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    served = load_export(flags.model, TASK)
    with open_output(flags.output) as out:
        first = write(flags, served, out)
        if first is None:  # an existing output file stays as it is
            raise InputError("the input is empty: there is no sequence in it")
    if flags.plot:
        draw(served, *first, flags.plot, flags.region)


if __name__ == "__main__":
    cli.run(main)
