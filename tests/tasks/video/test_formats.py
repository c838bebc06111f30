import itertools

from common.errors import InputError
from tasks.video import formats
from tests.tasks.video.samples import make_folder

import pytest


def test_a_folder_without_lists_is_split_by_recording(tmp_path):
    names = [f"v_g{group:02d}_c{part:02d}.mp4" for group in range(20) for part in range(3)]
    folder = make_folder(tmp_path / "own", run=names, sit=names[:12])
    labels, splits = formats.split_folder(folder, seed=3)
    assert labels == ("run", "sit")
    count = {split: len(files) for split, files in splits.items()}
    assert count == {"train": 48 + 6, "validation": 6 + 3, "test": 6 + 3}
    groups = {
        split: {(file.parent.name, formats.group_of(file)) for file in files}
        for split, files in splits.items()
    }
    for one, other in itertools.combinations(groups.values(), 2):
        assert not one & other
    assert formats.split_folder(folder, seed=3)[1] == splits


def test_lists_in_the_form_of_ucf101_are_kept(tmp_path):
    names = [f"v_g{group}_c1.mp4" for group in range(6)]
    folder = make_folder(tmp_path / "own", **{"sit down": names, "run": names})
    lines = [f"{label}/{name} {k}" for k, label in ((1, "run"), (2, "sit down")) for name in names]
    (folder / "train.txt").write_text("\r\n".join(lines[:4] + lines[6:10]) + "\n")
    (folder / "test.txt").write_text("\n".join(line[:-2] for line in lines[4:6] + lines[10:]))
    _, splits = formats.split_folder(folder, seed=1)
    tested = [f"{file.parent.name}/{file.name} " for file in splits["test"]]
    assert [line[:-1] for line in lines[4:6] + lines[10:]] == tested
    assert len(splits["validation"]) == 2 and len(splits["train"]) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "run" / "a1.mp4").write_bytes(b"x" * 99), r"a1.mp4: cannot be read as"),
        (lambda f: (f / "fly").mkdir(), r"own/fly: no clips in this class folder"),
        (
            lambda f: (f / "run" / "a.doc").write_bytes(b"x"),
            r"run/a.doc: not a clip; expected",
        ),
        (lambda f: make_folder(f, fly=["a1.mp4", "a2.mp4"]), r"fly: 2 clips are too few to split"),
        (
            lambda f: (f / "train.txt").write_text("run/a1.mp4\n"),
            "own: test.txt is missing",
        ),
        (
            lambda f: (f / "test.txt").write_text("run/a1.mp4 1\nrun/no.mp4 1\n"),
            r"test.txt, line 2: no clip 'run/no.mp4' in the folder of this list",
        ),
        (
            lambda f: (f / "test.txt").write_text("run/a1.mp4\n\nrun/a1.mp4\n"),
            r"test.txt, line 3: 'run/a1.mp4' is already in line 1",
        ),
        (
            lambda f: [(f / n).write_text("run/a1.mp4\n") for n in ("test.txt", "train.txt")],
            r"run: 1 clips are too few to split; expected 2 or more",
        ),
        (
            lambda f: [
                (f / n).write_text("run/a1.mp4\nrun/a2.mp4\nrun/a3.mp4\n")
                for n in ("test.txt", "train.txt")
            ],
            r"own: run/a\d.mp4 is in train and in test",
        ),
        (lambda f: (f / "test.txt").write_text("\n"), r"test.txt: no clips in this list"),
        (lambda f: (f / "train.txt").write_bytes(b"\xff\n"), r"train.txt, line 1: not UTF-8"),
    ],
)
def test_bad_folders_are_told(tmp_path, change, message):
    names = [f"a{k}.mp4" for k in range(4)]
    folder = make_folder(tmp_path / "own", run=names, sit=names)
    change(folder)
    with pytest.raises(InputError, match=message):
        _, splits = formats.split_folder(folder, seed=1)
        formats.check_readable([file for files in splits.values() for file in files])
