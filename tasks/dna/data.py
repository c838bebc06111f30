"""Data of the DNA task: records from data sets and files, cut into batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.data import batches, bucket_lengths, epoch_seed
from common.datasets import SPLITS, Corpus, DataSource, find_splits, prepare, split_rows
from common.errors import InputError
from tasks.dna.config import STRIDE, Config
from tasks.dna.datasets import LICENCES, Drosophila, to_dataset, to_record
from tasks.dna.formats import SUFFIXES, read_records
from tasks.dna.genes import Record, cut
from tasks.dna.grammar import INTERGENIC, UNKNOWN, Grammar
from tasks.dna.nucleotides import reverse_complement
from tasks.dna.paths import EncodedRecords

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

PIECE = 60_000  # bases of the pieces into which long records are cut between genes


def load(source: DataSource, *, seed: int) -> Corpus:
    """Load a named data set, or the user's own files; `records` reads the splits.

    Args:
      source: the flags that name the data.
      seed: splits a single file.

    Raises:
      InputError: the data set is unknown or unavailable, or a file is malformed.
    """
    if source.data is not None:
        return _load_files(source.data, seed)
    name = source.dataset
    if name is None:
        raise InputError("no data: pass --dataset NAME or --data PATH")
    if name not in LICENCES:
        raise InputError(f"no data set {name!r}; known: {', '.join(LICENCES)}")
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = tfds.builder(name, data_dir=data_dir)
    if isinstance(builder, Drosophila) and not builder.data_path.exists():
        builder.find(source.manual_dir)
    builder = prepare(builder, manual_dir=source.manual_dir)
    return Corpus(
        name=name,
        splits={split: builder.as_dataset(split=split, shuffle_files=False) for split in SPLITS},
        citation=builder.info.citation,
        licence=LICENCES[name],
    )


def _load_files(path: Path, seed: int) -> Corpus:
    rows = {split: read_records(file) for split, file in find_splits(path, SUFFIXES).items()}
    if "all" in rows:
        # A genome is one record or a few, too few to split: pieces are split instead.
        pieces = [piece for record in rows["all"] for piece in cut(record, PIECE)]
        rows = split_rows(pieces, seed)
    return Corpus(
        name=path.name,
        splits={split: to_dataset(records) for split, records in rows.items()},
        citation="",
        licence="yours",
    )


def records(split: tf.data.Dataset) -> list[Record]:
    """Return all records of a split."""
    return [to_record(example) for example in split.as_numpy_iterator()]


# --- batches --------------------------------------------------------------------------------------


def train_batches(encoded: EncodedRecords, config: Config, epoch: int) -> tf.data.Dataset:
    """Return the batches of windows of an epoch.

    Returns:
      A data set of `bases` and `states` `<int32>[batch, window]` and `length` `<int32>[batch]`. All
      batches have the same shape, if there are enough windows for one.
    """
    seed = epoch_seed(config.seed, epoch)
    bases, states = windows(encoded, config.window, seed)
    order = np.random.default_rng(seed).permutation(len(bases))[: config.windows or None]
    rows = tf.data.Dataset.from_tensor_slices({"bases": bases[order], "states": states[order]})

    def widen(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        wide = {name: tf.cast(value, tf.int32) for name, value in batch.items()}
        return {**wide, "length": tf.math.count_nonzero(wide["bases"], axis=1, dtype=tf.int32)}

    is_full = len(order) >= config.batch_size
    return rows.batch(config.batch_size, drop_remainder=is_full).map(widen).prefetch(2)


def steps_per_epoch(encoded: EncodedRecords, config: Config) -> int:
    """Return the number of batches of `train_batches`."""
    count = max(1, encoded.size // config.window)
    if config.windows:
        count = min(count, config.windows)
    return max(1, count // config.batch_size)


def validation_batches(encoded: EncodedRecords, batch_size: int) -> tf.data.Dataset:
    """Return batches of whole records, right-padded to a few lengths.

    Returns:
      A data set of `bases` and `states` `<int32>[batch, time]`, `length` and `index` (of the
      record) `<int32>[batch]`.
    """

    def rows() -> Iterator[dict[str, Any]]:
        pairs = zip(encoded.bases, encoded.states, strict=True)
        for index, (bases, states) in enumerate(pairs):
            yield {"bases": bases, "states": states, "length": len(bases), "index": index}

    signature = {
        "bases": tf.TensorSpec([None], tf.int32),
        "states": tf.TensorSpec([None], tf.int32),
        "length": tf.TensorSpec([], tf.int32),
        "index": tf.TensorSpec([], tf.int32),
    }
    longest = max(map(len, encoded.bases), default=1)
    lengths = sorted({-(-length // STRIDE) * STRIDE for length in bucket_lengths(longest, 7)})
    examples = tf.data.Dataset.from_generator(rows, output_signature=signature)
    return batches(examples, lengths, batch_size)


# --- windows --------------------------------------------------------------------------------------


def windows(encoded: EncodedRecords, size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cut records into windows, differently for each seed.

    The records, or their reverse complements by chance, are concatenated in random order and cut
    from a random offset. So the position in a window is independent of the position in a record,
    and the model cannot learn the distance of genes from the edges.

    Args:
      encoded: the records.
      size: bases per window.
      seed: order, strands and offset.

    Returns:
      Bases and states of the windows, `<int8>[windows, size]`; one padded window if there are fewer
      than `size` bases. A gene at the joint of two records is `UNKNOWN` where the path is invalid.
    """
    random = np.random.default_rng(seed)
    parts = []
    for index in random.permutation(len(encoded.bases)):
        bases, states = encoded.bases[index], encoded.states[index]
        if random.integers(2):
            bases = reverse_complement(bases).astype(np.int8)
            states = encoded.grammar.mirror(states).astype(np.int8)
        parts.append((bases, states))
    bases = np.concatenate([bases for bases, _ in parts])
    states = np.concatenate([states for _, states in parts])
    _open_joints(encoded.grammar, states)
    missing = size - len(bases)
    if missing > 0:
        bases = np.pad(bases, (0, missing))
        states = np.pad(states, (0, missing), constant_values=INTERGENIC)
        return bases[None], states[None]
    rest = len(bases) % size
    offset = int(random.integers(rest + 1)) if rest else 0
    count = len(bases) // size
    used = slice(offset, offset + count * size)
    return bases[used].reshape(count, size), states[used].reshape(count, size)


def _open_joints(grammar: Grammar, states: np.ndarray) -> None:
    """Set states to `UNKNOWN` around invalid transitions, up to the next intergenic bases.

    Such a transition is at the joint of two records, if a gene runs off one of them.
    """
    table = grammar.constraints.transitions
    labelled = (states[:-1] != UNKNOWN) & (states[1:] != UNKNOWN)
    invalid = np.flatnonzero(labelled & ~table[states[:-1], states[1:]])
    intergenic = np.flatnonzero(states == INTERGENIC)
    for place in invalid:
        after = np.searchsorted(intergenic, place, side="right")
        start = intergenic[after - 1] + 1 if after else 0
        if states[place] == INTERGENIC:
            start = place + 1
        after = np.searchsorted(intergenic, place + 1)
        end = intergenic[after] if after < len(intergenic) else len(states)
        states[start:end] = UNKNOWN
