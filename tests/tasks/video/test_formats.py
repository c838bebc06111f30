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
        split: {formats.recording_of(clip) for clip in found} for split, found in splits.items()
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
    tested = [f"{clip.label}/{clip.path.name} " for clip in splits["test"]]
    assert [line[:-1] for line in lines[4:6] + lines[10:]] == tested
    assert len(splits["validation"]) == 2 and len(splits["train"]) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda f: [p.write_bytes(b"x" * 99) for p in (f / "run").iterdir()],
            r"own/run: no clip of this class can be read",
        ),
        (lambda f: (f / "fly").mkdir(), r"own/fly: no clips in this class folder"),
        (
            lambda f: make_folder(f / "run", slow=["a.mp4"]),
            r"own/run: holds both clips \(a0.mp4\) and folders \(slow\)",
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
        formats.without_unreadable(splits, folder)


# --- folders of practice --------------------------------------------------------------------------


def names_of(splits, folder):
    return {
        split: sorted(clip.path.relative_to(folder).as_posix() for clip in found)
        for split, found in splits.items()
    }


@pytest.mark.parametrize("validation", ["validation", "val", "dev", None])
def test_folders_of_splits_are_followed(tmp_path, validation):
    folder = tmp_path / "own"
    parts = {"train": "abc", "test": "x"} | ({validation: "v"} if validation else {})
    for part, letters in parts.items():
        names = [f"{letter}.mp4" for letter in letters]
        make_folder(folder / part, **{"run": names, "sit down": names})
    assert formats.has_splits(folder)
    labels, splits = formats.split_folder(folder, seed=1)
    assert labels == ("run", "sit down")
    names = names_of(splits, folder)
    assert names["test"] == ["test/run/x.mp4", "test/sit down/x.mp4"]
    if validation:
        assert names["validation"] == [f"{validation}/run/v.mp4", f"{validation}/sit down/v.mp4"]
        assert len(names["train"]) == 6
    else:
        assert len(names["validation"]) == 2 and len(names["train"]) == 4
    make_folder(folder / "test", fly=["x.mp4"])
    with pytest.raises(InputError, match=r"test/fly: a class without training clips"):
        formats.split_folder(folder, seed=1)


def test_classes_may_lie_in_folders(tmp_path):
    names = ["a.mp4", "b.mp4", "c.mp4"]
    folder = make_folder(
        tmp_path / "own", **{"sports/row": names, "sports/run": names, "sit": names}
    )
    labels, splits = formats.split_folder(folder, seed=1)
    assert labels == ("sit", "sports/row", "sports/run")
    assert [len(found) for found in splits.values()] == [3, 3, 3]
    (folder / "train.txt").write_text("sit/a.mp4\nsports/row/a.mp4\nsports/run/a.mp4\n" * 1)
    (folder / "test.txt").write_text("sit/b.mp4\n")
    (folder / "validation.txt").write_text("sports/run/c.mp4\n")
    _, splits = formats.split_folder(folder, seed=1)
    assert [clip.label for clip in splits["validation"]] == ["sports/run"]


@pytest.mark.parametrize("place", [".", formats.UCF_LISTS])
def test_lists_of_ucf101_have_their_own_names(tmp_path, place):
    names = [f"v_Run_g{group:02}_c01.avi" for group in range(4)]
    folder = make_folder(tmp_path / "own", Run=names, Sit=names)
    (folder / place).mkdir(exist_ok=True)
    (folder / place / "classInd.txt").write_text("1 Run\n2 Sit\n")
    lines = [f"{label}/{name} {k}" for k, label in ((1, "Run"), (2, "Sit")) for name in names]
    (folder / place / "trainlist01.txt").write_text("\n".join(lines[:3] + lines[4:7]))
    (folder / place / "testlist01.txt").write_text("\n".join(line[:-2] for line in lines[3::4]))
    _, splits = formats.split_folder(folder, seed=1)
    assert names_of(splits, folder)["test"] == [f"{label}/{names[3]}" for label in ("Run", "Sit")]
    assert len(splits["validation"]) == 2 and len(splits["train"]) == 4


def test_a_group_never_crosses_splits_even_over_classes(tmp_path):
    names = [f"p{person:02}_{k}.mp4" for person in range(12) for k in range(3)]
    folder = make_folder(tmp_path / "own", run=names, sit=names, wave=names[:20])
    _, splits = formats.split_folder(folder, seed=2, group=r"(p\d+)_")
    people = {split: {clip.path.name[:3] for clip in found} for split, found in splits.items()}
    assert {split: len(found) for split, found in people.items()} == {
        "train": 10,
        "validation": 1,
        "test": 1,
    }
    for one, other in itertools.combinations(people.values(), 2):
        assert not one & other
    with pytest.raises(InputError, match=r"--group q: no match in run/p00_0\.mp4"):
        formats.split_folder(folder, seed=2, group="q")
    for split, part in (("train", names[:32]), ("test", names[32:])):
        (folder / f"{split}.txt").write_text("".join(f"run/{name}\n" for name in part))
    with pytest.raises(InputError, match=r"--group 'p10' has clips in train and in test"):
        formats.split_folder(folder, seed=2, group=r"(p\d+)_")


def test_bad_files_are_skipped_and_counted(tmp_path, capsys):
    names = [f"a{k}.mp4" for k in range(6)]
    folder = make_folder(tmp_path / "own", run=names, sit=names)
    (folder / "run" / "notes.doc").write_bytes(b"x")
    (folder / "run" / "Thumbs.db").write_bytes(b"x")
    (folder / "run" / ".hidden").write_bytes(b"x")
    (folder / "sit" / "a2.mp4").write_bytes(b"no video" * 99)
    _, splits = formats.split_folder(folder, seed=1)
    readable = formats.without_unreadable(splits, folder)
    assert sum(map(len, readable.values())) == 11
    error = capsys.readouterr().err
    assert "2 of 14 files cannot be used (run/Thumbs.db: no .db is read as video" in error
    assert "1 of 12 clips cannot be used (sit/a2.mp4: cannot be read as video" in error
