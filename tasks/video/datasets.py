"""Data sets of the video task: tfds builders of clips.

`Gaits` (the default) renders bodies that move by the formulas of `gaits.py`, `Hdm05` renders motion
capture of real actors, `Fights` holds clips of surveillance cameras. All contain real mp4 files,
which are decoded like any others. The UCF-101
of the tfds catalogue needs no builder of ours.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from common.data import map_in_processes
from common.datasets import SPLITS, split_by_hash
from common.errors import InputError
from common.files import read_lines
from common.progress import progress
from tasks.video import gaits, hdm05

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

_HDM05_CITATION = """@techreport{mueller2007documentation,
  title = {Documentation Mocap Database HDM05},
  author = {M{\\"u}ller, Meinard and R{\\"o}der, Tido and Clausen, Michael and Eberhardt, Bernhard
            and Kr{\\"u}ger, Bj{\\"o}rn and Weber, Andreas},
  institution = {Universit{\\"a}t Bonn}, number = {CG-2007-2}, year = {2007}}"""
_FIGHTS_CITATION = """@inproceedings{akti2019vision,
  title = {Vision-based Fight Detection from Surveillance Cameras},
  author = {Akt{\\i}, {\\c{S}}eymanur and Tataro{\\u{g}}lu, G{\\"o}zde Ay{\\c{s}}e and Ekenel,
            Haz{\\i}m Kemal},
  booktitle = {International Conference on Image Processing Theory, Tools and Applications},
  year = {2019}}"""

LICENCES = {
    "gaits": "made here, by formula; Apache-2.0 like the code",
    "hdm05": "motion capture: CC BY-SA 3.0",
    "hdm05_views": "motion capture: CC BY-SA 3.0",
    "hdm05_actors": "motion capture: CC BY-SA 3.0",
    "hdm05_joints": "motion capture: CC BY-SA 3.0",
    "hdm05_actors_joints": "motion capture: CC BY-SA 3.0",
    "fights": "research only: the repository is MIT, its clips come from a video platform; do not "
    "redistribute",
    "ucf101": "unclear: do not redistribute",
}
# Activities of HDM05 that go by another name in a mixture of data sets: `gaits` has them, too.
SHARED_ACTIVITIES = {
    "hopping": "jumping",
    "jogging in a circle": "running",
    "throwing a basketball": "throwing",
}
_ACKNOWLEDGEMENT = "The data used in this project was obtained from HDM05."
_HDM05_REMARK = (
    "The pixels of HDM05 are rendered from motion capture: a virtual camera sees a body of "
    "capsules. " + _ACKNOWLEDGEMENT
)
# Paragraphs of the model card.
REMARKS = {
    "gaits": "`gaits` is synthetic: its bodies move by formula, and the pixels are rendered.",
    "hdm05": _HDM05_REMARK,
    "hdm05_views": _HDM05_REMARK,
    "hdm05_actors": _HDM05_REMARK,
    "hdm05_joints": _ACKNOWLEDGEMENT,
    "hdm05_actors_joints": _ACKNOWLEDGEMENT,
}


def _info(
    builder: tfds.core.DatasetBuilder, labels: Iterable[str], citation: str = ""
) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
        {
            "video": tfds.features.Tensor(shape=(), dtype=tf.string),  # content of an mp4 file
            "label": tfds.features.ClassLabel(names=list(labels)),
            "name": tfds.features.Text(),  # of the take
            "view": tf.int64,
        }
    )
    return tfds.core.DatasetInfo(
        builder=builder,
        description=builder.__doc__,
        features=features,
        supervised_keys=("video", "label"),
        citation=citation,
    )


# --- bodies that move by formula ------------------------------------------------------------------


class Gaits(tfds.core.GeneratorBasedBuilder):
    """Rendered clips of bodies that move by formula: fourteen activities.

    No individual is in two splits, and no two clips have the same view.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.1.0": "Two takes of 60 individuals for training, in place of four of 20."
    }
    URLS = ()  # it is rendered, not downloaded
    PEOPLE: ClassVar[dict[str, Sequence[int]]] = {
        "train": (*range(0, 20), *range(32, 72)),
        "validation": range(20, 24),
        "test": range(24, 32),
    }
    TAKES: ClassVar[dict[str, int]] = {"train": 2, "validation": 3, "test": 3}

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, gaits.ACTIVITIES)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        takes = {
            split: [
                (activity, person, take)
                for activity in gaits.ACTIVITIES
                for person in self.PEOPLE[split]
                for take in range(self.TAKES[split])
            ]
            for split in SPLITS
        }
        rows = [take for split in SPLITS for take in takes[split]]
        encode = functools.partial(gaits.encode_clip, rate=hdm05.RATE, size=hdm05.SIZE)
        videos = progress(map_in_processes(encode, rows), total=len(rows), unit="clips")
        return {split: self._generate_examples(takes[split], videos) for split in SPLITS}

    def _generate_examples(
        self, takes: Sequence[tuple[str, int, int]], videos: Iterator[bytes]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        # The splits share one iterator of videos; tfds writes them in this order.
        for activity, person, take in takes:
            name = f"{activity} {person}"
            yield (
                f"{name} {take}",
                {"video": next(videos), "label": activity, "name": name, "view": take},
            )


# --- motion capture -------------------------------------------------------------------------------

HELD_OUT = b"dg"  # the actor who validates `hdm05_actors`


class Hdm05(tfds.core.GeneratorBasedBuilder):
    """Clips rendered from motion capture: 11 actions of HDM05, 288 takes of five actors.

    Each take has one fixed view (number 0) and five random ones (1 to 5), which follow from the
    name of the take. Each training take has twelve more, of bodies with other proportions.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()  # it is read from `--manual_dir`
    OTHER_BODIES = 12  # additional views of each training take

    def read_takes(self, folder: Path | None) -> None:
        """Read the takes; call it before the data set is prepared.

        Args:
          folder: holds the derived file, or the folders `train` and `test` of `.amc.mat` files.

        Raises:
          InputError: the folder holds neither; names what to download.
        """
        self.takes: dict[str, np.ndarray] = {}
        if folder is not None and (folder / hdm05.FILE).is_file():
            self.takes = hdm05.read(folder / hdm05.FILE, hdm05.SHA256)
        elif folder is not None and (folder / "train").is_dir() and (folder / "test").is_dir():
            self.takes = hdm05.read_source(folder)
        else:
            raise InputError(
                f"data set 'hdm05' needs {hdm05.FILE}, or the folders train and test of "
                "github.com/zhangchi8620/JointLearning-HDM05: put them into a folder and pass "
                "--manual_dir FOLDER"
            )

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, hdm05.MOTIONS.values(), _HDM05_CITATION)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        rows = {split: self._views(split) for split in hdm05.ACTORS}
        every = [row for split in rows.values() for row in split]
        # All cores render; the splits share one iterator of videos, and tfds writes them in order.
        videos = progress(
            map_in_processes(hdm05.encode_view, every), total=len(every), unit="clips"
        )
        return {split: self._generate_examples(rows[split], videos) for split in rows}

    def _views(self, split: str) -> list[tuple[str, np.ndarray, int]]:
        """Return the name, the joints and the number of each view of a split."""
        plain = len(hdm05.RANDOM) + 1
        count = plain + (self.OTHER_BODIES if split == "train" else 0)
        return [
            (name, joints, view)
            for name, joints in self.takes.items()
            if name.split("_")[0] in hdm05.ACTORS[split]
            for view in range(count)
        ]

    def _generate_examples(
        self, rows: Sequence[tuple[str, np.ndarray, int]], videos: Iterator[bytes]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        for name, _, view in rows:
            label = hdm05.MOTIONS[name.split("_")[1]]
            yield (
                f"{name} {view}",
                {"video": next(videos), "label": label, "name": name, "view": view},
            )


def hdm05_splits(builder: Hdm05, name: str, *, poses: bool = False) -> dict[str, tf.data.Dataset]:
    """Choose the clips of each split for a name.

    Args:
      builder: the prepared data set; with poses, it has read the takes.
      name: one of `config.RENDERED_MOTIONS`.
      poses: whether clips of the training split have their `pose`.

    Returns:
      Data sets of `video` (content of an mp4 file), `label` `<int64>[]` and maybe `pose`
      `<float32>[frames, joints, 2]`, see `hdm05.pose_of_view`.
    """
    plain = (hdm05.FIXED, *hdm05.RANDOM)

    def is_held_out(row: Mapping[str, Any]) -> bool:
        if name == "hdm05_actors":
            return row["name"].startswith(HELD_OUT)
        return split_by_hash(row["name"].decode()) == "validation"

    def is_tested(row: Mapping[str, Any]) -> bool:
        return row["view"] in (hdm05.RANDOM if name == "hdm05_views" else (hdm05.FIXED,))

    rules: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
        "train": ("train", lambda row: not is_held_out(row)),
        "validation": ("train", lambda row: is_held_out(row) and row["view"] in plain),
        "test": ("test", is_tested),
    }
    return {
        split: _select(builder, part, rule, poses=poses and split == "train")
        for split, (part, rule) in rules.items()
    }


def _select(
    builder: Hdm05, part: str, rule: Callable[[Mapping[str, Any]], bool], *, poses: bool
) -> tf.data.Dataset:
    """Select clips by a rule; they are held in memory as files, 10 kB each."""
    every = builder.as_dataset(split=part, shuffle_files=False).as_numpy_iterator()
    rows = [row for row in every if rule(row)]
    columns: dict[str, Any] = {
        "video": [row["video"] for row in rows],
        "label": tf.constant([row["label"] for row in rows], tf.int64),
    }
    if poses:
        names = [row["name"].decode() for row in rows]
        motions = [
            hdm05.pose_of_view(name, builder.takes[name], int(row["view"]))
            for name, row in zip(names, rows, strict=True)
        ]
        columns["pose"] = tf.RaggedTensor.from_row_lengths(
            np.concatenate(motions), [len(motion) for motion in motions]
        )
    return tf.data.Dataset.from_tensor_slices(columns)


# --- surveillance cameras -------------------------------------------------------------------------


class Fights(tfds.core.GeneratorBasedBuilder):
    """Clips of surveillance cameras, two seconds each: fights, and scenes without a fight.

    No source video is in two splits. The published folder has no splits: these are ours.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()  # it is read from `--manual_dir`
    LABELS = ("fight", "noFight")
    # Numbers of the test clips of each class: a quarter, by source.
    TEST: ClassVar[dict[str, str]] = {
        "fight": "5-12 31-42 59-64 73-74 99-104 109 144-147 150",
        "noFight": "19-22 28-33 53-54 62 65 73-74 76 80 87-89 91 109-117 147-150",
    }
    PREFIX: ClassVar[dict[str, str]] = {"fight": "fi", "noFight": "nofi"}

    def read_folder(self, folder: Path | None) -> None:
        """Find the clips and their sources; call it before the data set is prepared.

        Args:
          folder: holds the folders `fight` and `noFight` and the file `videos.txt`.

        Raises:
          InputError: the folder does not hold them.
        """
        needed = [*self.LABELS, "videos.txt"]
        if folder is None or not all((folder / name).exists() for name in needed):
            raise InputError(
                f"data set 'fights' needs {', '.join(needed)} of "
                "github.com/seymanurakti/fight-detection-surv-dataset: put them into a folder and "
                "pass --manual_dir FOLDER"
            )
        self.files = {
            (label, file.stem): file
            for label in self.LABELS
            for file in sorted((folder / label).glob(f"{self.PREFIX[label]}*.mp4"))
        }
        self.sources = read_sources(folder / "videos.txt")

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, self.LABELS, _FIGHTS_CITATION)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(split) for split in SPLITS}

    def split_of(self, label: str, name: str) -> str:
        """Return the split of a clip; a fifth of the other sources is for validation."""
        if int(name.removeprefix(self.PREFIX[label])) in _numbers(self.TEST[label]):
            return "test"
        # A clip of no known source is a source of its own.
        held_out = split_by_hash(self.sources.get(name, name)) != "train"
        return "validation" if held_out else "train"

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        for (label, name), file in self.files.items():
            if self.split_of(label, name) == split:
                row = {"video": file.read_bytes(), "label": label, "name": name, "view": 0}
                yield name, row


def read_sources(path: Path) -> dict[str, str]:
    """Return the address of the source video of each clip from `videos.txt`.

    Addresses stand before the clips cut from them: `fi001: 0.13.50 - 0.15.60`.
    """
    sources: dict[str, str] = {}
    address = ""
    for _, line in read_lines(path):
        name, colon, _ = line.partition(":")
        if line.startswith("http"):
            address = line.strip()
        elif colon and address:
            sources[name.strip()] = address
    return sources


def _numbers(ranges: str) -> set[int]:
    """Return the numbers of ranges.

    Example:
      >>> sorted(_numbers("3-5 9"))
      [3, 4, 5, 9]
    """
    numbers: set[int] = set()
    for part in ranges.split():
        first, _, last = part.partition("-")
        numbers |= set(range(int(first), int(last or first) + 1))
    return numbers
