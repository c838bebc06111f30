"""The signatures of the export: padding, other rows, invalid rows, confidence and alignment."""

import itertools
import math

from common import ctc
from common.serving.targets import Target
from common.serving.versions import find
from tasks.speech import audio, serving
from tests.tasks import commands
from tests.tasks.own.speech import speak
from tests.tasks.speech.recordings import spoken

import numpy as np
import pytest
import tensorflow as tf


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/speech.json")


def test_the_other_rows_of_a_batch_change_nothing(served):
    batch = [sound for _, sound in spoken(9, seed=8)]
    together = served.call("serving_default", **audio.request(batch))
    for row, sound in enumerate(batch):
        alone = served.call("serving_default", **audio.request([sound]))
        assert alone["text"][0] == together["text"][row]
        np.testing.assert_allclose(
            alone["confidence"][0], together["confidence"][row], rtol=1e-4, atol=1e-6
        )


def test_values_in_the_padding_change_nothing(served):
    inputs = audio.request([sound for _, sound in spoken(4, seed=9)])
    junk = np.pad(inputs["audio"], [(0, 0), (0, 5000)])
    for row, count in enumerate(inputs["length"]):
        junk[row, count:] = np.random.default_rng(row).normal(size=junk.shape[1] - count) * 9
        junk[row, -1] = np.nan
    plain = served.call("tensors", **inputs)
    padded = served.call("tensors", audio=junk, length=inputs["length"])
    np.testing.assert_array_equal(plain["frames"], padded["frames"])
    for row, count in enumerate(plain["frames"]):
        np.testing.assert_allclose(
            padded["log_probs"][row, :count], plain["log_probs"][row, :count], atol=1e-4
        )
    a, b = (
        served.call("serving_default", audio=samples, length=inputs["length"])
        for samples in (inputs["audio"], junk)
    )
    assert a["text"].tolist() == b["text"].tolist()


def test_invalid_rows_are_empty_and_leave_the_other_rows_alone(served):
    (text, sound), *_ = spoken(1, seed=3)
    inputs = audio.request([sound] * 9)
    samples, length = inputs["audio"].copy(), inputs["length"].copy()
    samples[0, 3000] = np.nan
    length[1], length[2], length[3], length[4] = 0, -5, 1599, samples.shape[1] + 1
    samples[5] = 0.0
    samples[7, 3000], samples[8, 3000] = 1.1e5, -1e30
    alone = served.call("serving_default", **audio.request([sound]))
    outputs = served.call("serving_default", audio=samples, length=length)
    assert outputs["text"].tolist() == [b""] * 6 + [text.encode(), b"", b""]
    assert not outputs["confidence"][[*range(6), 7, 8]].any()
    np.testing.assert_allclose(outputs["confidence"][6], alone["confidence"][0], rtol=1e-4)
    tensors = served.call("tensors", audio=samples, length=length)
    assert not tensors["frames"][:6].any() and not tensors["log_probs"][:6].any()
    explained = served.call("explain", audio=samples, length=length)
    assert (explained["alignment"][:6] == -1).all() and not explained["log_mel"][:6].any()


def test_rows_beyond_the_maximum_are_empty(served):
    longest = served.settings["max_samples"]
    sound = np.tile(speak("abc", np.random.default_rng(0)), 20)[: longest + 1]
    outputs = served.call("serving_default", **audio.request([sound, sound[:longest]]))
    assert outputs["text"][0] == b"" and outputs["text"][1] != b""


def test_the_last_of_too_many_rows_are_empty(served):
    """A request has at most 1,280 seconds, its rows times the longest of them."""
    (text, sound), *_ = spoken(1, seed=3)
    batch = np.zeros((260, 80_000), np.float32)
    batch[[0, -1], : len(sound)] = sound
    length = [len(sound), *[80_000] * 258, len(sound)]
    outputs = served.call("serving_default", audio=batch, length=length)
    assert outputs["text"].tolist() == [text.encode(), *[b""] * 258, text.encode()]
    batch[:, :1_600] = np.random.default_rng(0).normal(scale=0.1, size=(260, 1_600))
    frames = served.call("tensors", audio=batch, length=[80_000] * 260)["frames"]
    assert (frames > 0).tolist() == [True] * 256 + [False] * 4


@pytest.mark.parametrize("shape", [(0, 3000), (1, 0), (2, 1), (1, 300)])
def test_a_batch_has_any_size(served, shape):
    for name in served.functions:
        outputs = served.call(name, audio=np.ones(shape), length=np.full(shape[0], shape[1]))
        assert all(len(value) == shape[0] for value in outputs.values())


def test_confidence_is_the_mean_probability_of_a_letter(served):
    inputs = audio.request([sound for _, sound in spoken(6, seed=12)])
    outputs, tensors = served.call("serving_default", **inputs), served.call("tensors", **inputs)
    letters = served.settings["letters"]
    for row, text in enumerate(outputs["text"]):
        label = [letters.index(letter) for letter in text.decode()]
        total = ctc.log_likelihood(
            tensors["log_probs"][row : row + 1], [label], [tensors["frames"][row]], [len(label)]
        )
        expected = math.exp(float(total[0]) / len(label))
        # The beam keeps nearly all paths of the text.
        assert outputs["confidence"][row] == pytest.approx(expected, rel=0.02)


def test_redundant_spaces_are_removed():
    recognizer = serving.Recognizer(
        None, (" ", "a", "b"), None, weight=0.0, bonus=0.0, beam=1, max_samples=1
    )
    rows = [[0, 1, 0, 0, 2, 0], [0, 0, 0, -1, -1, -1], [1, 2, -1, -1, -1, -1], [-1] * 6]
    tokens = tf.constant(rows)[:, None]
    length = tf.constant([[6], [3], [2], [0]])
    hypotheses = ctc.Hypotheses(tokens, length, tf.fill([4, 1], -2.0), tf.fill([4, 1], -2.0))
    outputs = recognizer.to_text(hypotheses)
    assert outputs["text"].numpy().tolist() == [b"a b", b"", b"ab", b""]
    expected = [math.exp(-2 / 6), 0.0, math.exp(-1), 0.0]
    np.testing.assert_allclose(outputs["confidence"], expected, rtol=1e-5)
    assert recognizer.best_tokens(hypotheses)[1].numpy().tolist() == [3, 0, 2, 0]


def test_explain_aligns_each_letter_with_its_steps(served):
    inputs = audio.request([sound for _, sound in spoken(5, seed=13)])
    explained, outputs = served.call("explain", **inputs), served.call("serving_default", **inputs)
    assert explained["text"].tolist() == outputs["text"].tolist()
    for row, text in enumerate(explained["text"]):
        count = explained["frames"][row]
        alignment, probabilities = (
            explained[name][row] for name in ("alignment", "symbol_probabilities")
        )
        assert (alignment[count:] == -1).all() and not probabilities[count:].any()
        indices = [index for index, _ in itertools.groupby(alignment[alignment >= 0])]
        assert indices == list(range(len(text)))
        np.testing.assert_allclose(probabilities[:count].sum(axis=1), 1.0, atol=1e-5)


def test_the_keras_model_equals_the_export(served):
    model = find(served.path).model
    inputs = audio.request([sound for _, sound in spoken(3, seed=14)])
    live, exported = model(inputs), served.call("tensors", **inputs)
    np.testing.assert_array_equal(live["frames"], exported["frames"])
    for whole, row, frames in zip(
        live["log_probs"], exported["log_probs"], exported["frames"], strict=True
    ):
        np.testing.assert_allclose(whole[:frames], row[:frames], atol=1e-4)
        np.testing.assert_array_equal(row[frames:], 0.0)  # the export blanks the padding


def test_example_requests_have_every_length_of_a_static_export():
    lengths = serving.example_lengths(160_000, Target("tpu", lengths=(6000, 9000)))
    assert serving.example_lengths(32_000) == [16_000, 32_000]
    requests = serving.examples(lengths)
    for name in ("serving_default", "tensors", "explain"):
        assert [row["audio"].shape for row in requests[name]] == [(2, 6000), (1, 9000)]


def test_an_export_holds_the_weights_once(served):
    names = tf.train.load_checkpoint(str(served.path / "variables" / "variables"))
    shapes = names.get_variable_to_shape_map()
    assert not [name for name in shapes if "optimizer" in name or "/model/" in name]
