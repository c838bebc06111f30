from common.commands.config import EvaluateConfig
from common.errors import InputError
from tasks.video import data
from tasks.video.config import PRESETS, Config
from tests.tasks.own.video import SIDE, body
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
