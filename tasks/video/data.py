"""Where clips come from, and how they become batches.

Two data sets are tfds builders of ours, both RENDERED: `gaits` (the default; bodies moved by the
formulas of `gaits.py`) and `hdm05` (motion capture of real actors). Both are made of real mp4
files, which are decoded like any other. `ucf101` is tfds' own. Users bring a folder for each class.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

from common.commands import cli
from common.data import batches, map_in_processes
from common.datasets import SPLITS, Corpus, DataSource, prepare, split_by_hash
from common.errors import InputError
from common.files import read_lines
from tasks.video import clips, gaits, render
from tasks.video.config import Config

import numpy as np
import scipy.io
import tensorflow as tf
import tensorflow_datasets as tfds

# What our builders render.
SIZE = 64  # pixels a side
RATE = 12.5  # frames a second

UCF101_RATE = 25.0  # frames a second of its files; the catalogue gives frames alone


def load(source: DataSource, *, rate: float, longest: int, seed: int) -> Corpus:
    """Loads what `--dataset` or `--data` names.

    The elements are `{frames: <uint8>[time, height, width, 3], frame_rate: <float32>[],
    label: <int64>[]}`, `label` being an index of the labels.

    Args:
      source: the flags that say where from.
      rate: frames a second at which files are read.
      longest: at most so many frames of each.
      seed: deals a folder without lists into splits.

    Raises:
      InputError: the data cannot be had or read.
    """
    if source.data is not None:
        return _own_folder(source.data, rate=rate, longest=longest, seed=seed)
    name = source.dataset
    data_dir = None if source.data_dir is None else str(source.data_dir)
    builder = tfds.builder(HDM05_NAMES.get(name, name), data_dir=data_dir)
    if isinstance(builder, Hdm05) and not builder.data_path.exists():
        builder.find(source.manual_dir)
    builder = prepare(builder, manual_dir=source.manual_dir)
    if name == "ucf101":
        splits = _ucf101_splits(builder)
    else:
        chosen = _hdm05_splits(builder, name) if isinstance(builder, Hdm05) else _all(builder)
        splits = {
            split: _decoded(examples, rate=rate, longest=longest, files=False)
            for split, examples in chosen.items()
        }
    return Corpus(
        name=name,
        labels=tuple(builder.info.features["label"].names),
        splits=splits,
        citation=builder.info.citation,
        licence=LICENCES[name],
    )


def _all(builder: tfds.core.DatasetBuilder) -> dict[str, tf.data.Dataset]:
    return {split: builder.as_dataset(split=split, shuffle_files=False) for split in SPLITS}


def _decoded(
    examples: tf.data.Dataset, *, rate: float, longest: int, files: bool
) -> tf.data.Dataset:
    """Decodes `{video: <string>[], label}`, the video being a file's path or its content."""

    def decode(video: bytes) -> np.ndarray:
        source = Path(os.fsdecode(video)) if files else video
        return clips.read(source, rate=rate, longest=longest)

    def element(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        frames = tf.numpy_function(decode, [example["video"]], tf.uint8)
        frames.set_shape((None, None, None, 3))
        return {
            "frames": frames,
            "frame_rate": tf.constant(rate, tf.float32),
            "label": example["label"],
        }

    return examples.map(element, tf.data.AUTOTUNE)


def _ucf101_splits(builder: tfds.core.DatasetBuilder) -> dict[str, tf.data.Dataset]:
    # The catalogue has no validation split: the last tenth of its training part serves.
    ranges = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}

    def element(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        rate = tf.constant(UCF101_RATE)
        return {"frames": example["video"], "frame_rate": rate, "label": example["label"]}

    return {
        split: builder.as_dataset(split=part, shuffle_files=False).map(element, tf.data.AUTOTUNE)
        for split, part in ranges.items()
    }


# --- the user's own folder ------------------------------------------------------------------------


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Finds the clips of each class: a folder's folders, and the files in them, sorted.

    Hidden files are passed over.

    Raises:
      InputError: no folder, no classes, a class without clips, or a file that is no clip.
    """
    if not folder.is_dir():
        what = "expected a folder with a folder of clips for each class"
        raise InputError(what if folder.exists() else f"no such folder; {what}", folder)
    found: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")]
        if not files:
            raise InputError("no clips in this class folder", path)
        for file in files:
            if not file.is_file() or file.suffix.lower() not in clips.SUFFIXES:
                raise InputError(f"no clip; expected {', '.join(clips.SUFFIXES)}", file)
        found[path.name] = files
    if len(found) < 2:
        raise InputError(f"{len(found)} class folders; expected 2 or more", folder)
    return found


def read_clip_list(path: Path, classes: Mapping[str, list[Path]]) -> list[Path]:
    """Reads a list of clips in UCF-101's form: `class/clip.avi`, and perhaps the class's number.

    Raises:
      InputError: names the line that names no clip, or one that stood there before.
    """
    known = {f"{label}/{file.name}": file for label, files in classes.items() for file in files}
    chosen: dict[Path, int] = {}
    for number, line in read_lines(path):
        text = line.strip()
        if not text:
            continue
        name = text if text in known else re.sub(r"\s+\d+$", "", text)
        if name not in known:
            raise InputError(f"no clip {name!r} beside this list", path, number)
        if known[name] in chosen:
            raise InputError(f"{name!r} stands in line {chosen[known[name]]} already", path, number)
        chosen[known[name]] = number
    if not chosen:
        raise InputError("no clips in this list", path)
    return list(chosen)


def group_of(path: Path) -> str:
    """What a clip was cut from: clips that differ in the number behind `_c` alone belong together.

    Example:
      >>> group_of(Path("v_Bowling_g08_c01.avi")), group_of(Path("me.mp4"))
      ('v_Bowling_g08', 'me')
    """
    return re.sub(r"_c\d+$", "", path.stem)


def _deal(files: Iterable[Path], parts: Iterable[str], seed: int) -> dict[str, list[Path]]:
    """Deals each class's groups: a tenth, but one at least, to each of `parts`, the rest to train.

    Raises:
      InputError: too few groups in a class; names its folder.
    """
    parts = list(parts)
    dealt: dict[str, list[Path]] = {"train": [], **{part: [] for part in parts}}
    classes: dict[Path, dict[str, list[Path]]] = {}
    for file in files:
        classes.setdefault(file.parent, {}).setdefault(group_of(file), []).append(file)
    for folder, groups in sorted(classes.items()):
        if len(groups) <= len(parts):
            raise InputError(
                f"{len(groups)} clips are too few to split; {len(parts) + 1} are the least "
                "(clips cut from one recording, NAME_c1 and NAME_c2, count as one)",
                folder,
            )
        names = np.random.default_rng(seed).permutation(sorted(groups)).tolist()
        share = max(1, len(names) // 10)
        for part in parts:
            for name in names[:share]:
                dealt[part] += groups[name]
            names = names[share:]
        for name in names:
            dealt["train"] += groups[name]
    return dealt


def own_splits(folder: Path, seed: int) -> tuple[tuple[str, ...], dict[str, list[Path]]]:
    """The classes of a user's folder, and the files of each split.

    `train.txt` and `test.txt` say which clips are which, and `validation.txt` if there is one; else
    validation comes from the training clips. Without lists each class is dealt 80/10/10.
    """
    classes = class_folders(folder)
    lists = {split: folder / f"{split}.txt" for split in SPLITS}
    given = {
        split: read_clip_list(path, classes) for split, path in lists.items() if path.is_file()
    }
    if not given:
        every = (file for files in classes.values() for file in files)
        return tuple(classes), _deal(every, ("validation", "test"), seed)
    for split in ("train", "test"):
        if split not in given:
            raise InputError(f"{split}.txt is missing beside {next(iter(given))}.txt", folder)
    if "validation" not in given:
        given |= _deal(given["train"], ("validation",), seed)
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        if both := set(given[one]) & set(given[other]):
            name = sorted(both)[0]
            raise InputError(f"{name.parent.name}/{name.name} stands in {one} and {other}", folder)
    return tuple(classes), given


def check_readable(files: list[Path]) -> None:
    """Decodes the first frame of each file, so that a bad one is told before training.

    Raises:
      InputError: names the file.
    """
    cli.say(f"checking {len(files)} clips")
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for _ in pool.map(lambda file: clips.read(file, rate=1000.0, longest=1), files):
            pass


def _files_dataset(
    files: list[Path], labels: tuple[str, ...], *, rate: float, longest: int
) -> tf.data.Dataset:
    pairs = {
        "video": [os.fsencode(file) for file in files],
        "label": tf.constant([labels.index(file.parent.name) for file in files], tf.int64),
    }
    named = tf.data.Dataset.from_tensor_slices(pairs)
    return _decoded(named, rate=rate, longest=longest, files=True)


def _own_folder(folder: Path, *, rate: float, longest: int, seed: int) -> Corpus:
    labels, splits = own_splits(folder, seed)
    check_readable([file for files in splits.values() for file in files])
    return Corpus(
        name=folder.resolve().name,
        labels=labels,
        splits={
            # In no order of classes, since shuffling holds only so many clips.
            split: _files_dataset(
                np.random.default_rng(seed).permutation(files).tolist() if files else [],
                labels,
                rate=rate,
                longest=longest,
            )
            for split, files in splits.items()
        },
        citation="",
        licence="yours",
    )


def whole_folder(
    folder: Path, labels: tuple[str, ...], *, rate: float, longest: int
) -> tf.data.Dataset | None:
    """All clips of a user's folder, whose classes must be among `labels`; None where it has lists.

    Raises:
      InputError: an unknown class, or a clip that cannot be read.
    """
    if any((folder / f"{split}.txt").is_file() for split in SPLITS):
        return None
    classes = class_folders(folder)
    for name in classes:
        if name not in labels:
            raise InputError(f"unknown class; expected {', '.join(labels)}", folder / name)
    files = [file for found in classes.values() for file in found]
    check_readable(files)
    return _files_dataset(files, labels, rate=rate, longest=longest)


# --- batches --------------------------------------------------------------------------------------

BUFFER = 1000  # clips held for shuffling; 64 x 64 pixels and 30 frames are 0.4 MB


def to_model(examples: tf.data.Dataset, config: Config) -> tf.data.Dataset:
    """Brings clips to the network's size and rate, as the export does.

    Returns:
      A data set of `frames` `<uint8>[time, side, side, 3]`, `length` `<int32>[]`, `label`.
    """

    def fit(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        shape = tf.shape(example["frames"])
        frames, length = clips.to_model(
            example["frames"][None],
            shape[None, 0],
            shape[None, 1:3],
            example["frame_rate"][None],
            side=config.image_size,
            rate=config.frame_rate,
            longest=config.max_length,
        )
        return {"frames": frames[0], "length": length[0], "label": example["label"]}

    return examples.map(fit, tf.data.AUTOTUNE)


def augmenter(
    config: Config, seed: int
) -> Callable[[tf.Tensor, Mapping[str, tf.Tensor]], dict[str, tf.Tensor]]:
    """Makes the function that changes a training clip: `(its number, clip) -> clip`.

    A clip as a whole is mirrored, zoomed, moved, made faster or slower, brighter or darker. The
    change follows from seed and number alone.
    """
    side, rate = config.image_size, config.frame_rate

    def augment(number: tf.Tensor, clip: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        draw = tf.random.stateless_uniform(
            [7], seed=tf.stack([tf.constant(seed, tf.int64), number]), minval=-1.0, maxval=1.0
        )
        pace = rate * (1.0 + config.speed) ** draw[0]
        frames, length = clips.sample_in_graph(
            clip["frames"][None],
            clip["length"][None],
            tf.reshape(pace, [1]),
            rate=rate,
            longest=config.max_length,
        )
        frames = clips.resize_in_graph(
            frames,
            tf.constant([[side, side]]),
            side,
            zoom=tf.reshape((1.0 + config.zoom) ** draw[1], [1]),
            shift=config.shift * draw[None, 2:4],
            mirrored=config.flip & (draw[4:5] < 0.0),
        )[0]
        x = tf.cast(frames, tf.float32)
        mean = tf.reduce_mean(x)
        x = (x - mean) * (1.0 + config.brightness * draw[5])
        x += mean * (1.0 + config.brightness * draw[6])
        frames = tf.cast(tf.round(tf.clip_by_value(x, 0.0, 255.0)), tf.uint8)
        return {"frames": frames, "length": length[0], "label": clip["label"]}

    return augment


def to_batches(
    examples: tf.data.Dataset, config: Config, *, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Groups clips of `to_model` by length; with a seed they are shuffled and augmented, too.

    Returns:
      A data set of `frames` `<uint8>[batch, time, side, side, 3]`, `length` `<int32>[batch]` and
      `label` `<int64>[batch]`.
    """
    if shuffle_seed is not None:
        examples = examples.shuffle(BUFFER, seed=shuffle_seed, reshuffle_each_iteration=False)
        examples = examples.enumerate().map(augmenter(config, shuffle_seed), tf.data.AUTOTUNE)
    return batches(examples, config.bucket_lengths(), config.batch_size)


# --- builders -------------------------------------------------------------------------------------

_HDM05 = """@techreport{mueller2007documentation,
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
_RENDERED = (
    "The pixels are rendered from motion capture: a body of capsules seen by a virtual camera. "
    "The data used in this project was obtained from HDM05."
)
REMARKS = {
    "gaits": "Synthetic: the bodies move by formula, and the pixels are rendered.",
    "hdm05": _RENDERED,
    "hdm05_views": _RENDERED,
    "hdm05_actors": _RENDERED,
}


def _info(
    builder: tfds.core.DatasetBuilder, labels: Iterable[str], citation: str = ""
) -> tfds.core.DatasetInfo:
    features = tfds.features.FeaturesDict(
        {
            "video": tfds.features.Tensor(shape=(), dtype=tf.string),  # an mp4 file's content
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


class Gaits(tfds.core.GeneratorBasedBuilder):
    """Rendered clips of bodies that move by formula: fourteen activities.

    The individuals of validation and test are in no other split, and no two clips share a view.
    """

    VERSION = tfds.core.Version("1.1.0")
    RELEASE_NOTES: ClassVar[dict[str, str]] = {
        "1.1.0": "Two takes of 60 individuals for training, in place of four of 20."
    }
    URLS = ()
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
        videos = map_in_processes(film, [take for split in SPLITS for take in takes[split]])
        return {split: self._generate_examples(takes[split], videos) for split in SPLITS}

    def _generate_examples(
        self, takes: Sequence[tuple[str, int, int]], videos: Iterator[bytes]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        # The splits are written in order, so each finds its own clips next.
        for activity, person, take in takes:
            name = f"{activity} {person}"
            yield (
                f"{name} {take}",
                {"video": next(videos), "label": activity, "name": name, "view": take},
            )


def film(take: tuple[str, int, int]) -> bytes:
    """The mp4 file of an activity, an individual and a take."""
    return clips.encode(gaits.clip(*take, rate=RATE, size=SIZE), RATE)


# Three ways to use one prepared data set.
# hdm05: trained on three actors, tested on one fixed view of each take of the two others.
# hdm05_views: the same, tested on five random views of each take.
# hdm05_actors: for development; trained on bd and bk, validated on dg.
HDM05_NAMES = dict.fromkeys(("hdm05", "hdm05_views", "hdm05_actors"), "hdm05")
# Views of every take; further ones are of other bodies, for training.
FIXED, RANDOM = 0, range(1, 6)
HELD_OUT = b"dg"


class Hdm05(tfds.core.GeneratorBasedBuilder):
    """Clips rendered from motion capture: 11 actions of HDM05, 288 takes of five actors.

    Each take is seen in one fixed view (number 0) and in five random ones (1 to 5), which follow
    from the take's name; each training take in twelve more, by bodies of other proportions.
    """

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()  # it comes from a folder
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
    OTHER_BODIES = 12  # views of each training take

    def find(self, folder: Path | None) -> None:
        """Finds the derived file, or the source's folders `train` and `test` of `.amc.mat` files.

        Raises:
          InputError: neither is there; says what to fetch.
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
        return _info(self, self.MOTIONS.values(), _HDM05)

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
    """Renders a view of a take; it follows from the take's name and the view's number.

    Args:
      name: `actor_motion_number`.
      joints: `<float>[frames, joints, 3]`, metres, at 30 frames a second.
      view: 0 is the fixed view, 1 to 5 are random ones; so are those from 6 on, of another body.

    Returns:
      `<uint8>[frames, 64, 64, 3]`, 12.5 frames a second.
    """
    if view == FIXED:
        return render.render(render.at_rate(joints, HDM05_RATE, RATE), size=SIZE)
    seed = int(hashlib.sha1(f"{name} {view}".encode()).hexdigest()[:8], 16)
    random = np.random.default_rng([seed, 23])
    if view not in RANDOM:
        joints = render.reproportion(joints, random)
    seen = render.random_view(random)
    return render.render(render.at_rate(joints, HDM05_RATE, RATE), seen, size=SIZE)


def _hdm05_splits(builder: tfds.core.DatasetBuilder, name: str) -> dict[str, tf.data.Dataset]:
    """Chooses the clips of each split; see `HDM05_NAMES`."""
    plain = (FIXED, *RANDOM)

    def held(row: Mapping[str, Any]) -> bool:
        if name == "hdm05_actors":
            return row["name"].startswith(HELD_OUT)
        return split_by_hash(row["name"].decode()) == "validation"

    def tested(row: Mapping[str, Any]) -> bool:
        return row["view"] in (RANDOM if name == "hdm05_views" else (FIXED,))

    rules: dict[str, tuple[str, Callable[[Mapping[str, Any]], bool]]] = {
        "train": ("train", lambda row: not held(row)),
        "validation": ("train", lambda row: held(row) and row["view"] in plain),
        "test": ("test", tested),
    }
    return {split: _choose(builder, part, wanted) for split, (part, wanted) in rules.items()}


def _choose(
    builder: tfds.core.DatasetBuilder, part: str, wanted: Callable[[Mapping[str, Any]], bool]
) -> tf.data.Dataset:
    """Holds the wanted clips as files in memory: 10 kB each."""
    rows = builder.as_dataset(split=part, shuffle_files=False).as_numpy_iterator()
    chosen = [(row["video"], row["label"]) for row in rows if wanted(row)]
    videos, labels = zip(*chosen, strict=True)
    return tf.data.Dataset.from_tensor_slices(
        {"video": list(videos), "label": tf.constant(labels, tf.int64)}
    )


# --- motion capture -------------------------------------------------------------------------------

HDM05_RATE = 30.0  # frames a second, after every fourth of 120 is taken
INCH = 0.0254  # metres

# HDM05 names a joint by the bone that ends in it: where each of ours lies in its list.
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
# The order of the joints in HDM05's files.
_SPINE = ("root_@_lowerback", "lowerback_@_upperback", "upperback_@_thorax")
_SPINE += ("thorax_@_lowerneck", "lowerneck_@_upperneck", "upperneck_@_head")
_LEG = ("root_@_*hipjoint", "*hipjoint_@_*femur", "*femur_@_*tibia", "*tibia_@_*foot")
_LEG += ("*foot_@_*toes",)
_ARM = ("thorax_@_*clavicle", "*clavicle_@_*humerus", "*humerus_@_*radius", "*radius_@_*wrist")
_ARM += ("*wrist_@_*hand", "*hand_@_*fingers", "*wrist_@_*thumb")
HDM05_ORDER = (
    "root",
    *(bone.replace("*", side) for side in "lr" for bone in _LEG),
    *_SPINE,
    *(bone.replace("*", side) for side in "lr" for bone in _ARM),
)


def to_joints(positions: np.ndarray) -> np.ndarray:
    """HDM05's joints, inches, as ours, metres.

    Args:
      positions: `<float>[frames, 31, 3]` in the order of `HDM05_ORDER`.

    Returns:
      `<float>[frames, joints, 3]` in the order of `render.JOINTS`, the lowest joint on the floor.
    """
    places = [HDM05_ORDER.index(_HDM05_JOINTS[joint]) for joint in render.JOINTS]
    joints = positions[:, places].astype(np.float64) * INCH
    joints[..., 1] -= joints[..., 1].min()
    return joints


def read_hdm05(path: Path, sha256: str) -> dict[str, np.ndarray]:
    """Reads the derived file: `{actor_motion_number: <float>[frames, joints, 3]}`.

    Raises:
      InputError: the file is not the published one.
    """
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != sha256:
        raise InputError(f"its SHA-256 is {found}, expected {sha256}", path)
    with np.load(path, allow_pickle=False) as arrays:
        if tuple(arrays["joint_names"]) != HDM05_ORDER:
            raise InputError("its joints are not HDM05's", path)
        columns = (arrays[name].tolist() for name in ("subject", "motion", "take"))
        names = [
            f"{actor}_{motion}_{take:03d}" for actor, motion, take in zip(*columns, strict=True)
        ]
        takes = np.split(arrays["positions"], arrays["offsets"][1:-1])
    return {name: to_joints(take) for name, take in zip(names, takes, strict=True)}


_NO_MATRIX = (scipy.io.matlab.MatReadError, KeyError, TypeError, ValueError, NotImplementedError)


def read_hdm05_source(folder: Path) -> dict[str, np.ndarray]:
    """Reads the source's `{train,test}/CLASS/HDM_ACTOR_MOTION_NUMBER_120.amc.mat` files.

    Raises:
      InputError: a file is not of this form, or there are not 288.
    """
    takes = {}
    for path in sorted(folder.glob("t*/*/HDM_*.[aA][mM][cC].mat")):
        match = re.fullmatch(r"HDM_([a-z]{2})_(\w+)_(\d{3})_120\.amc\.mat", path.name, re.I)
        try:
            # A .mat file of this version holds arrays only: nothing in it is run.
            motion = scipy.io.loadmat(path, simplify_cells=True)["mot"]["jointTrajectories"]
            positions = np.stack(list(motion)).transpose(2, 0, 1)[::4]
            if match is None or positions.shape[1:] != (len(HDM05_ORDER), 3):
                raise ValueError(f"shape {positions.shape}")
        except _NO_MATRIX as error:
            raise InputError(f"no motion of HDM05's form: {error}", path) from error
        actor, name, number = match.groups()
        takes[f"{actor}_{name}_{number}"] = to_joints(positions)
    if len(takes) != 288:
        raise InputError(f"{len(takes)} .amc.mat files; expected 288 in train and test", folder)
    return takes
