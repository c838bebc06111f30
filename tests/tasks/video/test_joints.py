"""Joints over time: files, features, and training without pixels."""

import json

from common.commands.config import EvaluateConfig
from common.errors import InputError
from tasks.video import evaluate, gaits, joints, pose, pose_model, predict, train
from tasks.video.config import Config

import numpy as np
import pytest
import tensorflow as tf

CLASSES = ("sitting down", "standing up", "waving")


def write_takes(path, people=20, **changes):
    """Takes of bodies that move by formula, in the form of HDM05's derived file."""
    rows = [
        (label, person, gaits.move(label, seconds=2.0, rate=30.0, seed=person, person=person))
        for label in CLASSES
        for person in range(people)
    ]
    lengths = [len(motion) for _, _, motion in rows]
    arrays = {
        "positions": np.concatenate([motion for _, _, motion in rows]).astype(np.float32),
        "offsets": np.cumsum([0, *lengths]),
        "motion": np.array([label for label, _, _ in rows]),
        "subject": np.array([f"p{person}" for _, person, _ in rows]),
        **changes,
    }
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    return path


def test_subjects_stay_in_one_split(tmp_path):
    takes = joints.read_takes(write_takes(tmp_path / "a.npz"), seed=1)
    assert takes.labels == CLASSES and takes.rate == 30.0
    assert {split: len(rows) for split, rows in takes.splits.items()} == {
        "train": 48,
        "validation": 6,
        "test": 6,
    }
    given = np.array((["train"] * 16 + ["test"] * 4) * 3)
    takes = joints.read_takes(write_takes(tmp_path / "b.npz", split=given, frame_rate=60.0), seed=1)
    assert [len(rows) for rows in takes.splits.values()] == [44, 4, 12] and takes.rate == 60.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"motion": None}, "not joints over time"),
        ({"offsets": np.array([0, 5])}, "do not fit together"),
        ({"positions": np.zeros((9, 4))}, "do not fit together"),
        ({"motion": np.array([{}], dtype=object)}, "not joints over time"),  # a pickle
    ],
)
def test_other_files_are_refused(tmp_path, changes, message):
    path = write_takes(tmp_path / "a.npz", people=3, **changes)
    with pytest.raises(InputError, match=rf"a\.npz: .*{message}"):
        joints.read_takes(path, seed=1)


def test_sampling_is_that_of_the_export():
    from tasks.video import resampling

    motion = np.random.default_rng(0).normal(size=(37, 4, 3)).astype(np.float32)
    for source in (12.0, 30.0, 120.0):
        expected, count = resampling.sample_in_graph(
            motion[None], tf.constant([37]), tf.constant([source]), rate=15.0, longest=20
        )
        given = joints.sample(motion, source, 15.0, longest=20)
        np.testing.assert_array_equal(given, expected[0, : int(count[0])])


def test_features_depend_neither_on_the_place_nor_on_the_size():
    motion = np.random.default_rng(0).normal(size=(1, 6, 5, 3)).astype(np.float32)
    mask = np.array([[True] * 5 + [False]])
    features = pose_model.JointFeatures()
    one = features(motion, mask)
    other = features(3.0 * motion + 7.0, mask)
    np.testing.assert_allclose(one, other, atol=2e-3)
    padded = motion.copy()
    padded[:, 5] = 99.0
    np.testing.assert_allclose(features(padded, mask), one, atol=1e-6)
    assert one.shape == (1, 6, 36) and not one[:, 5].numpy().any()


@pytest.mark.thorough
def test_joints_are_learnt_exported_and_predicted(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_takes(tmp_path / "a.npz")
    words = ["--pose", "--data", "a.npz", "--epochs", "12", "--score", "test", "--units", "24"]
    words += ["--features", "32", "--frame_rate", "10", "--max_length", "24", "--average", "0"]
    words += ["--batch_size", "8", "--dropout", "0", "--head_dropout", "0", "--learning_rate"]
    train.main([*words, "0.005", "--verbose", "0", "--negatives", "0"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["accuracy"] >= 0.8 and result["examples"] == 6
    evaluate.main([])
    again = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert again["accuracy"] == result["accuracy"] and again["split"] == "test"
    np.save("one.npy", gaits.move("waving", seconds=2.0, rate=30.0, seed=77, person=77))
    predict.main(["one.npy", "--json", "--plot", "a.png", "--threshold", "0"])
    prediction = json.loads(capsys.readouterr().out)
    assert prediction["activity"] == "waving" and prediction["seconds"] == 2.0
    np.save("bad.npy", np.zeros((4, 3, 3)))
    with pytest.raises(InputError, match="3 joints; the model reads"):
        predict.main(["bad.npy"])
    served = evaluate.load_export(None, "video")
    outputs = served.call(
        "serving_default",
        joints=np.full((3, 4, served.settings["joints"], 3), [[[[np.nan]]], [[[0.0]]], [[[1.0]]]]),
        length=[4, 5, 4],
        frame_rate=[30.0, 30.0, 0.0],
    )
    assert not outputs["probabilities"].any() and outputs["activity"].tolist() == [b""] * 3


def test_hdm05_from_joints_has_the_splits_of_its_pixels(shared_data):
    folder = shared_data / "video" / "hdm05_11"
    source = EvaluateConfig(dataset="hdm05_joints", manual_dir=folder)
    takes = pose.load(source, seed=1)
    assert {split: len(rows) for split, rows in takes.splits.items()} == {
        "train": 173,
        "validation": 16,
        "test": 99,
    }
    own = joints.read_takes(folder / "hdm05_11_joints_30hz.npz", seed=1)
    assert len(own.labels) == 11 and len(own.splits["test"]) == 99


def test_pose_and_pixels_do_not_mix():
    with pytest.raises(InputError, match="--pose and the pixels of 'gaits'"):
        Config(dataset="gaits", pose=True)
