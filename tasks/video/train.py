"""Trains a video classifier, exports it, and scores the export.

    python -m tasks.video.train                                  # bodies moved by formula, minutes
    python -m tasks.video.train --dataset hdm05 --manual_dir DIR --score test
    python -m tasks.video.train --data clips                     # a folder for each class
    python -m tasks.video.train --data clips --init saved_models/video/1

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from common.commands import cli, report
from common.commands.release import Card, release
from common.data import epoch_seed
from common.datasets import Corpus
from common.serving import targets
from common.serving.served import Served, load_export
from common.training.distribution import chief_first, make_strategy, worker_index
from common.training.fit import Fitted, fit, set_up, take_weights, warmed_cosine
from tasks.video import data, evaluate, model, serving
from tasks.video.config import DEFAULT, PRESETS, Config

import keras
import numpy as np
import tensorflow as tf

# What a fine-tuned model takes over from the published one.
ARCHITECTURE = ("image_size", "frame_rate", "max_length", "channels", "colours", "changes")
ARCHITECTURE += ("features", "cell", "units", "layers", "pooling")


def make_model(corpus: Corpus, config: Config) -> keras.Model:
    """Builds the model; with `--init` on a published one, whose head stays if the classes agree."""
    built = model.build(config, classes=len(corpus.labels))
    if config.init is not None:
        source = load_export(config.init)
        same_classes = tuple(source.settings["labels"]) == corpus.labels
        old = keras.models.load_model(source.path / "model.keras")
        take_weights(built, old, but=None if same_classes else model.HEAD)
    return built


def score_batches(
    batches: Iterable[tuple[Mapping[str, np.ndarray], Mapping[str, np.ndarray]]],
) -> dict[str, float]:
    """The task's metrics over validation batches."""
    truth, predicted = [], []
    for batch, outputs in batches:
        truth += batch["label"].tolist()
        predicted += outputs["probabilities"].argmax(axis=-1).tolist()
    return evaluate.metrics(truth, predicted) if truth else {}


def train_model(
    corpus: Corpus, config: Config, folder: Path, strategy: tf.distribute.Strategy
) -> tuple[keras.Model, Fitted]:
    """Builds and fits; the model holds the best epoch's weights."""
    with strategy.scope():
        built = make_model(corpus, config)
        steps = math.ceil(corpus.size("train") / config.batch_size)
        schedule = warmed_cosine(config.learning_rate, steps=steps * config.epochs)
        optimizer = keras.optimizers.Adam(schedule)
    # Decoded and resized once, in the first epoch; a killed run's files may be incomplete.
    kept = folder / "clips"
    shutil.rmtree(kept, ignore_errors=True)
    kept.mkdir()
    seen = {
        split: data.to_model(corpus.splits[split], config).cache(str(kept / split))
        for split in ("train", "validation")
    }
    try:
        fitted = fit(
            built,
            optimizer=optimizer,
            losses=model.make_losses(config, len(corpus.labels)),
            train=lambda epoch: data.to_batches(
                seen["train"], config, shuffle_seed=epoch_seed(config.seed, epoch)
            ),
            validation=data.to_batches(seen["validation"], config),
            score=score_batches,
            # Of the loss, since small validation splits are soon all right.
            monitor="loss",
            mode="min",
            directory=folder,
            strategy=strategy,
            **config.fit_arguments(),
        )
    finally:
        shutil.rmtree(kept, ignore_errors=True)
    return built, fitted


def main(argv: list[str]) -> None:
    """Data, model, fit, export, score; see the module."""
    config = cli.parse_train(Config, PRESETS, default=DEFAULT, argv=argv, doc=__doc__)
    strategy = make_strategy(config.strategy)
    config = config.with_published(ARCHITECTURE)
    target = targets.choose(
        config.target, evaluate.TASK, config.bucket_lengths(), no_litert=serving.NO_LITERT
    )
    set_up(seed=config.seed, deterministic=config.deterministic, precision=config.precision)
    seen = {"rate": config.frame_rate, "longest": config.max_length}
    with chief_first(strategy):
        corpus = data.load(config, **seen, seed=config.seed)
    folder = config.run_folder(evaluate.TASK, worker_index(strategy))
    built, fitted = train_model(corpus, config, folder, strategy)

    def score(served: Served, plots: Path) -> tuple[int, dict[str, float]]:
        scored = evaluate.score(served, corpus.splits[config.score])
        picture = plots / "confusion_matrix.png"
        report.confusion_matrix(scored.truth, scored.predicted, corpus.labels, picture)
        print(report.classification_report(scored.truth, scored.predicted, corpus.labels))
        return len(scored.truth), scored.metrics

    side = config.image_size
    release(
        task=evaluate.TASK,
        config=config,
        strategy=strategy,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(built, corpus.labels, side=side, **seen, target=target),
        model=built,
        resources=[],
        examples=serving.examples(side, config.frame_rate, config.bucket_lengths()),
        settings={
            "labels": corpus.labels,
            "image_size": side,
            "frame_rate": config.frame_rate,
            "max_frames": config.max_length,
        },
        score=score,
        card=make_card(corpus, config),
        target=target,
    )


def make_card(corpus: Corpus, config: Config) -> Card:
    """The model card's own words."""
    layers = f"{config.layers} bidirectional {config.cell} layer{'s' * (config.layers > 1)}"
    seconds = config.max_length / config.frame_rate
    return Card(
        title=f"Video: {corpus.name}",
        summary=(
            f"Reads a clip and names one of {len(corpus.labels)} activities "
            f"({', '.join(corpus.labels)}). A residual network on each frame of "
            f"{config.image_size} x {config.image_size} pixels, {config.frame_rate:g} frames a "
            f"second, {layers} of {config.units} units each way, pooling by {config.pooling}."
        ),
        scores="Raw frames went in.\n\n![confusion matrix](assets.extra/confusion_matrix.png)",
        usage=(
            "Signature `serving_default`: `frames` [batch, time, height, width, 3] uint8 RGB, "
            "`length` [batch] int32 true frames, `size` [batch, 2] int32 true height and width, "
            "`frame_rate` [batch] float32 -> `activity` [batch] string, `probabilities` "
            "[batch, classes] float32. Frames of any size and rate: the graph samples by time and "
            f"resizes. It sees the first {seconds:g} seconds; `predict` walks longer files.\n\n"
            "```\npython -m tasks.video.predict clip.mp4\n```\n\n"
            'A row with a length, a size or a frame rate that cannot be gets activity "" and '
            "probabilities of 0."
        ),
        data=data.REMARKS.get(corpus.name, ""),
    )


if __name__ == "__main__":
    cli.run(main)
