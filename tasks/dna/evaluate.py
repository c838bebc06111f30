"""Score an exported gene finder.

    python -m tasks.dna.evaluate                                        # its own data, test split
    python -m tasks.dna.evaluate --model saved_models/dna/1 --data genes.gb
    python -m tasks.dna.evaluate --dataset drosophila --manual_dir DIR --split validation

The last line is one JSON object. All scores are fractions, without the stop codon, as is the custom
for gene finders: sensitivity is the fraction of true items that were predicted, precision the
fraction of predicted items that are true. `base`: coding bases on the right strand; `exon`: both
ends and the strand exact; `gene`: all exons exact; `stop`: place and strand of the stop codon.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, report
from common.commands.cli import Scored
from common.commands.config import Count, EvaluateConfig, Picture
from common.errors import InputError
from common.serving.served import Served, load_export
from tasks.dna.config import PRESETS, TASK
from tasks.dna.formats import read_records
from tasks.dna.genes import LABELS, Gene, Record, labels_of

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.dna import data, paths, predictions
    from tasks.dna import grammar as grammars

    import sklearn.metrics

LEVELS = ("base", "exon", "gene", "stop")
STRANDS = (1, -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    batch_size: Count = 8
    """records per request"""
    plot: Picture | None = None
    """draw the confusion matrix of bases to this picture file;
    a name that ends in -dark gets dark colours"""


class Tally:
    """Counts of true, predicted and correctly predicted items, by level and strand.

    Example:
      >>> tally = Tally()
      >>> tally.add(truth=[Gene(((0, 9),), 1)], predicted=[Gene(((3, 9),), 1)], size=20)
      >>> tally.metrics()["stop_f1"], round(tally.metrics()["base_f1"], 3)
      (1.0, 0.667)
    """

    def __init__(self) -> None:
        # correct, true, predicted
        self.counts = {(level, strand): np.zeros(3, int) for level in LEVELS for strand in STRANDS}

    def add(self, truth: Iterable[Gene], predicted: Iterable[Gene], size: int) -> None:
        """Count the genes of a record of `size` bases."""
        both = [gene for gene in truth if not gene.pseudo], list(predicted)
        for strand in STRANDS:
            sides = [[gene for gene in side if gene.strand == strand] for side in both]
            true, predictions = (_items(side, size) for side in sides)
            for level in ("exon", "gene", "stop"):
                one, other = true[level], predictions[level]
                self.counts[level, strand] += len(one & other), len(one), len(other)
            one, other = true["base"], predictions["base"]
            self.counts["base", strand] += (one & other).sum(), one.sum(), other.sum()

    def of(self, level: str, strands: Sequence[int] = STRANDS) -> dict[str, float]:
        """Return F1, sensitivity and precision at one level, over one strand or both."""
        counts = np.sum([self.counts[level, strand] for strand in strands], axis=0)
        correct, true, predicted = counts.tolist()
        return {
            "f1": 2 * correct / (true + predicted) if true + predicted else 0.0,
            "sensitivity": correct / true if true else 0.0,
            "precision": correct / predicted if predicted else 0.0,
        }

    def metrics(self) -> dict[str, float]:
        """Return all scores by the names of the JSON line."""
        scores = {level: self.of(level) for level in LEVELS}
        return {f"{level}_f1": scores[level]["f1"] for level in LEVELS} | {
            f"{level}_{kind}": scores[level][kind]
            for level in LEVELS
            for kind in ("sensitivity", "precision")
        }

    def rows(self) -> list[dict[str, Any]]:
        """Return the rows of a table: every level, on both strands and on each."""
        strand_names = {"both": STRANDS, "forward": (1,), "reverse": (-1,)}
        return [
            {
                "level": level,
                "strand": name,
                "true": int(sum(self.counts[level, s][1] for s in strands)),
                "predicted": int(sum(self.counts[level, s][2] for s in strands)),
                **self.of(level, strands),
            }
            for level in LEVELS
            for name, strands in strand_names.items()
        ]


def _items(side: Sequence[Gene], size: int) -> dict[str, Any]:
    """Return the items of genes at each level: sets, and for bases `<bool>[size]`."""
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


def ceiling(records: Iterable[Record], config: Mapping[str, Any]) -> dict[str, float] | None:
    """Return the scores of perfect labels: the genes that a valid path can represent.

    `None` for a model of genes without introns, which has no paths.
    """
    if not config["spliced"]:
        return None
    grammar = grammars.make_grammar(tuple(config["start_codons"]))
    tally = Tally()
    for record in records:
        tally.add(record.genes, paths.path_of(grammar, record).valid, len(record.sequence))
    return tally.metrics()


@dataclasses.dataclass(frozen=True)
class ScoredGenes(Scored):
    """The score of an export on a split.

    Attributes:
      tally: counts at all levels.
      confusion: `<int>[5, 5]`, bases by true and predicted label.
    """

    tally: Tally
    confusion: np.ndarray


def score(served: Served, records: Sequence[Record], *, batch_size: int = 8) -> ScoredGenes:
    """Score an export on annotated records."""
    start = time.perf_counter()
    if not records:
        raise InputError("no records in this split")
    tally = Tally()
    confusion = np.zeros((len(LABELS),) * 2, int)
    sequences = (record.sequence for record in records)
    predicted = predictions.predict(served, sequences, batch_size=batch_size)
    for record, (_, prediction) in zip(records, predicted, strict=True):
        size = len(record.sequence)
        tally.add(record.genes, prediction.plain, size)
        true = labels_of((gene for gene in record.genes if not gene.pseudo), size)
        confusion += sklearn.metrics.confusion_matrix(
            true, prediction.labels, labels=range(len(LABELS))
        )
    seconds = time.perf_counter() - start
    return ScoredGenes(len(records), seconds, tally.metrics(), tally, confusion)


def print_report(scored: ScoredGenes, best: Mapping[str, float] | None) -> None:
    """Print all levels by strand, the confusion of bases, and the scores of perfect labels."""
    print(report.table(scored.tally.rows()))
    print(f"\n{report.confusion_table(scored.confusion, LABELS)}\n")
    if best is not None:
        print(f"F1 of perfect labels: {describe_f1(best)}")


def describe_f1(scores: Mapping[str, float]) -> str:
    """Return the F1 of all levels in one line."""
    return ", ".join(f"{level} {scores[f'{level}_f1']:.4f}" for level in LEVELS)


def draw_confusion(confusion: np.ndarray, path: Path) -> None:
    """Draw the bases by true and predicted label."""
    truth, predicted = (
        np.repeat(side.ravel(), confusion.ravel()) for side in np.indices(confusion.shape)
    )
    report.confusion_matrix(truth, predicted, list(LABELS), path)


def load_split(served: Served, flags: Evaluate) -> tuple[str, str, list[Record]]:
    """Return the name of the data, the split, and its records."""
    if path := flags.new_file(served.settings):
        return path.name, "all", read_records(path)
    corpus = data.load(flags.or_trained_on(served.settings), seed=served.settings["config"]["seed"])
    return corpus.name, flags.split, data.records(corpus.splits[flags.split])


def evaluate(flags: Evaluate) -> dict[str, Any]:
    """Score an export, print the report, and return the result of the command."""
    served = load_export(flags.model, TASK)
    name, split, records = load_split(served, flags)
    scored = score(served, records, batch_size=flags.batch_size)
    print_report(scored, ceiling(records, served.settings["config"]))
    if flags.plot:
        draw_confusion(scored.confusion, flags.plot)
    return cli.to_result(TASK, name, split, scored, served.path)


def main(argv: list[str]) -> None:
    """Score and print; see the module."""
    doc = cli.with_datasets(__doc__, PRESETS, cli.TRAINED_ON)
    cli.print_result(evaluate(cli.parse(Evaluate, argv, doc=doc)))


if __name__ == "__main__":
    cli.run(main)
