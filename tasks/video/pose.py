"""Training on joints over time instead of pixels, for `--pose`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.commands.release import Card, describe_layers, release
from common.commands.run import Run, same_labels, warm_start
from common.data import batches, epoch_seed
from common.datasets import SPLITS, Corpus, DataSource, split_by_hash
from common.errors import InputError
from common.training.fit import fit
from tasks.video import datasets, evaluate, hdm05, model, pose_model
from tasks.video.config import MODE, MONITOR, Config
from tasks.video.joints import Take, Takes, augment, read_takes, sample
from tasks.video.serving import RATES

import numpy as np
import tensorflow as tf

# --- data -----------------------------------------------------------------------------------------


def load(source: DataSource, seed: int) -> Takes:
    """Load the takes of `--dataset` or `--data`.

    Raises:
      InputError: the data is missing or has another form.
    """
    if source.data is not None:
        return read_takes(source.data, seed)
    folder = source.manual_dir
    if folder is not None and (folder / hdm05.FILE).is_file():
        motions = hdm05.read(folder / hdm05.FILE, hdm05.SHA256)
    elif folder is not None and (folder / "train").is_dir():
        motions = hdm05.read_source(folder)
    else:
        raise InputError(
            f"data set {source.dataset!r} needs {hdm05.FILE} in --manual_dir FOLDER; or pass "
            "--pose --data FILE.npz"
        )
    classes = list(hdm05.MOTIONS)
    splits: dict[str, list[Take]] = {split: [] for split in SPLITS}
    for name, joints in motions.items():
        actor, motion, _ = name.split("_")
        take = Take(joints.astype(np.float32), classes.index(motion))
        splits[_hdm05_split(source.dataset, actor, name)].append(take)
    return Takes(tuple(hdm05.MOTIONS.values()), splits, hdm05.CAPTURE_RATE)


def _hdm05_split(dataset: str | None, actor: str, name: str) -> str:
    """Return the split of a take, as for the pixels."""
    if actor in hdm05.ACTORS["test"]:
        return "test"
    if dataset == "hdm05_actors_joints":
        return "validation" if actor.encode() == datasets.HELD_OUT else "train"
    return "validation" if split_by_hash(name) == "validation" else "train"


def corpus_of(takes: Takes, source: DataSource) -> Corpus:
    """Return takes as a corpus; its data sets hold `joints`, `frame_rate` and `label`."""
    name = source.dataset or (source.data.stem if source.data else "")
    return Corpus(
        name=name,
        labels=takes.labels,
        splits={split: _as_dataset(rows, takes.rate) for split, rows in takes.splits.items()},
        citation="",
        licence=datasets.LICENCES.get(name, "yours"),
    )


def _as_dataset(rows: Sequence[Take], rate: float) -> tf.data.Dataset:
    joints = tf.RaggedTensor.from_row_lengths(
        np.concatenate([row.joints for row in rows]), [len(row.joints) for row in rows]
    )
    labels = tf.constant([row.label for row in rows], tf.int64)
    rates = tf.fill([len(rows)], tf.constant(rate, tf.float32))
    return tf.data.Dataset.from_tensor_slices(
        {"joints": joints, "frame_rate": rates, "label": labels}
    )


def to_batches(
    takes: Sequence[Take], rate: float, config: Config, *, seed: int | None = None
) -> tf.data.Dataset:
    """Group takes into batches by length.

    Args:
      takes: the takes.
      rate: their frames per second.
      config: the rate of the network, the batch size and the augmentation.
      seed: shuffles and augments the takes. None: neither.

    Returns:
      A data set of `joints` `<float32>[batch, time, joints, 3]`, `length` and `label`.
    """
    random = None if seed is None else np.random.default_rng(seed)
    rows = []
    for take in takes:
        joints, pace = take.joints, config.frame_rate
        if random is not None:
            joints = augment(joints, config, random)
            pace *= (1.0 + config.speed) ** random.uniform(-1.0, 1.0)
        rows.append(Take(sample(joints, rate, pace, config.max_length), take.label))

    def example(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        joints = row["joints"]
        return {"joints": joints, "length": tf.shape(joints)[0], "label": row["label"]}

    return batches(
        _as_dataset(rows, rate).map(example),
        config.bucket_lengths(),
        config.batch_size,
        shuffle_seed=seed,
    )


# --- training -------------------------------------------------------------------------------------


def train(run: Run[Config]) -> Path | None:
    """Train on joints, export, and score the export; as `tasks.video.train` does on pixels."""
    config = run.config
    takes = load(config, config.seed)
    corpus = corpus_of(takes, config)
    joints = takes.splits["train"][0].joints.shape[1]
    steps = run.steps(corpus.size("train"))
    with run.strategy.scope():
        built = pose_model.build(config, classes=len(corpus.labels), joints=joints)
        if run.published is not None:
            head = None if same_labels(run.published, corpus.labels) else model.HEAD
            warm_start(built, run.published, head=head)
        optimizer = run.make_adam(steps)
    validation = to_batches(takes.splits["validation"], takes.rate, config)
    fitted = fit(
        built,
        optimizer=optimizer,
        losses=model.make_losses(config, len(corpus.labels)),
        train=lambda epoch: to_batches(
            takes.splits["train"], takes.rate, config, seed=epoch_seed(config.seed, epoch)
        ),
        validation=validation,
        score=evaluate.score_batches,
        monitor=MONITOR,
        mode=MODE,
        options=run.fit_options(steps, corpus),
    )

    return release(
        run,
        corpus=corpus,
        fitted=fitted,
        signatures=pose_model.signatures(
            built,
            corpus.labels,
            joints=joints,
            rate=config.frame_rate,
            longest=config.max_length,
            target=run.target,
        ),
        model=built,
        resources=[],
        examples=pose_model.examples(joints, config.frame_rate, config.bucket_lengths()),
        settings={
            "labels": corpus.labels,
            "thresholds": model.thresholds(built, validation, len(corpus.labels)),
            "joints": joints,
            "frame_rate": config.frame_rate,
            "max_frames": config.max_length,
            "max_batch_frames": pose_model.MOST,
            "frame_rates": RATES,
        },
        score=functools.partial(evaluate.score_export, corpus, config.score),
        card=_make_card(corpus, config, joints),
    )


def _make_card(corpus: Corpus, config: Config, joints: int) -> Card:
    layers = describe_layers(config.layers, config.cell, config.units)
    return Card(
        title=f"Video from joints: {corpus.name}",
        summary=(
            f"Reads the places of {joints} joints over time, without pixels, and predicts one of "
            f"{len(corpus.labels)} activities ({', '.join(corpus.labels)}). "
            f"{config.frame_rate:g} frames per second, {layers}, {config.pooling} pooling."
        ),
        scores="![confusion matrix](assets.extra/confusion_matrix.png)",
        usage=(
            "Signature `serving_default`: `joints` [batch, time, joints, 3] float32 (the second "
            "coordinate is the height), `length` [batch] int32, `frame_rate` [batch] float32 -> "
            "`activity` [batch] string, `probabilities` [batch, classes] float32."
        ),
        limits=f"One of its activities a motion, of one person, as in `{corpus.name}`.",
        data=datasets.REMARKS.get(corpus.name, ""),
    )
