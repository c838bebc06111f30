"""Scores an exported video model.

    python -m tasks.video.evaluate                                   # its own data, test split
    python -m tasks.video.evaluate --dataset hdm05_views --manual_dir DIR
    python -m tasks.video.evaluate --model saved_models/video/1 --data clips --plot confusion.png

The last line is one JSON object; `accuracy` and `macro_f1` are fractions.
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
from common.serving.served import Served, load_export
from tasks.video import data, serving

import numpy as np
import sklearn.metrics

TASK = "video"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Evaluate(EvaluateConfig):
    """Flags of `evaluate`."""

    batch_size: int = 8
    """clips a request"""
    plot: Path | None = None
    """draw the confusion matrix into this PNG"""


def metrics(truth: Sequence[int], predicted: Sequence[int]) -> dict[str, float]:
    """Compares class indices.

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


def answers(
    served: Served, clips: Iterable[tuple[np.ndarray, float]], *, batch_size: int
) -> Iterable[dict[str, np.ndarray]]:
    """Asks an export about clips `(<uint8>[time, height, width, 3], frames a second)`, in order."""

    def ask(batch: list[tuple[np.ndarray, float]]) -> list[dict[str, np.ndarray]]:
        outputs = served.call("serving_default", **serving.request(*zip(*batch, strict=True)))
        return [{name: value[row] for name, value in outputs.items()} for row in range(len(batch))]

    return map_in_order(
        ask, clips, batch_size=batch_size, length_of=lambda clip: len(clip[0]), window=2
    )


@dataclasses.dataclass(frozen=True)
class Scored:
    """What an export said about a split."""

    truth: list[int]
    predicted: list[int]
    metrics: dict[str, float]
    seconds: float


def score(served: Served, examples: Any, *, batch_size: int = 8) -> Scored:
    """Scores an export on a data set of `data.load`, from raw frames to class."""
    start = time.perf_counter()
    truth: list[int] = []

    def clips() -> Iterable[tuple[np.ndarray, float]]:
        for row in examples.as_numpy_iterator():
            truth.append(int(row["label"]))
            yield row["frames"], float(row["frame_rate"])

    said = answers(served, clips(), batch_size=batch_size)
    predicted = [int(answer["probabilities"].argmax()) for answer in said]
    if not truth:
        raise InputError("no examples in this split")
    return Scored(truth, predicted, metrics(truth, predicted), time.perf_counter() - start)


def _load_split(served: Served, flags: Evaluate) -> tuple[str, str, Any]:
    """Finds what to score: its name, the split, and a data set as `data.load` gives it."""
    settings = served.settings
    labels = tuple(settings["labels"])
    trained = settings["training_data"]
    flags = flags.or_trained_on(trained)
    seen = {"rate": settings["frame_rate"], "longest": settings["max_frames"]}
    own = trained["data"] is not None and flags.data is not None
    if flags.data is not None and not (own and flags.data.resolve() == Path(trained["data"])):
        # A folder that the model has not seen is scored whole, or where it has lists, by its test.
        whole = data.whole_folder(flags.data, labels, **seen)
        if whole is not None:
            return flags.data.name, "all", whole
    corpus = data.load(flags, **seen, seed=settings["config"]["seed"])
    if corpus.labels != labels:
        raise InputError(
            f"{corpus.name} has the classes {', '.join(corpus.labels)}, "
            f"the model {', '.join(labels)}"
        )
    return corpus.name, flags.split, corpus.splits[flags.split]


def main(argv: list[str]) -> None:
    """Scores and prints; see the module."""
    flags = cli.parse(Evaluate, argv, doc=__doc__)
    served = load_export(flags.model or Path("saved_models") / TASK)
    name, split, examples = _load_split(served, flags)
    scored = score(served, examples, batch_size=flags.batch_size)
    labels = served.settings["labels"]
    print(report.classification_report(scored.truth, scored.predicted, labels))
    if flags.plot:
        report.confusion_matrix(scored.truth, scored.predicted, labels, flags.plot)
    count, seconds = len(scored.truth), scored.seconds
    cli.print_scored(TASK, name, split, count, seconds, served.path, scored.metrics)


if __name__ == "__main__":
    cli.run(main)
