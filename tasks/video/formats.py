"""The user's own clips: a folder for each class, and lists in the form of UCF-101.

clips/running/v_Run_g01_c01.avi  clips/running/v_Run_g01_c02.avi ...  clips/waving/me.mp4 ...
clips/train.txt  clips/test.txt  clips/validation.txt     # optional: `running/me.avi 1` per line
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from common.datasets import SPLITS
from common.errors import InputError
from common.files import read_lines
from common.start_up import cores
from tasks.video import clips

import numpy as np


def class_folders(folder: Path) -> dict[str, list[Path]]:
    """Return the clips of each class: the subfolders of a folder and their files, sorted.

    Hidden files and folders are ignored.

    Raises:
      InputError: the folder does not exist, has fewer than two classes, a class without clips, or
        a file that is not a clip.
    """
    if not folder.is_dir():
        expected = "expected a folder with a folder of clips for each class"
        raise InputError(expected if folder.exists() else f"no such folder; {expected}", folder)
    classes: dict[str, list[Path]] = {}
    for path in sorted(folder.iterdir()):
        if not path.is_dir() or path.name.startswith("."):
            continue
        files = [file for file in sorted(path.iterdir()) if not file.name.startswith(".")]
        if not files:
            raise InputError("no clips in this class folder", path)
        for file in files:
            if not file.is_file() or file.suffix.lower() not in clips.SUFFIXES:
                raise InputError(f"not a clip; expected {', '.join(clips.SUFFIXES)}", file)
        classes[path.name] = files
    if len(classes) < 2:
        raise InputError(f"{len(classes)} class folders; expected 2 or more", folder)
    return classes


def read_clip_list(path: Path, classes: Mapping[str, Sequence[Path]]) -> list[Path]:
    """Read a list of clips in the form of UCF-101: `class/clip.avi`, optionally a class number.

    Args:
      path: the list.
      classes: the clips of each class.

    Returns:
      The clips in the order of the list.

    Raises:
      InputError: a line names no clip, or the clip of an earlier line; or the list is empty.
    """
    by_name = {f"{label}/{file.name}": file for label, files in classes.items() for file in files}
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


def group_of(path: Path) -> str:
    """Return the name of the recording that a clip was cut from.

    Clips whose names differ only in the number after `_c` are of one group.

    Example:
      >>> group_of(Path("v_Bowling_g08_c01.avi")), group_of(Path("me.mp4"))
      ('v_Bowling_g08', 'me')
    """
    return re.sub(r"_c\d+$", "", path.stem)


def split_folder(folder: Path, seed: int) -> tuple[tuple[str, ...], Mapping[str, Sequence[Path]]]:
    """Split the clips of a user's folder.

    `train.txt` and `test.txt` list the clips of these splits, and `validation.txt` those of the
    validation split; without it a part of the training clips becomes the validation split. Without
    any list each class is split 80/10/10.

    Args:
      folder: see the module.
      seed: decides the random splits.

    Returns:
      The classes, and the files of each split.

    Raises:
      InputError: the folder or a list is malformed, a list is missing, a class is too small, or a
        clip is in two splits.
    """
    classes = class_folders(folder)
    lists = {split: folder / f"{split}.txt" for split in SPLITS}
    splits = {
        split: read_clip_list(path, classes) for split, path in lists.items() if path.is_file()
    }
    if not splits:
        every = (file for files in classes.values() for file in files)
        return tuple(classes), _split_groups(every, ("validation", "test"), seed)
    for split in ("train", "test"):
        if split not in splits:
            raise InputError(f"{split}.txt is missing next to {next(iter(splits))}.txt", folder)
    if "validation" not in splits:
        splits |= _split_groups(splits["train"], ("validation",), seed)
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        if both := set(splits[one]) & set(splits[other]):
            file = sorted(both)[0]
            raise InputError(f"{file.parent.name}/{file.name} is in {one} and in {other}", folder)
    return tuple(classes), splits


def _split_groups(
    files: Iterable[Path], held_out: Sequence[str], seed: int
) -> dict[str, list[Path]]:
    """Split each class by groups: a tenth, at least one, for each of `held_out`, the rest: train.

    Raises:
      InputError: a class has too few groups.
    """
    splits: dict[str, list[Path]] = {"train": [], **{split: [] for split in held_out}}
    classes: dict[Path, dict[str, list[Path]]] = {}
    for file in files:
        classes.setdefault(file.parent, {}).setdefault(group_of(file), []).append(file)
    for folder, groups in sorted(classes.items()):
        if len(groups) <= len(held_out):
            raise InputError(
                f"{len(groups)} clips are too few to split; expected {len(held_out) + 1} or more "
                "(clips cut from one recording, NAME_c1 and NAME_c2, count as one)",
                folder,
            )
        names = np.random.default_rng(seed).permutation(sorted(groups)).tolist()
        tenth = max(1, len(names) // 10)
        for number, name in enumerate(names):
            part = number // tenth
            split = held_out[part] if part < len(held_out) else "train"
            splits[split] += groups[name]
    return splits


def check_readable(files: Sequence[Path]) -> None:
    """Decode the first frame of each file, so that a bad file is reported before training.

    Raises:
      InputError: a file cannot be read; names the file.
    """
    print(f"checking {len(files)} clips", file=sys.stderr, flush=True)
    with ThreadPoolExecutor(min(8, len(cores()))) as pool:
        for _ in pool.map(lambda file: clips.read(file, rate=1000.0, longest=1), files):
            pass
