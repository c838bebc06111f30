"""Data sets of the video task: tfds builders of rendered clips.

`Gaits` (the default) renders bodies that move by the formulas of `gaits.py`, `Hdm05` renders motion
capture of real actors. Both contain real mp4 files, which are decoded like any others. The UCF-101
of the tfds catalogue needs no builder of ours.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from common.data import map_in_processes
from common.datasets import SPLITS, split_by_hash
from common.errors import InputError
from common.progress import progress
from tasks.video import clips, gaits, render

import numpy as np
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds

# Of the rendered clips.
SIZE = 64  # side of the frames, pixels
RATE = 12.5  # frames per second

_HDM05_CITATION = """@techreport{mueller2007documentation,
  title = {Documentation Mocap Database HDM05},
  author = {M{\\"u}ller, Meinard and R{\\"o}der, Tido and Clausen, Michael and Eberhardt, Bernhard
            and Kr{\\"u}ger, Bj{\\"o}rn and Weber, Andreas},
  institution = {Universit{\\"a}t Bonn}, number = {CG-2007-2}, year = {2007}}"""

LICENCES = {
    "gaits": "made here, by formula; Apache-2.0 like the code",
    "hdm05": "motion capture: CC BY-SA 3.0",
    "hdm05_views": "motion capture: CC BY-SA 3.0",
    "hdm05_actors": "motion capture: CC BY-SA 3.0",
    "ucf101": "unclear: do not redistribute",
}
_HDM05_REMARK = (
    "The pixels are rendered from motion capture: a body of capsules seen by a virtual camera. "
    "The data used in this project was obtained from HDM05."
)
# Paragraphs of the model card.
REMARKS = {
    "gaits": "Synthetic: the bodies move by formula, and the pixels are rendered.",
    "hdm05": _HDM05_REMARK,
    "hdm05_views": _HDM05_REMARK,
    "hdm05_actors": _HDM05_REMARK,
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
        encode = functools.partial(gaits.encode_clip, rate=RATE, size=SIZE)
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

# Names of views of the one prepared data set `hdm05`:
# hdm05: trained on three actors, tested on one fixed view of each take of the two others.
# hdm05_views: the same, tested on five random views of each take.
# hdm05_actors: for development; trained on bd and bk, validated on dg.
HDM05_NAMES = ("hdm05", "hdm05_views", "hdm05_actors")
# Numbers of the views of every take; higher numbers are views of other bodies, for training.
FIXED, RANDOM = 0, range(1, 6)
HELD_OUT = b"dg"


class Hdm05(tfds.core.GeneratorBasedBuilder):
    """Clips rendered from motion capture: 11 actions of HDM05, 288 takes of five actors.

    Each take has one fixed view (number 0) and five random ones (1 to 5), which follow from the
    name of the take. Each training take has twelve more, of bodies with other proportions.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()  # it is read from `--manual_dir`
    FILE = "hdm05_11_joints_30hz.npz"
    SHA256 = "73c50baf754de1deed933cd8107baaaee2a076c09d306992e9d0f04823f65cee"
    MOTIONS: ClassVar[dict[str, str]] = {
        "depositFloorR": "depositing on the floor",
        "elbowToKnee1RepsLelbowStart": "elbow to knee",
        "grabHighR": "grabbing high up",
        "hopBothLegs1hops": "hopping",
        "jogLeftCircle4StepsRstart": "jogging in a circle",
        "kickLFront1Reps": "kicking",
        "lieDownFloor": "lying down",
        "rotateArmsBothBackward1Reps": "rotating the arms",
        "sneak2StepsLStart": "sneaking",
        "squat1Reps": "squatting",
        "throwBasketball": "throwing a basketball",
    }
    ACTORS: ClassVar[dict[str, tuple[str, ...]]] = {
        "train": ("bd", "bk", "dg"),
        "test": ("mm", "tr"),
    }
    OTHER_BODIES = 12  # additional views of each training take

    def read_takes(self, folder: Path | None) -> None:
        """Read the takes; call it before the data set is prepared.

        Args:
          folder: holds the derived file, or the folders `train` and `test` of `.amc.mat` files.

        Raises:
          InputError: the folder holds neither; names what to download.
        """
        self.takes: dict[str, np.ndarray] = {}
        if folder is not None and (folder / self.FILE).is_file():
            self.takes = read_hdm05(folder / self.FILE, self.SHA256)
        elif folder is not None and (folder / "train").is_dir() and (folder / "test").is_dir():
            self.takes = read_hdm05_source(folder)
        else:
            raise InputError(
                f"data set 'hdm05' needs {self.FILE}, or the folders train and test of "
                "github.com/zhangchi8620/JointLearning-HDM05: put them into a folder and pass "
                "--manual_dir FOLDER"
            )

    def _info(self) -> tfds.core.DatasetInfo:
        return _info(self, self.MOTIONS.values(), _HDM05_CITATION)

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        return {split: self._generate_examples(split) for split in self.ACTORS}

    def _generate_examples(self, split: str) -> Iterator[tuple[str, dict[str, Any]]]:
        count = len(RANDOM) + 1 + (self.OTHER_BODIES if split == "train" else 0)
        for name, joints in self.takes.items():
            actor, motion, _ = name.split("_")
            if actor not in self.ACTORS[split]:
                continue
            for view in range(count):
                frames = render_take(name, joints, view)
                yield (
                    f"{name} {view}",
                    {
                        "video": clips.encode(frames, RATE),
                        "label": self.MOTIONS[motion],
                        "name": name,
                        "view": view,
                    },
                )


def render_take(name: str, joints: np.ndarray, view: int) -> np.ndarray:
    """Render a view of a take; the view follows from the name of the take and its own number.

    Args:
      name: `actor_motion_number`.
      joints: `<float>[frames, joints, 3]`, metres, at 30 frames per second.
      view: 0 is the fixed view, 1 to 5 are random views, 6 and more random views of other bodies.

    Returns:
      `<uint8>[frames, 64, 64, 3]` at 12.5 frames per second.
    """
    if view == FIXED:
        return render.render(render.resample(joints, HDM05_RATE, RATE), size=SIZE)
    seed = int(hashlib.sha1(f"{name} {view}".encode()).hexdigest()[:8], 16)
    random = np.random.default_rng([seed, 23])
    if view not in RANDOM:
        joints = render.reproportion(joints, random)
    camera_view = render.random_view(random)
    return render.render(render.resample(joints, HDM05_RATE, RATE), camera_view, size=SIZE)


def hdm05_splits(builder: Hdm05, name: str) -> dict[str, tf.data.Dataset]:
    """Choose the clips of each split for one of `HDM05_NAMES`.

    Returns:
      Data sets of `video` (content of an mp4 file) and `label` `<int64>[]`.
    """
    plain = (FIXED, *RANDOM)

    def is_held_out(row: Mapping[str, Any]) -> bool:
        if name == "hdm05_actors":
            return row["name"].startswith(HELD_OUT)
        return split_by_hash(row["name"].decode()) == "validation"

    def is_tested(row: Mapping[str, Any]) -> bool:
        return row["view"] in (RANDOM if name == "hdm05_views" else (FIXED,))

    rules: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
        "train": ("train", lambda row: not is_held_out(row)),
        "validation": ("train", lambda row: is_held_out(row) and row["view"] in plain),
        "test": ("test", is_tested),
    }
    return {split: _select(builder, part, rule) for split, (part, rule) in rules.items()}


def _select(
    builder: tfds.core.DatasetBuilder, part: str, rule: Callable[[Mapping[str, Any]], bool]
) -> tf.data.Dataset:
    """Select clips by a rule; they are held in memory as files, 10 kB each."""
    rows = builder.as_dataset(split=part, shuffle_files=False).as_numpy_iterator()
    videos, labels = zip(*[(row["video"], row["label"]) for row in rows if rule(row)], strict=True)
    return tf.data.Dataset.from_tensor_slices(
        {"video": list(videos), "label": tf.constant(labels, tf.int64)}
    )


# --- files of motion capture ----------------------------------------------------------------------

HDM05_RATE = 30.0  # frames per second: every fourth frame of 120
INCH = 0.0254  # metres

# HDM05 names a joint by the bone that ends in it; here is the name of each joint of the renderer.
_HDM05_JOINTS = {
    "pelvis": "root",
    "chest": "upperback_@_thorax",
    "neck": "thorax_@_lowerneck",
    "head": "upperneck_@_head",
    **{
        f"{side}_{joint}": bone.replace("*", side[0])
        for side in ("left", "right")
        for joint, bone in (
            ("shoulder", "thorax_@_*clavicle"),
            ("elbow", "*clavicle_@_*humerus"),
            ("wrist", "*humerus_@_*radius"),
            ("hand", "*hand_@_*fingers"),
            ("hip", "root_@_*hipjoint"),
            ("knee", "*hipjoint_@_*femur"),
            ("ankle", "*femur_@_*tibia"),
            ("toe", "*foot_@_*toes"),
        )
    },
}
_LEG = (
    "root_@_*hipjoint",
    "*hipjoint_@_*femur",
    "*femur_@_*tibia",
    "*tibia_@_*foot",
    "*foot_@_*toes",
)
_SPINE = (
    "root_@_lowerback",
    "lowerback_@_upperback",
    "upperback_@_thorax",
    "thorax_@_lowerneck",
    "lowerneck_@_upperneck",
    "upperneck_@_head",
)
_ARM = (
    "thorax_@_*clavicle",
    "*clavicle_@_*humerus",
    "*humerus_@_*radius",
    "*radius_@_*wrist",
    "*wrist_@_*hand",
    "*hand_@_*fingers",
    "*wrist_@_*thumb",
)
# The order of the joints in the files of HDM05.
HDM05_ORDER = (
    "root",
    *(bone.replace("*", side) for side in "lr" for bone in _LEG),
    *_SPINE,
    *(bone.replace("*", side) for side in "lr" for bone in _ARM),
)


def to_joints(positions: np.ndarray) -> np.ndarray:
    """Convert joint positions of HDM05, in inches, to those of the renderer, in metres.

    Args:
      positions: `<float>[frames, 31, 3]` in the order of `HDM05_ORDER`.

    Returns:
      `<float>[frames, joints, 3]` in the order of `render.JOINTS`, with the lowest joint on the
      floor.

    Example:
      >>> to_joints(np.ones((5, 31, 3)))[0, 0].tolist()
      [0.0254, 0.0, 0.0254]
    """
    order = [HDM05_ORDER.index(_HDM05_JOINTS[joint]) for joint in render.JOINTS]
    joints = positions[:, order].astype(np.float64) * INCH
    joints[..., 1] -= joints[..., 1].min()
    return joints


def read_hdm05(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Read the derived file.

    Args:
      path: the file.
      sha256: its published checksum.

    Returns:
      `{actor_motion_number: <float>[frames, joints, 3]}`, see `to_joints`.

    Raises:
      InputError: the file is not the published one.
    """
    checksum = hashlib.sha256(path.read_bytes()).hexdigest()
    if checksum != sha256:
        raise InputError(f"its SHA-256 is {checksum}, expected {sha256}", path)
    with np.load(path, allow_pickle=False) as arrays:
        if tuple(arrays["joint_names"]) != HDM05_ORDER:
            raise InputError("its joints are not those of HDM05", path)
        columns = (arrays[name].tolist() for name in ("subject", "motion", "take"))
        names = [
            f"{actor}_{motion}_{take:03d}" for actor, motion, take in zip(*columns, strict=True)
        ]
        takes = np.split(arrays["positions"], arrays["offsets"][1:-1])
    return {name: to_joints(take) for name, take in zip(names, takes, strict=True)}


_MATLAB_ERRORS = (
    scipy.io.matlab.MatReadError,
    KeyError,
    TypeError,
    ValueError,
    NotImplementedError,
)


def read_hdm05_source(folder: Path) -> dict[str, np.ndarray]:
    """Read the source files `{train,test}/CLASS/HDM_ACTOR_MOTION_NUMBER_120.amc.mat`.

    Args:
      folder: holds the folders `train` and `test`.

    Returns:
      `{actor_motion_number: <float>[frames, joints, 3]}`, see `to_joints`.

    Raises:
      InputError: a file has another form, or there are not 288.
    """
    takes = {}
    for path in sorted(folder.glob("t*/*/HDM_*.[aA][mM][cC].mat")):
        match = re.fullmatch(r"HDM_([a-z]{2})_(\w+)_(\d{3})_120\.amc\.mat", path.name, re.I)
        try:
            # A .mat file of this version holds arrays only: loading it runs no code.
            motion = scipy.io.loadmat(path, simplify_cells=True)["mot"]["jointTrajectories"]
            positions = np.stack(list(motion)).transpose(2, 0, 1)[::4]
            if match is None or positions.shape[1:] != (len(HDM05_ORDER), 3):
                raise ValueError(f"shape {positions.shape}")
        except _MATLAB_ERRORS as error:
            raise InputError(f"not a motion in the form of HDM05: {error}", path) from error
        actor, name, number = match.groups()
        takes[f"{actor}_{name}_{number}"] = to_joints(positions)
    if len(takes) != 288:
        raise InputError(f"{len(takes)} .amc.mat files; expected 288 in train and test", folder)
    return takes
