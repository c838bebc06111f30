"""The user's own clips: a folder for each class, and ways to say which clips are which split.

clips/running/v_Run_g01_c01.avi  clips/sports/rowing/me.mp4 ...   # a class is a folder of clips
clips/train.txt  clips/test.txt  clips/validation.txt             # optional lists, or
clips/trainlist01.txt  clips/testlist01.txt                       # those of UCF-101, or
clips/train/running/a.avi  clips/val/running/b.avi  clips/test/running/c.avi
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from common.errors import InputError, require
from common.files import read_lines
from common.messages import Skipped, report_skipped
from common.start_up import cores
from tasks.video import clips

import numpy as np

UCF_LISTS = "ucfTrainTestlist"  # the folder in which UCF-101 publishes its lists
LIST_NAMES = {
    "train": ("train.txt", "trainlist01.txt"),
    "validation": ("validation.txt", "valid.txt", "val.txt", "dev.txt"),
    "test": ("test.txt", "testlist01.txt"),
}
FOLDER_NAMES = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing"),
}


class Clip(NamedTuple):
    """A clip of a user: its file and its class."""

    path: Path
    label: str


Splits = Mapping[str, Sequence[Clip]]
GroupOf = Callable[[Clip], str]


# --- class folders --------------------------------------------------------------------------------


def class_folders(folder: Path) -> dict[str, list[Clip]]:
    """Return the clips of each class, sorted.

    A class is a folder with clips in it; its name is its path, such as `sports/rowing`. Hidden
    files and folders are ignored, and other files skipped with a message.

    Raises:
      InputError: the folder does not exist, has fewer than two classes, a class without clips, or
        a folder with both clips and classes.
    """
    classes = _classes_below(folder)
    if len(classes) < 2:
        raise InputError(f"{len(classes)} class folders; expected 2 or more", folder)
    return classes


def _classes_below(folder: Path) -> dict[str, list[Clip]]:
    """Return the clips of each class; see `class_folders`."""
    if not folder.is_dir():
        expected = "expected a folder with a folder of clips for each class"
        raise InputError(expected if folder.exists() else f"no such folder; {expected}", folder)
    classes: dict[str, list[Clip]] = {}
    skipped: Skipped = []
    for path in _folders(folder):
        _add_classes(path, path.name, classes, skipped)
    total = len(skipped) + sum(map(len, classes.values()))
    report_skipped(folder, skipped, total=total, unit="files", limit=1.0)
    return dict(sorted(classes.items()))


def _folders(folder: Path) -> list[Path]:
    names = (path for path in sorted(folder.iterdir()) if not path.name.startswith("."))
    return [path for path in names if path.is_dir() and path.name != UCF_LISTS]


def _add_classes(folder: Path, name: str, classes: dict[str, list[Clip]], skipped: Skipped) -> None:
    """Add the class of a folder, or those of the folders in it, to `classes`."""
    inner = _folders(folder)
    files = [
        path
        for path in sorted(folder.iterdir())
        if path.is_file() and not path.name.startswith(".")
    ]
    videos = [file for file in files if file.suffix.lower() in clips.SUFFIXES]
    if inner and videos:
        raise InputError(
            f"holds both clips ({videos[0].name}) and folders ({inner[0].name}); "
            "a class is a folder of clips alone",
            folder,
        )
    if not inner and not videos:
        kinds = ", ".join(clips.SUFFIXES)
        raise InputError(f"no clips in this class folder; expected {kinds}", folder)
    others = (file for file in files if file not in videos)
    skipped += [(f"{name}/{file.name}", f"no {file.suffix} is read as video") for file in others]
    if videos:
        classes[name] = [Clip(file, name) for file in videos]
    for path in inner:
        _add_classes(path, f"{name}/{path.name}", classes, skipped)


# --- splits ---------------------------------------------------------------------------------------


def has_splits(folder: Path) -> bool:
    """Return whether a folder says which clips are which split, by lists or by folders."""
    return bool(_split_lists(folder) or _split_folders(folder))


def _split_lists(folder: Path) -> dict[str, Path]:
    """Return the list of each split that has one."""
    places = {
        split: [place / name for place in (folder, folder / UCF_LISTS) for name in names]
        for split, names in LIST_NAMES.items()
    }
    found = {
        split: next((path for path in paths if path.is_file()), None)
        for split, paths in places.items()
    }
    return {split: path for split, path in found.items() if path is not None}


def _split_folders(folder: Path) -> dict[str, Path]:
    """Return the folder of each split, if there are folders `train` and `test`."""
    found = {
        split: next((folder / name for name in names if (folder / name).is_dir()), None)
        for split, names in FOLDER_NAMES.items()
    }
    parts = {split: path for split, path in found.items() if path is not None}
    return parts if {"train", "test"} <= set(parts) else {}


def read_clip_list(path: Path, classes: Mapping[str, Sequence[Clip]]) -> list[Clip]:
    """Read a list of clips in the form of UCF-101: `class/clip.avi`, optionally a class number.

    Args:
      path: the list.
      classes: the clips of each class.

    Returns:
      The clips in the order of the list.

    Raises:
      InputError: a line names no clip, or the clip of an earlier line; or the list is empty.
    """
    by_name = {
        f"{label}/{clip.path.name}": clip for label, found in classes.items() for clip in found
    }
    first_line: dict[str, int] = {}
    for number, line in read_lines(path):
        text = line.strip()
        if not text:
            continue
        name = text if text in by_name else re.sub(r"\s+\d+$", "", text)
        if name not in by_name:
            raise InputError(f"no clip {name!r} in the folder of this list", path, number)
        if name in first_line:
            raise InputError(f"{name!r} is already in line {first_line[name]}", path, number)
        first_line[name] = number
    if not first_line:
        raise InputError("no clips in this list", path)
    return [by_name[name] for name in first_line]


def recording_of(clip: Clip) -> str:
    """Return the name of the recording that a clip was cut from.

    Clips of a class whose names differ only in the number after `_c` are of one recording.

    Example:
      >>> recording_of(Clip(Path("v_Bowling_g08_c01.avi"), "Bowling"))
      'Bowling/v_Bowling_g08'
    """
    return f"{clip.label}/{re.sub(r'_c[0-9]+$', '', clip.path.stem)}"


def group_by(pattern: str, folder: Path) -> GroupOf:
    r"""Return a function that finds the group of a clip, such as its person, by `--group`.

    Args:
      pattern: a regular expression that is searched in the path of a clip below `folder`; its first
        parenthesised part, or all that matches, names the group.
      folder: the folder of `--data`.

    Raises:
      InputError: by the function, if a path does not match.

    Example:
      >>> group_by(r"(person\d+)_", Path("clips"))(Clip(Path("clips/run/person07_a.avi"), "run"))
      'person07'
    """

    def group_of(clip: Clip) -> str:
        name = clip.path.relative_to(folder).as_posix()
        match = re.search(pattern, name)
        if match is None:
            raise InputError(f"--group {pattern}: no match in {name}", folder)
        return str(match.group(1 if match.re.groups else 0))

    return group_of


def split_folder(
    folder: Path, seed: int, group: str | None = None
) -> tuple[tuple[str, ...], Splits]:
    """Split the clips of a user's folder.

    Lists, or folders of splits, are followed; see the module. Without clips for validation, a part
    of the training clips is held out. Without either, each class is split 80/10/10. Clips of one
    group are never in two splits.

    Args:
      folder: see the module.
      seed: decides the random splits.
      group: the pattern of `group_by`. By default a group is a recording; see `recording_of`.

    Returns:
      The classes, and the clips of each split.

    Raises:
      InputError: the folder or a list is malformed, a list is missing, a class is too small, or a
        clip or a group is in two splits.
    """
    group_of = recording_of if group is None else group_by(group, folder)
    parts = _split_folders(folder)
    if parts:
        by_split = {split: _classes_below(path) for split, path in parts.items()}
        labels = tuple(by_split["train"])
        for split, found in by_split.items():
            for name in found:
                if name not in labels:
                    raise InputError("a class without training clips", parts[split] / name)
        splits = {split: [c for row in v.values() for c in row] for split, v in by_split.items()}
    else:
        classes = class_folders(folder)
        labels = tuple(classes)
        lists = _split_lists(folder)
        splits = {split: read_clip_list(path, classes) for split, path in lists.items()}
        if not splits:
            every = (clip for found in classes.values() for clip in found)
            return labels, _split_groups(every, ("validation", "test"), seed, group_of, folder)
        for split in ("train", "test"):
            if split not in splits:
                other = next(iter(lists.values())).name
                raise InputError(f"{split}.txt is missing next to {other}", folder)
    if "validation" not in splits:
        splits |= _split_groups(splits["train"], ("validation",), seed, group_of, folder)
    _check_apart(splits, folder, None if group is None else group_of)
    return labels, splits


def _check_apart(splits: Splits, folder: Path, group_of: GroupOf | None) -> None:
    """Refuse splits that share a clip, or a group if `group_of` is given."""
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        if both := set(splits[one]) & set(splits[other]):
            clip = sorted(both)[0]
            raise InputError(f"{clip.label}/{clip.path.name} is in {one} and in {other}", folder)
        if group_of is not None:
            groups = [set(map(group_of, splits[split])) for split in (one, other)]
            if shared := groups[0] & groups[1]:
                name = sorted(shared)[0]
                raise InputError(f"--group {name!r} has clips in {one} and in {other}", folder)


def _split_groups(
    found: Iterable[Clip], held_out: Sequence[str], seed: int, group_of: GroupOf, folder: Path
) -> dict[str, list[Clip]]:
    """Split clips by groups: of each class a tenth, at least one, for each of `held_out`.

    A group that has clips of several classes is in one split as a whole.

    Raises:
      InputError: a class has too few groups.
    """
    classes: dict[str, dict[str, list[Clip]]] = {}
    for clip in found:
        classes.setdefault(clip.label, {}).setdefault(group_of(clip), []).append(clip)
    split_of: dict[str, str] = {}
    for label, groups in sorted(classes.items()):
        names = np.random.default_rng(seed).permutation(sorted(groups)).tolist()
        free = [name for name in names if name not in split_of]
        tenth = max(1, len(names) // 10)
        for split in held_out:
            count = tenth - sum(split_of.get(name) == split for name in names)
            split_of |= dict.fromkeys(free[: max(0, count)], split)
            free = free[max(0, count) :]
        split_of |= dict.fromkeys(free, "train")
        if {split_of[name] for name in names} < {"train", *held_out}:
            raise InputError(
                f"{len(groups)} clips are too few to split; expected {len(held_out) + 1} or more "
                "(clips of one group, such as NAME_c1 and NAME_c2, count as one; see --group)",
                folder / label,
            )
    splits: dict[str, list[Clip]] = {"train": [], **{split: [] for split in held_out}}
    for groups in classes.values():
        for name, members in groups.items():
            splits[split_of[name]] += members
    return splits


# --- readable clips -------------------------------------------------------------------------------


def without_unreadable(splits: Splits, folder: Path) -> dict[str, list[Clip]]:
    """Decode the first frame of each clip; leave out bad clips, and print which these are.

    Raises:
      InputError: no clip of a class, or of a split, can be read.
    """
    require("av", "video")  # reported once instead of once per file
    every = sorted({clip for split in splits.values() for clip in split})
    print(f"checking {len(every)} clips", file=sys.stderr, flush=True)

    def problem(clip: Clip) -> str | None:
        try:
            clips.read(clip.path, rate=1000.0, longest=1)
        except InputError as error:
            return str(error).removeprefix(f"{clip.path}: ")
        return None

    with ThreadPoolExecutor(min(8, len(cores()))) as pool:
        problems = dict(zip(every, pool.map(problem, every), strict=True))
    skipped = [(f"{c.label}/{c.path.name}", reason) for c, reason in problems.items() if reason]
    report_skipped(folder, skipped, total=len(every), unit="clips", limit=1.0)
    readable = {split: [c for c in found if not problems[c]] for split, found in splits.items()}
    for split, found in splits.items():
        if found and not readable[split]:
            raise InputError(f"no clip of the {split} split can be read", folder)
    for label in sorted({clip.label for clip in every}):
        if all(problems[clip] for clip in every if clip.label == label):
            raise InputError("no clip of this class can be read", folder / label)
    return readable
