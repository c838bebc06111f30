"""The signatures of the export: equal results on every way in, and invalid rows."""

from common.serving.versions import find
from common.text import Vocabulary
from tasks.sentiment import serving, train
from tests.tasks import commands
from tests.tasks.own.sentiment import own_reviews

import numpy as np
import pytest
import scipy.stats
import tensorflow as tf


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/sentiment.json")


def test_the_other_rows_of_a_batch_change_nothing(served):
    texts = [text for text, _ in own_reviews(17, seed=4)] + ["", "superb " * 60]
    together = served.call("serving_default", text=texts)
    for row, text in enumerate(texts):
        alone = served.call("serving_default", text=[text])
        np.testing.assert_allclose(
            alone["probabilities"][0], together["probabilities"][row], atol=1e-6
        )
        assert alone["label"][0] == together["label"][row]


def test_values_in_the_padding_change_nothing(served):
    random = np.random.default_rng(0)
    ids = random.integers(0, 30, (4, 9)).astype(np.int32)
    length = np.array([9, 4, 1, 6], np.int32)
    expected = served.call("tensors", ids=ids, length=length)["probabilities"]
    junk = np.concatenate([ids, random.integers(-9, 10**6, (4, 5))], axis=1).astype(np.int32)
    for row, count in enumerate(length):
        junk[row, count:] = random.integers(-9, 10**6, 14 - count)
    probabilities = served.call("tensors", ids=junk, length=length)["probabilities"]
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


def test_text_and_tensors_return_the_same_probabilities(served):
    text = "the film superb its plot"
    vocabulary = Vocabulary(served.path / "assets" / train.WORDS)
    ids = [[vocabulary.words.index(word) for word in text.split()]]
    by_number = served.call("tensors", ids=ids, length=[5])["probabilities"]
    by_text = served.call("serving_default", text=[text])["probabilities"]
    np.testing.assert_allclose(by_number, by_text, atol=1e-6)


def test_invalid_texts_are_empty_and_leave_the_other_rows_alone(served):
    texts = [b"superb", b"", b"   \t\n", b"superb \xff\xfe", b"\x00\x01", b"superb " * 20_000]
    outputs = served.call("serving_default", text=np.array(texts, object))
    assert outputs["stars"].tolist() == [5, 0, 0, 5, 0, 5]
    assert outputs["label"].tolist() == [b"good", b"", b"", b"good", b"", b"good"]
    assert np.isfinite(outputs["probabilities"]).all()
    np.testing.assert_array_equal(outputs["probabilities"][[1, 2, 4]], 0.0)
    np.testing.assert_allclose(outputs["probabilities"][[0, 3, 5]].sum(axis=1), 1.0, atol=1e-6)
    alone = served.call("serving_default", text=["superb"])["probabilities"][0]
    np.testing.assert_allclose(outputs["probabilities"][0], alone, atol=1e-6)


def test_rows_of_an_invalid_length_are_empty(served):
    ids = np.full((5, 3), 2, np.int32)
    probabilities = served.call("tensors", ids=ids, length=[3, 0, -1, 4, 1])["probabilities"]
    np.testing.assert_allclose(probabilities.sum(axis=1), [1, 0, 0, 0, 1], atol=1e-6)
    no_steps = served.call("tensors", ids=np.zeros((2, 0), np.int32), length=[0, 0])
    np.testing.assert_array_equal(no_steps["probabilities"], np.zeros((2, 2)))


def test_the_longest_rows_beyond_the_limits_are_empty(served):
    ids = np.full((2, 65_537), 2, np.int32)
    probabilities = served.call("tensors", ids=ids, length=[65_537, 5])["probabilities"]
    alone = served.call("tensors", ids=ids[:1, :5], length=[5])["probabilities"]
    assert not probabilities[0].any()
    np.testing.assert_allclose(probabilities[1:], alone, atol=1e-6)
    texts = ["superb " * 3_000, "superb", *["superb " * 3_000] * 299]  # 16,384 bytes are read
    outputs = served.call("serving_default", text=texts)
    # 384 tokens of each are read, so 170 rows are within 65,536 tokens.
    assert outputs["stars"].tolist() == [5] * 170 + [0] * 131
    assert outputs["label"].tolist() == [b"good"] * 170 + [b""] * 131
    assert outputs["truncated"].tolist() == [True, False, *[True] * 168, *[False] * 131]
    outputs = served.call("explain", text=["superb"] * 1_025)
    assert not outputs["tokens"].size and not outputs["attention"].size


@pytest.mark.parametrize("size", [0, 1, 257])
def test_a_batch_has_any_size(served, size):
    for name in ("serving_default", "explain"):
        outputs = served.call(name, text=np.array(["a superb film"] * size, object))
        assert all(len(value) == size for value in outputs.values())


def test_explain_returns_every_token_and_weights_that_sum_to_one(served):
    outputs = served.call("explain", text=["A superb film!", "awful", ""])
    assert outputs["tokens"].tolist() == [
        [b"a", b"superb", b"film", b"!"],
        [b"awful", b"", b"", b""],
        [b"", b"", b"", b""],
    ]
    np.testing.assert_allclose(outputs["attention"].sum(axis=1), [1, 1, 0], atol=1e-6)
    assert not outputs["attention"][1, 1:].any()


def test_the_keras_model_equals_the_export(served):
    live = find(served.path).model
    ids, length = np.array([[2, 5, 7], [3, 0, 0]], np.int32), np.array([3, 1], np.int32)
    np.testing.assert_allclose(
        live({"ids": ids, "length": length})["probabilities"],
        served.call("tensors", ids=ids, length=length)["probabilities"],
        atol=1e-6,
    )


def test_the_end_of_a_long_text_counts(served):
    report = "the film its plot every actor the ending the music a scene " * 5
    superb, awful = served.call("serving_default", text=[report + "superb", report + "awful"])[
        "probabilities"
    ]
    assert superb[1] > awful[1] + 0.05  # of class "good"
    explained = served.call("explain", text=[report + "superb"])
    assert explained["tokens"].shape == (1, 61)
    np.testing.assert_allclose(explained["attention"].sum(), 1.0, atol=1e-5)


def test_a_text_that_is_not_read_to_its_end_says_so(served):
    longest = served.settings["max_tokens"]
    assert longest == serving.WINDOWS * served.settings["window"] == 384
    texts = ["film " * longest, "film " * (longest + 1), "film" + "a" * 16_380 + "b", ""]
    assert served.call("serving_default", text=texts)["truncated"].tolist() == [0, 1, 1, 0]


def test_windows_hold_all_tokens_once_and_in_order():
    for count in (0, 1, 7, 8, 9, 63, 64, 65, 128):
        windows, row = serving.split_windows(tf.ragged.constant([[9], list(range(count))]), 8)
        rows = windows.to_list()
        assert [token for window in rows[1:] for token in window] == list(range(count))
        lengths = [len(window) for window in rows[1:]]
        assert not lengths or (max(lengths) <= 8 and max(lengths) - min(lengths) < 8)
        assert len(lengths) == -(-count // 8)
        assert row.numpy().tolist() == [0] + [1] * len(lengths)


def test_windows_are_joined_by_their_certainty_and_polarity():
    windows = np.array([[0.7, 0.2, 0.1], [1 / 3] * 3, [0.1, 0.1, 0.8], [0.05, 0.9, 0.05]])
    row = np.array([0, 1, 1, 1])
    joined, weight = serving.join(tf.constant(windows, tf.float32), tf.constant(row), 3)
    certainty = 1 - scipy.stats.entropy(windows, axis=1) / np.log(3)
    weights = np.maximum(certainty * (1 - windows[:, 1]) ** 2, 1e-6)
    expected = np.average(windows[1:], axis=0, weights=weights[1:])
    assert expected.argmax() == 2
    np.testing.assert_allclose(joined, [windows[0], expected, np.zeros(3)], atol=1e-5)
    np.testing.assert_allclose(np.bincount(row, weight), [1, 1], atol=1e-6)


def test_stars_follow_their_formula():
    assert serving.stars_of(5).tolist() == [1, 2, 3, 4, 5]
    assert serving.stars_of(2).tolist() == [1, 5]
    assert serving.stars_of(3).tolist() == [1, 3, 5]
    assert serving.stars_of(4).tolist() == [1, 2, 4, 5]
    assert serving.stars_of(10).tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5]


def test_example_requests_have_every_bucket_length():
    requests = serving.examples([8, 16])
    assert [row["ids"].shape for row in requests["tensors"]] == [(2, 8), (2, 16)]
