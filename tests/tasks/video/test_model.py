import dataclasses
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
    check_padding(model.build(config, classes=3))


def check_padding(built):
    """The outputs of a model of 8 x 8 pixels do not depend on padding."""
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


def test_pooled_frames_tell_no_positions():
    config = Config(image_size=8, channels=(8,), features=6, units=3, frame="pooled")
    maps = np.random.default_rng(0).normal(size=(5, 4, 3, 8)).astype(np.float32)
    inputs = keras.Input((4, 3, 8))
    network = keras.Model(inputs, model.describe(inputs, config))
    kernel, bias = network.get_layer("describe").get_weights()
    x = np.concatenate([maps.mean(axis=(1, 2)), maps.max(axis=(1, 2))], axis=1) @ kernel + bias
    x = (x - x.mean(axis=1, keepdims=True)) / np.sqrt(x.var(axis=1, keepdims=True) + 1e-3)
    np.testing.assert_allclose(network(maps), x, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(network(maps[:, ::-1, ::-1]), x, rtol=1e-4, atol=1e-4)
    built = model.build(config, classes=3)
    assert "places" not in [layer.name for layer in built.layers]
    check_padding(built)


POSED = Config(
    dataset="hdm05",
    image_size=8,
    channels=(8, 8),
    features=16,
    units=5,
    frame="joints",
    pose_weight=3.0,
)


def posed_batch():
    """Clips of a bright square, in whose corners the joints are."""
    random = np.random.default_rng(0)
    place, frames = random.integers(0, 5, (2, 4, 2)), np.zeros((2, 4, 8, 8, 3), np.uint8)
    for row, times in enumerate(place):
        for time, (x, y) in enumerate(times):
            frames[row, time, y : y + 4, x : x + 4] = 250
    corners = np.indices((4, 5)).reshape(2, 20).T / 4.0
    return {
        "frames": tf.constant(frames),
        "length": tf.constant([4, 2]),
        "label": tf.constant([1, -1], tf.int64),
        "pose": tf.constant((place[:, :, None] + 4.0 * corners) / 8.0, tf.float32),
    }


def test_joints_are_located_in_each_frame_by_itself():
    keras.utils.set_random_seed(0)
    classifier = model.build(POSED, classes=3)
    trained = model.with_pose(classifier)
    batch = posed_batch()
    asked = {name: batch[name] for name in ("frames", "length")}
    outputs, plain = trained(asked), classifier(asked)
    # The classifier, which is exported, has the same weights, and no more of them.
    assert set(plain) == {"probabilities", "frame_probabilities"}
    for name, value in plain.items():
        np.testing.assert_array_equal(outputs[name], value)
    assert [id(w) for w in trained.weights] == [id(w) for w in classifier.weights]
    assert outputs["pose"].shape == (2, 4, 20, 2)
    assert 0.0 <= np.min(outputs["pose"]) < np.max(outputs["pose"]) <= 1.0
    check_padding(classifier)
    # Nothing but the joints reaches the recurrent layers.
    names = [layer.name for layer in classifier.layers]
    assert "unfold_time" not in names and "places" not in names
    with pytest.raises(ValueError, match="pose"):
        model.with_pose(
            model.build(dataclasses.replace(POSED, frame="vector", pose_weight=0), classes=3)
        )


@pytest.mark.parametrize(("channels", "side"), [((8, 8), 16), ((8, 8, 16), 8), ((8,) * 4, 8)])
def test_joints_are_located_in_finer_maps_than_the_last(channels, side):
    config = dataclasses.replace(POSED, image_size=32, channels=channels)
    classifier = model.build(config, classes=3)
    assert classifier.get_layer("joint_maps").output.shape[1:] == (side, side, 20)


def test_mean_places_are_those_of_the_softmax():
    maps = np.random.default_rng(0).normal(0.0, 3.0, (2, 3, 5, 4)).astype(np.float32)
    weights = np.exp(4.0 * maps) / np.exp(4.0 * maps).sum(axis=(1, 2), keepdims=True)
    column = (weights * np.linspace(0.0, 1.0, 5)[:, None]).sum(axis=(1, 2))
    row = (weights * np.linspace(0.0, 1.0, 3)[:, None, None]).sum(axis=(1, 2))
    found = model.MeanPlaces()(maps)
    np.testing.assert_allclose(found, np.stack([column, row], axis=-1), atol=1e-6)


def test_the_error_of_poses_is_added_to_the_loss_of_clips_with_an_activity():
    losses, batch = model.make_losses(POSED, 3), posed_batch()
    outputs = {"probabilities": tf.constant([[0.2, 0.5, 0.3]] * 2), "pose": batch["pose"] + 0.5}
    plain, _ = losses({"probabilities": outputs["probabilities"]}, batch)
    values, weights = losses(outputs, batch)
    np.testing.assert_allclose(values - plain, [3.0 * np.sqrt(0.5), 0.0], rtol=1e-4)
    assert weights.numpy().tolist() == [1.0, 1.0]
    # Validation clips have no poses, so their loss remains comparable.
    del batch["pose"]
    np.testing.assert_array_equal(losses(outputs, batch)[0], plain)


def test_the_error_of_poses_is_the_mean_distance_in_valid_frames():
    random = np.random.default_rng(0)
    one, other = random.normal(size=(2, 3, 5, 20, 2)).astype(np.float32)
    length = [5, 1, 3]
    wanted = [
        np.mean([np.linalg.norm(a - b, axis=-1).mean() for a, b in zip(x[:n], y[:n], strict=True)])
        for x, y, n in zip(one, other, length, strict=True)
    ]
    np.testing.assert_allclose(model.pose_error(one, other, length), wanted, rtol=1e-5)


def test_joints_are_learnt():
    keras.utils.set_random_seed(0)
    trained, losses = model.with_pose(model.build(POSED, classes=3)), model.make_losses(POSED, 3)
    optimizer, batch = keras.optimizers.Adam(2e-2), posed_batch()

    @tf.function
    def step():
        with tf.GradientTape() as tape:
            outputs = trained({"frames": batch["frames"], "length": batch["length"]})
            loss = tf.reduce_sum(losses(outputs, batch)[0])
        gradients = tape.gradient(loss, trained.trainable_variables)
        optimizer.apply(gradients, trained.trainable_variables)
        return model.pose_error(outputs["pose"], batch["pose"], batch["length"])[0]

    errors = [float(step()) for _ in range(60)]
    assert errors[-1] < 0.3 * errors[0]
