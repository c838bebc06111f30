"""Scores an exported sentiment model.

    python -m tasks.sentiment.evaluate                                  # its own data, test split
    python -m tasks.sentiment.evaluate --model saved_models/sentiment/1 --data my.tsv
    python -m tasks.sentiment.evaluate --dataset sst5 --manual_dir DIR --split validation

The last line is one JSON object. `accuracy` and `macro_f1` are fractions; `mean_absolute_error` is
in stars.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, report
from common.commands.config import EvaluateConfig
from common.data import map_in_order
from common.errors import InputError
from common.serving.served import LITERT, Served, latest, load_export, versions
from tasks.sentiment import data, litert

import numpy as np
import sklearn.metrics

TASK = "sentiment"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    plot: Path | None = None
    """draw the confusion matrix into this PNG"""


def metrics(truth: Sequence[int], predicted: Sequence[int], classes: int) -> dict[str, float]:
    """Compares class indices; see the module for units.

    Example:
      >>> metrics([0, 4], [0, 3], classes=5)
      {'accuracy': 0.5, 'macro_f1': 0.5, 'mean_absolute_error': 0.5}
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    present = np.union1d(truth, predicted)
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(truth, predicted)),
        "macro_f1": float(
            sklearn.metrics.f1_score(
                truth, predicted, labels=present, average="macro", zero_division=0.0
            )
        ),
        "mean_absolute_error": float(np.abs(truth - predicted).mean() * 4.0 / (classes - 1)),
    }


def load(model: Path | None) -> Served:
    """Loads a version or the newest of a folder, a SavedModel or LiteRT's file."""
    path = model or Path("saved_models") / TASK
    folder = latest(path) if versions(path) else path
    return litert.load(folder) if (folder / LITERT).exists() else load_export(path)


def answers(
    served: Served, texts: Iterable[str], *, batch_size: int
) -> Iterable[tuple[str, dict[str, np.ndarray]]]:
    """Asks an export about texts: gives each with its answer of `serving_default`, in order."""

    def ask(batch: list[str]) -> list[tuple[str, dict[str, np.ndarray]]]:
        outputs = served.call("serving_default", text=np.array(batch, dtype=object))
        rows = ({name: value[row] for name, value in outputs.items()} for row in range(len(batch)))
        return list(zip(batch, rows, strict=True))

    return map_in_order(ask, texts, batch_size=batch_size, length_of=len)


@dataclasses.dataclass(frozen=True)
class Scored:
    """What an export said about a split."""

    truth: list[int]
    predicted: list[int]
    metrics: dict[str, float]
    seconds: float


def score(served: Served, reviews: Any, *, batch_size: int = 64) -> Scored:
    """Scores an export on a data set of `{text, label}`, from raw text to class."""
    start = time.perf_counter()
    pairs = [(row["text"].decode(), int(row["label"])) for row in reviews.as_numpy_iterator()]
    if not pairs:
        raise InputError("no examples in this split")
    texts, truth = zip(*pairs, strict=True)
    said = answers(served, texts, batch_size=batch_size)
    predicted = [int(answer["probabilities"].argmax()) for _, answer in said]
    classes = len(served.settings["labels"])
    seconds = time.perf_counter() - start
    return Scored(list(truth), predicted, metrics(truth, predicted, classes), seconds)


def check_no_leak(trained_on: str | None, dataset: str | None) -> None:
    """Refuses to score a model on sentences that it may have learnt.

    Raises:
      InputError: the two data sets are known to share sentences.
    """
    if frozenset((trained_on, dataset)) in data.LEAKS:
        raise InputError(
            f"the model was trained on {trained_on!r}, which shares sentences with {dataset!r}: "
            "the score would not be honest"
        )


def _load_split(served: Served, flags: Evaluate) -> tuple[str, str, Any]:
    """Finds what to score: its name, the split, and a data set of `{text, label}`."""
    labels = tuple(served.settings["labels"])
    trained = served.settings["training_data"]
    flags = flags.or_trained_on(trained)
    if flags.scores_whole_file(trained):
        pairs = data.label_indices(flags.data, labels)
        return flags.data.name, "all", data.as_dataset(pairs)
    check_no_leak(trained["dataset"], flags.dataset)
    reviews = data.load(flags, labels=labels, seed=served.settings["config"]["seed"])
    if reviews.labels != labels:
        raise InputError(
            f"{reviews.name} has the labels {', '.join(reviews.labels)}, "
            f"the model {', '.join(labels)}"
        )
    return reviews.name, flags.split, reviews.splits[flags.split]


def main(argv: list[str]) -> None:
    """Scores and prints; see the module."""
    flags = cli.parse(Evaluate, argv, doc=__doc__)
    served = load(flags.model)
    name, split, reviews = _load_split(served, flags)
    scored = score(served, reviews, batch_size=flags.batch_size)
    labels = served.settings["labels"]
    print(report.classification_report(scored.truth, scored.predicted, labels))
    if flags.plot:
        report.confusion_matrix(scored.truth, scored.predicted, labels, flags.plot)
    count, seconds = len(scored.truth), scored.seconds
    cli.print_scored(TASK, name, split, count, seconds, served.path, scored.metrics)


if __name__ == "__main__":
    cli.run(main)
