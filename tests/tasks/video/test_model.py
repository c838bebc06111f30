import zipfile

from common.errors import InputError
from tasks.video import model
from tasks.video.config import Config
from tests.tasks.video.samples import noise

import keras
import numpy as np
import pytest
import sklearn.metrics
import tensorflow as tf


@pytest.mark.parametrize("pooling", ["mean", "max", "last", "attention"])
@pytest.mark.parametrize("changes", [32, 0])
def test_more_padding_changes_no_model(pooling, changes):
    config = Config(
        image_size=8, channels=(8, 8), features=6, units=5, pooling=pooling, changes=changes
    )
    built = model.build(config, classes=3)
    frames, length = noise(8, 8, 8).reshape(2, 4, 8, 8, 3), np.array([4, 2], np.int32)
    plain = built({"frames": frames, "length": length})
    junk = np.concatenate([frames, noise(6, 8, 8, seed=1).reshape(2, 3, 8, 8, 3)], axis=1)
    junk[1, 2:] = 7
    padded = built({"frames": junk, "length": length})
    np.testing.assert_allclose(padded["probabilities"], plain["probabilities"], atol=1e-6)
    steps = padded["frame_probabilities"][:, :4]
    np.testing.assert_allclose(steps, plain["frame_probabilities"], atol=1e-6)


def test_frame_channels_are_colours_and_how_far_they_change():
    frames, mask = noise(6, 2, 2).reshape(2, 3, 2, 2, 3), np.array([[1, 1, 1], [1, 1, 0]], bool)
    layer = model.FrameChannels(colours=0.25, changes=6.0)
    found = layer(frames, mask).numpy().reshape(2, 3, 2, 2, 5)
    light = frames / 255.0
    np.testing.assert_allclose(found[..., :3], 0.5 * light - 0.25, atol=1e-6)
    np.testing.assert_array_equal(found[:, 0, ..., 3], 0.0)
    expected = 6.0 * np.abs(np.diff(light, axis=1)).mean(-1)
    np.testing.assert_allclose(found[:, 1:, ..., 3], expected, atol=1e-5)
    for clip, length in enumerate((3, 2)):
        mean = light[clip, :length].mean(0)
        expected = 6.0 * np.abs(light[clip] - mean).mean(-1)
        np.testing.assert_allclose(found[clip, ..., 4], expected, atol=1e-5)


def test_group_normalisation_is_keras_s_in_fewer_passes():
    pictures = np.random.default_rng(0).normal(2, 3, (5, 6, 4, 24)).astype(np.float32)
    ours, theirs = model.GroupNormalization(3), keras.layers.GroupNormalization(3)
    for layer in (ours, theirs):
        layer.build(pictures.shape)
    theirs.set_weights(
        [np.asarray(keras.random.normal(w.shape, seed=n)) for n, w in enumerate(theirs.weights)]
    )
    ours.set_weights(theirs.get_weights())
    for dtype, tolerance in (("float32", 1e-5), ("mixed_bfloat16", 3e-2)):
        layer = model.GroupNormalization(3, dtype=dtype)
        layer.build(pictures.shape)
        layer.set_weights(theirs.get_weights())
        found = np.asarray(keras.ops.cast(layer(pictures), "float32"))
        np.testing.assert_allclose(found, theirs(pictures), rtol=tolerance, atol=tolerance)
    gradients = []
    for layer in (ours, theirs):
        x = tf.Variable(pictures)
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(x) ** 3)
        gradients.append(tape.gradient(loss, [x, *layer.trainable_variables]))
    for mine, wanted in zip(*gradients, strict=True):
        np.testing.assert_allclose(mine, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())


def test_losses_equal_cross_entropy_by_scikit_learn():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet(np.ones(5), 40)
    labels = random.integers(0, 5, 40)
    outputs = {"probabilities": tf.constant(probabilities, tf.float32)}
    batch = {"label": tf.constant(labels)}
    values, weights = model.make_losses(Config(label_smoothing=0.0), 5)(outputs, batch)
    expected = sklearn.metrics.log_loss(labels, probabilities, labels=range(5))
    np.testing.assert_allclose(np.sum(values) / np.sum(weights), expected, rtol=1e-5)
    smoothed, _ = model.make_losses(Config(label_smoothing=0.2), 5)(outputs, batch)
    wanted = np.eye(5)[labels] * 0.8 + 0.04
    np.testing.assert_allclose(smoothed, -(wanted * np.log(probabilities)).sum(1), rtol=1e-5)


@pytest.mark.parametrize("prefix", ["tasks.video", "video"])
def test_keras_files_load_under_the_present_and_the_earlier_name(prefix, tmp_path):
    """Files of earlier versions name the layers `video>...`."""
    config = Config(image_size=8, channels=(8, 8), features=6, units=5)
    built = model.build(config, classes=3)
    built.save(tmp_path / "model.keras")
    with (
        zipfile.ZipFile(tmp_path / "model.keras") as new,
        zipfile.ZipFile(tmp_path / "other.keras", "w") as other,
    ):
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                assert content.count(b'"tasks.video>') == 4
                content = content.replace(b'"tasks.video>', f'"{prefix}>'.encode())
            other.writestr(name, content)
    loaded = keras.models.load_model(tmp_path / "other.keras")
    for kind in (model.FrameChannels, model.UnfoldTime, model.GroupNormalization):
        count = sum(type(layer) is kind for layer in built.layers)
        assert sum(type(layer) is kind for layer in loaded.layers) == count > 0
    asked = {"frames": noise(8, 8, 8).reshape(2, 4, 8, 8, 3), "length": np.array([4, 2], np.int32)}
    for name, value in built(asked).items():
        np.testing.assert_array_equal(loaded(asked)[name], value)


def test_the_target_of_no_activity_is_the_same_probability_for_each_class():
    losses = model.make_losses(Config(label_smoothing=0.1), 4)
    outputs = {"probabilities": tf.constant([[0.7, 0.1, 0.1, 0.1]] * 2)}
    values, weights = losses(outputs, {"label": tf.constant([-1, 0], tf.int64)})
    logs = np.log([0.7, 0.1, 0.1, 0.1])
    expected = [-logs.mean(), -(np.array([0.925, 0.025, 0.025, 0.025]) @ logs)]
    np.testing.assert_allclose(values, expected, rtol=1e-5)
    assert weights.numpy().tolist() == [1.0, 1.0]


def test_thresholds_lose_few_of_the_right_answers():
    random = np.random.default_rng(0)
    probabilities = random.dirichlet([1.0, 1.0, 1.0], size=400).astype(np.float32)
    label = probabilities.argmax(axis=1)
    label[:100] = (label[:100] + 1) % 2  # wrong answers do not count
    label[label == 2] = 0  # a class without right answers

    def classify(inputs, training):
        assert list(inputs) == ["rows"] and not training
        return {"probabilities": tf.gather(probabilities, inputs["rows"])}

    batch = {"rows": tf.range(400), "label": tf.constant(label)}
    chosen = model.thresholds(classify, [batch], 3)
    right = probabilities.argmax(axis=1) == label
    for number in range(2):
        reached = probabilities[right & (label == number), number]
        assert np.mean(reached < chosen[number]) == pytest.approx(0.05, abs=0.02)
    assert max(chosen) <= model.SURE
    assert chosen[2] == pytest.approx(np.quantile(probabilities[right].max(axis=1), 0.05), abs=1e-3)


@pytest.mark.thorough
def test_a_backbone_is_read_from_a_file_and_stays_as_it_is(tmp_path):
    weights = tmp_path / "mobilenet.weights.h5"
    stock = keras.applications.MobileNetV3Small(
        input_shape=(32, 32, 3), include_top=False, weights=None, pooling="avg"
    )
    stock.save_weights(weights)
    config = Config(
        image_size=32,
        channels=(8, 8),
        features=8,
        units=4,
        backbone="mobilenet_v3",
        backbone_weights=weights,
    )
    built = model.build(config, classes=3)
    network = built.get_layer("backbone")
    for one, other in zip(network.get_weights(), stock.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not network.trainable_variables
    frames = np.random.default_rng(0).integers(0, 256, (1, 2, 32, 32, 3), np.uint8)
    outputs = built({"frames": frames, "length": np.array([2])})
    assert outputs["probabilities"].shape == (1, 3)
    given = model.FrameChannels(127.5, 0.0)(frames, np.ones((1, 2), bool)) + 127.5
    np.testing.assert_allclose(given, frames[0].astype(np.float32), atol=1e-3)
    weights.write_bytes(b"no weights")
    with pytest.raises(InputError, match="not the weights of MobileNetV3Small without its top"):
        model.build(config, classes=3)
