import itertools

from common.commands.config import EvaluateConfig
from common.errors import InputError
from tasks.video import config, data, datasets, gaits, hdm05, render
from tasks.video.joints import sample
from tests.tasks.video.samples import make_folder

import numpy as np
import pytest
import scipy.io


def load(**kwargs):
    return data.load(EvaluateConfig(**kwargs), rate=12.5, longest=96, seed=1)


@pytest.fixture(scope="module")
def small_gaits(tmp_path_factory):
    """The default data set with few individuals, made as a user's first run makes it."""
    with pytest.MonkeyPatch.context() as patch:
        people = {"train": range(0, 2), "validation": range(2, 3), "test": range(3, 4)}
        patch.setattr(datasets.Gaits, "PEOPLE", people)
        patch.setattr(datasets.Gaits, "TAKES", dict.fromkeys(people, 1))
        folder = tmp_path_factory.mktemp("d")
        yield folder, load(dataset="gaits", data_dir=folder)


def test_the_default_is_made_of_mp4_files(small_gaits):
    _, small_gaits = small_gaits
    assert small_gaits.labels == tuple(gaits.ACTIVITIES) and len(small_gaits.labels) == 14
    assert [small_gaits.size(split) for split in ("train", "validation", "test")] == [28, 14, 14]
    rows = list(small_gaits.splits["validation"].as_numpy_iterator())
    assert sorted(int(row["label"]) for row in rows) == list(range(14))
    row = next(row for row in rows if row["label"] == 0)
    rendered = gaits.clip("walking", 2, 0, rate=12.5, size=64)
    assert row["frames"].shape == rendered.shape
    assert np.abs(row["frames"].astype(float) - rendered).mean() < 12.0


def test_nobody_stands_on_two_sides():
    people = [set(numbers) for numbers in datasets.Gaits.PEOPLE.values()]
    for one, other in itertools.combinations(people, 2):
        assert not one & other
    assert min(gaits.GaitsFlags(output=None).people) > max(map(max, people))


def test_hdm05_is_read_as_published(shared_data):
    path = shared_data / "video" / "hdm05_11" / hdm05.FILE
    takes = hdm05.read(path, hdm05.SHA256)
    actors = [name.split("_")[0] for name in takes]
    assert {actor: actors.count(actor) for actor in set(actors)} == {
        **{"bd": 62, "bk": 66, "dg": 61},
        **{"mm": 44, "tr": 55},
    }
    assert {name.split("_")[1] for name in takes} == set(hdm05.MOTIONS)
    for joints in list(takes.values())[::40]:
        assert joints[..., 1].min() == 0.0
        hip, knee = (joints[:, render.JOINT_INDEX[f"left_{joint}"]] for joint in ("hip", "knee"))
        length = np.linalg.norm(hip - knee, axis=-1)
        assert np.ptp(length) < 0.02 and 0.3 < length.mean() < 0.55
    with pytest.raises(InputError, match=r"its SHA-256 is [0-9a-f]{64}, expected 123"):
        hdm05.read(path, "123")


def moving_take(person, motion):
    """A stand-in for a captured take, 30 frames a second."""
    activity = list(gaits.ACTIVITIES)[list(hdm05.MOTIONS).index(motion)]
    return gaits.move(activity, seconds=0.6, rate=30.0, seed=0, person=person)


def test_hdm05_is_split_by_actor_and_view(tmp_path, monkeypatch):
    def read(path, sha256):
        return {
            f"{actor}_kickLFront1Reps_{number:03d}": moving_take(person, "kickLFront1Reps")
            for person, actor in enumerate(("bd", "bk", "dg", "mm", "tr"))
            for number in range(2, 4)
        }

    monkeypatch.setattr(hdm05, "read", read)
    monkeypatch.setattr(datasets.Hdm05, "OTHER_BODIES", 1)
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / hdm05.FILE).touch()
    where = {"manual_dir": tmp_path / "manual", "data_dir": tmp_path / "d"}
    sizes = {
        name: {
            split: load(dataset=name, **where).size(split)
            for split in ("train", "validation", "test")
        }
        for name in config.RENDERED_MOTIONS
    }
    # 6 training takes of three actors in 7 views, 4 test takes in 6.
    assert sizes["hdm05_actors"] == {"train": 4 * 7, "validation": 2 * 6, "test": 4}
    # Two takes are in the validation split by their names, bk's second and dg's third.
    assert sizes["hdm05"] == {"train": 4 * 7, "validation": 2 * 6, "test": 4}
    assert sizes["hdm05_views"] == {**sizes["hdm05"], "test": 4 * 5}
    check_poses(where, read(None, None))


def check_poses(where, takes):
    """Each training clip has the pose of its own frames, also at another frame rate."""
    flags = EvaluateConfig(dataset="hdm05_actors", **where)
    corpus = data.load(flags, rate=10.0, longest=5, seed=1, poses=True)
    assert all("pose" not in corpus.splits[split].element_spec for split in ("validation", "test"))
    views = [(name, takes[name], view) for name in takes for view in range(7) if name[0] == "b"]
    rendered, poses = (
        np.stack([sample(make(*view), hdm05.RATE, 10.0, longest=5) for view in views])
        for make in (hdm05.render_take, hdm05.pose_of_view)
    )
    found = set()
    for row in corpus.splits["train"].as_numpy_iterator():
        number = int(np.abs(rendered - row["frames"].astype(float)).mean((1, 2, 3, 4)).argmin())
        np.testing.assert_array_equal(row["pose"], poses[number])
        found.add(number)
    assert len(found) == 26  # in the fixed view the two takes of an actor look alike
    with pytest.raises(InputError, match="--manual_dir FOLDER"):  # prepared, but without the takes
        flags = EvaluateConfig(dataset="hdm05", data_dir=where["data_dir"])
        data.load(flags, rate=12.5, longest=96, seed=1, poses=True)


def test_every_activity_of_both_data_sets_has_a_name_in_the_mixture():
    shared = datasets.SHARED_ACTIVITIES
    assert set(shared) <= set(hdm05.MOTIONS.values()) and set(shared.values()) <= {
        *gaits.ACTIVITIES
    }
    names = {label: shared.get(label, label) for label in hdm05.MOTIONS.values()}
    assert {label for label in names if names[label] in gaits.ACTIVITIES} == {
        *("hopping", "jogging in a circle", "kicking", "squatting", "throwing a basketball")
    }
    assert len(set(names.values())) == len(hdm05.MOTIONS)  # none is lost


@pytest.fixture(scope="module")
def small_hdm05(tmp_path_factory):
    """Return the folder of the files of a small HDM05: two motions of five actors."""
    folder = tmp_path_factory.mktemp("m")
    (folder / "hdm05").mkdir()
    (folder / "hdm05" / hdm05.FILE).touch()
    motions = ("hopBothLegs1hops", "lieDownFloor")
    takes = {
        f"{actor}_{motion}_{number:03d}": moving_take(person, motion)
        for person, actor in enumerate(("bd", "bk", "dg", "mm", "tr"))
        for motion in motions
        for number in range(2)
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hdm05, "read", lambda *_: takes)
        patch.setattr(datasets.Hdm05, "OTHER_BODIES", 1)
        yield folder


def test_bodies_by_formula_and_captured_ones_train_together(small_gaits, small_hdm05, tmp_path):
    folder, parts = small_gaits
    where = {"manual_dir": small_hdm05, "data_dir": folder}
    with pytest.raises(InputError, match=r"'hdm05' needs .* pass --manual_dir FOLDER"):
        load(dataset="gaits+hdm05", data_dir=tmp_path)
    assert not list(tmp_path.iterdir())  # nothing is rendered before
    corpus = load(dataset="gaits+hdm05", **where)
    captured = load(dataset="hdm05", **where)
    assert corpus.name == "gaits+hdm05" and len(set(corpus.labels)) == len(corpus.labels) == 20
    assert corpus.labels[:14] == tuple(gaits.ACTIVITIES)
    assert corpus.licence == "gaits: made here, by formula; Apache-2.0 like the code; hdm05: " + (
        captured.licence
    )
    counts = {split: labels_of(corpus, split) for split in corpus.splits}
    for split in ("validation", "test"):
        own = labels_of(parts, split) + [
            {"hopping": "jumping"}.get(name, name) for name in labels_of(captured, split)
        ]
        assert sorted(counts[split]) == sorted(own)
    assert corpus.size("train") == 28 + captured.size("train")
    assert counts["train"].count("jumping") > 2 and "hopping" not in counts["train"]
    with pytest.raises(InputError, match="these are selections of the same clips"):
        load(dataset="hdm05+hdm05_actors", **where)
    named = data.relabel(captured, corpus.labels)
    assert sorted(labels_of(named, "test") + labels_of(parts, "test")) == sorted(counts["test"])
    with pytest.raises(InputError, match=r"hdm05 has the classes depositing on .*, the model wal"):
        data.relabel(captured, parts.labels)


def labels_of(corpus, split):
    return [corpus.labels[row["label"]] for row in corpus.splits[split].as_numpy_iterator()]


def test_hdm05_says_what_it_needs(tmp_path):
    with pytest.raises(InputError, match=r"needs hdm05_11_joints_30hz.npz.*--manual_dir FOLDER"):
        load(dataset="hdm05", data_dir=tmp_path, manual_dir=tmp_path)


def test_hdm05_source_files_are_read_every_fourth_frame(tmp_path):
    positions = np.random.default_rng(0).normal(size=(9, 31, 3))
    cells = np.empty((31, 1), object)
    for joint in range(31):
        cells[joint, 0] = positions[:, joint].T
    (tmp_path / "train" / "1").mkdir(parents=True)
    path = tmp_path / "train" / "1" / "HDM_bd_depositFloorR_001_120.amc.mat"
    scipy.io.savemat(path, {"mot": {"jointTrajectories": cells}})
    with pytest.raises(InputError, match=r"1 \.amc\.mat files; expected 288"):
        hdm05.read_source(tmp_path)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(hdm05, "to_joints", lambda given: found.setdefault("given", given))
        with pytest.raises(InputError):
            hdm05.read_source(tmp_path)
    np.testing.assert_allclose(found["given"], positions[::4])
    path.write_bytes(b"no matrix")
    with pytest.raises(InputError, match=r"amc.mat: not a motion in the form of HDM05"):
        hdm05.read_source(tmp_path)


def test_views_of_a_take_follow_from_its_name():
    take = moving_take(0, "squat1Reps")
    views = [hdm05.render_take("bd_squat1Reps_001", take, view) for view in (0, 1, 1, 2, 6)]
    np.testing.assert_array_equal(views[1], views[2])
    for one, other in itertools.combinations((0, 1, 3, 4), 2):
        assert np.any(views[one] != views[other])
    again = hdm05.render_take("mm_squat1Reps_001", take, 0)
    np.testing.assert_array_equal(views[0], again)  # the fixed view is fixed
    assert np.any(hdm05.render_take("mm_squat1Reps_001", take, 1) != views[1])


def test_a_pose_of_a_view_is_that_of_the_body_it_shows():
    take = moving_take(0, "squat1Reps")
    poses = [hdm05.pose_of_view("bd_squat1Reps_001", take, view) for view in (0, 1, 6)]
    joints = render.resample(take, 30.0, hdm05.RATE)
    np.testing.assert_array_equal(poses[0], render.pose(joints, render.FIXED_VIEW))
    for view, pose in zip((0, 1, 6), poses, strict=True):
        # The middle of the body is unlike the picture's corner there.
        frames = hdm05.render_take("bd_squat1Reps_001", take, view).astype(int)
        column, row = (64 * pose[:, 0]).astype(int).T
        apart = np.abs(frames[np.arange(len(frames)), row, column] - frames[:, 2, 2]).sum(axis=-1)
        assert apart.min() > 40


# --- surveillance cameras -------------------------------------------------------------------------


def test_fights_are_split_by_source(tmp_path):
    numbers = {"fight": (1, 2, 5, 6, 13, 14, 51, 52, 84, 85), "noFight": (1, 19, 22, 66, 67, 70)}
    for label, chosen in numbers.items():
        prefix = datasets.Fights.PREFIX[label]
        make_folder(tmp_path / "m", **{label: [f"{prefix}{n:03}.mp4" for n in chosen]})
    (tmp_path / "m" / "videos.txt").write_text(
        "http://one\nfi001: 0.1 - 0.2\nfi002: 0.2\nnofi001: 0.3\nhttp://two\nfi005: 0.1\n"
        "fi006: 1\nhttp://three \nfi013: 1\nfi014: 2\nfi051: 1\nfi052: 2\n\nnofi062 - nofi076 : X\n"
    )
    corpus = load(dataset="fights", data_dir=tmp_path / "d", manual_dir=tmp_path / "m")
    assert corpus.labels == ("fight", "noFight") and corpus.size("test") == 4
    assert sum(corpus.size(split) for split in corpus.splits) == 16
    builder = datasets.Fights(data_dir=tmp_path / "e")
    builder.read_folder(tmp_path / "m")
    splits = {name: builder.split_of(label, name) for label, name in builder.files}
    for source in (("fi001", "fi002", "nofi001"), ("fi013", "fi014", "fi051", "fi052")):
        assert len({splits[name] for name in source}) == 1
    assert splits["fi005"] == splits["nofi022"] == "test"
    with pytest.raises(InputError, match=r"'fights' needs fight, noFight, videos.txt of github"):
        load(dataset="fights", data_dir=tmp_path / "f")


def test_the_published_fights_have_our_splits(shared_data):
    folder = shared_data / "video" / "fights"
    builder = datasets.Fights()
    builder.read_folder(folder)
    assert len(builder.files) == 300
    tested = {f"{a}/{b}.mp4" for a, b in builder.files if builder.split_of(a, b) == "test"}
    lines = (folder / "test.txt").read_text().split("\n")
    assert tested == {line.split(" ")[0] for line in lines if line}
    counts = [builder.split_of(*key) for key in builder.files]
    assert {split: counts.count(split) for split in set(counts)}["validation"] > 20
