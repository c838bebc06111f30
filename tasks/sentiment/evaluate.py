"""Score an exported sentiment model.

    python -m tasks.sentiment.evaluate                                  # its own data, test split
    python -m tasks.sentiment.evaluate --model saved_models/sentiment/1 --data my.tsv
    python -m tasks.sentiment.evaluate --dataset sst5 --manual_dir DIR --split validation

The last line is one JSON object. `accuracy` and `macro_f1` are fractions; `mean_absolute_error` is
in stars.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from common.commands import cli, report
from common.commands.cli import Scored
from common.commands.config import EvaluateConfig, Picture
from common.errors import InputError
from common.files import open_output
from common.serving.served import Served, text_request
from tasks.sentiment.config import PRESETS, TASK, LabelSettings
from tasks.sentiment.predict import load_model

import numpy as np
from etils import epy
from numpy.typing import ArrayLike

with epy.lazy_imports():
    from tasks.sentiment import data, datasets

    import sklearn.metrics
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig, LabelSettings):
    """Flags of `evaluate`."""

    errors: Path | None = None
    """write the wrong predictions to this JSON Lines file, the most confident first"""
    plot: Picture | None = None
    """draw the confusion matrix to this picture file;
    a name that ends in -dark gets dark colours"""


def metrics(truth: ArrayLike, predicted: ArrayLike, classes: int) -> dict[str, float]:
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
    """The score of an export on a split, with the true and the predicted class of each text.

    Attributes:
      truth: `<int>[texts]`, the index of the true class of each text.
      probabilities: `<float32>[texts, classes]`.
    """

    truth: np.ndarray
    probabilities: np.ndarray

    @property
    def predicted(self) -> np.ndarray:
        """The index of the predicted class of each text, `<int>[texts]`."""
        return self.probabilities.argmax(axis=-1)

    def errors(self, reviews: tf.data.Dataset, labels: Sequence[str]) -> Iterator[dict[str, Any]]:
        """Yield the wrong predictions, the most confident first.

        Args:
          reviews: the examples that were scored; only the texts of wrong predictions are kept.
          labels: the classes.
        """
        predicted, confidence = self.predicted, self.probabilities.max(axis=-1)
        wrong = predicted != self.truth
        rows = zip(wrong, reviews.as_numpy_iterator(), strict=True)
        texts = [row["text"].decode() if is_wrong else "" for is_wrong, row in rows]
        for row in np.argsort(-confidence, kind="stable"):
            if wrong[row]:
                yield {
                    "text": texts[row],
                    "label": labels[self.truth[row]],
                    "predicted": labels[predicted[row]],
                    "probability": round(float(confidence[row]), 6),
                }


def score(served: Served, reviews: tf.data.Dataset, *, batch_size: int = 64) -> ScoredClasses:
    """Score an export on raw texts.

    Args:
      served: the export.
      reviews: examples `{text, label}`.
      batch_size: texts per request.
    """
    start = time.perf_counter()
    classes = len(served.settings["labels"])
    names: dict[str, int] = {}  # of the parts of the data set

    def rows() -> Iterator[tuple[str, int, int]]:
        for row in reviews.as_numpy_iterator():
            name = row["part"].decode() if "part" in row else ""
            yield row["text"].decode(), int(row["label"]), names.setdefault(name, len(names))

    predictions = served.predict(
        "serving_default",
        rows(),
        lambda batch: text_request([text for text, _, _ in batch]),
        batch_size=batch_size,
        length_of=lambda row: len(row[0]),
    )
    # Numbers only, so that the texts of a large file need not be in memory.
    columns = np.dtype([("truth", int), ("part", int), ("probabilities", np.float32, classes)])
    scored = np.fromiter(
        ((truth, part, outputs["probabilities"]) for (_, truth, part), outputs in predictions),
        columns,
    )
    if not len(scored):
        raise InputError("no examples in this split")
    seconds = time.perf_counter() - start
    truth, probabilities = scored["truth"], scored["probabilities"]
    scores = metrics(truth, probabilities.argmax(axis=-1), classes)
    scores |= accuracy_by_part(truth, probabilities, scored["part"], [*names])
    return ScoredClasses(len(truth), seconds, scores, truth, probabilities)


def accuracy_by_part(
    truth: ArrayLike, probabilities: np.ndarray, parts: ArrayLike, names: Sequence[str]
) -> dict[str, float]:
    """Return the accuracy in each part of a data set that has several.

    Args:
      truth: the index of the true class of each text.
      probabilities: `<float32>[texts, classes]`.
      parts: the index of the part of each text.
      names: the names of the parts.

    Example:
      >>> accuracy_by_part([0, 1, 1], np.eye(2)[[0, 1, 0]], [0, 0, 1], ["film", "tweets"])
      {'accuracy_film': 1.0, 'accuracy_tweets': 0.0}
    """
    right = probabilities.argmax(axis=-1) == np.asarray(truth)
    if len(names) < 2:
        return {}
    means = [right[np.asarray(parts) == part].mean() for part in range(len(names))]
    return {f"accuracy_{name}": float(mean) for name, mean in zip(names, means, strict=True)}


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
    layout = flags.layout(served.settings["config"])
    if path := flags.new_file(served.settings):
        return path.name, "all", data.load_file(path, layout, labels, flags.data_dir)
    flags = flags.or_trained_on(served.settings)
    check_no_leak(served.settings["training_data"]["dataset"], flags.dataset)
    reviews = data.load(flags, layout=layout, labels=labels, seed=served.settings["config"]["seed"])
    if reviews.labels != labels:
        raise InputError(
            f"{reviews.name} has the labels {', '.join(reviews.labels)}, "
            f"the model {', '.join(labels)}"
        )
    return reviews.name, flags.split, reviews.splits[flags.split]


def evaluate(flags: Evaluate) -> dict[str, Any]:
    """Score an export, print the report, and return the result of the command."""
    served = load_model(flags.model)
    name, split, reviews = load_split(served, flags)
    scored = score(served, reviews, batch_size=flags.batch_size)
    labels = served.settings["labels"]
    print(report.classification_report(scored.truth, scored.predicted, labels))
    if flags.plot:
        report.confusion_matrix(scored.truth, scored.predicted, labels, flags.plot)
    if flags.errors:
        with open_output(flags.errors) as file:
            for error in scored.errors(reviews, labels):
                print(json.dumps(error, ensure_ascii=False), file=file)
    return cli.to_result(TASK, name, split, scored, served.path)


def main(argv: list[str]) -> None:
    """Score and print; see the module."""
    doc = cli.with_datasets(__doc__, PRESETS, cli.TRAINED_ON)
    cli.print_result(evaluate(cli.parse(Evaluate, argv, doc=doc)))


if __name__ == "__main__":
    cli.run(main)
