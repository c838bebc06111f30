"""Train a video classifier, export it, and score the export.

    python -m tasks.video.train                                  # default data, minutes
    python -m tasks.video.train --dataset hdm05 --manual_dir DIR --score test
    python -m tasks.video.train --dataset gaits+hdm05 --manual_dir DIR  # together
    python -m tasks.video.train --data clips                     # a folder for each class
    python -m tasks.video.train --data clips --init saved_models/video/1
    python -m tasks.video.train --dataset hdm05_joints --manual_dir DIR  # joints, no pixels
    python -m tasks.video.train --pose --data takes.npz

The last line is one JSON object; `seconds` in it is the training time.
"""

from __future__ import annotations

import functools
import shutil
from pathlib import Path

from common.commands import cli
from common.commands.release import Card, describe_layers, release
from common.commands.run import Run, same_labels, start_run, warm_start
from common.data import epoch_seed
from common.datasets import Corpus
from common.training.fit import Fitted, fit
from tasks.video import evaluate
from tasks.video.config import (
    DEFAULT,
    MIXABLE,
    MIXTURE,
    MODE,
    MONITOR,
    NO_LITERT,
    PRESETS,
    TASK,
    Config,
)

from etils import epy

with epy.lazy_imports():
    from tasks.video import clips, data, datasets, model, pose, serving

    import keras


# Settings that `--init` copies from the published model.
ARCHITECTURE = (
    "image_size",
    "frame_rate",
    "max_length",
    "channels",
    "colours",
    "changes",
    "features",
    "frame",
    "cell",
    "units",
    "layers",
    "pooling",
    "backbone",
)


def build_model(corpus: Corpus, run: Run[Config]) -> keras.Model:
    """Build a new model, or with `--init` one that starts from a published model.

    The head of a published model is kept if the classes are the same.
    """
    built = model.build(run.config, classes=len(corpus.labels))
    if run.published is not None:
        head = None if same_labels(run.published, corpus.labels) else model.HEAD
        warm_start(built, run.published, head=head)
    return built


def train_model(corpus: Corpus, run: Run[Config]) -> tuple[keras.Model, Fitted]:
    """Build and fit a model; it holds the weights of the best epoch."""
    config = run.config
    steps = run.steps(corpus.size("train"))
    with run.strategy.scope():
        built = build_model(corpus, run)
        trained = model.with_pose(built) if config.pose_weight else built
        optimizer = run.make_adam(steps)
    # Clips are decoded and resized once, in the first epoch. A killed run may leave incomplete
    # files.
    cache = run.folder / "clips"
    shutil.rmtree(cache, ignore_errors=True)
    cache.mkdir()
    clips = {
        split: data.preprocess(corpus.splits[split], config).cache(str(cache / split))
        for split in ("train", "validation")
    }
    try:
        fitted = fit(
            trained,
            optimizer=optimizer,
            losses=model.make_losses(config, len(corpus.labels)),
            train=lambda epoch: data.to_batches(
                clips["train"], config, shuffle_seed=epoch_seed(config.seed, epoch)
            ),
            validation=data.to_batches(clips["validation"], config),
            score=evaluate.score_batches,
            # Not the accuracy: on a small validation split it soon reaches 1.
            monitor=MONITOR,
            mode=MODE,
            options=run.fit_options(steps, corpus),
        )
    finally:
        shutil.rmtree(cache, ignore_errors=True)
    return built, fitted


def read_settings(argv: list[str]) -> Config:
    """Return the settings of a run."""
    presets = cli.with_mixture(PRESETS, argv, like=MIXTURE, mixable=MIXABLE)
    return cli.parse_train(Config, presets, default=DEFAULT, argv=argv, doc=__doc__)


def main(argv: list[str]) -> None:
    """Train as the flags say; see the module."""
    train(read_settings(argv))


def train(config: Config) -> Path | None:
    """Train a model, publish it, and score its export, as the command does.

    Args:
      config: the settings; those of a data set are `PRESETS[name]`.

    Returns:
      The version folder; None on workers that are not the chief.
    """
    run = start_run(
        TASK,
        config,
        architecture=ARCHITECTURE,
        lengths=Config.bucket_lengths,
        no_litert=NO_LITERT,
    )
    config = run.config
    if config.pose:
        return pose.train(run)
    side, rate, longest = config.image_size, config.frame_rate, config.max_length
    with run.chief_first():
        corpus = data.load(
            config,
            rate=rate,
            longest=longest,
            seed=config.seed,
            group=config.group,
            poses=config.pose_weight > 0.0,
        )
    built, fitted = train_model(corpus, run)

    return release(
        run,
        corpus=corpus,
        fitted=fitted,
        signatures=serving.signatures(
            built, corpus.labels, side=side, rate=rate, longest=longest, target=run.target
        ),
        model=built,
        resources=[],
        examples=serving.examples(side, rate, config.bucket_lengths()),
        settings={
            "labels": corpus.labels,
            "thresholds": model.thresholds(
                built,
                data.to_batches(data.preprocess(corpus.splits["validation"], config), config),
                len(corpus.labels),
            ),
            "image_size": side,
            "frame_rate": rate,
            "max_frames": longest,
            "max_batch_frames": serving.MOST,
            "max_pixels": serving.LARGEST,
            "max_batch_pixels": serving.MOST_PIXELS,
            "frame_rates": serving.RATES,
            # Of the clips that `evaluate` and `predict` send.
            "max_rows": min(
                serving.MOST // longest, serving.MOST_PIXELS // (longest * clips.MAX_SIDE**2)
            ),
        },
        score=functools.partial(evaluate.score_export, corpus, config.score),
        card=make_card(corpus, config),
    )


def make_card(corpus: Corpus, config: Config) -> Card:
    """Return the task's texts for the model card."""
    layers = describe_layers(config.layers, config.cell, config.units)
    seconds = config.max_length / config.frame_rate
    return Card(
        title=f"Video: {corpus.name}",
        summary=(
            f"Reads a clip and predicts one of {len(corpus.labels)} activities "
            f"({', '.join(corpus.labels)}). A residual network on each frame of "
            f"{config.image_size} x {config.image_size} pixels, {config.frame_rate:g} frames per "
            f"second, {layers}, {config.pooling} pooling."
        ),
        scores=(
            "Clips were sent as raw frames.\n\n"
            "![confusion matrix](assets.extra/confusion_matrix.png)"
        ),
        usage=(
            "Signature `serving_default`: `frames` [batch, time, height, width, 3] uint8 RGB, "
            "`length` [batch] int32 true frames, `size` [batch, 2] int32 true height and width, "
            "`frame_rate` [batch] float32 -> `activity` [batch] string, `probabilities` "
            "[batch, classes] float32. Frames have any size and rate: the graph samples them in "
            f"time and resizes them. It uses the first {seconds:g} seconds; `predict` splits "
            "longer files into windows.\n\n"
            "```\npython -m tasks.video.predict clip.mp4\n```\n\n"
            'A row with an invalid length, size or frame rate has the activity "" and '
            "probabilities of 0."
        ),
        limits=(
            "One of its activities a clip, by one person who fills the picture, as in "
            f"`{corpus.name}`. People in the distance are small in {config.image_size} x "
            f"{config.image_size} pixels."
        ),
        data="\n\n".join(datasets.REMARKS.get(part, "") for part in corpus.name.split("+")),
    )


if __name__ == "__main__":
    cli.run(main)
