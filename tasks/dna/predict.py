"""Asks an exported gene finder about your own DNA.

    python -m tasks.dna.predict AGCCCCTGTGAGGAACTAG
    python -m tasks.dna.predict --file genome.fa --output genes.gff3
    python -m tasks.dna.predict --file known.gb.gz --plot tracks.png --region 1-40000
    zcat genome.fa.gz | python -m tasks.dna.predict - > genes.gff3

Of a sequence on the command line the labels are printed, a letter for each base: `.` intergenic,
`C` coding and `I` intron on the forward strand, `c` and `i` on the reverse strand. Of files
(FASTA, GenBank, GFF3 with FASTA; also .gz) and of standard input (FASTA, or a sequence on each
line) the genes are written as GFF3. Records may be of any length.
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
from typing import Any, TextIO
from urllib.parse import quote

from common.commands import cli
from common.commands.config import PredictConfig
from common.errors import InputError
from common.files import open_output
from common.serving.served import Served, load_export
from tasks.dna import data, evaluate, genes
from tasks.dna.evaluate import TASK
from tasks.dna.genes import Gene, Record

import numpy as np
import tyro
from matplotlib.figure import Figure

SHOWN = 60_000  # bases that a picture shows where no region is given


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predict(PredictConfig):
    """Flags of `predict`."""

    sequences: tyro.conf.Positional[tuple[str, ...]] = ()
    """sequences of IUPAC letters; - reads standard input"""
    file: tuple[Path, ...] = ()
    """files of records: FASTA, GenBank or GFF3 with FASTA, also compressed"""
    plot: Path | None = None
    """draw the first record's tracks, truth beside prediction where known, into this PNG"""
    region: str | None = None
    """the part to draw, such as 1-40000, counted from 1 (default: the first 60,000 bases)"""
    batch_size: int = 8
    """short records a request"""


# --- what to read ---------------------------------------------------------------------------------


def read(flags: Predict) -> Iterator[tuple[Record, bool]]:
    """Yields the records, and whether each is a mere sequence, of which labels are printed."""
    for number, word in enumerate(flags.sequences, start=1):
        if word != "-":
            yield Record(f"sequence_{number}", checked(word, f"sequence {number}")), True
            continue
        lines = (line.decode("utf-8", "replace") for line in sys.stdin.buffer)
        first = next((line for line in lines if line.strip()), "")
        every = itertools.chain([first], lines)
        if first.lstrip().startswith(">"):
            for name, sequence in data.read_fasta(every, "standard input"):
                yield Record(name, sequence), False
        else:
            for count, line in enumerate(every, start=1):
                if line.strip():
                    sequence = checked(line.strip(), f"standard input, sequence {count}")
                    yield Record(f"line_{count}", sequence), True
    for path in flags.file:
        yield from ((record, False) for record in read_file(path))


def checked(sequence: str, where: str) -> str:
    """The sequence in capital letters.

    Raises:
      InputError: it is empty, or holds a letter that is not IUPAC.
    """
    if not sequence:
        raise InputError(f"{where} is empty")
    bad = genes.encode(sequence) < 0
    if bad.any():
        place = int(np.argmax(bad))
        raise InputError(f"{where}: {sequence[place]!r} at base {place + 1} is no IUPAC letter")
    return sequence.upper()


def read_file(path: Path) -> Iterator[Record]:
    """Yields the records of a file; of FASTA alone it holds one at a time."""
    try:
        with open(path, "rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        with (gzip.open if packed else open)(path, "rt", encoding="utf-8-sig") as lines:
            first = next((line for line in lines if line.strip()), "")
            if first.startswith(">") and data.gff_beside(path) is None:
                for name, sequence in data.read_fasta(itertools.chain([first], lines), path):
                    yield Record(name, sequence)
                return
    except UnicodeDecodeError as error:
        raise InputError("not text in UTF-8", path) from error
    except (OSError, EOFError) as error:
        raise InputError(
            f"cannot read: {getattr(error, 'strerror', None) or error}", path
        ) from None
    yield from data.read_records(path)


# --- what to write --------------------------------------------------------------------------------


def gff_lines(record: Record, found: Iterable[Gene], first: int) -> Iterator[str]:
    """The GFF3 lines of a record's genes; the stop codon is part of the CDS, as GFF3 has it.

    Args:
      record: of which only name and length count.
      found: its genes.
      first: number of the first gene, so that no identifier comes twice in a file.
    """
    name = quote(record.name, safe=".:^*$@!+_?-|")
    yield f"##sequence-region {name} 1 {len(record.sequence)}"
    for number, gene in enumerate(found, start=first):
        strand = "+" if gene.strand == 1 else "-"
        start, end = gene.start + 1, gene.end
        partial = "" if gene.has_start and gene.has_stop else ";partial=true"
        place = f"{start}\t{end}\t.\t{strand}\t."
        own, parent = f"ID=mrna{number}", f"Parent=gene{number}"
        yield f"{name}\tsequence-suite\tgene\t{place}\tID=gene{number}{partial}"
        yield f"{name}\tsequence-suite\tmRNA\t{place}\t{own};{parent}{partial}"
        rows, phase = [], gene.phase
        for low, high in gene.exons if gene.strand == 1 else reversed(gene.exons):
            rows.append((low, high, phase))
            phase = (phase - (high - low)) % 3
        for low, high, phase in sorted(rows):
            yield (
                f"{name}\tsequence-suite\tCDS\t{low + 1}\t{high}\t.\t{strand}\t{phase}\t"
                f"ID=cds{number};Parent=mrna{number}{partial}"
            )


def to_json(record: Record, labels: str, found: Iterable[Gene]) -> dict[str, Any]:
    """A record's answer as plain values; positions are 1-based and inclusive, as in GFF3."""
    return {
        "name": record.name,
        "labels": labels,
        "genes": [
            {
                "strand": "+" if gene.strand == 1 else "-",
                "cds": [[start + 1, end] for start, end in gene.exons],
                "complete": gene.has_start and gene.has_stop,
            }
            for gene in found
        ],
    }


# --- the picture ----------------------------------------------------------------------------------


def parse_region(text: str | None, size: int) -> tuple[int, int]:
    """The bases `[low, high)` that a picture shows.

    Raises:
      InputError: no such region.
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
    served: Served, record: Record, found: Iterable[Gene], path: Path, region: str | None
) -> None:
    """Draws predicted and known genes as tracks, above them how likely each base is coding."""
    low, high = parse_region(region, len(record.sequence))
    rows = [("predicted", list(found))]
    known = [gene for gene in record.genes if not gene.pseudo]
    if known:
        rows.append(("known", known))
    figure = Figure(figsize=(12, 2.5 + 0.9 * len(rows)), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1.2, 0.9 * len(rows)])
    if high - low <= served.settings["max_bases"]:
        part = np.array([record.sequence[low:high]], object)
        shares = served.call("explain", sequence=part)["probabilities"][0]
        place = np.arange(low + 1, high + 1)
        upper.fill_between(place, shares[:, 1], color="tab:blue", linewidth=0, label="forward")
        upper.fill_between(place, -shares[:, 2], color="tab:orange", linewidth=0, label="reverse")
        upper.legend(loc="upper right", fontsize=8)
    upper.set(ylim=(-1.05, 1.05), ylabel="P(coding)", title=record.name)
    upper.axhline(0, color="black", linewidth=0.5)
    names = []
    for row, (name, listed) in enumerate(rows):
        for strand, sign in ((1, "+"), (-1, "-")):
            height = -(2 * row + (strand == -1))
            names.append((height, f"{name} {sign}"))
            colour = "tab:blue" if strand == 1 else "tab:orange"
            for gene in listed:
                if gene.strand != strand or gene.end <= low or gene.start >= high:
                    continue
                span = [gene.start + 1, gene.end]
                lower.plot(span, [height] * 2, color=colour, linewidth=1, zorder=1)
                boxes = [(start + 1, end - start) for start, end in gene.exons]
                lower.broken_barh(boxes, (height - 0.3, 0.6), facecolors=colour, zorder=2)
    lower.set_yticks(*zip(*names, strict=True))
    lower.set(xlim=(low + 1, high), xlabel="base", ylim=(min(names)[0] - 0.7, 0.7))
    figure.savefig(path, dpi=120)


# --- the command ----------------------------------------------------------------------------------


def write(flags: Predict, served: Served, out: TextIO) -> tuple[Record, list[Gene]] | None:
    """Answers record by record; gives the first one for the picture."""
    grammar = evaluate.grammar_of(served)
    kept: list[tuple[Record, bool]] = []

    def sequences() -> Iterator[str]:
        for record, bare in read(flags):
            kept.append((record, bare))
            yield record.sequence

    first, number, headed = None, 1, False
    for _, states in evaluate.paths(served, sequences(), batch_size=flags.batch_size):
        record, bare = kept.pop(0)
        found = grammar.genes(states)
        first = first or (record, found)
        if flags.json:
            labels = genes.to_text(grammar.labels[states])
            print(json.dumps(to_json(record, labels, found)), file=out)
        elif bare:
            print(genes.to_text(grammar.labels[states]), file=out)
        else:
            if not headed:
                print("##gff-version 3", file=out)
                headed = True
            for line in gff_lines(record, found, number):
                print(line, file=out)
            number += len(found)
            cli.say(f"{record.name}: {len(record.sequence):,} bases, {len(found)} genes")
    return first


def main(argv: list[str]) -> None:
    """Asks and writes; see the module."""
    flags = cli.parse(Predict, argv, doc=__doc__)
    if not flags.sequences and not flags.file:
        raise InputError("give a sequence, as in: predict AGCCCCTGTGAGGAACTAG, or --file PATH")
    served = load_export(flags.model or Path("saved_models") / TASK)
    with open_output(flags.output) as out:
        first = write(flags, served, out)
    if first is None:
        raise InputError("no sequence given")
    if flags.plot:
        draw(served, *first, flags.plot, flags.region)


if __name__ == "__main__":
    cli.run(main)
