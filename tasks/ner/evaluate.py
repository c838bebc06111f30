"""Scores an exported named-entity model.

    python -m tasks.ner.evaluate                                    # its own data, test split
    python -m tasks.ner.evaluate --model saved_models/ner/1 --data my.conll
    python -m tasks.ner.evaluate --dataset btc --manual_dir DIR     # held-out text of another kind

The last line is one JSON object: `precision`, `recall` and `f1` of whole names, as fractions. A
name counts as found if its type and both its ends are right (strict IOB2).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path

from common.commands import cli, report
from common.commands.config import EvaluateConfig
from common.data import map_in_order
from common.datasets import Corpus
from common.errors import InputError, require
from common.serving.served import Served, load_export
from tasks.ner import data
from tasks.ner.data import OUTSIDE, Sentence

import numpy as np
import sklearn.metrics

TASK = "ner"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    plot: Path | None = None
    """draw the confusion matrix of the words' types into this PNG"""


def by_type(
    truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> dict[str, dict[str, float]]:
    """Precision, recall and F1 of whole names, by seqeval in its strict mode.

    Args:
      truth: the tags of each sentence, in IOB2.
      predicted: as many.

    Returns:
      A row of `precision`, `recall`, `f1-score` and `support` (how many there are) for each type
      that stands in either, and one for all of them, `micro avg`.

    Example:
      >>> by_type([["B-PER", "I-PER", "O"]], [["B-PER", "O", "O"]])["micro avg"]["f1-score"]
      0.0
    """
    scorers = require("seqeval.metrics", "ner")
    if not any(tag != OUTSIDE for rows in (truth, predicted) for tags in rows for tag in tags):
        # seqeval fails where there is no name at all.
        return {"micro avg": {"precision": 0.0, "recall": 0.0, "f1-score": 0.0, "support": 0}}
    rows = scorers.classification_report(
        [list(tags) for tags in truth],
        [list(tags) for tags in predicted],
        mode="strict",
        scheme=require("seqeval.scheme", "ner").IOB2,
        output_dict=True,
        zero_division=0,
    )
    return {
        name: {key: value.item() if hasattr(value, "item") else value for key, value in row.items()}
        for name, row in rows.items()
        if name not in ("macro avg", "weighted avg")
    }


def metrics(truth: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> dict[str, float]:
    """The `precision`, `recall` and `f1` of all names together."""
    row = by_type(truth, predicted)["micro avg"]
    return {name: float(row[key]) for name, key in zip(METRICS, SEQEVAL, strict=True)}


METRICS = ("precision", "recall", "f1")
SEQEVAL = ("precision", "recall", "f1-score")


def tag(served: Served, sentences: Sequence[Sequence[str]], *, batch_size: int) -> list[list[str]]:
    """Asks an export for the tags of tokens, through its signature `tokens`, in order."""

    def ask(batch: list[Sequence[str]]) -> list[list[str]]:
        length = np.array([len(tokens) for tokens in batch], np.int32)
        padded = np.full((len(batch), max(length)), "", dtype=object)
        for row, tokens in enumerate(batch):
            padded[row, : len(tokens)] = tokens
        tags = served.call("tokens", tokens=padded, length=length)["tags"]
        return [[t.decode() for t in tags[row, :n]] for row, n in enumerate(length)]

    return list(map_in_order(ask, sentences, batch_size=batch_size, length_of=len))


@dataclasses.dataclass(frozen=True)
class Scored:
    """What an export said about a split."""

    truth: list[list[str]]  # tags of each sentence
    predicted: list[list[str]]
    metrics: dict[str, float]
    seconds: float

    def confusion(self) -> tuple[list[str], list[int], list[int]]:
        """The types of all words, `O` first, and for each word its true and its found one."""
        types = [OUTSIDE, *data.entity_types(t for row in self.truth + self.predicted for t in row)]
        index = {OUTSIDE: 0} | {
            f"{part}-{kind}": n for n, kind in enumerate(types) if n for part in "BI"
        }
        found = ([index[t] for row in rows for t in row] for rows in (self.truth, self.predicted))
        return (types, *found)


def score(
    served: Served, rows: Sequence[Sentence], types: Sequence[str], *, batch_size: int = 64
) -> Scored:
    """Scores an export on sentences.

    Args:
      served: the export.
      rows: sentences with their true tags.
      types: what names count; what the model finds of other types counts as `O`.
      batch_size: sentences a request.
    """
    start = time.perf_counter()
    if not rows:
        raise InputError("no examples in this split")
    truth = [list(row.tags) for row in rows]
    predicted = [
        [found if found[2:] in types else OUTSIDE for found in tags]
        for tags in tag(served, [row.tokens for row in rows], batch_size=batch_size)
    ]
    seconds = time.perf_counter() - start
    return Scored(truth, predicted, metrics(truth, predicted), seconds)


def check_types(model: Sequence[str], corpus: Sequence[str], name: str) -> None:
    """Refuses data with names that the model cannot know.

    Raises:
      InputError: the data has a type that the model has not.
    """
    if strange := sorted(set(corpus) - set(model)):
        raise InputError(
            f"{name} has names of type {', '.join(strange)}, the model knows only "
            f"{', '.join(model)}: it can be scored where it knows all types of the data"
        )


def _load_split(
    served: Served, flags: Evaluate
) -> tuple[str, str, list[Sentence], tuple[str, ...]]:
    """Finds what to score: its name, the split, its sentences, and the types of the data."""
    trained = served.settings["training_data"]
    flags = flags.or_trained_on(trained)
    if flags.scores_whole_file(trained):
        rows = data.read_conll(flags.data)
        return flags.data.name, "all", rows, data.entity_types(t for row in rows for t in row.tags)
    corpus: Corpus = data.load(flags, seed=served.settings["config"]["seed"])
    rows = data.sentences(corpus.splits[flags.split], corpus.labels)
    return corpus.name, flags.split, rows, data.entity_types(corpus.labels)


def print_report(scored: Scored) -> None:
    """Prints precision, recall and F1 per type, and the confusion table of the words' types."""
    print("Whole names, by seqeval (strict IOB2):\n")
    rows = by_type(scored.truth, scored.predicted)
    print(
        report.table(
            [
                {"type": "all" if name == "micro avg" else name}
                | {shown: float(row[key]) for shown, key in zip(METRICS, SEQEVAL, strict=True)}
                | {"names": int(row["support"])}
                for name, row in rows.items()
            ]
        )
    )
    types, truth, predicted = scored.confusion()
    counts = sklearn.metrics.confusion_matrix(truth, predicted, labels=range(len(types)))
    table = report.confusion_table(counts, types)
    print(f"\nWords by the type of their name:\n\n{table}\n")


def main(argv: list[str]) -> None:
    """Scores and prints; see the module."""
    flags = cli.parse(Evaluate, argv, doc=__doc__)
    served = load_export(flags.model or Path("saved_models") / TASK)
    name, split, rows, types = _load_split(served, flags)
    known = data.entity_types(served.settings["labels"])
    check_types(known, types, name)
    if set(types) != set(known):
        cli.say(f"scored on the types of {name}: {', '.join(types)}; others count as no name")
    scored = score(served, rows, types, batch_size=flags.batch_size)
    print_report(scored)
    if flags.plot:
        kinds, truth, predicted = scored.confusion()
        report.confusion_matrix(truth, predicted, kinds, flags.plot)
    count, seconds = len(rows), scored.seconds
    cli.print_scored(TASK, name, split, count, seconds, served.path, scored.metrics)


if __name__ == "__main__":
    cli.run(main)
