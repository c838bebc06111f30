"""The signatures of the export: equal results of every signature, and invalid rows."""

from common.serving.versions import find
from tasks.video import clips, gaits, render, serving
from tests.tasks import commands
from tests.tasks.own.video import CLASSES, RATE, SIDE, body
from tests.tasks.video.samples import call, noise

import numpy as np
import pytest


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/video.json")


def test_other_rows_sizes_and_padding_change_nothing(served):
    batch = [noise(9, 40, 30), body("waving", 3), noise(1, 7, 90), body("sitting down", 2)[:5]]
    rates = [25.0, RATE, 30.0, RATE]
    together = call(served, batch, rates)["probabilities"]
    junk = noise(30, 97, 101, seed=5)[None].repeat(4, axis=0)
    for row, clip in enumerate(batch):
        junk[row, : clip.shape[0], : clip.shape[1], : clip.shape[2]] = clip
    request = {**clips.clip_request(batch, rates), "frames": junk}
    padded = served.call("serving_default", **request)["probabilities"]
    np.testing.assert_allclose(padded, together, atol=1e-5)
    for row, clip in enumerate(batch):
        alone = call(served, [clip], rates[row : row + 1])["probabilities"][0]
        np.testing.assert_allclose(alone, together[row], atol=1e-5)


def test_values_in_the_padding_of_tensors_change_nothing(served):
    frames, length = noise(4 * 9).reshape(4, 9, SIDE, SIDE, 3), np.array([9, 4, 1, 6], np.int32)
    expected = served.call("tensors", frames=frames, length=length)["probabilities"]
    junk = np.concatenate([frames, noise(4 * 5, seed=2).reshape(4, 5, SIDE, SIDE, 3)], axis=1)
    for row, count in enumerate(length):
        junk[row, count:] = 255 - junk[row, count:]
    outputs = served.call("tensors", frames=junk, length=length)
    np.testing.assert_allclose(outputs["probabilities"], expected, atol=1e-6)


def test_invalid_rows_are_empty_and_leave_the_other_rows_alone(served):
    good = body("waving", 3)
    request = clips.clip_request([good] * 13, [RATE] * 13)
    request["length"][[1, 2, 3]] = 0, -1, len(good) + 1
    request["size"][[4, 5, 6, 7]] = (0, SIDE), (SIDE, -3), (SIDE + 1, SIDE), (SIDE, 10**9)
    request["frame_rate"][[8, 9, 10, 11]] = np.nan, 0.0, -25.0, np.inf
    outputs = served.call("serving_default", **request)
    assert [name.decode() for name in outputs["activity"]] == ["waving", *[""] * 11, "waving"]
    np.testing.assert_array_equal(outputs["probabilities"][1:12], 0.0)
    alone = call(served, [good], [RATE])["probabilities"][0]
    for row in (0, 12):
        np.testing.assert_allclose(outputs["probabilities"][row], alone, atol=1e-6)
    steps = served.call("explain", **request)
    assert steps["length"].tolist() == [20, *[0] * 11, 20]
    np.testing.assert_array_equal(steps["frame_probabilities"][1:12], 0.0)


def test_frame_rates_of_1_to_1000_are_valid(served):
    clip, rates = body("waving", 3), [1.0, 1000.0, 0.99, 1001.0, 1e-30, 1e30]
    outputs = call(served, [clip] * 6, rates)
    np.testing.assert_allclose(outputs["probabilities"].sum(axis=1), [1, 1, 0, 0, 0, 0], atol=1e-5)
    assert outputs["activity"][2:].tolist() == [b""] * 4


def test_clips_of_too_many_pixels_or_frames_are_empty(served):
    good = body("waving", 3)
    alone = call(served, [good], [RATE])["probabilities"]
    # At one frame per second, one frame stands for eight: 8 x 2,100 x 2,100 pixels.
    large = np.zeros((1, 2100, 2100, 3), np.uint8)
    outputs = call(served, [large, good], [1.0, RATE])
    assert outputs["activity"].tolist() == [b"", b"waving"]
    np.testing.assert_allclose(outputs["probabilities"][1:], alone, atol=1e-6)
    frames = np.zeros((1, 6145, SIDE, SIDE, 3), np.uint8)
    assert not served.call("tensors", frames=frames, length=[6145])["probabilities"].any()


@pytest.mark.parametrize("shape", [(0, 4, 8, 8), (2, 0, 8, 8), (2, 3, 0, 8), (1, 3, 8, 0)])
def test_a_batch_may_have_no_rows_no_frames_or_no_pixels(served, shape):
    request = {
        "frames": np.zeros((*shape, 3), np.uint8),
        "length": np.full(shape[0], shape[1]),
        "size": np.tile(shape[2:], (shape[0], 1)),
        "frame_rate": np.full(shape[0], 25.0),
    }
    for name in ("serving_default", "explain"):
        outputs = served.call(name, **request)
        assert all(len(value) == shape[0] for value in outputs.values())
    assert not np.any(served.call("serving_default", **request)["probabilities"])
    no_frames = served.call("tensors", frames=np.zeros((2, 0, SIDE, SIDE, 3)), length=[0, 0])
    np.testing.assert_array_equal(no_frames["probabilities"], np.zeros((2, 3)))


def test_12_and_60_frames_per_second_have_the_same_prediction(served):
    """The same movement, filmed at several rates; and played again at a higher rate."""
    for activity in CLASSES:
        filmed = {}
        for rate in (12.0, 25.0, 60.0):
            joints = gaits.move(activity, seconds=2.5, rate=240.0, seed=1, person=33)
            filmed[rate] = render.render(render.resample(joints, 240.0, rate), size=SIDE)
        outputs = call(served, list(filmed.values()), list(filmed))
        assert len(set(outputs["activity"].tolist())) == 1
        probabilities = outputs["probabilities"]
        np.testing.assert_allclose(probabilities[1:], probabilities[[0, 0]], atol=0.15)
    slow = body("waving", 3)
    repeated = slow[np.arange(len(slow) * 60 // 8) * 8 // 60]
    probabilities = call(served, [slow, repeated], [RATE, 60.0])["probabilities"]
    np.testing.assert_allclose(probabilities[1], probabilities[0], atol=1e-5)


def test_the_order_of_frames_matters(served):
    """Sitting down and standing up are each the other in reverse."""
    forwards = [body(label, person, seed=5) for label in CLASSES[:2] for person in range(40, 46)]
    truth = [label.encode() for label in CLASSES[:2] for _ in range(6)]
    reverse = {truth[0]: truth[-1], truth[-1]: truth[0]}
    for frames, expected in (
        (forwards, truth),
        ([clip[::-1] for clip in forwards], [reverse[label] for label in truth]),
    ):
        activities = call(served, frames, [RATE] * 12)["activity"].tolist()
        assert np.mean([a == b for a, b in zip(activities, expected, strict=True)]) >= 0.8


def test_raw_frames_and_tensors_have_the_same_probabilities(served):
    clip = body("sitting down", 4)
    raw = call(served, [clip], [RATE])["probabilities"]
    by_tensors = served.call("tensors", frames=clip[None], length=[len(clip)])["probabilities"]
    np.testing.assert_allclose(by_tensors, raw, atol=1e-6)


def test_explain_has_the_probabilities_of_each_step(served):
    outputs = call(served, [body("waving", 3), noise(50)], [RATE, 25.0], "explain")
    assert outputs["length"].tolist() == [20, 16]
    sums = outputs["frame_probabilities"].sum(axis=-1)
    np.testing.assert_allclose(sums[0], 1.0, atol=1e-5)
    np.testing.assert_allclose(sums[1], [1.0] * 16 + [0.0] * 4, atol=1e-5)


def test_a_clip_is_truncated_to_the_longest_length(served):
    long = noise(60)
    whole, cut = (call(served, [clip], [RATE])["probabilities"] for clip in (long, long[:32]))
    np.testing.assert_allclose(whole, cut, atol=1e-6)


def test_the_keras_model_equals_the_export(served):
    model = find(served.path).model
    inputs = {
        "frames": noise(10).reshape(2, 5, SIDE, SIDE, 3),
        "length": np.array([5, 2], np.int32),
    }
    live, exported = model(inputs), served.call("tensors", **inputs)
    np.testing.assert_allclose(live["probabilities"], exported["probabilities"], atol=1e-6)


def test_example_requests_have_every_bucket_length():
    requests = serving.examples(8, 10.0, [8, 16])
    assert [row["frames"].shape[:3] for row in requests["tensors"]] == [(2, 8, 8), (2, 16, 8)]
    assert [row["frames"].shape[1] for row in requests["serving_default"][-2:]] == [8, 16]
