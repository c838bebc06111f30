"""Scores an exported gene finder.

    python -m tasks.dna.evaluate                                        # its own data, test split
    python -m tasks.dna.evaluate --model saved_models/dna/1 --data genes.gb
    python -m tasks.dna.evaluate --dataset drosophila --manual_dir DIR --split validation

The last line is one JSON object. All figures are fractions, as gene finders are scored, without the
stop codon: sensitivity is the share of true things that were found, precision the share of found
things that are true. `base`: coding bases, on the right strand; `exon`: both ends and the strand
exact; `gene`: all exons exact; `stop`: the stop codon's place and strand.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, report
from common.commands.config import EvaluateConfig
from common.data import map_in_order
from common.errors import InputError
from common.serving.served import Served, load_export
from tasks.dna import data, genes, serving
from tasks.dna.genes import LABELS, Gene, Grammar, Record

import numpy as np
import sklearn.metrics

TASK = "dna"
LEVELS = ("base", "exon", "gene", "stop")
STRANDS = (1, -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    batch_size: int = 8
    """records a request"""
    plot: Path | None = None
    """draw the confusion matrix of bases into this PNG"""


class Tally:
    """Counts of true, predicted and rightly predicted things, by level and strand.

    Example:
      >>> tally = Tally()
      >>> tally.add(truth=[Gene(((0, 9),), 1)], predicted=[Gene(((3, 9),), 1)], size=20)
      >>> tally.metrics()["stop_f1"], round(tally.metrics()["base_f1"], 3)
      (1.0, 0.667)
    """

    def __init__(self) -> None:
        # right, true, predicted
        self.counts = {(level, strand): np.zeros(3, int) for level in LEVELS for strand in STRANDS}

    def add(self, truth: Iterable[Gene], predicted: Iterable[Gene], size: int) -> None:
        """Counts a record of `size` bases."""
        both = [gene for gene in truth if not gene.pseudo], list(predicted)
        for strand in STRANDS:
            here = [[gene for gene in side if gene.strand == strand] for side in both]
            found = [_things(side, size) for side in here]
            for level in ("exon", "gene", "stop"):
                one, other = (side[level] for side in found)
                self.counts[level, strand] += len(one & other), len(one), len(other)
            one, other = (side["base"] for side in found)
            self.counts["base", strand] += (one & other).sum(), one.sum(), other.sum()

    def of(self, level: str, strands: Sequence[int] = STRANDS) -> dict[str, float]:
        """F1, sensitivity and precision at one level, over one strand or both."""
        right, true, predicted = sum(self.counts[level, strand] for strand in strands).tolist()
        return {
            "f1": 2 * right / (true + predicted) if true + predicted else 0.0,
            "sensitivity": right / true if true else 0.0,
            "precision": right / predicted if predicted else 0.0,
        }

    def metrics(self) -> dict[str, float]:
        """All of it, by the names of the JSON line."""
        found = {level: self.of(level) for level in LEVELS}
        return {f"{level}_f1": found[level]["f1"] for level in LEVELS} | {
            f"{level}_{kind}": found[level][kind]
            for level in LEVELS
            for kind in ("sensitivity", "precision")
        }

    def rows(self) -> list[dict[str, Any]]:
        """A table of every level, on both strands and on each."""
        named = {"both": STRANDS, "forward": (1,), "reverse": (-1,)}
        return [
            {
                "level": level,
                "strand": name,
                "true": int(sum(self.counts[level, s][1] for s in strands)),
                "predicted": int(sum(self.counts[level, s][2] for s in strands)),
                **self.of(level, strands),
            }
            for level in LEVELS
            for name, strands in named.items()
        ]


def _things(side: Sequence[Gene], size: int) -> dict[str, Any]:
    base = np.zeros(size, bool)
    bare = [gene.without_stop() for gene in side]
    for exons in bare:
        for start, end in exons:
            base[start:end] = True
    return {
        "base": base,
        "exon": {exon for exons in bare for exon in exons},
        "gene": {exons for exons in bare if exons},
        "stop": {gene.stop for gene in side if gene.stop is not None},
    }


def ceiling(records: Iterable[Record], grammar: Grammar) -> dict[str, float]:
    """What perfect labels would score: the genes that a legal path can hold, against all."""
    tally = Tally()
    for record in records:
        tally.add(record.genes, grammar.path(record).legal, len(record.sequence))
    return tally.metrics()


# --- asking an export -----------------------------------------------------------------------------

DIRECT = 65_536  # bases up to which records are asked in batches through `tensors`


def grammar_of(served: Served) -> Grammar:
    """The grammar of an export."""
    config = served.settings["config"]
    return genes.grammar(config["spliced"], tuple(config["start_codons"]))


def paths(
    served: Served, sequences: Iterable[str], *, batch_size: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Asks an export: gives each sequence with its path `<int32>[bases]`, in order.

    Short records go through `tensors` in batches, long ones piece by piece.

    Raises:
      InputError: a sequence with a letter that is not IUPAC.
    """
    grammar = grammar_of(served)

    def ask(batch: list[np.ndarray]) -> list[np.ndarray]:
        if len(batch) == 1 and len(batch[0]) > DIRECT:
            return [np.concatenate(list(serving.walk_record(served, grammar, batch[0])))]
        length = [len(bases) for bases in batch]
        rows = np.zeros((len(batch), max(length)), np.int32)
        for row, bases in zip(rows, batch, strict=True):
            row[: len(bases)] = bases
        states = served.call("tensors", bases=rows, length=length)["states"]
        return [row[:size] for row, size in zip(states, length, strict=True)]

    waiting: list[tuple[str, np.ndarray]] = []

    def answer() -> Iterator[tuple[str, np.ndarray]]:
        bases = [encoded for _, encoded in waiting]
        found = map_in_order(ask, bases, batch_size=batch_size, length_of=len)
        for (sequence, _), states in zip(waiting, found, strict=True):
            yield sequence, states
        waiting.clear()

    for sequence in sequences:
        encoded = genes.encode(sequence)
        if (encoded < 0).any():
            place = int(np.argmax(encoded < 0))
            raise InputError(f"{sequence[place]!r} at base {place + 1} is no IUPAC letter of DNA")
        if len(encoded) > DIRECT:
            yield from answer()
            yield sequence, ask([encoded])[0]
            continue
        waiting.append((sequence, encoded))
        if len(waiting) == 64 * batch_size or sum(len(e) for _, e in waiting) > 1 << 24:
            yield from answer()
    yield from answer()


@dataclasses.dataclass(frozen=True)
class Scored:
    """What an export said about a split.

    Attributes:
      tally: counts at all levels.
      confusion: `<int>[5, 5]`, bases by true and predicted label.
      count: records.
      seconds: wall time.
    """

    tally: Tally
    confusion: np.ndarray
    count: int
    seconds: float


def score(served: Served, records: Iterable[Record], *, batch_size: int = 8) -> Scored:
    """Scores an export on records whose genes are known."""
    start = time.perf_counter()
    rows = list(records)
    if not rows:
        raise InputError("no records in this split")
    grammar, tally = grammar_of(served), Tally()
    confusion = np.zeros((len(LABELS),) * 2, int)
    found = paths(served, (record.sequence for record in rows), batch_size=batch_size)
    for record, (_, states) in zip(rows, found, strict=True):
        size = len(record.sequence)
        tally.add(record.genes, grammar.genes(states), size)
        known = genes.labels_of((gene for gene in record.genes if not gene.pseudo), size)
        confusion += sklearn.metrics.confusion_matrix(
            known, grammar.labels[states], labels=range(len(LABELS))
        )
    return Scored(tally, confusion, len(rows), time.perf_counter() - start)


def print_report(scored: Scored, best: Mapping[str, float]) -> None:
    """Prints all levels by strand, the confusion of bases, and what perfect labels would score."""
    print(report.table(scored.tally.rows()))
    print(f"\n{report.confusion_table(scored.confusion, LABELS)}\n")
    shown = ", ".join(f"{level} {best[f'{level}_f1']:.4f}" for level in LEVELS)
    print(f"F1 that perfect labels would reach: {shown}")


def draw_confusion(confusion: np.ndarray, path: Path) -> None:
    """Draws the bases by true and predicted label into a PNG."""
    pairs = (np.repeat(side.ravel(), confusion.ravel()) for side in np.indices(confusion.shape))
    report.confusion_matrix(*pairs, list(LABELS), path)


def _load_split(served: Served, flags: Evaluate) -> tuple[str, str, list[Record]]:
    trained = served.settings["training_data"]
    flags = flags.or_trained_on(trained)
    if flags.scores_whole_file(trained):
        return flags.data.name, "all", list(data.read_records(flags.data))
    corpus = data.load(flags, seed=served.settings["config"]["seed"])
    return corpus.name, flags.split, data.records(corpus.splits[flags.split])


def main(argv: list[str]) -> None:
    """Scores and prints; see the module."""
    flags = cli.parse(Evaluate, argv, doc=__doc__)
    served = load_export(flags.model or Path("saved_models") / TASK)
    name, split, records = _load_split(served, flags)
    scored = score(served, records, batch_size=flags.batch_size)
    print_report(scored, ceiling(records, grammar_of(served)))
    if flags.plot:
        draw_confusion(scored.confusion, flags.plot)
    count, seconds = scored.count, scored.seconds
    cli.print_scored(TASK, name, split, count, seconds, served.path, scored.tally.metrics())


if __name__ == "__main__":
    cli.run(main)
