"""Loading music, and turning pieces into batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from common.data import batches, bucket_lengths
from common.datasets import SPLITS, Corpus, DataSource, prepare, split_rows
from common.errors import InputError
from tasks.music import midi
from tasks.music.config import Config
from tasks.music.datasets import GRIDS, LICENCES, Grid
from tasks.music.formats import Piece, read_folder, split
from tasks.music.midi import KEYS

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

OWN_TEMPO = 100.0  # for playback of a model of the user's own files, in quarter notes per minute
VALIDATED = 1024  # frames of a piece that are validated together; bounds the memory
VALIDATED_TOGETHER = 4096  # frames of a batch, 0.24 MB each
OWN_TRANSPOSE = 6  # semitones, for own files that stand in several keys
ONE_KEY = 0.8  # fraction of pieces in one key from which they count as transposed to it


# --- loading --------------------------------------------------------------------------------------


def load(source: DataSource, *, steps_per_quarter: int, seed: int) -> Corpus:
    """Load the data set or the files that the flags name.

    Args:
      source: the flags `dataset`, `data`, `manual_dir` and `data_dir`.
      steps_per_quarter: frames per quarter note, for the user's own files.
      seed: seed for splitting a folder of files.

    Returns:
      A corpus of examples `{name: <string>[], notes: <uint8>[time, 88]}`.

    Raises:
      InputError: the data is not available or invalid.
    """
    if source.data is not None:
        return _load_files(source.data, steps_per_quarter, seed)
    if source.dataset is None:
        raise InputError("no data: give --dataset or --data")
    name = source.dataset
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = prepare(tfds.builder(name, data_dir=data_dir), manual_dir=source.manual_dir)
    return Corpus(
        name=name,
        splits={split: builder.as_dataset(split=split, shuffle_files=False) for split in SPLITS},
        citation=builder.info.citation,
        licence=LICENCES[name],
    )


def _load_files(path: Path, steps_per_quarter: int, seed: int) -> Corpus:
    """Load a folder of MIDI files, or of `train/`, `validation/` and `test/` with MIDI files."""
    if path.is_file():
        raise InputError("a file; expected a folder of MIDI files", path)
    if not path.is_dir():
        raise InputError("no such folder", path)
    if has_splits(path):
        rows = {split: read_folder(path / split, steps_per_quarter) for split in SPLITS}
    else:
        rows = split_rows(read_folder(path, steps_per_quarter), seed)
    return Corpus(
        name=path.resolve().name,
        splits={split: as_dataset(pieces) for split, pieces in rows.items()},
        citation="",
        licence="yours",
    )


def has_splits(path: Path) -> bool:
    """Return whether a folder has the folders `train/`, `validation/` and `test/`."""
    return all((path / split).is_dir() for split in SPLITS)


def grid(config: Config) -> Grid:
    """Return the time grid of the training data.

    Example:
      >>> grid(Config(dataset="nottingham"))
      Grid(steps_per_quarter=2, tempo=120.0)
      >>> grid(Config(data=Path("my_midi_files"), steps_per_quarter=12))
      Grid(steps_per_quarter=12, tempo=100.0)
    """
    if config.dataset is None:
        return Grid(config.steps_per_quarter, OWN_TEMPO)
    return GRIDS[config.dataset]


def pieces(split: tf.data.Dataset) -> list[Piece]:
    """Read a split into memory; the inverse of `as_dataset`."""
    return [
        Piece(row["name"].decode(), row["notes"].astype(np.uint8))
        for row in split.as_numpy_iterator()
    ]


def as_dataset(rows: Sequence[Piece]) -> tf.data.Dataset:
    """Convert pieces to a data set of the same form as those of the builders.

    Example:
      >>> rows = [Piece("one", np.eye(3, 88)), Piece("two", np.eye(5, 88))]
      >>> [len(piece.notes) for piece in pieces(as_dataset(rows))]
      [3, 5]
    """
    frames = tf.RaggedTensor.from_row_lengths(
        np.concatenate([row.notes for row in rows]), [len(row.notes) for row in rows]
    )
    return tf.data.Dataset.from_tensor_slices({"name": [row.name for row in rows], "notes": frames})


# --- keys -----------------------------------------------------------------------------------------


def choose_transposition(rows: Sequence[Piece]) -> int:
    """Return the largest transposition for training on a user's pieces, in semitones.

    Pieces in one key, which they may have been moved to, are not transposed: their key is
    something to learn.

    Example:
      >>> notes = np.zeros((4, 88))
      >>> notes[:, [39, 43, 46]] = 1
      >>> choose_transposition([Piece(str(shift), np.roll(notes, shift, 1)) for shift in range(5)])
      6
      >>> choose_transposition([Piece("a", notes), Piece("b", notes)])
      0
    """
    scales = np.bincount([midi.main_scale(row.notes) for row in rows], minlength=12)
    return 0 if scales.max() >= ONE_KEY * len(rows) else OWN_TRANSPOSE


# --- batches --------------------------------------------------------------------------------------


def key_range(train: Iterable[Piece]) -> tuple[int, int, int]:
    """Return the lowest key, the highest key and the number of frames.

    Raises:
      InputError: no key sounds.

    Example:
      >>> key_range([Piece("", np.eye(4, 88, 30)), Piece("", np.zeros((2, 88)))])
      (30, 33, 6)
    """
    sounding, frames = np.zeros(KEYS, bool), 0
    for piece in train:
        sounding |= piece.notes.any(axis=0)
        frames += len(piece.notes)
    if not sounding.any():
        raise InputError("no note in the training data")
    keys = np.flatnonzero(sounding)
    return int(keys[0]), int(keys[-1]), frames


def augment(row: Piece, config: Config, random: np.random.Generator, low: int, high: int) -> Piece:
    """Crop a piece to `config.max_length` frames and transpose it by up to `config.transpose`.

    Args:
      row: the piece.
      config: the settings.
      random: the generator for the position of the crop and the transposition.
      low: the lowest key of the training data; transposed pieces stay within the range.
      high: the highest key of the training data.
    """
    spare = max(0, len(row.notes) - config.max_length)
    start = random.integers(spare + 1)
    notes = row.notes[start : start + config.max_length]
    used = np.flatnonzero(notes.any(axis=0))
    if config.transpose and used.size:
        down, up = max(-config.transpose, low - used[0]), min(config.transpose, high - used[-1])
        notes = np.roll(notes, random.integers(down, up + 1), axis=1)
    return Piece(row.name, notes)


def train_batches(
    rows: Sequence[Piece], config: Config, *, low: int, high: int, seed: int
) -> tf.data.Dataset:
    """Make the batches of one epoch from augmented pieces.

    Args:
      rows: the training pieces.
      config: the settings.
      low: the lowest key of the training data; see `augment`.
      high: the highest key of the training data.
      seed: seed of the epoch, for the order and the augmentation.

    Returns:
      A data set of `notes` `<float32>[batch, time, 88]` and `length` `<int32>[batch]`.
    """
    random = np.random.default_rng(seed)
    augmented = [augment(row, config, random, low, high) for row in rows]
    longest = max((len(row.notes) for row in rows), default=1)
    lengths = bucket_lengths(min(config.max_length, longest), 4)
    return _to_batches(augmented, lengths, config.batch_size, shuffle_seed=seed)


def validation_batches(rows: Sequence[Piece], batch_size: int = 8) -> tf.data.Dataset:
    """Make batches of pieces; those of more than `VALIDATED` frames are split, see `formats.split`.

    Args:
      rows: the pieces.
      batch_size: pieces per batch, if they are short.

    Returns:
      Batches of `train_batches`, with `known` `<int32>[batch]`: the number of first frames of each
      row that are only read, not scored.

    Raises:
      InputError: there are no pieces.
    """
    if not rows:
        raise InputError("no validation examples")
    parts = [part for row in rows for part in split(row, VALIDATED)]
    lengths = bucket_lengths(max(len(part.piece.notes) for part in parts), 5)
    batch_size = max(1, min(batch_size, VALIDATED_TOGETHER // lengths[-1]))
    known = [part.known for part in parts]
    return _to_batches([part.piece for part in parts], lengths, batch_size, known=known)


def _to_batches(
    rows: Sequence[Piece],
    lengths: Sequence[int],
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
    known: Sequence[int] | None = None,
) -> tf.data.Dataset:
    """Batch pieces of at most `lengths[-1]` frames; see `common.data.batches`."""

    def example(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"notes": tf.cast(row["notes"], tf.float32), "length": tf.shape(row["notes"])[0]}

    examples = as_dataset(rows).map(example)
    if known is not None:
        counts = tf.data.Dataset.from_tensor_slices(tf.constant(known, tf.int32))
        examples = tf.data.Dataset.zip((examples, counts)).map(lambda a, b: {**a, "known": b})
    return batches(examples, lengths, batch_size, shuffle_seed=shuffle_seed)
