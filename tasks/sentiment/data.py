"""Loading reviews, and turning them into batches."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data import batches
from common.datasets import SPLITS, Corpus, DataSource, find_splits, prepare
from common.errors import InputError
from common.messages import say
from tasks.sentiment.config import Config
from tasks.sentiment.datasets import LICENCES, PHRASES, Sst5
from tasks.sentiment.formats import (
    SUFFIXES,
    Layout,
    index_labels,
    normalise,
    order_labels,
    read_rows,
    split_stratified,
)
from tasks.sentiment.targets import Targets
from tasks.sentiment.tokens import Reader

import tensorflow as tf
import tensorflow_datasets as tfds

LAYOUT = Layout()

# --- loading --------------------------------------------------------------------------------------


def load(
    source: DataSource,
    *,
    layout: Layout = LAYOUT,
    labels: tuple[str, ...] = (),
    phrases: bool = False,
    seed: int,
) -> Corpus:
    """Load the data set or the files that the flags name.

    Args:
      source: the flags `dataset`, `data`, `manual_dir` and `data_dir`.
      layout: how the user's own files are read.
      labels: the classes of the user's own files, from worst to best; () reads them from the files.
      phrases: whether the training split is that of phrases, of a data set that labels them.
      seed: seed for splitting a single file.

    Returns:
      A corpus of examples `{text: <string>[], label: <int64>[]}`, where `label` is an index of its
      labels. The labels are ordered from worst to best.

    Raises:
      InputError: the data is not available or invalid.
    """
    if source.data is not None:
        if phrases:
            raise InputError("--phrases: your own files have no labelled phrases; omit it")
        return _load_files(source.data, layout, labels, seed)
    if source.dataset is None:
        raise InputError("no data: give --dataset or --data")
    name = source.dataset
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = tfds.builder(name, data_dir=data_dir)
    if isinstance(builder, Sst5):
        builder.find(source.manual_dir)
    prepare(builder, manual_dir=source.manual_dir)
    parts = {split: split for split in SPLITS}
    if phrases:
        if PHRASES not in builder.info.splits:
            raise InputError(f"--phrases: {name} has no labelled phrases (sst5 and sst2 have)")
        parts["train"] = PHRASES
    # `imdb_reviews` has no validation split; the last tenth of the training split replaces it.
    if "validation" not in builder.info.splits:
        parts |= {"train": "train[:90%]", "validation": "train[90%:]"}
    splits = {
        split: builder.as_dataset(split=part, shuffle_files=False) for split, part in parts.items()
    }
    return Corpus(
        name=name,
        labels=tuple(builder.info.features["label"].names),
        splits=splits,
        citation=builder.info.citation,
        licence=LICENCES[name],
    )


def _load_files(path: Path, layout: Layout, labels: tuple[str, ...], seed: int) -> Corpus:
    """Load one file, or a folder with a file for each split."""
    files = find_splits(path, SUFFIXES)
    rows = {split: [*read_rows(file, layout, labelled=True)] for split, file in files.items()}
    training = "train" if "train" in rows else "all"
    labels = labels or order_labels([row.label for row in rows[training]], files[training])
    examples = {split: index_labels(rows[split], labels, files[split]) for split in rows}
    if "all" in examples:
        examples = split_stratified(examples["all"], seed)
    else:
        _report_repeated(examples)
    return Corpus(
        name=path.name,
        labels=labels,
        splits={split: as_dataset(rows) for split, rows in examples.items()},
        citation="",
        licence="yours",
    )


def _report_repeated(examples: Mapping[str, Sequence[tuple[str, int]]]) -> None:
    """Say how many test and validation texts are training texts, too, since scores include them."""
    keys = {split: [normalise(text) for text, _ in rows] for split, rows in examples.items()}
    training = set(keys["train"])
    for split in ("validation", "test"):
        if count := sum(key in training for key in keys[split]):
            say(f"{count} of {len(keys[split])} texts of {split} are in train, too")


def as_dataset(examples: Sequence[tuple[str, int]]) -> tf.data.Dataset:
    """Convert `(text, label index)` pairs to a data set of the same form as those of the builders.

    Example:
      >>> rows = as_dataset([("fine", 1), ("dull", 0)]).as_numpy_iterator()
      >>> [(row["text"], int(row["label"])) for row in rows]
      [(b'fine', 1), (b'dull', 0)]
    """
    texts, labels = zip(*examples, strict=True)
    return tf.data.Dataset.from_tensor_slices(
        {"text": list(texts), "label": tf.constant(labels, tf.int64)}
    )


# --- batches --------------------------------------------------------------------------------------


def to_batches(
    reviews: tf.data.Dataset,
    reader: Reader,
    config: Config,
    targets: Targets,
    *,
    shuffle_seed: int | None = None,
) -> tf.data.Dataset:
    """Tokenise reviews and group them into batches; see `common.data.batches`.

    Args:
      reviews: examples `{text, label}`.
      reader: of the words and their ids.
      config: the settings; texts are truncated to `config.max_length` tokens.
      targets: from `tasks.sentiment.targets.make_targets`.
      shuffle_seed: seed for shuffling; None for no shuffling.

    Returns:
      A data set of `ids` `<int32>[batch, time]`, `length` `<int32>[batch]`, `label`
      `<int64>[batch]`, and what `targets` returns.
    """

    def encode(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        _, ids = reader(batch["text"], config.max_length)
        return {"ids": ids, "label": batch["label"], **targets(batch)}

    def with_length(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {**example, "length": tf.size(example["ids"])}

    # Tokenising a thousand texts at a time is much faster than one by one.
    examples = reviews.batch(1024).map(encode, tf.data.AUTOTUNE).unbatch().map(with_length).cache()
    return batches(examples, config.bucket_lengths(), config.batch_size, shuffle_seed=shuffle_seed)
