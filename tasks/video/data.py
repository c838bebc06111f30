"""From a data set or a folder to batches of clips."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from common.data import batches
from common.datasets import SPLITS, Corpus, DataSource, join, manual_folder, parts_of, prepare
from common.errors import InputError
from common.files import hash_files
from tasks.video import clips, datasets, formats, hdm05, render, resampling
from tasks.video.config import MIXABLE, RENDERED_MOTIONS, Config
from tasks.video.formats import Clip

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

UCF101_RATE = 25.0  # frames per second of its files; the catalogue has the frames alone
BUFFER = 1000  # clips in the shuffle buffer; 30 frames of 64 x 64 pixels are 0.4 MB


def load(
    source: DataSource,
    *,
    rate: float,
    longest: int,
    seed: int,
    group: str | None = None,
    poses: bool = False,
) -> Corpus:
    """Load the data set of `--dataset`, several that train together, or the folder of `--data`.

    The elements are `{frames: <uint8>[time, height, width, 3], frame_rate: <float32>[],
    label: <int64>[]}`; `label` is an index into the labels of the corpus.

    Args:
      source: names the data set or the folder; `a+b` names two data sets, whose activities get
        common names.
      rate: frames per second at which files are read.
      longest: maximum number of frames of a clip.
      seed: decides the random splits of a folder.
      group: pattern of the groups of a folder that are never in two splits; see
        `formats.group_by`.
      poses: whether training clips of `hdm05` have their `pose` `<float32>[time, joints, 2]`, see
        `tasks.video.render.pose`.

    Raises:
      InputError: the data set is unknown, or the data cannot be obtained or read.
    """
    if source.data is not None:
        return _load_folder(source.data, rate=rate, longest=longest, seed=seed, group=group)
    name = source.dataset or ""
    if "+" not in name and name not in datasets.LICENCES:
        raise InputError(f"no data set {name!r}; known: {', '.join(datasets.LICENCES)}")
    names = parts_of(name, MIXABLE) if "+" in name else [name]
    # A missing file is said before the first part is prepared, which may take minutes.
    builders = [_builder(part, source, poses=poses) for part in names]
    if len({builder.name for builder in builders}) < len(names):
        raise InputError(f"{name!r}: these are selections of the same clips")
    corpora = []
    for part, builder in zip(names, builders, strict=True):
        prepare(builder, manual_dir=manual_folder(source.manual_dir, part))
        corpora.append(_read(part, builder, rate=rate, longest=longest, poses=poses))
    return corpora[0] if len(corpora) == 1 else _mix(corpora)


def _builder(name: str, source: DataSource, *, poses: bool) -> tfds.core.DatasetBuilder:
    """Return the builder of a data set; with `poses` that of `hdm05` has read its takes.

    Raises:
      InputError: its files have to be in `--manual_dir`, and are not.
    """
    builder = tfds.builder(
        "hdm05" if name in RENDERED_MOTIONS else name,
        data_dir=None if source.data_dir is None else str(source.data_dir),
    )
    manual_dir = manual_folder(source.manual_dir, name)
    if isinstance(builder, datasets.Hdm05) and (poses or not builder.data_path.exists()):
        builder.read_takes(manual_dir)
    if isinstance(builder, datasets.Fights) and not builder.data_path.exists():
        builder.read_folder(manual_dir)
    return builder


def _read(
    name: str, builder: tfds.core.DatasetBuilder, *, rate: float, longest: int, poses: bool
) -> Corpus:
    """Load a prepared data set; for `poses` see `datasets.hdm05_splits`."""
    if name == "ucf101":
        splits = _ucf101_splits(builder)
    else:
        splits = {
            split: _decode(files, rate=rate, longest=longest)
            for split, files in _encoded_splits(builder, name, poses=poses).items()
        }
    return Corpus(
        name=name,
        labels=tuple(builder.info.features["label"].names),
        splits=splits,
        citation=builder.info.citation,
        licence=datasets.LICENCES[name],
        identity=builder.info.full_name,
    )


def _mix(corpora: Sequence[Corpus]) -> Corpus:
    """Join data sets that train together."""
    every = [datasets.SHARED_ACTIVITIES.get(label, label) for c in corpora for label in c.labels]
    labels = tuple(dict.fromkeys(every))
    return join([relabel(corpus, labels) for corpus in corpora])


def relabel(corpus: Corpus, labels: Sequence[str]) -> Corpus:
    """Return a corpus whose labels are indices of `labels`.

    A class that is not among them goes by its name in mixtures; see `datasets.SHARED_ACTIVITIES`.

    Raises:
      InputError: a class is not among them, either.
    """
    shared = datasets.SHARED_ACTIVITIES
    names = [label if label in labels else shared.get(label, label) for label in corpus.labels]
    if not set(names) <= set(labels):
        raise InputError(
            f"{corpus.name} has the classes {', '.join(corpus.labels)}, "
            f"the model {', '.join(labels)}"
        )
    index = tf.constant([labels.index(name) for name in names], tf.int64)
    splits = {
        split: rows.map(lambda row: {**row, "label": tf.gather(index, row["label"])})
        for split, rows in corpus.splits.items()
    }
    return dataclasses.replace(corpus, labels=tuple(labels), splits=splits)


def _encoded_splits(
    builder: tfds.core.DatasetBuilder, name: str, *, poses: bool
) -> dict[str, tf.data.Dataset]:
    """Return data sets of `video` (content of an mp4 file), `label` and, of `hdm05`, `pose`."""
    if isinstance(builder, datasets.Hdm05):
        return datasets.hdm05_splits(builder, name, poses=poses)
    return {split: builder.as_dataset(split=split, shuffle_files=False) for split in SPLITS}


def _ucf101_splits(builder: tfds.core.DatasetBuilder) -> dict[str, tf.data.Dataset]:
    # The catalogue has no validation split; the last tenth of its training split serves as one.
    parts = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}

    def to_element(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rate = tf.constant(UCF101_RATE)
        return {"frames": example["video"], "frame_rate": rate, "label": example["label"]}

    return {
        split: builder.as_dataset(split=part, shuffle_files=False).map(to_element, tf.data.AUTOTUNE)
        for split, part in parts.items()
    }


def _decode(
    examples: tf.data.Dataset, *, rate: float, longest: int, from_paths: bool = False
) -> tf.data.Dataset:
    """Decode the videos of `{video: <string>[], label: <int64>[]}`, and sample their `pose` alike.

    Args:
      examples: `video` is the content of a file, or its path.
      rate: frames per second of the result.
      longest: maximum number of frames.
      from_paths: `video` is a path.
    """

    def decode(video: bytes) -> np.ndarray:
        source = Path(os.fsdecode(video)) if from_paths else video
        return clips.read(source, rate=rate, longest=longest)

    def to_element(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        frames = tf.numpy_function(decode, [example["video"]], tf.uint8)
        frames.set_shape((None, None, None, 3))
        element = {
            "frames": frames,
            "frame_rate": tf.constant(rate, tf.float32),
            "label": example["label"],
        }
        if "pose" in example:
            pose = example["pose"][None]
            element["pose"] = resampling.sample_in_graph(
                pose, tf.shape(pose)[1:2], tf.constant([hdm05.RATE]), rate=rate, longest=longest
            )[0][0]
        return element

    return examples.map(to_element, tf.data.AUTOTUNE)


# --- the user's own folder ------------------------------------------------------------------------


def _load_folder(
    folder: Path, *, rate: float, longest: int, seed: int, group: str | None
) -> Corpus:
    labels, splits = formats.split_folder(folder, seed, group)
    splits = formats.without_unreadable(splits, folder)

    def shuffled(files: Sequence[Clip]) -> list[Clip]:
        # The files are sorted by class, and the shuffle buffer may not hold all of them.
        order = np.random.default_rng(seed).permutation(len(files))
        return [files[index] for index in order]

    return Corpus(
        name=folder.resolve().name,
        labels=labels,
        splits={
            split: _files_dataset(shuffled(files), labels, rate=rate, longest=longest)
            for split, files in splits.items()
        },
        citation="",
        licence="yours",
        identity=hash_files(
            [clip.path for split in ("train", "validation") for clip in splits[split]], folder
        ),
    )


def load_whole_folder(
    folder: Path, labels: Sequence[str], *, rate: float, longest: int
) -> tf.data.Dataset | None:
    """Load all clips of a user's folder as one data set.

    Args:
      folder: a folder of class folders.
      labels: the classes of the model.
      rate: frames per second at which files are read.
      longest: maximum number of frames of a clip.

    Returns:
      A data set of elements like those of `load`; None if the folder has splits.

    Raises:
      InputError: a class is not among the labels, or a clip cannot be read.
    """
    if formats.has_splits(folder):
        return None
    classes = formats.class_folders(folder)
    for name in classes:
        if name not in labels:
            raise InputError(f"unknown class; expected {', '.join(labels)}", folder / name)
    every = [clip for found in classes.values() for clip in found]
    readable = formats.without_unreadable({"all": every}, folder)["all"]
    return _files_dataset(readable, labels, rate=rate, longest=longest)


def _files_dataset(
    files: Sequence[Clip], labels: Sequence[str], *, rate: float, longest: int
) -> tf.data.Dataset:
    examples = {
        "video": [os.fsencode(clip.path) for clip in files],
        "label": tf.constant([labels.index(clip.label) for clip in files], tf.int64),
    }
    dataset = tf.data.Dataset.from_tensor_slices(examples)
    return _decode(dataset, rate=rate, longest=longest, from_paths=True)


# --- batches --------------------------------------------------------------------------------------


def preprocess(examples: tf.data.Dataset, config: Config) -> tf.data.Dataset:
    """Bring clips to the size and the frame rate of the network, as the export does.

    Args:
      examples: elements of `load`; any with a `pose` have the frame rate already.
      config: the size and the rate.

    Returns:
      A data set of `frames` `<uint8>[time, side, side, 3]`, `length` `<int32>[]` and `label`
      `<int64>[]`.
    """

    def to_network(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        shape = tf.shape(example["frames"])
        frames, length = resampling.preprocess(
            example["frames"][None],
            shape[None, 0],
            shape[None, 1:3],
            example["frame_rate"][None],
            side=config.image_size,
            rate=config.frame_rate,
            longest=config.max_length,
        )
        kept = {name: example[name] for name in ("label", "pose") if name in example}
        return {"frames": frames[0], "length": length[0], **kept}

    return examples.map(to_network, tf.data.AUTOTUNE)


def augmenter(
    config: Config, seed: int
) -> Callable[[tf.Tensor, Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """Make the function that augments a training clip: `(number, clip) -> clip`.

    It mirrors, zooms and shifts the frames, and changes the speed, the brightness and the contrast,
    for a clip as a whole. The change follows from the seed and the number of the clip. A fraction
    of the clips is replaced by `without_activity`; their label is -1.

    Args:
      config: the maximum changes.
      seed: of the epoch.

    Returns:
      A function from a number `<int64>[]` and an element of `preprocess` to such an element.
    """
    side, rate = config.image_size, config.frame_rate

    def augment(number: tf.Tensor, clip: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        draw = tf.random.stateless_uniform(
            [9], seed=tf.stack([tf.constant(seed, tf.int64), number]), minval=-1.0, maxval=1.0
        )
        pace = rate * (1.0 + config.speed) ** draw[0]
        sample = functools.partial(
            resampling.sample_in_graph,
            length=clip["length"][None],
            frame_rate=tf.reshape(pace, [1]),
            rate=rate,
            longest=config.max_length,
        )
        zoom, shift = (1.0 + config.zoom) ** draw[1], config.shift * draw[2:4]
        mirrored = config.flip & (draw[4] < 0.0)
        frames, length = sample(clip["frames"][None])
        frames = resampling.resize_in_graph(
            frames,
            tf.constant([[side, side]]),
            side,
            zoom=zoom[None],
            shift=shift[None],
            mirrored=mirrored[None],
        )[0]
        x = tf.cast(frames, tf.float32)
        mean = tf.reduce_mean(x)
        x = (x - mean) * (1.0 + config.brightness * draw[5])
        x += mean * (1.0 + config.brightness * draw[6])
        frames = tf.cast(tf.round(tf.clip_by_value(x, 0.0, 255.0)), tf.uint8)
        negative = draw[7] < 2.0 * config.negatives - 1.0
        frames = tf.cond(
            negative, lambda: without_activity(frames, draw[8], number), lambda: frames
        )
        label = tf.where(negative, tf.constant(-1, clip["label"].dtype), clip["label"])
        augmented = {"frames": frames, "length": length[0], "label": label}
        if "pose" in clip:
            pose = sample(clip["pose"][None])[0][0]
            augmented["pose"] = move_pose(pose, zoom, shift, mirrored)
        return augmented

    return augment


def move_pose(pose: tf.Tensor, zoom: tf.Tensor, shift: tf.Tensor, mirrored: tf.Tensor) -> tf.Tensor:
    """Move a pose as `resampling.resize_in_graph` moves the pixels, and order its pairs anew.

    Args:
      pose: `<float32>[time, joints, 2]`, see `render.pose`.
      zoom: `<float32>[]`, factor on the size.
      shift: `<float32>[2]`, shift down and right, fraction of the side.
      mirrored: `<bool>[]`, whether to exchange left and right at the end.

    Returns:
      Like `pose`, see `order_pairs`.
    """
    pose = 0.5 + zoom * (pose - 0.5) + shift[::-1]
    return order_pairs(tf.where(mirrored, pose * (-1.0, 1.0) + (1.0, 0.0), pose))


def order_pairs(pose: tf.Tensor) -> tf.Tensor:
    """Exchange each left joint and its right counterpart unless it is left of it in the picture.

    Small pictures do not show whether a body is seen from the front or the back. A network that
    has to tell its left from its right puts both into the middle.

    Args:
      pose: `<float32>[time, joints, 2]`, see `render.pose`.

    Returns:
      Like `pose`.
    """
    other = tf.gather(pose, render.MIRRORED, axis=1)
    side = [name.startswith("right") - name.startswith("left") for name in render.JOINTS]
    ordered = tf.constant(side, tf.float32) * (pose - other)[..., 0] >= 0.0
    return tf.where(ordered[..., None], pose, other)


def without_activity(frames: tf.Tensor, draw: tf.Tensor, number: tf.Tensor) -> tf.Tensor:
    """Return a clip in which nothing happens: a still picture, or a test pattern that may move.

    Args:
      frames: `<uint8>[time, side, side, 3]`.
      draw: `<float>[]`, a random number in -1..1.
      number: `<int64>[]`, seed of the pattern.

    Returns:
      `<uint8>[time, side, side, 3]`.
    """
    time, side = tf.shape(frames)[0], frames.shape[1]
    still = tf.tile(frames[:1], [time, 1, 1, 1])
    colours = tf.random.stateless_uniform([4, 8, 3], tf.stack([number, 88]), 0, 256, tf.int32)
    tile = tf.cast(colours, tf.uint8)
    pattern = tf.repeat(tf.repeat(tile, -(-side // 4), axis=0), -(-side // 8), axis=1)
    pattern = pattern[:side, :side]
    # 0 to 3 pixels from frame to frame.
    columns = tf.range(side)[None] + tf.range(time)[:, None] * tf.cast(4.0 * draw, tf.int32)
    moving = tf.transpose(tf.gather(pattern, columns % side, axis=1), [1, 0, 2, 3])
    return tf.ensure_shape(tf.where(draw < 0.0, still, moving), frames.shape)


def to_batches(
    examples: tf.data.Dataset, config: Config, *, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Group clips into batches by length.

    Args:
      examples: elements of `preprocess`.
      config: the batch size, the bucket lengths and the augmentation.
      shuffle_seed: shuffles and augments the clips. None: neither.

    Returns:
      A data set of `frames` `<uint8>[batch, time, side, side, 3]`, `length` `<int32>[batch]` and
      `label` `<int64>[batch]`.
    """
    if shuffle_seed is not None:
        examples = examples.shuffle(BUFFER, seed=shuffle_seed, reshuffle_each_iteration=False)
        examples = examples.enumerate().map(augmenter(config, shuffle_seed), tf.data.AUTOTUNE)
    return batches(examples, config.bucket_lengths(), config.batch_size)
