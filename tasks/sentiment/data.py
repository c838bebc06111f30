"""Loading reviews, and turning them into batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data import batches
from common.datasets import SPLITS, Corpus, DataSource, find_splits, prepare
from common.errors import InputError
from common.messages import say
from common.tables import SAMPLED, Own, identity, is_large, own_folder
from tasks.sentiment import tables
from tasks.sentiment.config import Config
from tasks.sentiment.datasets import LICENCES, PHRASES, Sst5
from tasks.sentiment.formats import (
    SUFFIXES,
    Layout,
    index_labels,
    order_labels,
    read_rows,
    row_key,
    split_stratified,
)
from tasks.sentiment.targets import Targets
from tasks.sentiment.tokens import Reader

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

LAYOUT = Layout()

# --- loading --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Reviews(Corpus):
    """The data of the task; `stored` holds the rows of tables on disk."""

    stored: Mapping[str, tables.Texts] = dataclasses.field(default_factory=dict)

    def training_texts(self) -> tf.data.Dataset:
        """Return the training texts; `SAMPLED` random ones of a table on disk."""
        rows = self.splits["train"]
        if self.stored:
            rows = self.stored["train"].sample(SAMPLED).as_dataset()
        return rows.map(lambda review: review["text"])

    def training_classes(self) -> np.ndarray:
        """Return the frequency of each class in the training split."""
        if self.stored:
            labels = self.stored["train"].classes
        else:
            rows = self.splits["train"].as_numpy_iterator()
            labels = np.array([int(row["label"]) for row in rows])
        return np.bincount(labels, minlength=len(self.labels))


def load(
    source: DataSource,
    *,
    layout: Layout = LAYOUT,
    labels: tuple[str, ...] = (),
    phrases: bool = False,
    seed: int,
) -> Reviews:
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
        files = find_splits(source.data, SUFFIXES)
        if is_large([*files.values()]):
            return _load_tables(source, files, layout, labels, seed)
        return _load_files(source.data, files, layout, labels, seed)
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
    return Reviews(
        name=name,
        labels=tuple(builder.info.features["label"].names),
        splits=splits,
        citation=builder.info.citation,
        licence=LICENCES[name],
    )


def _load_files(
    path: Path, files: Mapping[str, Path], layout: Layout, labels: tuple[str, ...], seed: int
) -> Reviews:
    """Load one file, or a folder with a file for each split, into memory."""
    rows = {split: [*read_rows(file, layout, labelled=True)] for split, file in files.items()}
    training = "train" if "train" in rows else "all"
    labels = labels or order_labels([row.label for row in rows[training]], files[training])
    examples = {split: index_labels(rows[split], labels, files[split]) for split in rows}
    keys = {
        split: np.array([row_key(row.text) for row in rows[split]], np.uint64) for split in rows
    }
    if "all" in examples:
        classes = np.array([label for _, label in examples["all"]])
        parts = split_stratified(keys["all"], classes, seed)
        examples = {split: [examples["all"][row] for row in parts[split]] for split in parts}
    else:
        report_repeated(keys)
    return Reviews(
        name=path.name,
        labels=labels,
        splits={split: as_dataset(rows) for split, rows in examples.items()},
        citation="",
        licence="yours",
    )


def _load_tables(
    source: DataSource,
    files: Mapping[str, Path],
    layout: Layout,
    labels: tuple[str, ...],
    seed: int,
) -> Reviews:
    """Load large files from tables on disk, with the splits that files in memory would have."""
    root = own_folder("sentiment", source.data_dir)
    training = "train" if "train" in files else "all"
    opened = {training: tables.open_texts(files[training], layout, labels, root)}
    labels = labels or order_labels(opened[training].labels, files[training])
    opened[training] = opened[training].with_labels(labels)
    for split in files.keys() - opened.keys():
        opened[split] = tables.open_texts(files[split], layout, labels, root)
    if training == "all":
        whole = opened["all"]
        parts = split_stratified(whole.keys, whole.classes, seed)
        stored = {split: whole.select(np.sort(parts[split])) for split in SPLITS}
    else:
        report_repeated({split: opened[split].keys for split in SPLITS})
        stored = opened
    assert source.data is not None
    return Reviews(
        name=source.data.name,
        labels=labels,
        splits={split: rows.as_dataset() for split, rows in stored.items()},
        citation="",
        licence="yours",
        identity=identity(opened, seed),
        stored=stored,
    )


def load_file(
    path: Path, layout: Layout, labels: Sequence[str], data_dir: Path | None
) -> tf.data.Dataset:
    """Return the examples of a file of the user in order; those of a large file stay on disk.

    Args:
      path: the file.
      layout: how it is read.
      labels: the classes.
      data_dir: the folder of prepared data; see `common.tables.own_folder`.

    Raises:
      InputError: the file is malformed, or has another label.
    """
    root = own_folder("sentiment", data_dir) if is_large([path]) else None
    return tables.open_texts(path, layout, labels, root).as_dataset()


def report_repeated(keys: Mapping[str, np.ndarray]) -> None:
    """Say how many test and validation texts are training texts, too, since scores include them.

    Args:
      keys: the `row_key` of each row of each split.
    """
    for split in ("validation", "test"):
        repeated = np.isin(keys[split], keys["train"])
        if count := int(repeated.sum()):
            say(f"{count} of {len(repeated)} texts of {split} are in train, too")


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


def stored_batches(
    rows: tables.Texts,
    reader: Reader,
    config: Config,
    targets: Targets,
    *,
    own: Own,
    shuffle_seed: int | None = None,
) -> tf.data.Dataset:
    """Read and tokenise the batches of an epoch, as `to_batches` returns them.

    Args:
      rows: of a table on disk.
      reader: see `to_batches`, as for `config`, `targets` and `shuffle_seed`.
      config: see there.
      targets: see there.
      own: number of rows of a batch -> those that this worker reads; the others have length 0.
      shuffle_seed: see there.
    """
    lengths = tf.constant(config.bucket_lengths())
    reads_all = own(config.batch_size) == slice(0, config.batch_size)

    def encode(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        _, ragged = reader(batch["text"], config.max_length)
        length = tf.cast(ragged.row_lengths(), tf.int32)
        ids = ragged.to_tensor()
        # The next of the few lengths for which a step is compiled; the last of them where workers
        # read different rows, since their shapes must agree.
        place = tf.searchsorted(lengths, tf.reduce_max(length)[None])[0] if reads_all else -1
        padded = lengths[place]
        ids = tf.pad(ids, [[0, 0], [0, padded - tf.shape(ids)[1]]])
        return {"ids": ids, "length": length, "label": batch["label"], **targets(batch)}

    texts = rows.batches(config.batch_size, seed=shuffle_seed, own=own)
    return texts.map(encode, tf.data.AUTOTUNE).prefetch(tf.data.AUTOTUNE)
