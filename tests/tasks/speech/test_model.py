import json
import zipfile

from tasks.speech import features, model
from tasks.speech.config import Config

import keras
import numpy as np
import pytest
import tensorflow as tf

LAYERS = ("LogMel", "SpecAugment", "Subsample")


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_padding_never_affects_the_output(cell):
    config = Config(units=5, layers=2, channels=3, bands=16, cell=cell, strides=(3, 1))
    built = model.build(config, symbols=3)
    rng = np.random.default_rng(0)
    sound = rng.normal(size=(2, 6000)).astype(np.float32)
    length = np.array([6000, 2500], np.int32)
    plain = built({"audio": sound, "length": length})
    junk = np.pad(sound, [(0, 0), (0, 3000)], constant_values=7.0)
    padded = built({"audio": junk, "length": length})
    np.testing.assert_array_equal(plain["frames"], padded["frames"])
    for row, count in enumerate(plain["frames"].numpy()):
        np.testing.assert_allclose(
            padded["log_probs"][row, :count], plain["log_probs"][row, :count], atol=1e-4
        )
    np.testing.assert_allclose(np.exp(plain["log_probs"]).sum(axis=2), 1.0, atol=1e-5)


def test_losses_are_ctc_per_letter():
    rng = np.random.default_rng(0)
    log_probs = tf.nn.log_softmax(tf.constant(rng.normal(size=(2, 9, 4)), tf.float32))
    batch = {
        "label": tf.constant([[0, 1, 2, 0, 0], [2, 2, 0, 0, 0]]),
        "label_length": tf.constant([3, 2]),
    }
    values, weights = model.losses({"log_probs": log_probs, "frames": tf.constant([9, 7])}, batch)
    expected = tf.nn.ctc_loss(
        batch["label"], log_probs, [3, 2], [9, 7], logits_time_major=False, blank_index=3
    )
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    assert weights.numpy().tolist() == [3.0, 2.0]


def rename(config, old, new):
    """Replace a package in every `registered_name` of a Keras config; return the names."""
    names = set()
    if isinstance(config, dict):
        name = config.get("registered_name") or ""
        if name.startswith(f"{old}>"):
            config["registered_name"] = name.replace(f"{old}>", f"{new}>")
            names.add(name)
        config = list(config.values())
    if isinstance(config, list):
        for value in config:
            names |= rename(value, old, new)
    return names


def test_keras_files_with_the_old_names_of_the_layers_load(tmp_path):
    built = model.build(Config(units=5, layers=1, channels=3, bands=16), symbols=3)
    built.save(tmp_path / "new.keras")
    with (
        zipfile.ZipFile(tmp_path / "new.keras") as new,
        zipfile.ZipFile(tmp_path / "old.keras", "w") as old,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                config = json.loads(content)
                assert rename(config, "tasks.speech", "speech") == {
                    f"tasks.speech>{layer}" for layer in LAYERS
                }
                content = json.dumps(config).encode()
            old.writestr(name, content)
    loaded = keras.models.load_model(tmp_path / "old.keras")
    assert type(loaded.get_layer("subsample")) is features.Subsample
    sound = np.random.default_rng(0).normal(size=(1, 6000)).astype(np.float32)
    inputs = {"audio": sound, "length": np.array([6000], np.int32)}
    np.testing.assert_array_equal(built(inputs)["log_probs"], loaded(inputs)["log_probs"])


@pytest.mark.parametrize("name", LAYERS)
def test_layers_are_registered_under_the_name_of_the_task(name):
    layer = getattr(features, name)
    assert keras.saving.get_registered_name(layer) == f"tasks.speech>{name}"
