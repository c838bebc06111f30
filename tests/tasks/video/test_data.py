import dataclasses

from common.commands.config import EvaluateConfig
from common.errors import InputError
from tasks.video import data, gaits, render, resampling
from tasks.video.config import PRESETS, Config
from tests.tasks.own.video import RATE, SIDE, body
from tests.tasks.video.samples import make_folder

import numpy as np
import pytest
import tensorflow as tf
import tensorflow_datasets as tfds


def flags(**kwargs):
    return EvaluateConfig(**kwargs)


def load(**kwargs):
    return data.load(flags(**kwargs), rate=12.5, longest=96, seed=1)


def test_a_folder_is_read_and_shuffled(tmp_path):
    names = [f"a{number}.mp4" for number in range(20)]
    corpus = load(data=make_folder(tmp_path / "own", sit=names, run=names))
    assert corpus.name == "own" and corpus.labels == ("run", "sit")
    assert [corpus.size(split) for split in corpus.splits] == [32, 4, 4]
    rows = list(corpus.splits["train"].as_numpy_iterator())
    labels = [int(row["label"]) for row in rows]
    assert sum(labels) == 16 and labels != sorted(labels)
    assert rows[0]["frames"].shape == (3, 16, 16, 3) and rows[0]["frame_rate"] == 12.5


def test_an_unknown_data_set_is_named():
    with pytest.raises(InputError, match="no data set 'ucf'; known: gaits, hdm05, "):
        load(dataset="ucf")


@pytest.mark.parametrize("name", PRESETS)
def test_decoded_clips_become_what_a_preset_asks_for(name, tmp_path):
    preset, names = PRESETS[name], ["a.mp4", "b.mp4", "c.mp4"]
    folder = make_folder(tmp_path / "own", run=names, sit=names)
    corpus = data.load(
        flags(data=folder), rate=preset.frame_rate, longest=preset.max_length, seed=1
    )
    row = next(iter(data.preprocess(corpus.splits["train"], preset)))
    assert row["frames"].shape == (row["length"], preset.image_size, preset.image_size, 3)


def test_ucf101_comes_from_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.head", lambda *_, **__: None)
    with tfds.testing.mock_data(num_examples=10):
        corpus = load(dataset="ucf101", data_dir=tmp_path)
        assert len(corpus.labels) == 101 and corpus.labels[0] == "ApplyEyeMakeup"
        config = Config(image_size=SIDE, channels=(8, 8), max_length=16)
        fitted = data.preprocess(corpus.splits["train"].take(2), config)
        rows = list(fitted.as_numpy_iterator())
    for row in rows:
        assert row["frames"].shape[1:] == (SIDE, SIDE, 3) and 1 <= row["length"] <= 16


def test_augmentation_follows_from_seed_and_number():
    config = Config(image_size=SIDE, channels=(8, 8), max_length=32)
    clip = {"frames": body("waving", 1), "length": tf.constant(20), "label": tf.constant(2)}
    one, same, other = (
        data.augmenter(config, 5)(tf.constant(number, tf.int64), clip) for number in (1, 1, 2)
    )
    np.testing.assert_array_equal(one["frames"], same["frames"])
    assert one["frames"].shape != other["frames"].shape or np.any(one["frames"] != other["frames"])
    assert int(one["length"]) == len(one["frames"]) and int(one["label"]) == 2
    still = Config(image_size=SIDE, flip=False, zoom=0.0, shift=0.0, speed=0.0, brightness=0.0)
    plain = data.augmenter(still, 5)(tf.constant(1, tf.int64), clip)
    assert np.abs(plain["frames"].numpy() - clip["frames"].astype(int)).max() <= 1


def test_a_part_of_the_training_clips_shows_no_activity():
    config = Config(image_size=SIDE, channels=(8, 8), max_length=32, negatives=0.5)
    clip = {"frames": body("waving", 1), "length": tf.constant(20), "label": tf.constant(2)}
    augment = data.augmenter(config, 5)
    rows = [augment(tf.constant(number, tf.int64), clip) for number in range(40)]
    negative = [row for row in rows if int(row["label"]) == -1]
    assert 8 < len(negative) < 32 and {int(row["label"]) for row in rows} == {-1, 2}
    frames = [row["frames"].numpy().astype(int) for row in negative]
    assert all(f.shape[1:] == (SIDE, SIDE, 3) for f in frames)
    still = [not np.ptp(f, axis=0).any() for f in frames]
    assert any(still) and not all(still)
    again = augment(tf.constant(3, tf.int64), clip)
    np.testing.assert_array_equal(again["frames"], rows[3]["frames"])


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_pose_moves_as_the_pixels(mirrored):
    random, middle = np.random.default_rng(0), (np.indices((64, 64)) + 0.5) / 64
    for zoom in (0.9, 1.0, 1.1):
        place, shift = random.uniform(0.3, 0.7, 2), random.uniform(-0.1, 0.1, 2).astype(np.float32)
        dot = 250.0 * np.exp(-((middle - place[::-1, None, None]) ** 2).sum(0) / 0.003)
        frames = np.repeat(dot.round().astype(np.uint8)[None, None, ..., None], 3, axis=-1)
        moved = resampling.resize_in_graph(
            tf.constant(frames),
            tf.constant([[64, 64]]),
            64,
            zoom=tf.constant([zoom]),
            shift=shift[None],
            mirrored=tf.constant([mirrored]),
        )[0, 0, ..., 0]
        light = moved.numpy() / moved.numpy().sum(dtype=float)
        wanted = [(light * middle[1]).sum(), (light * middle[0]).sum()]
        pose = np.tile(place.astype(np.float32), (1, len(render.JOINTS), 1))
        found = data.move_pose(tf.constant(pose), zoom, tf.constant(shift), tf.constant(mirrored))
        np.testing.assert_allclose(found, np.tile(wanted, (1, len(pose[0]), 1)), atol=0.004)


def test_a_mirrored_pose_is_that_of_a_mirrored_body():
    joints = gaits.move("kicking", seconds=1.0, rate=RATE, seed=0)
    view = dataclasses.replace(render.random_view(np.random.default_rng(0)), shift=(0.0, 0.5))
    mirrored = joints[:, render.MIRRORED] * (-1.0, 1.0, 1.0)
    opposite = dataclasses.replace(view, azimuth=-view.azimuth, roll=-view.roll)
    pose = tf.constant(render.pose(joints, view))
    found = data.move_pose(pose, tf.constant(1.0), tf.zeros(2), tf.constant(True))
    wanted = data.order_pairs(tf.constant(render.pose(mirrored, opposite)))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_of_a_left_and_a_right_joint_the_left_one_comes_first():
    pose = np.random.default_rng(0).normal(size=(6, len(render.JOINTS), 2)).astype(np.float32)
    wanted = pose.copy()
    for joint, left in render.JOINT_INDEX.items():
        if joint.startswith("left_"):
            pair = [left, render.JOINT_INDEX[joint.replace("left", "right")]]
            for before, after in zip(pose, wanted, strict=True):
                after[pair] = sorted(before[pair].tolist())
    assert not np.array_equal(pose, wanted)
    np.testing.assert_array_equal(data.order_pairs(pose), wanted)


def test_poses_are_augmented_as_the_frames():
    """The brightness of each frame, and its joints, are its number; its left half is dark."""
    still = Config(image_size=SIDE, channels=(8, 8), max_length=32, shift=0.0, zoom=0.0)
    config = dataclasses.replace(still, speed=0.5, brightness=0.0)
    number = np.arange(1, 21)
    frames = np.zeros((20, SIDE, SIDE, 3), np.uint8)
    frames[:, :, SIDE // 2 :] = 10 * number[:, None, None, None]
    pose = np.zeros((20, len(render.JOINTS), 2), np.float32)
    pose[:, render.JOINT_INDEX["right_hand"]] = number[:, None]
    clip = {"frames": frames, "length": tf.constant(20), "label": tf.constant(2), "pose": pose}
    augment, seen = data.augmenter(config, 5), set()
    for row in (augment(tf.constant(number, tf.int64), clip) for number in range(20)):
        halves = row["frames"].numpy()[:, SIDE // 2, [SIDE // 4, 3 * SIDE // 4], 0]
        is_mirrored = bool(halves[0, 0])
        hand = render.JOINT_INDEX["left_hand" if is_mirrored else "right_hand"]
        steps = halves.max(axis=1) / 10.0
        wanted = np.zeros((len(steps), *pose.shape[1:]), np.float32)
        wanted[:, hand] = steps[:, None]
        if is_mirrored:
            wanted[..., 0] = 1.0 - wanted[..., 0]
        np.testing.assert_allclose(row["pose"], wanted, atol=1e-5)
        seen.add((is_mirrored, len(steps)))
    assert len(seen) > 10 and len({mirrored for mirrored, _ in seen}) == 2
