"""The video task as its users meet it: bodies, files, data, commands, answers, messages."""

import itertools
import json
import sys
import wave
from fractions import Fraction

from common.commands import cli
from common.commands.config import EvaluateConfig
from common.errors import InputError
from common.serving.served import load_export
from tasks.video import clips, data, evaluate, gaits, model, predict, render, serving, train
from tasks.video.config import PRESETS, Config
from tests.tasks import commands
from tests.tasks.own.video import CLASSES, RATE, SIDE, TINY, body

import av
import keras
import numpy as np
import pytest
import scipy.io
import sklearn.metrics
import tensorflow as tf
import tensorflow_datasets as tfds


def command(name, *words, **kwargs):
    return commands.run(f"video.{name}", *words, **kwargs)


def write_video(path, frames, rate=25, codec="mpeg4", pix_fmt="yuv420p", source="rgb24", **meta):
    """Writes frames with any codec and pixel format."""
    with av.open(str(path), "w") as container:
        container.metadata.update(meta)
        stream = container.add_stream(codec, rate=Fraction(rate).limit_denominator(1001))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pix_fmt
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format=source)))
        container.mux(stream.encode(None))
    return path


def noise(time, height=SIDE, width=SIDE, seed=0, channels=3):
    random = np.random.default_rng(seed)
    return random.integers(0, 256, (time, height, width, channels), np.uint8)


def ask(served, batch, rates, signature="serving_default"):
    return served.call(signature, **serving.request(batch, rates))


# --- the commands ---------------------------------------------------------------------------------


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["task"] == "video" and result["dataset"] == "clips" and result["examples"] == 18
    assert result["accuracy"] >= 0.85 and result["macro_f1"] >= 0.8
    version = folder / result["model"]
    assert version == folder / "saved_models" / "video" / "1"
    commands.check_version(version, f"{result['accuracy']:.4f}", "| units | 16 |")
    assert not (folder / "saved_models" / "video" / "run" / "clips").exists()


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    said = json.loads(done.stdout.splitlines()[-1])
    again = command("evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    scored = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "accuracy", "macro_f1"):
        assert scored[name] == said[name]
    for label in CLASSES:  # per-class F1 and the confusion table
        assert f"\n| {label} |" in again.stdout


def test_the_order_of_frames_matters(served):
    """Sitting down and standing up are each the other backwards."""
    forwards = [body(label, person, seed=5) for label in CLASSES[:2] for person in range(40, 46)]
    wanted = [label.encode() for label in CLASSES[:2] for _ in range(6)]
    there = ask(served, forwards, [RATE] * 12)["activity"].tolist()
    back = ask(served, [clip[::-1] for clip in forwards], [RATE] * 12)["activity"].tolist()
    swapped = [{wanted[0]: wanted[-1], wanted[-1]: wanted[0]}[label] for label in wanted]
    assert np.mean([a == b for a, b in zip(there, wanted, strict=True)]) >= 0.8
    assert np.mean([a == b for a, b in zip(back, swapped, strict=True)]) >= 0.8


def test_evaluate_scores_a_folder_of_the_users(trained, served, tmp_path, capsys):
    wrong = {"waving": "standing up", "sitting down": "sitting down"}
    for folder, label in wrong.items():  # clips of one class lie in the folder of another
        (tmp_path / "mine" / folder).mkdir(parents=True)
        for person in range(50, 54):
            path = tmp_path / "mine" / folder / f"{person}.mp4"
            path.write_bytes(clips.encode(body(label, person), RATE))
    evaluate.main(["--model", str(served.path), "--data", str(tmp_path / "mine")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["split"] == "all" and result["examples"] == 8 and result["dataset"] == "mine"
    assert result["accuracy"] <= 0.5
    (tmp_path / "mine" / "waving").rename(tmp_path / "mine" / "flying")
    with pytest.raises(InputError, match=r"mine/flying: unknown class; expected sitting down"):
        evaluate.main(["--model", str(served.path), "--data", str(tmp_path / "mine")])


def test_predict_names_the_activity_and_goes_on_behind_a_bad_file(trained, tmp_path, capsys):
    version = str(trained[0] / "saved_models" / "video" / "1")
    clip = trained[0] / "clips" / "waving" / "v_g20_c1.mp4"
    (tmp_path / "bad.avi").write_bytes(b"no video" * 100)
    out = tmp_path / "out.jsonl"
    words = [str(clip), str(tmp_path / "bad.avi"), str(clip)]
    predict.main(["--model", version, "--output", str(out), *words])
    first, bad, last = (json.loads(line) for line in out.read_text().splitlines())
    assert first == last and first["activity"] == "waving" and first["clip"] == str(clip)
    assert first["probability"] == max(first["probabilities"].values()) > 0.5
    assert first["seconds"] == 2.5 and len(first["windows"]) == 1
    assert bad["activity"] is None and "bad.avi: cannot be read as video" in bad["message"]
    picture = tmp_path / "seen.png"
    predict.main(["--model", version, "--plot", str(picture), str(clip)])
    assert capsys.readouterr().out.startswith("waving ")
    assert picture.stat().st_size > 10_000


def test_a_long_file_is_walked_in_windows(served, tmp_path, monkeypatch):
    """10,000 frames: first still pictures of one body, then of another; memory stays bounded."""
    pictures = np.stack([body("waving", 1)[3], noise(1)[0]])
    path = write_video(tmp_path / "long.avi", pictures[[0] * 5000 + [1] * 5000], rate=100)
    held = []
    stacked = predict.np.stack

    def stack(part, *others, **options):
        held.append(len(part))
        return stacked(part, *others, **options)

    monkeypatch.setattr(predict.np, "stack", stack)
    said = predict.describe(served, path, predict.Predict(clips=(path,)))
    assert said["seconds"] == 100.0 and max(held) == 24
    spans = [(window["start"], window["end"]) for window in said["windows"]]
    assert spans[:2] == [(0.0, 3.0), (1.5, 4.5)] and spans[-1][1] == 100.0
    assert all(b[0] <= a[1] for a, b in itertools.pairwise(spans))
    alone = ask(served, [np.repeat(pictures[:1], 24, axis=0)], [RATE])
    assert said["windows"][0]["activity"] == alone["activity"][0].decode()
    assert said["windows"][0]["probability"] == pytest.approx(alone["probabilities"].max(), abs=0.1)


@pytest.mark.parametrize("count", [1, 6, 7, 8, 11, 12, 13, 30])
def test_windows_show_every_frame_and_hold_few(count):
    seen = list(predict.windows(iter(range(count)), longest=6, window=4))
    assert [part[0] for _, part in seen] == [start for start, _ in seen]
    assert sorted({frame for _, part in seen for frame in part}) == list(range(count))
    assert len(seen) == (1 if count <= 6 else -(-(count - 4) // 2) + 1)


@pytest.mark.slow  # sentiment is tested likewise
def test_fine_tuning_replaces_the_head(trained, command_environment, served):
    folder, _ = trained
    for label in ("bowing", "waving"):
        (folder / "more" / label).mkdir(parents=True)
        for person in range(12):
            path = folder / "more" / label / f"{person}.mp4"
            path.write_bytes(clips.encode(body(label, person), RATE))
    done = command(
        *("train", "--data", "more", "--init", "saved_models/video/1", "--epochs", 2),
        *("--output", "tuned", "--score", "none", "--units", 5, *TINY[:2]),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(folder / "tuned" / "video")
    assert tuned.settings["labels"] == ["bowing", "waving"]
    assert tuned.settings["config"]["units"] == 16  # of the published model
    assert ask(tuned, [body("bowing", 3)], [RATE])["probabilities"].shape == (1, 2)


@pytest.mark.slow  # that runs resume is tested on ner and on the loop itself, too
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(trained, command_environment):
    folder = trained[0] / "resumed"
    folder.mkdir()
    words = ["--data", "../clips", "--epochs", 8, "--patience", 99, *TINY, "--deterministic"]
    words += ["--score", "none"]
    environment = command_environment
    commands.train_and_kill("video", *words, folder=folder, environment=environment)
    resumed = command("train", "--resume", *words, folder=folder, environment=environment)
    assert resumed.returncode == 0, resumed.stderr
    whole = command("train", *words, "--output", "whole", folder=folder, environment=environment)
    assert whole.returncode == 0, whole.stderr
    one, other = (
        keras.models.load_model(folder / root / "video" / "1" / "model.keras")
        for root in ("saved_models", "whole")
    )
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.slow  # sentiment is tested likewise
def test_bfloat16_and_mirrored_training_answer_in_float32(trained, command_environment):
    words = ["--data", "clips", "--epochs", 2, "--score", "none", "--output", "bfloat16", *TINY]
    words += ["--precision", "bfloat16", "--strategy", "mirrored"]
    done = command("train", *words, folder=trained[0], environment=command_environment)
    assert done.returncode == 0, done.stderr
    low = load_export(trained[0] / "bfloat16" / "video")
    answer = ask(low, [body("waving", 1), noise(3)], [RATE, 30.0])
    assert answer["probabilities"].dtype == np.float32
    np.testing.assert_allclose(answer["probabilities"].sum(axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("module", [train, evaluate, predict, gaits])
def test_help_has_examples_and_defaults(module, capsys):
    commands.check_help(module, capsys)


def test_gaits_writes_a_folder_that_train_reads(tmp_path):
    gaits.main(["--output", str(tmp_path), "--people", "1000", "1001", "--size", "32"])
    found = data.class_folders(tmp_path)
    assert tuple(found) == tuple(sorted(gaits.ACTIVITIES)) and len(found) == 14
    assert all(len(files) == 2 for files in found.values())
    assert clips.read(found["bowing"][0], rate=12.5).shape[1:] == (32, 32, 3)


# --- answers --------------------------------------------------------------------------------------


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/video.json")


def test_batch_mates_sizes_and_junk_change_nothing(served):
    batch = [noise(9, 40, 30), body("waving", 3), noise(1, 7, 90), body("sitting down", 2)[:5]]
    rates = [25.0, RATE, 30.0, RATE]
    together = ask(served, batch, rates)["probabilities"]
    junk = serving.request(batch, rates)
    padded = noise(30, 97, 101, seed=5)[None].repeat(4, axis=0)
    for row, clip in enumerate(batch):
        padded[row, : clip.shape[0], : clip.shape[1], : clip.shape[2]] = clip
    spoilt = served.call("serving_default", **{**junk, "frames": padded})["probabilities"]
    np.testing.assert_allclose(spoilt, together, atol=1e-5)
    for row, clip in enumerate(batch):
        alone = ask(served, [clip], rates[row : row + 1])["probabilities"][0]
        np.testing.assert_allclose(alone, together[row], atol=1e-5)


def test_junk_in_the_padding_of_tensors_changes_nothing(served):
    frames, length = noise(4 * 9).reshape(4, 9, SIDE, SIDE, 3), np.array([9, 4, 1, 6], np.int32)
    plain = served.call("tensors", frames=frames, length=length)["probabilities"]
    junk = np.concatenate([frames, noise(4 * 5, seed=2).reshape(4, 5, SIDE, SIDE, 3)], axis=1)
    for row, count in enumerate(length):
        junk[row, count:] = 255 - junk[row, count:]
    found = served.call("tensors", frames=junk, length=length)["probabilities"]
    np.testing.assert_allclose(found, plain, atol=1e-6)


def test_bad_rows_get_the_empty_answer_and_spoil_no_neighbour(served):
    good = body("waving", 3)
    asked = serving.request([good] * 13, [RATE] * 13)
    asked["length"][[1, 2, 3]] = 0, -1, len(good) + 1
    asked["size"][[4, 5, 6, 7]] = (0, SIDE), (SIDE, -3), (SIDE + 1, SIDE), (SIDE, 10**9)
    asked["frame_rate"][[8, 9, 10, 11]] = np.nan, 0.0, -25.0, np.inf
    answer = served.call("serving_default", **asked)
    assert [name.decode() for name in answer["activity"]] == ["waving", *[""] * 11, "waving"]
    np.testing.assert_array_equal(answer["probabilities"][1:12], 0.0)
    alone = ask(served, [good], [RATE])["probabilities"][0]
    for row in (0, 12):
        np.testing.assert_allclose(answer["probabilities"][row], alone, atol=1e-6)
    steps = served.call("explain", **asked)
    assert steps["length"].tolist() == [20, *[0] * 11, 20]
    np.testing.assert_array_equal(steps["frame_probabilities"][1:12], 0.0)


@pytest.mark.parametrize("rate", [1e-30, 1e-3, 1e6, 3e38])
def test_odd_but_possible_frame_rates_are_answered(served, rate):
    answer = ask(served, [body("waving", 3)], [rate])
    np.testing.assert_allclose(answer["probabilities"].sum(), 1.0, atol=1e-5)


@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (2, 0, 8, 8), (2, 3, 0, 8), (1, 3, 8, 0)])
def test_empty_tensors_are_answered(served, shape):
    asked = {
        "frames": np.zeros((*shape, 3), np.uint8),
        "length": np.full(shape[0], shape[1]),
        "size": np.tile(shape[2:], (shape[0], 1)),
        "frame_rate": np.full(shape[0], 25.0),
    }
    for name in ("serving_default", "explain"):
        answer = served.call(name, **asked)
        assert all(len(value) == shape[0] for value in answer.values())
    assert not np.any(served.call("serving_default", **asked)["probabilities"])
    none = served.call("tensors", frames=np.zeros((2, 0, SIDE, SIDE, 3)), length=[0, 0])
    np.testing.assert_array_equal(none["probabilities"], np.zeros((2, 3)))


def test_12_and_60_frames_a_second_give_the_same_answer(served):
    """The same movement, filmed at several rates; and shown again by a faster player."""
    for activity in CLASSES:
        filmed = {}
        for rate in (12.0, 25.0, 60.0):
            joints = gaits.move(activity, seconds=2.5, rate=240.0, seed=1, person=33)
            filmed[rate] = render.render(render.at_rate(joints, 240.0, rate), size=SIDE)
        answer = ask(served, list(filmed.values()), list(filmed))
        assert len(set(answer["activity"].tolist())) == 1
        shares = answer["probabilities"]
        np.testing.assert_allclose(shares[1:], shares[[0, 0]], atol=0.15)
    slow = body("waving", 3)
    player = slow[np.arange(len(slow) * 60 // 8) * 8 // 60]
    answer = ask(served, [slow, player], [RATE, 60.0])["probabilities"]
    np.testing.assert_allclose(answer[1], answer[0], atol=1e-5)


def test_raw_frames_and_tensors_give_the_same_probabilities(served):
    clip = body("sitting down", 4)
    raw = ask(served, [clip], [RATE])["probabilities"]
    by_tensors = served.call("tensors", frames=clip[None], length=[len(clip)])["probabilities"]
    np.testing.assert_allclose(by_tensors, raw, atol=1e-6)


def test_explain_shows_each_step(served):
    seen = ask(served, [body("waving", 3), noise(50)], [RATE, 25.0], "explain")
    assert seen["length"].tolist() == [20, 16]
    sums = seen["frame_probabilities"].sum(axis=-1)
    np.testing.assert_allclose(sums[0], 1.0, atol=1e-5)
    np.testing.assert_allclose(sums[1], [1.0] * 16 + [0.0] * 4, atol=1e-5)


def test_beyond_the_longest_a_clip_is_cut(served):
    long = noise(60)
    whole, cut = (ask(served, [clip], [RATE])["probabilities"] for clip in (long, long[:32]))
    np.testing.assert_allclose(whole, cut, atol=1e-6)


def test_the_keras_file_loads_in_a_notebook_and_agrees(served):
    live = keras.models.load_model(served.path / "model.keras")
    asked = {"frames": noise(10).reshape(2, 5, SIDE, SIDE, 3), "length": np.array([5, 2], np.int32)}
    np.testing.assert_allclose(
        live(asked)["probabilities"], served.call("tensors", **asked)["probabilities"], atol=1e-6
    )


# --- model, loss, metrics -------------------------------------------------------------------------


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


def test_metrics_are_fractions():
    found = evaluate.metrics([0, 4, 2, 2], [0, 3, 2, 0])
    assert found["accuracy"] == 0.5
    # F1 of 0: 2/3, of 2: 2/3, of 3 and 4: 0.
    assert found["macro_f1"] == pytest.approx(1 / 3)


def test_every_preset_is_sound_and_trains_the_set_it_names():
    for name, preset in PRESETS.items():
        assert preset.dataset == name and name in data.LICENCES
        assert preset.bucket_lengths()[-1] == preset.max_length


# --- time and size --------------------------------------------------------------------------------


def shown_by_hand(count, source, rate):
    """Which frame is on show at the middle of each new frame, by exact fractions."""
    source, rate = Fraction(source), Fraction(rate)
    shown = []
    while (len(shown) + Fraction(1, 2)) / rate < count / source:
        shown.append(int((len(shown) + Fraction(1, 2)) / rate * source))
    return shown or [count - 1]


@pytest.mark.parametrize("source", ["12", "12.5", "24", "25", "29.97", "30", "60", "120", "5"])
@pytest.mark.parametrize("count", [1, 2, 7, 30, 101])
def test_files_and_graph_sample_by_one_rule(source, count):
    rate, frames = float(Fraction(source)), np.arange(count)
    expected = shown_by_hand(count, source, "12.5")
    timed = ((i / rate, (i + 1) / rate, i) for i in frames)
    assert list(clips.sample(timed, 12.5)) == expected
    found, length = clips.sample_in_graph(
        frames[None, :, None], tf.constant([count]), tf.constant([rate]), rate=12.5, longest=999
    )
    assert found[0, : length[0], 0].numpy().tolist() == expected


def resized_by_hand(picture, side):
    """Anti-aliased linear interpolation into a square, one pixel after another."""
    height, width, _ = picture.shape
    scale = side / max(height, width)
    out = np.zeros((side, side, 3))
    for row, column in itertools.product(range(side), repeat=2):
        y = (row + 0.5 - (side - height * scale) / 2) / scale
        x = (column + 0.5 - (side - width * scale) / 2) / scale
        if not (0 <= y <= height and 0 <= x <= width):
            continue
        reach = max(1.0, 1.0 / scale)
        wy = np.maximum(0, 1 - abs(np.arange(height) + 0.5 - y) / reach)
        wx = np.maximum(0, 1 - abs(np.arange(width) + 0.5 - x) / reach)
        weights = np.outer(wy / wy.sum(), wx / wx.sum())
        out[row, column] = (weights[..., None] * picture).sum(axis=(0, 1))
    return out


@pytest.mark.parametrize("shape", [(16, 16), (33, 57), (5, 3), (61, 20), (1, 1)])
def test_pictures_are_resized_as_by_hand(shape):
    picture = noise(1, *shape)[0]
    canvas = noise(1, 64, 70, seed=9)  # what lies beyond the true size is junk
    canvas[0, : shape[0], : shape[1]] = picture
    found = clips.resize_in_graph(canvas[None], tf.constant([shape]), 16)[0, 0]
    assert np.abs(found.numpy() - resized_by_hand(picture, 16)).max() <= 0.51
    if shape == (16, 16):
        np.testing.assert_array_equal(found, picture)
    both = clips.resize_in_graph(
        *(np.repeat(value, 2, axis=0) for value in (canvas[None], [shape])),
        16,
        mirrored=[False, True],
    )
    np.testing.assert_array_equal(both[0, 0], found)
    np.testing.assert_array_equal(both[1, 0], found[:, ::-1])


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


# --- files ----------------------------------------------------------------------------------------


def test_encoding_and_decoding_keep_the_picture():
    frames = render.render(gaits.move("walking", seconds=2.0, rate=12.5, seed=1))
    again = clips.read(clips.encode(frames, 12.5), rate=12.5)
    assert again.shape == frames.shape == (25, 64, 64, 3)
    error = np.sqrt(np.mean((again.astype(float) - frames) ** 2))
    assert error < 12.0  # of 255: chroma is stored at half the resolution


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.avi", {"codec": "mpeg4"}),
        ("a.mpg", {"codec": "mpeg1video"}),
        ("a.webm", {"codec": "libvpx"}),
        ("a.mkv", {"codec": "ffv1", "pix_fmt": "gray", "source": "gray"}),
        ("b.mkv", {"codec": "ffv1", "pix_fmt": "bgra", "source": "rgba"}),
        ("a.mov", {"codec": "qtrle", "pix_fmt": "argb", "source": "rgba"}),
    ],
)
def test_every_usual_kind_of_file_is_read(tmp_path, name, options):
    grey = np.linspace(40, 200, 20).astype(np.uint8)
    channels = {"rgb24": 3, "rgba": 4}.get(options.get("source", "rgb24"))
    frames = np.broadcast_to(grey[:, None, None], (20, 48, 64))
    frames = frames if channels is None else np.repeat(frames[..., None], channels, axis=-1)
    path = write_video(tmp_path / name, np.ascontiguousarray(frames), **options)
    found = clips.read(path, rate=25.0)
    assert found.shape == (20, 48, 64, 3)
    np.testing.assert_allclose(found.mean(axis=(1, 2, 3)), grey, atol=6)


@pytest.mark.parametrize("shape", [(33, 57), (1, 400), (2, 2)])
def test_odd_sizes(tmp_path, shape):
    path = write_video(tmp_path / "a.mkv", noise(4, *shape), codec="ffv1", pix_fmt="bgr0")
    frames = clips.read(path, rate=25.0)
    assert frames.shape[0] == 4 and frames.shape[1:3] == (shape if max(shape) < 257 else (1, 256))


def test_frames_larger_than_needed_are_made_smaller(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(2, 360, 640))
    assert clips.read(path, rate=25.0).shape == (2, 144, 256, 3)


def test_pictures_are_turned_upright_and_pixels_squared(tmp_path):
    picture = np.zeros((1, 48, 64, 3), np.uint8)
    picture[:, :24] = 200  # the upper half is bright
    options = {"codec": "libx264"}
    plain = write_video(tmp_path / "a.mp4", picture, **options)
    for name, change in (
        ("turned", lambda stream: stream.set_display_rotation(90)),
        ("wide", lambda stream: setattr(stream.codec_context, "sample_aspect_ratio", 2)),
    ):
        with av.open(str(tmp_path / f"{name}.mp4"), "w") as container:
            stream = container.add_stream("libx264", rate=25)
            stream.height, stream.width, stream.pix_fmt = 48, 64, "yuv420p"
            change(stream)
            frame = av.VideoFrame.from_ndarray(picture[0], format="rgb24")
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    turned, wide, plain = (
        clips.read(path, rate=25.0)[0]
        for path in (tmp_path / "turned.mp4", tmp_path / "wide.mp4", plain)
    )
    assert turned.shape == (64, 48, 3) and wide.shape == (48, 128, 3)
    error = np.abs(turned.astype(int) - np.rot90(plain)).mean()  # counter-clockwise
    assert error < 3 and turned[:, :12].mean() > 150 > 50 > turned[:, -12:].mean()


def test_one_frame_alone_is_a_clip(tmp_path, served):
    path = write_video(tmp_path / "one.avi", body("waving", 1)[:1], rate=25)
    assert clips.read(path, rate=12.5).shape == (1, SIDE, SIDE, 3)
    said = predict.describe(served, path, predict.Predict(clips=(path,)))
    assert said["activity"] in CLASSES and said["seconds"] == 1 / RATE


def test_metadata_that_is_not_utf8_does_no_harm(tmp_path):
    path = write_video(tmp_path / "a.avi", noise(3), title="QQQQQQQQ")
    content = path.read_bytes()
    assert content.count(b"QQQQQQQQ") == 1
    path.write_bytes(content.replace(b"QQQQQQQQ", b"\xff\xfeG\xfcn\xdf\xc3\x28"))
    assert len(clips.read(path, rate=25.0)) == 3


def test_a_truncated_file_counts_as_far_as_it_goes(tmp_path):
    path = write_video(tmp_path / "whole.mpg", noise(50), codec="mpeg1video")
    content = path.read_bytes()
    (tmp_path / "half.mpg").write_bytes(content[: len(content) // 2])
    assert 10 <= len(clips.read(tmp_path / "half.mpg", rate=25.0)) <= 40


def test_time_stamps_decide_not_the_number_of_frames(tmp_path):
    """Frames at 0, 1, 2, 3 tenths of a second, then one that stays for 0.6 s, then a last one."""
    grey = (10, 50, 90, 130, 170, 250)
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        stream = container.add_stream("ffv1", rate=10)
        stream.height = stream.width = 16
        stream.pix_fmt = "gray"
        stream.codec_context.time_base = Fraction(1, 10)
        for place, value in zip((0, 1, 2, 3, 4, 10), grey, strict=True):
            frame = av.VideoFrame.from_ndarray(np.full((16, 16), value, np.uint8), format="gray")
            frame.pts, frame.time_base = place, Fraction(1, 10)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    found = clips.read(tmp_path / "a.mkv", rate=10.0)[:, 0, 0, 0].tolist()
    assert found == [10, 50, 90, 130, *[170] * 6, 250]


def wav(path):
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(8000)
        file.writeframes(b"\0" * 8000)


def half_mp4(path):
    content = clips.encode(noise(30), 25.0)
    path.write_bytes(content[: len(content) // 2])


BAD_FILES = {
    "junk.avi": (lambda path: path.write_bytes(b"no video" * 99), "cannot be read as video"),
    "empty.mp4": (lambda path: path.write_bytes(b""), "cannot be read as video"),
    "half.mp4": (half_mp4, "cannot be read as video"),
    "sound.wav": (wav, "no video in this file"),
    "notes.txt": (lambda path: path.write_text("a line\n" * 99), "no video|cannot be read"),
    "list.m3u8": (
        lambda path: path.write_text(
            "#EXTM3U\n#EXTINF:1,\nhttp://localhost:9/a.ts\n#EXT-X-ENDLIST\n"
        ),
        "no video|cannot be read",
    ),
    "gone.avi": (lambda path: None, "cannot be read as video: No such file"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_bad_files_are_told_in_one_line(trained, tmp_path, name, capsys, monkeypatch):
    make, message = BAD_FILES[name]
    make(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name}: .*({message})"):
        clips.read(tmp_path / name, rate=12.5)
    words = ["--model", str(trained[0] / "saved_models" / "video"), str(tmp_path / name)]
    monkeypatch.setattr(sys, "argv", ["predict", *words])
    with pytest.raises(SystemExit) as stop:
        cli.run(predict.main)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert stop.value.code == 2 and error.startswith("error: ") and name in error


def test_a_missing_library_is_told(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(InputError, match=r"this needs av, .*: pip install -e '\.\[video\]'"):
        clips.read(tmp_path / "a.avi", rate=12.5)


# --- data -----------------------------------------------------------------------------------------


def flags(**kwargs):
    return EvaluateConfig(**kwargs)


def load(**kwargs):
    return data.load(flags(**kwargs), rate=12.5, longest=96, seed=1)


def make_folder(folder, **classes):
    """A folder of tiny clips: class -> names."""
    content = clips.encode(noise(3, 16, 16), 12.5)
    for label, names in classes.items():
        (folder / label).mkdir(parents=True)
        for name in names:
            (folder / label / name).write_bytes(content)
    return folder


def test_a_folder_without_lists_is_dealt_by_recording(tmp_path):
    names = [f"v_g{group:02d}_c{part:02d}.mp4" for group in range(20) for part in range(3)]
    folder = make_folder(tmp_path / "own", run=names, sit=names[:12])
    labels, splits = data.own_splits(folder, seed=3)
    assert labels == ("run", "sit")
    count = {split: len(files) for split, files in splits.items()}
    assert count == {"train": 48 + 6, "validation": 6 + 3, "test": 6 + 3}
    groups = {
        split: {(file.parent.name, data.group_of(file)) for file in files}
        for split, files in splits.items()
    }
    for one, other in itertools.combinations(groups.values(), 2):
        assert not one & other
    assert data.own_splits(folder, seed=3)[1] == splits
    corpus = load(data=folder)
    assert corpus.size("train") == 54
    row = next(corpus.splits["test"].as_numpy_iterator())
    assert row["frames"].shape == (3, 16, 16, 3) and row["frame_rate"] == 12.5


@pytest.mark.parametrize("name", PRESETS)
def test_decoded_clips_become_what_a_preset_asks_for(name, tmp_path):
    preset, names = PRESETS[name], ["a.mp4", "b.mp4", "c.mp4"]
    folder = make_folder(tmp_path / "own", run=names, sit=names)
    corpus = data.load(
        flags(data=folder), rate=preset.frame_rate, longest=preset.max_length, seed=1
    )
    row = next(iter(data.to_model(corpus.splits["train"], preset)))
    assert row["frames"].shape == (row["length"], preset.image_size, preset.image_size, 3)


def test_lists_in_the_form_of_ucf101_are_kept(tmp_path):
    names = [f"v_g{group}_c1.mp4" for group in range(6)]
    folder = make_folder(tmp_path / "own", **{"sit down": names, "run": names})
    lines = [f"{label}/{name} {k}" for k, label in ((1, "run"), (2, "sit down")) for name in names]
    (folder / "train.txt").write_text("\r\n".join(lines[:4] + lines[6:10]) + "\n")
    (folder / "test.txt").write_text("\n".join(line[:-2] for line in lines[4:6] + lines[10:]))
    _, splits = data.own_splits(folder, seed=1)
    tested = [f"{file.parent.name}/{file.name} " for file in splits["test"]]
    assert [line[:-1] for line in lines[4:6] + lines[10:]] == tested
    assert len(splits["validation"]) == 2 and len(splits["train"]) == 6


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "run" / "a1.mp4").write_bytes(b"x" * 99), r"a1.mp4: cannot be read as"),
        (lambda f: (f / "fly").mkdir(), r"own/fly: no clips in this class folder"),
        (lambda f: (f / "run" / "a.doc").write_bytes(b"x"), r"run/a.doc: no clip; expected .avi"),
        (lambda f: make_folder(f, fly=["a1.mp4", "a2.mp4"]), r"fly: 2 clips are too few to split"),
        (lambda f: (f / "train.txt").write_text("run/a1.mp4\n"), "test.txt is missing beside"),
        (
            lambda f: (f / "test.txt").write_text("run/a1.mp4 1\nrun/no.mp4 1\n"),
            r"test.txt, line 2: no clip 'run/no.mp4' beside this list",
        ),
        (
            lambda f: (f / "test.txt").write_text("run/a1.mp4\n\nrun/a1.mp4\n"),
            r"test.txt, line 3: 'run/a1.mp4' stands in line 1 already",
        ),
        (
            lambda f: [(f / n).write_text("run/a1.mp4\n") for n in ("test.txt", "train.txt")],
            r"too few to split|stands in train and test",
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
        load(data=folder)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "ucf"], "no data set 'ucf'; known: gaits, hdm05"),
        (["--channels", "12"], "--channels must be multiples of 8"),
        (["--image_size", "50"], "--image_size must be a multiple of 16"),
        (["--zoom", "1"], "--zoom must be in [0, 1)"),
        (["--colours", "0"], "--colours must be positive, got 0"),
        (["--changes", "-1"], "--changes must be 0 or more, got -1"),
        (["--data", "gone"], "gone: no such folder; expected a folder with a folder of clips"),
    ],
)
def test_bad_flags_are_told_in_one_line(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(train.main, words, message, capsys, monkeypatch)


def test_ucf101_comes_from_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.head", lambda *_, **__: None)
    with tfds.testing.mock_data(num_examples=10):
        corpus = load(dataset="ucf101", data_dir=tmp_path)
        assert len(corpus.labels) == 101 and corpus.labels[0] == "ApplyEyeMakeup"
        config = Config(image_size=SIDE, channels=(8, 8), max_length=16)
        fitted = data.to_model(corpus.splits["train"].take(2), config)
        rows = list(fitted.as_numpy_iterator())
    for row in rows:
        assert row["frames"].shape[1:] == (SIDE, SIDE, 3) and 1 <= row["length"] <= 16


@pytest.fixture(scope="module")
def small_gaits(tmp_path_factory):
    """The default data set with few individuals, made as a user's first run makes it."""
    with pytest.MonkeyPatch.context() as patch:
        people = {"train": range(0, 2), "validation": range(2, 3), "test": range(3, 4)}
        patch.setattr(data.Gaits, "PEOPLE", people)
        patch.setattr(data.Gaits, "TAKES", dict.fromkeys(people, 1))
        yield load(dataset="gaits", data_dir=tmp_path_factory.mktemp("d"))


def test_the_default_is_made_of_mp4_files(small_gaits):
    assert small_gaits.labels == tuple(gaits.ACTIVITIES) and len(small_gaits.labels) == 14
    assert [small_gaits.size(split) for split in ("train", "validation", "test")] == [28, 14, 14]
    rows = list(small_gaits.splits["validation"].as_numpy_iterator())
    assert sorted(int(row["label"]) for row in rows) == list(range(14))
    row = next(row for row in rows if row["label"] == 0)
    rendered = gaits.clip("walking", 2, 0, rate=12.5, size=64)
    assert row["frames"].shape == rendered.shape
    assert np.abs(row["frames"].astype(float) - rendered).mean() < 12.0


def test_nobody_stands_on_two_sides():
    people = [set(numbers) for numbers in data.Gaits.PEOPLE.values()]
    for one, other in itertools.combinations(people, 2):
        assert not one & other
    assert min(gaits.Gaits(output=None).people) > max(map(max, people))


def test_hdm05_is_read_as_published(shared_data):
    takes = data.read_hdm05(shared_data / "video" / "hdm05_11" / data.Hdm05.FILE, data.Hdm05.SHA256)
    actors = [name.split("_")[0] for name in takes]
    assert {actor: actors.count(actor) for actor in set(actors)} == {
        **{"bd": 62, "bk": 66, "dg": 61},
        **{"mm": 44, "tr": 55},
    }
    assert {name.split("_")[1] for name in takes} == set(data.Hdm05.MOTIONS)
    for joints in list(takes.values())[::40]:
        assert joints[..., 1].min() == 0.0
        thigh = joints[:, render.PLACE["left_hip"]] - joints[:, render.PLACE["left_knee"]]
        length = np.linalg.norm(thigh, axis=-1)
        assert np.ptp(length) < 0.02 and 0.3 < length.mean() < 0.55
    with pytest.raises(InputError, match=r"its SHA-256 is [0-9a-f]{64}, expected 123"):
        data.read_hdm05(shared_data / "video" / "hdm05_11" / data.Hdm05.FILE, "123")


def moving_take(person, motion):
    """A stand-in for a captured take, 30 frames a second."""
    activity = list(gaits.ACTIVITIES)[list(data.Hdm05.MOTIONS).index(motion)]
    return gaits.move(activity, seconds=0.6, rate=30.0, seed=0, person=person)


def test_hdm05_is_split_by_actor_and_view(tmp_path, monkeypatch):
    def read(path, sha256):
        return {
            f"{actor}_kickLFront1Reps_{number:03d}": moving_take(person, "kickLFront1Reps")
            for person, actor in enumerate(("bd", "bk", "dg", "mm", "tr"))
            for number in range(2, 4)
        }

    monkeypatch.setattr(data, "read_hdm05", read)
    monkeypatch.setattr(data.Hdm05, "OTHER_BODIES", 1)
    (tmp_path / "manual").mkdir()
    (tmp_path / "manual" / data.Hdm05.FILE).touch()
    where = {"manual_dir": tmp_path / "manual", "data_dir": tmp_path / "d"}
    sizes = {
        name: {
            split: load(dataset=name, **where).size(split)
            for split in ("train", "validation", "test")
        }
        for name in data.HDM05_NAMES
    }
    # 6 training takes of three actors in 7 views, 4 test takes in 6.
    assert sizes["hdm05_actors"] == {"train": 4 * 7, "validation": 2 * 6, "test": 4}
    # Two takes' names are dealt to validation, bk's second and dg's third.
    assert sizes["hdm05"] == {"train": 4 * 7, "validation": 2 * 6, "test": 4}
    assert sizes["hdm05_views"] == {**sizes["hdm05"], "test": 4 * 5}


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
        data.read_hdm05_source(tmp_path)
    found = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "to_joints", lambda given: found.setdefault("given", given))
        with pytest.raises(InputError):
            data.read_hdm05_source(tmp_path)
    np.testing.assert_allclose(found["given"], positions[::4])
    path.write_bytes(b"no matrix")
    with pytest.raises(InputError, match=r"amc.mat: no motion of HDM05's form"):
        data.read_hdm05_source(tmp_path)


def test_views_of_a_take_follow_from_its_name():
    take = moving_take(0, "squat1Reps")
    views = [data.render_take("bd_squat1Reps_001", take, view) for view in (0, 1, 1, 2, 6)]
    np.testing.assert_array_equal(views[1], views[2])
    for one, other in itertools.combinations((0, 1, 3, 4), 2):
        assert np.any(views[one] != views[other])
    again = data.render_take("mm_squat1Reps_001", take, 0)
    np.testing.assert_array_equal(views[0], again)  # the fixed view is fixed
    assert np.any(data.render_take("mm_squat1Reps_001", take, 1) != views[1])


# --- bodies ---------------------------------------------------------------------------------------


def bone_lengths(joints):
    bones = [(render.PLACE[j], render.PLACE[p]) for j, p in render.PARENTS.items() if j != p]
    return np.stack([np.linalg.norm(joints[:, a] - joints[:, b], axis=-1) for a, b in bones], 1)


@pytest.mark.parametrize("activity", gaits.ACTIVITIES)
def test_bodies_have_bones_and_stand_on_the_floor(activity):
    for person in (0, 7):
        joints = gaits.move(activity, seconds=3.0, rate=25.0, seed=1, person=person)
        # Shoulders and hips turn against the spine; the bones of the limbs never change.
        limbs = [
            number
            for number, joint in enumerate(j for j, p in render.PARENTS.items() if j != p)
            if joint.split("_")[-1] in ("elbow", "wrist", "hand", "knee", "ankle", "toe")
        ]
        assert np.ptp(bone_lengths(joints)[:, limbs], axis=0).max() < 1e-9
        lowest = joints[..., 1].min(axis=1)
        assert lowest.min() >= -0.3  # a bowing hand may pass the toes, not the ground by far
        if activity not in ("running", "jumping", "jumping jacks"):
            feet = [render.PLACE[f"{s}_{p}"] for s in gaits.SIDES for p in ("ankle", "toe")]
            np.testing.assert_allclose(joints[:, feet, 1].min(axis=1), 0.0, atol=1e-9)


def test_activities_are_what_they_are_called():
    def path(activity, joint, seed=2):
        joints = gaits.move(activity, seconds=3.0, rate=25.0, seed=seed, person=5)
        return joints[:, render.PLACE[joint]], joints

    down, _ = path("sitting down", "pelvis")
    up, _ = path("standing up", "pelvis")
    assert down[0, 1] - down[-1, 1] > 0.2 and up[-1, 1] - up[0, 1] > 0.2
    side = gaits.individual(5).side
    hand, joints = path("waving", f"{side}_hand")
    assert (hand[:, 1] > joints[:, render.PLACE["neck"], 1]).all()
    walked, run = (path(name, "pelvis")[0][-1, 2] for name in ("walking", "running"))
    assert 1.5 < walked < run
    height, _ = path("jumping", "left_toe")
    assert height[:, 1].max() > 0.15
    head, _ = path("bowing", "head")
    assert np.ptp(head[:, 1]) > 0.3


def test_individuals_differ_and_repeat():
    people = [gaits.individual(number) for number in range(30)]
    assert len({person.stature for person in people}) == 30
    assert {person.side for person in people} == {"left", "right"}
    one, same, other = (
        gaits.move("walking", seconds=1.0, rate=12.5, seed=seed, person=1) for seed in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01


def test_other_proportions_are_the_same_left_and_right():
    joints = gaits.move("kicking", seconds=1.0, rate=12.5, seed=0)
    new = render.reproportion(joints, np.random.default_rng(0))
    ratio = bone_lengths(new) / bone_lengths(joints)
    assert np.ptp(ratio, axis=0).max() < 1e-9 and 0.86 <= ratio.min() < ratio.max() <= 1.16
    names = [joint for joint, parent in render.PARENTS.items() if joint != parent]
    for joint in ("elbow", "knee"):
        one, other = (ratio[0, names.index(f"{side}_{joint}")] for side in gaits.SIDES)
        assert one == pytest.approx(other)
    assert new[..., 1].min() == pytest.approx(joints[..., 1].min())


# --- the renderer ---------------------------------------------------------------------------------


def test_the_camera_projects_as_a_pinhole():
    camera = render.Camera(
        np.array([0.0, 1.0, 5.0]),
        np.array([[1.0, 0, 0], [0, 1, 0], [0, 0, -1]]),  # looks along -z
        100.0,
        np.array([32.0, 32.0]),
        np.zeros((1, 3)),
    )
    seen = camera.project(np.array([[[0.0, 1, 0], [0.5, 1, 0], [0.5, 1.5, 2.5]]]))[0]
    np.testing.assert_allclose(seen, [[32, 32, 5], [42, 32, 5], [52, 12, 2.5]])


@pytest.mark.parametrize("seed", range(8))
def test_every_view_shows_the_whole_body(seed):
    random = np.random.default_rng(seed)
    activity = list(gaits.ACTIVITIES)[seed]
    joints = gaits.move(activity, seconds=3.0, rate=12.5, seed=seed, person=seed)
    view = render.random_view(random)
    seen = render.place_camera(joints, view, 64).project(joints)
    assert seen[..., :2].min() >= 0 and seen[..., :2].max() <= 64
    assert np.ptp(seen[..., :2], axis=(0, 1)).max() <= 64 * view.fill


def test_azimuth_counts_from_where_the_body_faces():
    joints = gaits.move("waving", seconds=0.5, rate=12.5, seed=0)
    for turn in (0.0, 1.0, 4.0):
        turned = gaits._turned(joints, np.full(len(joints), turn))
        assert np.isclose(np.angle(np.exp(1j * (render.facing(turned) - turn))), 0, atol=1e-9)
        seen = render.place_camera(turned, render.View(azimuth=0.0), 64).project(turned)
        # From ahead the left hip is on the right of the picture.
        left, right = (seen[0, render.PLACE[f"{side}_hip"], 0] for side in gaits.SIDES)
        assert left > right


def test_a_capsule_covers_its_area():
    start, end = np.array([[20.3, 30.1]]), np.array([[44.7, 35.9]])
    drawn = render._capsule(start, end, (np.array([4.0]), np.array([4.0])), 64)
    length = np.hypot(*(end - start)[0])
    assert drawn.cover.sum() == pytest.approx(2 * 4 * length + np.pi * 16, rel=0.01)
    assert render._capsule(start - 500, end - 500, (np.ones(1), np.ones(1)), 64) is None


def test_what_is_nearer_hides_what_is_farther():
    """From ahead a hand before the chest shows; from behind it does not."""
    joints = gaits.move("punching", seconds=0.5, rate=12.5, seed=0, person=2)[:1]
    joints[:, render.PLACE["left_hand"]] = joints[:, render.PLACE["chest"]] + (0.0, 0.0, 0.4)
    green = {"skin": (0.0, 1.0, 0.0), "noise": 0.0, "elevation": 0.0}
    found = {}
    for azimuth in (0.0, 180.0):
        view = render.View(azimuth=azimuth, **green)
        seen = render.place_camera(joints, view, 64).project(joints)
        column, row = seen[0, render.PLACE["left_hand"], :2].astype(int)
        found[azimuth] = render.render(joints, view)[0, row, column]
    assert found[0.0][1] > 2 * max(found[0.0][0], 1) and found[180.0][0] > found[180.0][1]


def test_the_same_view_gives_the_same_pixels():
    joints = gaits.move("walking", seconds=1.0, rate=12.5, seed=0)
    view = render.random_view(np.random.default_rng(4))
    one, same = (render.render(joints, view) for _ in range(2))
    np.testing.assert_array_equal(one, same)
    assert one.dtype == np.uint8 and one.shape == (12, 64, 64, 3)


def test_motion_is_interpolated_at_the_middle_of_frames():
    joints = np.random.default_rng(0).normal(size=(30, 2, 3))
    found = render.at_rate(joints, 30.0, 12.5)
    times = (np.arange(12) + 0.5) / 12.5
    expected = np.interp(times, (np.arange(30) + 0.5) / 30.0, joints[:, 1, 2])
    np.testing.assert_allclose(found[:, 1, 2], expected)
    np.testing.assert_array_equal(render.at_rate(joints, 30.0, 30.0), joints)
