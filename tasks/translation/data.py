"""Loading of sentence pairs, and their batches.

Pairs come from one of the builders in `tasks.translation.datasets`, from a translation set of the
tensorflow-datasets catalogue (such as `ted_hrlr_translate/pt_to_en`), or from the user's own files
(`tasks.translation.formats`). `encode` turns them into ids, `to_batches` into batches.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.datasets import (
    Corpus,
    DataSource,
    check_obtainable,
    find_splits,
    join,
    manual_folder,
    parts_of,
    prepare,
)
from common.errors import InputError
from common.messages import Skipped, report_skipped, say
from common.progress import progress
from common.tables import (
    SAMPLED,
    Own,
    Rows,
    Table,
    Write,
    Writer,
    hash_text,
    identity,
    in_memory,
    is_large,
    open_table,
    own_folder,
    read_each,
)
from tasks.translation.config import MIXABLE

# This import also registers our builders with tensorflow-datasets.
from tasks.translation.datasets import LICENCES
from tasks.translation.formats import (
    Columns,
    Pair,
    count_places,
    endings,
    files_of,
    iterate_pairs,
    read_pairs,
)
from tasks.translation.sources import encode_pairs
from tasks.translation.splits import is_acceptance, sentence_key, split_groups
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
        return _load_files(source, languages, columns, seed)
    if source.dataset is None:
        raise InputError("no data: pass --dataset NAME or --data PATH")
    return _load_dataset(source.dataset, source, languages)


def why_not_obtainable(name: str, source: DataSource) -> str:
    """Return why a data set, or a part of a mixture, can be neither downloaded nor read, or ""."""
    try:
        for part in name.split("+"):
            folder = manual_folder(source.manual_dir, part)
            check_obtainable(_builder(part, source), manual_dir=folder)
    except InputError as error:
        return str(error)
    return ""


def _builder(name: str, source: DataSource) -> tfds.core.DatasetBuilder:
    data_dir = None if source.data_dir is None else str(source.data_dir)
    return tfds.builder(name, data_dir=data_dir)


def _load_dataset(name: str, source: DataSource, languages: tuple[str, str]) -> Corpus:
    names = parts_of(name, MIXABLE) if "+" in name else [name]
    builders = [
        prepare(_builder(part, source), manual_dir=manual_folder(source.manual_dir, part))
        for part in names
    ]
    read = {
        part: _read_splits(part, builder, languages)
        for part, builder in zip(names, builders, strict=True)
    }
    if len(read) > 1:
        read = separate(read)
    corpora = [
        Corpus(
            name=part,
            splits={split: as_dataset(pairs) for split, pairs in splits.items()},
            citation=builder.info.citation,
            licence=LICENCES.get(part.split("/")[0], "see the catalogue of tensorflow-datasets"),
        )
        for builder, (part, splits) in zip(builders, read.items(), strict=True)
    ]
    return corpora[0] if len(corpora) == 1 else join(corpora)


def _read_splits(
    name: str, builder: tfds.core.DatasetBuilder, languages: tuple[str, str]
) -> dict[str, list[Pair]]:
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
    return {
        split: _read_split(builder.as_dataset(split=part), languages, split)
        for split, part in parts.items()
    }


def separate(corpora: Mapping[str, Mapping[str, list[Pair]]]) -> dict[str, dict[str, list[Pair]]]:
    """Drop pairs, so that no sentence of a test split is in another split of any data set.

    Nor is one of a validation split in a training split. The numbers of dropped pairs are said.

    Args:
      corpora: the pairs of each split of each data set.

    Example:
      >>> book = {"train": [("Va !", "Go!"), ("Oui.", "Yes.")], "validation": [], "test": []}
      >>> other = {"train": [], "validation": [], "test": [("Pars.", "Go.")]}
      >>> separate({"book": book, "other": other})["book"]["train"]
      [('Oui.', 'Yes.')]
    """

    def keys(split: str) -> set[int]:
        pairs = itertools.chain.from_iterable(splits[split] for splits in corpora.values())
        return {sentence_key(sentence) for pair in pairs for sentence in pair} - {0}

    test = keys("test")
    later = {"train": test | keys("validation"), "validation": test}
    separated = {name: dict(splits) for name, splits in corpora.items()}
    for name, splits in separated.items():
        for split, judged in later.items():
            pairs = splits[split]
            splits[split] = [pair for pair in pairs if judged.isdisjoint(map(sentence_key, pair))]
            if dropped := len(pairs) - len(splits[split]):
                say(f"{name}: dropped {dropped:,} {split} pairs on which the model is scored")
    return separated


def _read_split(rows: tf.data.Dataset, languages: tuple[str, str], split: str) -> list[Pair]:
    """Return the pairs with text on both sides; without acceptance sentences if for training."""
    pairs: list[Pair] = []
    for batch in rows.batch(1024).as_numpy_iterator():
        sources, targets = (
            [text.decode("utf-8", "replace") for text in batch[language]] for language in languages
        )
        pairs += [pair for pair in zip(sources, targets, strict=True) if all(map(str.strip, pair))]
    return [pair for pair in pairs if split != "train" or not is_acceptance(*pair)]


def _load_files(
    source: DataSource, languages: tuple[str, str], columns: Columns, seed: int
) -> Corpus:
    """Load one file, or a folder with a file for each split, as tables in memory or on disk."""
    assert source.data is not None
    files = find_splits(source.data, endings(languages))
    every = [file for path in files.values() for file in files_of(path, languages)]
    root = own_folder("translation", source.data_dir) if is_large(every) else None
    opened = {split: open_pairs(files[split], languages, columns, root) for split in files}
    rows = opened
    if "all" in opened:
        whole = opened["all"]
        keys = [whole.table.column(name) for name in ("source_keys", "target_keys")]
        rows = {split: whole.select(part) for split, part in split_groups(keys, seed).items()}
    rows = {**rows, "train": _select(rows["train"])}
    return Corpus(
        name=source.data.name,
        splits={split: part.as_dataset() for split, part in rows.items()},
        citation="",
        licence="yours",
        identity=identity(opened, seed),
        stored=rows,
    )


def read_file(path: Path, languages: tuple[str, str], columns: Columns) -> list[Pair]:
    """Read the pairs of a file of the user, and say which are skipped."""
    pairs, skipped = read_pairs(path, languages, columns)
    report_skipped(path, skipped, total=len(pairs) + len(skipped), unit="pairs", limit=1.0)
    return pairs


@dataclasses.dataclass(frozen=True)
class Pairs(Rows):
    """Some pairs of a file of the user.

    Attributes:
      source_bytes: `<int32>[rows of the table]`, how many bytes of each row are its source.
    """

    source_bytes: np.ndarray

    def as_dataset(self) -> tf.data.Dataset:
        """Return the pairs in order, with the elements of `load`."""

        def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            pairs = list(zip(self.table.read(rows), self.source_bytes[rows].tolist(), strict=True))
            sources, targets = [x[:size] for x, size in pairs], [x[size:] for x, size in pairs]
            return np.array(sources, object), np.array(targets, object)

        texts = tf.TensorSpec([None], tf.string)
        count = tf.data.experimental.assert_cardinality(len(self))
        return self.blocks(read, {"source": texts, "target": texts}).unbatch().apply(count)


def open_pairs(
    path: Path, languages: tuple[str, str], columns: Columns, root: Path | None
) -> Pairs:
    """Open a file of the user, and say which rows are skipped.

    Args:
      path: see `tasks.translation.formats.iterate_pairs`.
      languages: source and target language.
      columns: of source and target in a table.
      root: the folder of tables on disk; None: the pairs stay in memory.

    Raises:
      InputError: the file is malformed.
    """

    def write(writer: Writer) -> Mapping[str, Any]:
        return _write(writer, path, languages, columns)

    files = files_of(path, languages)
    table = open_table(files, [languages, columns], write, root)
    skipped = [(place, reason) for place, reason in table.facts["skipped"]]
    report_skipped(path, skipped, total=len(table) + len(skipped), unit="pairs", limit=1.0)
    return Pairs(table, np.arange(len(table)), table.column("source_bytes"))


def _write(
    writer: Writer, path: Path, languages: tuple[str, str], columns: Columns
) -> Mapping[str, Any]:
    """Write the pairs of a file, and hashes by which equal sentences and pairs are found."""
    skipped: Skipped = []
    sizes, unequal = writer.column("source_bytes", "i"), writer.column("unequal", "b")
    keys = [writer.column(f"{side}_keys", "Q") for side in ("source", "target", "pair")]
    rows = iterate_pairs(path, languages, columns, skipped)
    rows = progress(rows, total=count_places(path), unit="lines", place=lambda row: row.number)
    for _, pair in rows:
        source, target = (side.encode("utf-8", "replace") for side in pair)
        writer.append(source + target)
        sizes.append(len(source))
        unequal.append(_is_unequal(*map(len, pair)))
        hashes = (*map(sentence_key, pair), hash_text("\0".join(pair)))
        for column, value in zip(keys, hashes, strict=True):
            column.append(value)
    return {"skipped": skipped}


def _select(pairs: Pairs) -> Pairs:
    """Drop training pairs that teach nothing, and say how many."""
    keys = pairs.table.column("pair_keys")[pairs.numbers]
    once = pairs.select(np.sort(np.unique(keys, return_index=True)[1]))
    equal = np.flatnonzero(pairs.table.column("unequal")[once.numbers] == 0)
    selected = once.select(equal) if len(equal) else once
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


def sample(corpus: Corpus) -> tf.data.Dataset:
    """Return the training pairs of a data set; `SAMPLED` random ones of the user's own files."""
    if corpus.stored:
        return corpus.stored["train"].sample(SAMPLED).as_dataset()
    return corpus.splits["train"]


def sampled_pairs(corpus: Corpus) -> Iterator[Pair]:
    """Yield the pairs of `sample` as text."""
    for batch in sample(corpus).batch(4096).as_numpy_iterator():
        sides = ([text.decode() for text in batch[side]] for side in ("source", "target"))
        yield from zip(*sides, strict=True)


# --- batches --------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Encoded:
    """Sentence pairs as ids.

    Attributes:
      table: of rows of `<int32>` ids: the source with the end symbol, then the target with start
        and end symbol.
      lengths: two `<int32>[pairs]`, of the sources and of the targets.
    """

    table: Table
    lengths: tuple[np.ndarray, np.ndarray]

    def __len__(self) -> int:
        return len(self.table)

    def read(self, rows: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield sources and targets of some pairs."""
        for row, length in zip(self.table.read(rows), self.lengths[0][rows], strict=True):
            ids = np.frombuffer(row, np.int32)
            yield ids[:length], ids[length:]

    def ragged(self, rows: np.ndarray) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        """Return sources and targets of some pairs, ragged `<int32>[pairs, (time)]`."""
        sides = zip(*self.read(rows), strict=True)
        return tuple(
            tf.RaggedTensor.from_row_lengths(np.concatenate(side), lengths[rows])
            for side, lengths in zip(sides, self.lengths, strict=True)
        )


def encode(
    pairs: tf.data.Dataset,
    reader: Subwords,
    writer: Subwords,
    *,
    max_length: int,
    kinds: Collection[str] = (),
    subword_dropout: float = 0.0,
    seed: int = 0,
    store: Callable[[Write], Table] = in_memory,
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
      store: makes the table of the ids.

    Raises:
      InputError: there are no pairs.
    """

    def encode_batch(number: tf.Tensor, batch: Mapping[str, tf.Tensor]) -> Mapping[str, tf.Tensor]:
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
        joined = tf.concat([sources, END * ones, START * ones, targets, END * ones], axis=1)
        lengths = [sources.row_lengths() + 1, targets.row_lengths() + 2]
        return {"ids": joined.flat_values, "lengths": tf.cast(tf.stack(lengths), tf.int32)}

    # Large batches are much faster than single pairs. A word is split in one way within a batch, so
    # dropout needs smaller ones.
    size, total = 128 if subword_dropout else 1024, int(pairs.cardinality())

    def write(rows: Writer) -> Mapping[str, Any]:
        columns = [rows.column(side, "i") for side in ("source", "target")]
        batches = pairs.batch(size).enumerate().map(encode_batch, tf.data.AUTOTUNE)
        numbered = enumerate(batches.as_numpy_iterator(), start=1)
        for _, batch in progress(
            numbered, total=total, unit="pairs", place=lambda row: min(total, size * row[0])
        ):
            rows.extend(batch["ids"].tobytes(), 4 * batch["lengths"].sum(axis=0))
            for column, lengths in zip(columns, batch["lengths"], strict=True):
                column.frombytes(lengths.tobytes())
        return {}

    if not total:
        raise InputError("no sentence pairs in this split")
    table = store(write)
    return Encoded(table, (table.column("source"), table.column("target")))


def _all_rows(count: int) -> slice:
    return slice(0, count)


def to_batches(
    encoded: Encoded, *, batch_size: int, shuffle_seed: int | None = None, own: Own = _all_rows
) -> tf.data.Dataset:
    """Group pairs of similar length into right-padded batches.

    Pairs are sorted by the lengths of both sides, so batches contain little padding. With a seed,
    pairs of equal lengths are in random order, and so are the batches.

    Args:
      encoded: the pairs.
      batch_size: pairs per batch.
      shuffle_seed: seed of the random order; None keeps pairs and batches sorted by length.
      own: number of rows of a batch -> those that are read; the others have the id 0 everywhere.

    Returns:
      A data set of `ids` `<int32>[batch, time]` and `length` `<int32>[batch]` of the source;
      `target_ids` `<int32>[batch, steps]`, the start symbol and the target; `labels`
      `<int32>[batch, steps]`, the target and the end symbol; `target_length` `<int32>[batch]`.
    """
    random = np.random.default_rng(shuffle_seed)
    count = len(encoded)
    noise = random.permutation(count) if shuffle_seed is not None else encoded.lengths[0]
    order = np.lexsort((noise, *reversed(encoded.lengths)))
    starts = np.arange(0, count, batch_size)
    if shuffle_seed is not None:
        random.shuffle(starts)

    def read(number: np.ndarray) -> tuple[np.ndarray, ...]:
        rows = order[starts[number] : starts[number] + batch_size]
        length, steps = (side[rows] for side in encoded.lengths)
        ids = np.zeros((len(rows), max(length)), np.int32)
        inputs, labels = np.zeros((2, len(rows), max(steps) - 1), np.int32)
        mine = range(len(rows))[own(len(rows))]
        for place, (source, target) in zip(mine, encoded.read(rows[own(len(rows))]), strict=True):
            ids[place, : len(source)] = source
            inputs[place, : len(target) - 1] = target[:-1]
            labels[place, : len(target) - 1] = target[1:]
        return ids, length, inputs, labels, steps - 1

    ids, length = tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)
    signature = {"ids": ids, "length": length, "target_ids": ids, "labels": ids}
    signature |= {"target_length": length}
    return read_each(read, tf.data.Dataset.range(len(starts)), signature).prefetch(8)
