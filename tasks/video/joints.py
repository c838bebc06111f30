"""Joints over time instead of pixels, for `--pose`: files and requests.

A file `.npz` holds takes in the form of HDM05's derived file: `positions` [frames, joints, 3] of
all takes one after the other, the second coordinate being the height; `offsets` [takes + 1], where
each take begins; `motion` [takes], its class; and, if there are, `split` [takes] (train,
validation, test), `subject` [takes], whose takes stay in one split, and `frame_rate`. Nothing here
imports TensorFlow.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.datasets import SPLITS
from common.errors import InputError
from tasks.video.config import Config

import numpy as np

RATE = 30.0  # frames per second of a file that states none


class Take(NamedTuple):
    """A recorded motion.

    Attributes:
      joints: `<float32>[frames, joints, 3]`.
      label: the number of its class.
    """

    joints: np.ndarray
    label: int


class Takes(NamedTuple):
    """The takes of each split."""

    labels: tuple[str, ...]
    splits: dict[str, list[Take]]
    rate: float  # frames per second

    def with_labels(self, labels: Sequence[str]) -> Takes:
        """Return the takes with the numbers of other labels, which include these."""
        numbers = [list(labels).index(label) for label in self.labels]
        splits = {
            split: [take._replace(label=numbers[take.label]) for take in takes]
            for split, takes in self.splits.items()
        }
        return Takes(tuple(labels), splits, self.rate)


# --- files ----------------------------------------------------------------------------------------


def read_takes(path: Path, seed: int) -> Takes:
    """Read a user's file; see the module.

    Without `split`, subjects (or else takes) are split 80/10/10 by the seed.

    Raises:
      InputError: the file has another form, or a split is empty.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            values = {name: arrays[name] for name in arrays.files}
        positions, offsets = values["positions"].astype(np.float32), values["offsets"].tolist()
        motion = [str(name) for name in values["motion"].tolist()]
        rate = float(values.get("frame_rate", RATE))
        valid = positions.ndim == 3 and positions.shape[2] == 3 and len(motion) == len(offsets) - 1
        if not valid or offsets[-1] != len(positions) or min(np.diff(offsets)) < 1:
            raise ValueError("positions, offsets and motion do not fit together")
    except (OSError, KeyError, ValueError, TypeError, zipfile.BadZipFile) as error:
        raise InputError(f"not joints over time (see README, --pose): {error}", path) from error
    if not np.isfinite(positions).all():
        raise InputError("positions that are not finite", path)
    labels = tuple(sorted(set(motion)))
    split_of = _own_splits(values, len(motion), seed)
    splits: dict[str, list[Take]] = {split: [] for split in SPLITS}
    for number, joints in enumerate(np.split(positions, offsets[1:-1])):
        splits[split_of[number]].append(Take(joints, labels.index(motion[number])))
    if empty := [split for split, takes in splits.items() if not takes]:
        raise InputError(f"no take for {' and '.join(empty)}", path)
    return Takes(labels, splits, rate)


def _own_splits(values: Mapping[str, np.ndarray], count: int, seed: int) -> list[str]:
    """Return the split of each take of a user's file."""
    if "split" in values and set(values["split"].tolist()) >= {"train", "test"}:
        given = [str(split) for split in values["split"].tolist()]
        if "validation" in given:
            return given
        training = [number for number, split in enumerate(given) if split == "train"]
        order = np.random.default_rng(seed).permutation(training)
        held_out = set(order[: max(1, len(order) // 10)].tolist())
        return ["validation" if n in held_out else split for n, split in enumerate(given)]
    subjects = [str(name) for name in values.get("subject", np.arange(count)).tolist()]
    names = np.random.default_rng(seed).permutation(sorted(set(subjects))).tolist()
    tenth = max(1, len(names) // 10)
    parts = {name: "test" for name in names[:tenth]}
    parts |= {name: "validation" for name in names[tenth : 2 * tenth]}
    return [parts.get(name, "train") for name in subjects]


def read_joints(path: Path) -> tuple[np.ndarray, float]:
    """Read one motion: `.npy` [frames, joints, 3], or `.npz` with `positions` and `frame_rate`.

    Returns:
      `<float32>[frames, joints, 3]` and the frames per second.

    Raises:
      InputError: the file has another form.
    """
    try:
        content: Any = np.load(path, allow_pickle=False)
        rate = RATE
        if not isinstance(content, np.ndarray):
            with content as arrays:
                rate = float(arrays["frame_rate"]) if "frame_rate" in arrays.files else RATE
                content = arrays["positions"]
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(f"not joints over time: {error}", path) from error
    if content.ndim != 3 or content.shape[2] != 3 or not len(content):
        raise InputError(f"shape {content.shape}; expected [frames, joints, 3]", path)
    return content.astype(np.float32), rate


# --- motions --------------------------------------------------------------------------------------


def sample(joints: np.ndarray, source: float, rate: float, longest: int) -> np.ndarray:
    """Choose the frames that are visible at the middle of each 1/rate second.

    It is the rule of `tasks.video.resampling`.

    Example:
      >>> sample(np.arange(6.0).reshape(6, 1, 1), 30.0, 10.0, longest=8).ravel().tolist()
      [1.0, 4.0]
    """
    count = int(np.clip(np.ceil(len(joints) * rate / source - 0.5 - 1e-4), 1, longest))
    places = np.floor((np.arange(count) + 0.5) * source / rate).astype(int)
    return joints[np.minimum(places, len(joints) - 1)]


def augment(joints: np.ndarray, config: Config, random: np.random.Generator) -> np.ndarray:
    """Turn a motion about the vertical axis, change its size in three directions, and shake it.

    Args:
      joints: `<float32>[frames, joints, 3]`.
      config: `zoom` is the largest change of size.
      random: draws the changes.
    """
    angle = random.uniform(-np.pi, np.pi)
    cosine, sine = np.cos(angle), np.sin(angle)
    turn = np.array([[cosine, 0.0, sine], [0.0, 1.0, 0.0], [-sine, 0.0, cosine]])
    size = (1.0 + config.zoom) ** random.uniform(-1.0, 1.0, 3)
    extent = np.ptp(joints[0], axis=0).max() + 1e-6
    # Each joint is misplaced in its own way, the same for the whole motion.
    shift = 0.01 * extent * random.normal(size=(1, *joints.shape[1:]))
    return ((joints * size + shift) @ turn).astype(np.float32)


def pose_request(rows: Sequence[tuple[np.ndarray, float]]) -> dict[str, np.ndarray]:
    """Return the inputs of `serving_default` for motions and their frames per second.

    Example:
      >>> request = pose_request([(np.ones((5, 3, 3)), 30.0), (np.ones((2, 3, 3)), 60.0)])
      >>> request["joints"].shape, request["length"].tolist()
      ((2, 5, 3, 3), [5, 2])
    """
    lengths = [len(joints) for joints, _ in rows]
    padded = np.zeros((len(rows), max(lengths), *rows[0][0].shape[1:]), np.float32)
    for row, (joints, _) in zip(padded, rows, strict=True):
        row[: len(joints)] = joints
    return {
        "joints": padded,
        "length": np.array(lengths, np.int32),
        "frame_rate": np.array([rate for _, rate in rows], np.float32),
    }
