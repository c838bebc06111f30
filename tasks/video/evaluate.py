"""Score an exported video model.

    python -m tasks.video.evaluate                                   # its own data, test split
    python -m tasks.video.evaluate --dataset hdm05_views --manual_dir DIR
    python -m tasks.video.evaluate --model saved_models/video/1 --data clips --plot confusion.png

The last line is one JSON object; `accuracy` and `macro_f1` are fractions.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from common.commands import cli, report
from common.commands.cli import Scored
from common.commands.config import Count, EvaluateConfig, Picture
from common.datasets import Corpus
from common.errors import InputError
from common.serving.served import Served, load_export
from tasks.video.clips import clip_request
from tasks.video.config import PRESETS, TASK
from tasks.video.joints import pose_request

import numpy as np
from etils import epy

if TYPE_CHECKING:
    from common.training.fit import Validated

with epy.lazy_imports():
    from tasks.video import data, pose

    import sklearn.metrics
    import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    batch_size: Count = 8
    """clips per request"""
    plot: Picture | None = None
    """draw the confusion matrix to this picture file;
    a name that ends in -dark gets dark colours"""


def metrics(truth: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Return the `accuracy` and the `macro_f1` of class indices.

    Example:
      >>> metrics([0, 4], [0, 3])
      {'accuracy': 0.5, 'macro_f1': 0.3333333333333333}
    """
    return {
        "accuracy": float(sklearn.metrics.accuracy_score(truth, predicted)),
        "macro_f1": float(
            sklearn.metrics.f1_score(truth, predicted, average="macro", zero_division=0.0)
        ),
    }


def score_batches(batches: Validated) -> dict[str, float]:
    """Return the metrics of validation batches."""
    truth, predicted = [], []
    for batch, outputs in batches:
        truth += batch["label"].tolist()
        predicted += outputs["probabilities"].argmax(axis=-1).tolist()
    return metrics(truth, predicted) if truth else {}


@dataclasses.dataclass(frozen=True)
class ScoredClips(Scored):
    """The score of an export on a split, with the class of each clip."""

    truth: list[int]
    predicted: list[int]


def score(served: Served, examples: tf.data.Dataset, *, batch_size: int = 8) -> ScoredClips:
    """Score an export on clips, from raw frames to class.

    Args:
      served: the export.
      examples: elements of `data.load`.
      batch_size: clips per request.
    """
    start = time.perf_counter()
    truth, predicted = [], []
    predictions = served.predict(
        "serving_default",
        examples.as_numpy_iterator(),
        _to_request,
        batch_size=batch_size,
        length_of=lambda row: len(row["joints" if "joints" in row else "frames"]),
        window=2,
    )
    for row, outputs in predictions:
        truth.append(int(row["label"]))
        predicted.append(int(outputs["probabilities"].argmax()))
    if not truth:
        raise InputError("no examples in this split")
    seconds = time.perf_counter() - start
    return ScoredClips(len(truth), seconds, metrics(truth, predicted), truth, predicted)


def _to_request(rows: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    rates = [float(row["frame_rate"]) for row in rows]
    if "joints" in rows[0]:
        return pose_request([(row["joints"], rate) for row, rate in zip(rows, rates, strict=True)])
    return clip_request([row["frames"] for row in rows], rates)


def load_split(served: Served, flags: Evaluate) -> tuple[str, str, tf.data.Dataset]:
    """Return the name of the data, the split, and its clips as elements of `data.load`."""
    settings = served.settings
    labels = tuple(settings["labels"])
    rate, longest = settings["frame_rate"], settings["max_frames"]
    if "joints" in settings:
        return _load_takes(settings, flags)
    if path := flags.new_data(settings):
        whole = data.load_whole_folder(path, labels, rate=rate, longest=longest)
        if whole is not None:  # the folder has no splits
            return path.resolve().name, "all", whole
    seed = settings["config"]["seed"]
    group = settings["config"].get("group")
    source = flags.or_trained_on(settings)
    corpus = data.load(source, rate=rate, longest=longest, seed=seed, group=group)
    if corpus.labels != labels:
        corpus = data.relabel(corpus, labels)
    return corpus.name, flags.split, corpus.splits[flags.split]


def _load_takes(settings: Mapping[str, Any], flags: Evaluate) -> tuple[str, str, tf.data.Dataset]:
    """Return what `load_split` returns, for a model of joints."""
    source = flags.or_trained_on(settings)
    takes = pose.load(source, settings["config"]["seed"])
    corpus = pose.corpus_of(takes, source)
    unknown = [label for label in corpus.labels if label not in settings["labels"]]
    joints = takes.splits[flags.split][0].joints.shape[1]
    if unknown or joints != settings["joints"]:
        raise InputError(
            f"{corpus.name} has {joints} joints and the classes {', '.join(corpus.labels)}, the "
            f"model {settings['joints']} and {', '.join(settings['labels'])}"
        )
    if corpus.labels != tuple(settings["labels"]):
        corpus = pose.corpus_of(takes.with_labels(settings["labels"]), source)
    return corpus.name, flags.split, corpus.splits[flags.split]


def score_export(corpus: Corpus, split: str, served: Served, plots: Path) -> ScoredClips:
    """Score a staged export on a split; draw its confusion matrix and print the report."""
    scored = score(served, corpus.splits[split])
    picture = plots / "confusion_matrix.png"
    report.confusion_matrix(scored.truth, scored.predicted, corpus.labels, picture)
    print_report(scored, corpus.labels)
    return scored


def print_report(scored: ScoredClips, labels: Sequence[str]) -> None:
    """Print precision, recall and F1 per class, and the confusion table."""
    print(report.classification_report(scored.truth, scored.predicted, labels))


def evaluate(flags: Evaluate) -> dict[str, Any]:
    """Score an export, print the report, and return the result of the command."""
    served = load_export(flags.model, TASK)
    name, split, examples = load_split(served, flags)
    scored = score(served, examples, batch_size=flags.batch_size)
    labels = served.settings["labels"]
    print_report(scored, labels)
    if flags.plot:
        report.confusion_matrix(scored.truth, scored.predicted, labels, flags.plot)
    return cli.to_result(TASK, name, split, scored, served.path)


def main(argv: list[str]) -> None:
    """Score and print; see the module."""
    doc = cli.with_datasets(__doc__, PRESETS, cli.TRAINED_ON)
    cli.print_result(evaluate(cli.parse(Evaluate, argv, doc=doc)))


if __name__ == "__main__":
    cli.run(main)
