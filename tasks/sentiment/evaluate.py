"""Score an exported sentiment model.

    python -m tasks.sentiment.evaluate                                  # its own data, test split
    python -m tasks.sentiment.evaluate --model saved_models/sentiment/1 --data my.tsv
    python -m tasks.sentiment.evaluate --dataset sst5 --manual_dir DIR --split validation

The last line is one JSON object. `accuracy` and `macro_f1` are fractions; `mean_absolute_error` is
in stars.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence

from common.commands import cli, report
from common.commands.cli import Scored
from common.commands.config import EvaluateConfig, Picture
from common.errors import InputError
from common.serving.served import Served, text_request
from tasks.sentiment.config import TASK
from tasks.sentiment.formats import read_examples
from tasks.sentiment.predict import load_model

import numpy as np
from etils import epy

with epy.lazy_imports():
    from tasks.sentiment import data, datasets

    import sklearn.metrics
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    plot: Picture | None = None
    """draw the confusion matrix to this picture file"""


def metrics(truth: Sequence[int], predicted: Sequence[int], classes: int) -> dict[str, float]:
    """Return the metrics of predicted class indices; see the module for units.

    Example:
      >>> metrics([0, 4], [0, 3], classes=5)
      {'accuracy': 0.5, 'macro_f1': 0.3333333333333333, 'mean_absolute_error': 0.5}
    """
    true_classes, predicted_classes = np.asarray(truth), np.asarray(predicted)
    present = np.union1d(true_classes, predicted_classes)
    gap = np.abs(true_classes - predicted_classes).mean()
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(truth, predicted)),
        "macro_f1": float(
            sklearn.metrics.f1_score(
                truth, predicted, labels=present, average="macro", zero_division=0.0
            )
        ),
        "mean_absolute_error": float(gap * 4.0 / (classes - 1)),
    }


@dataclasses.dataclass(frozen=True)
class ScoredClasses(Scored):
    """The score of an export on a split, with the true and the predicted class of each text."""

    truth: list[int]
    predicted: list[int]


def score(served: Served, reviews: tf.data.Dataset, *, batch_size: int = 64) -> ScoredClasses:
    """Score an export on raw texts.

    Args:
      served: the export.
      reviews: examples `{text, label}`.
      batch_size: texts per request.
    """
    start = time.perf_counter()
    pairs = [(row["text"].decode(), int(row["label"])) for row in reviews.as_numpy_iterator()]
    if not pairs:
        raise InputError("no examples in this split")
    texts, truth = zip(*pairs, strict=True)
    outputs = served.predict("serving_default", texts, text_request, batch_size=batch_size)
    predicted = [int(row["probabilities"].argmax()) for _, row in outputs]
    seconds = time.perf_counter() - start
    scores = metrics(truth, predicted, len(served.settings["labels"]))
    return ScoredClasses(len(truth), seconds, scores, list(truth), predicted)


def check_no_leak(trained_on: str | None, dataset: str | None) -> None:
    """Refuse to score a model on sentences that may be in its training data.

    Raises:
      InputError: the two data sets are known to share sentences.
    """
    if frozenset((trained_on, dataset)) in datasets.LEAKS:
        raise InputError(
            f"the model was trained on {trained_on!r}, which shares sentences with {dataset!r}: "
            "the score would not be honest. Score it on other data."
        )


def load_split(served: Served, flags: Evaluate) -> tuple[str, str, tf.data.Dataset]:
    """Return the name of the data, the split, and its examples `{text, label}`."""
    labels = tuple(served.settings["labels"])
    if path := flags.new_file(served.settings):
        return path.name, "all", data.as_dataset(read_examples(path, labels))
    flags = flags.or_trained_on(served.settings)
    check_no_leak(served.settings["training_data"]["dataset"], flags.dataset)
    reviews = data.load(flags, labels=labels, seed=served.settings["config"]["seed"])
    if reviews.labels != labels:
        raise InputError(
            f"{reviews.name} has the labels {', '.join(reviews.labels)}, "
            f"the model {', '.join(labels)}"
        )
    return reviews.name, flags.split, reviews.splits[flags.split]


def main(argv: list[str]) -> None:
    """Score and print; see the module."""
    flags = cli.parse(Evaluate, argv, doc=__doc__)
    served = load_model(flags.model)
    name, split, reviews = load_split(served, flags)
    scored = score(served, reviews, batch_size=flags.batch_size)
    labels = served.settings["labels"]
    print(report.classification_report(scored.truth, scored.predicted, labels))
    if flags.plot:
        report.confusion_matrix(scored.truth, scored.predicted, labels, flags.plot)
    cli.print_scored(TASK, name, split, scored, served.path)


if __name__ == "__main__":
    cli.run(main)
