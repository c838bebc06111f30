"""Loading of sentence pairs, and their batches.

Pairs come from one of the builders in `tasks.translation.datasets`, from a translation set of the
tensorflow-datasets catalogue (such as `ted_hrlr_translate/pt_to_en`), or from the user's own files
(`tasks.translation.formats`). `encode` turns them into ids, `to_batches` into batches.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from common.datasets import Corpus, DataSource, check_obtainable, find_splits, prepare
from common.errors import InputError
from common.messages import report_skipped, say

# This import also registers our builders with tensorflow-datasets.
from tasks.translation.datasets import LICENCES
from tasks.translation.formats import Columns, Pair, endings, read_pairs
from tasks.translation.sources import encode_pairs
from tasks.translation.splits import is_acceptance, split_groups
from tasks.translation.subwords import END, START, Subwords

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

UNEQUAL = 9  # ratio of the lengths of two sides that are no translations
SHORT = 60  # characters of a side that may have any ratio

# --- loading --------------------------------------------------------------------------------------


def load(
    source: DataSource,
    *,
    languages: tuple[str, str],
    seed: int,
    columns: Columns = (None, None),
) -> Corpus:
    """Load the data set or the files that `source` names.

    The elements are `{source: <string>[], target: <string>[]}`.

    Args:
      source: the flags `--dataset`, `--data`, `--manual_dir` and `--data_dir`.
      languages: source and target language, as the data set or the file names call them.
      seed: seed of the random split of a single file.
      columns: of source and target in a table; see `tasks.translation.formats.read_pairs`.

    Raises:
      InputError: the data cannot be fetched or read, or lacks a language.
    """
    if source.data is not None:
        return _load_files(source.data, languages, columns, seed)
    if source.dataset is None:
        raise InputError("no data: pass --dataset NAME or --data PATH")
    return _load_dataset(source.dataset, source, languages)


def why_not_obtainable(name: str, source: DataSource) -> str:
    """Return why a data set can be neither downloaded nor read; "" if it can."""
    try:
        check_obtainable(_builder(name, source), manual_dir=source.manual_dir)
    except InputError as error:
        return str(error)
    return ""


def _builder(name: str, source: DataSource) -> tfds.core.DatasetBuilder:
    data_dir = None if source.data_dir is None else str(source.data_dir)
    return tfds.builder(name, data_dir=data_dir)


def _load_dataset(name: str, source: DataSource, languages: tuple[str, str]) -> Corpus:
    builder = prepare(_builder(name, source), manual_dir=source.manual_dir)
    available = list(builder.info.features)
    for language in languages:
        if language not in available:
            raise InputError(
                f"{name} has no language {language!r} (available: {', '.join(available)}); "
                "choose others by --source and --target_language"
            )
    # Some sets of the catalogue have a training split only.
    parts = {split: split for split in builder.info.splits}
    if "test" not in builder.info.splits:
        parts = {"train": "train[:80%]", "validation": "train[80%:90%]", "test": "train[90%:]"}
    splits = {
        split: as_dataset(_read_split(builder.as_dataset(split=part), languages, split))
        for split, part in parts.items()
    }
    return Corpus(
        name=name,
        splits=splits,
        citation=builder.info.citation,
        licence=LICENCES.get(name.split("/")[0], "see the catalogue of tensorflow-datasets"),
    )


def _read_split(rows: tf.data.Dataset, languages: tuple[str, str], split: str) -> list[Pair]:
    """Return the pairs with text on both sides; without acceptance sentences if for training."""
    pairs: list[Pair] = []
    for batch in rows.batch(1024).as_numpy_iterator():
        sources, targets = (
            [text.decode("utf-8", "replace") for text in batch[language]] for language in languages
        )
        pairs += [pair for pair in zip(sources, targets, strict=True) if all(map(str.strip, pair))]
    return [pair for pair in pairs if split != "train" or not is_acceptance(*pair)]


def _load_files(path: Path, languages: tuple[str, str], columns: Columns, seed: int) -> Corpus:
    files = find_splits(path, endings(languages))
    pairs = {split: read_file(file, languages, columns) for split, file in files.items()}
    if "all" in pairs:
        pairs = split_groups(pairs["all"], seed)
    pairs["train"] = _select(pairs["train"])
    splits = {split: as_dataset(part) for split, part in pairs.items()}
    return Corpus(name=path.name, splits=splits, citation="", licence="yours")


def read_file(path: Path, languages: tuple[str, str], columns: Columns) -> list[Pair]:
    """Read the pairs of a file of the user, and say which are skipped."""
    pairs, skipped = read_pairs(path, languages, columns)
    report_skipped(path, skipped, total=len(pairs) + len(skipped), unit="pairs", limit=1.0)
    return pairs


def _select(pairs: Sequence[Pair]) -> list[Pair]:
    """Drop training pairs that teach nothing, and say how many."""
    once = list(dict.fromkeys(pairs))
    selected = [pair for pair in once if not _is_unequal(*map(len, pair))]
    selected = selected or once
    for count, reason in (
        (len(pairs) - len(once), "that stand there before"),
        (len(once) - len(selected), f"of which one side is {UNEQUAL} times as long as the other"),
    ):
        if count:
            say(f"dropped {count:,} of {len(pairs):,} training pairs {reason}")
    return selected


def _is_unequal(source: int, target: int) -> bool:
    """Return whether the numbers of characters are those of no translation."""
    return max(source, target) > max(UNEQUAL * min(source, target), SHORT)


def as_dataset(pairs: Sequence[Pair]) -> tf.data.Dataset:
    """Return (source, target) pairs as a data set with the elements of `load`."""
    sources, targets = zip(*pairs, strict=True)
    return tf.data.Dataset.from_tensor_slices({"source": list(sources), "target": list(targets)})


# --- batches --------------------------------------------------------------------------------------


class Encoded(NamedTuple):
    """Sentence pairs as ids, in memory; row k of both tensors is pair k.

    Attributes:
      source: ragged `<int32>[pairs, (time)]`, with the end symbol.
      target: ragged `<int32>[pairs, (steps)]`, with start and end symbol.
    """

    source: tf.RaggedTensor
    target: tf.RaggedTensor


def encode(
    pairs: tf.data.Dataset,
    reader: Subwords,
    writer: Subwords,
    *,
    max_length: int,
    kinds: Collection[str] = (),
    subword_dropout: float = 0.0,
    seed: int = 0,
) -> Encoded:
    """Encode sentence pairs as subword ids.

    Args:
      pairs: elements `{source: <string>[], target: <string>[]}`.
      reader: subwords of the source language.
      writer: subwords of the target language.
      max_length: maximum number of subwords; pairs with a longer side are dropped.
      kinds: kinds of words that are copied, see `tasks.translation.sources`.
      subword_dropout: dropout on both sides; see `Subwords.encode_words`.
      seed: seed of the dropout, and of the known names that are copied.

    Raises:
      InputError: there are no pairs.
    """

    def encode_batch(
        number: tf.Tensor, batch: Mapping[str, tf.Tensor]
    ) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        # The steps of an encoding are added to the second number of the seed.
        batch_seed = tf.stack([seed, 4096 * tf.cast(number, tf.int32)])
        sources, targets = encode_pairs(
            *(reader, writer, batch["source"], batch["target"]),
            kinds=kinds,
            subword_dropout=subword_dropout,
            seed=batch_seed,
        )
        fits = (sources.row_lengths() <= max_length) & (targets.row_lengths() <= max_length)
        sources, targets = (tf.gather(side, tf.where(fits)[:, 0]) for side in (sources, targets))
        ones = tf.ones([sources.nrows(), 1], tf.int32)
        return (
            tf.concat([sources, END * ones], axis=1),
            tf.concat([START * ones, targets, END * ones], axis=1),
        )

    # Large batches are much faster than single pairs. A word is split in one way within a batch, so
    # dropout needs smaller ones.
    batches = pairs.batch(128 if subword_dropout else 1024).enumerate()
    parts = list(batches.map(encode_batch, tf.data.AUTOTUNE))
    if not parts:
        raise InputError("no sentence pairs in this split")
    return Encoded(*(tf.concat(side, axis=0) for side in zip(*parts, strict=True)))


def to_batches(
    encoded: Encoded, *, batch_size: int, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Group pairs of similar length into right-padded batches.

    Pairs are sorted by the lengths of both sides, so batches contain little padding. With a seed,
    pairs of equal lengths are in random order, and so are the batches.

    Args:
      encoded: the pairs.
      batch_size: pairs per batch.
      shuffle_seed: seed of the random order; None keeps pairs and batches sorted by length.

    Returns:
      A data set of `ids` `<int32>[batch, time]` and `length` `<int32>[batch]` of the source;
      `target_ids` `<int32>[batch, steps]`, the start symbol and the target; `labels`
      `<int32>[batch, steps]`, the target and the end symbol; `target_length` `<int32>[batch]`.
    """
    lengths = [side.row_lengths().numpy() for side in encoded]
    random = np.random.default_rng(shuffle_seed)
    noise = random.permutation(len(lengths[0])) if shuffle_seed is not None else lengths[0]
    order = np.lexsort((noise, lengths[1], lengths[0]))
    starts = np.arange(0, len(order), batch_size)
    if shuffle_seed is not None:
        random.shuffle(starts)

    def gather(start: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.constant(order)[start : start + batch_size]
        source, target = tf.gather(encoded.source, rows), tf.gather(encoded.target, rows)
        return {
            "ids": source.to_tensor(),
            "length": tf.cast(source.row_lengths(), tf.int32),
            "target_ids": target[:, :-1].to_tensor(),
            "labels": target[:, 1:].to_tensor(),
            "target_length": tf.cast(target.row_lengths(), tf.int32) - 1,
        }

    return tf.data.Dataset.from_tensor_slices(starts).map(gather).prefetch(8)
