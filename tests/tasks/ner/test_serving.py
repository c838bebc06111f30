"""The signatures of the export: equal results on every way in, and invalid rows."""

from common.serving.versions import find
from common.text import Vocabulary
from tasks.ner import data, evaluate, serving, train
from tests.tasks import commands
from tests.tasks.own.ner import own_sentences

import numpy as np
import pytest
import tensorflow as tf


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/ner.json")


def test_the_other_rows_of_a_batch_change_nothing(served):
    texts = [" ".join(row.tokens) for row in own_sentences(11, seed=4)] + ["", "in Rome " * 60]
    together = served.call("explain", text=texts)
    for row, text in enumerate(texts):
        alone = served.call("explain", text=[text])
        count = alone["length"][0]
        assert count == together["length"][row]
        for name in ("tokens", "tags", "start", "end"):
            assert alone[name][0].tolist() == together[name][row, :count].tolist()
            assert not any(together[name][row, count:])
        np.testing.assert_allclose(
            alone["probabilities"][0], together["probabilities"][row, :count], atol=1e-6
        )
        assert not together["probabilities"][row, count:].any()


def test_values_in_the_padding_change_nothing(served):
    random = np.random.default_rng(0)
    words = random.integers(0, 30, (4, 9)).astype(np.int32)
    characters = random.integers(0, 30, (4, 9, 20)).astype(np.int32)
    length = np.array([9, 4, 1, 6], np.int32)
    expected = served.call("tensors", words=words, characters=characters, length=length)
    junk_words = random.integers(-9, 10**6, (4, 14)).astype(np.int32)
    junk_characters = random.integers(-9, 10**6, (4, 14, 20)).astype(np.int32)
    for row, count in enumerate(length):
        junk_words[row, :count] = words[row, :count]
        junk_characters[row, :count] = characters[row, :count]
    outputs = served.call("tensors", words=junk_words, characters=junk_characters, length=length)
    np.testing.assert_array_equal(outputs["tags"][:, :9], expected["tags"])
    np.testing.assert_allclose(
        outputs["probabilities"][:, :9], expected["probabilities"], atol=1e-6
    )
    assert not outputs["tags"][:, 9:].any() and not outputs["probabilities"][:, 9:].any()


def test_text_tokens_and_tensors_return_the_same_tags(served):
    rows = list(own_sentences(6, seed=8))
    labels = served.settings["labels"]
    folder = served.path / "assets"
    reader = data.Reader(
        Vocabulary(folder / train.WORDS), Vocabulary(folder / train.CHARACTERS), word_length=20
    )
    words, characters = reader(tf.ragged.constant([row.tokens for row in rows]))
    length = [len(row.tokens) for row in rows]
    by_number = served.call("tensors", words=words, characters=characters, length=length)
    by_text = served.call("explain", text=[" ".join(row.tokens) for row in rows])
    by_token = [prediction for _, prediction in evaluate.tag(served, rows, batch_size=4)]
    np.testing.assert_allclose(by_number["probabilities"], by_text["probabilities"], atol=1e-6)
    for row, count in enumerate(length):
        tags = [labels[tag] for tag in by_number["tags"][row, :count]]
        assert tags == by_token[row].tags
        found = by_text["confidence"][row, :count]
        np.testing.assert_allclose(by_token[row].confidence, found, atol=1e-6)
        assert tags == [tag.decode() for tag in by_text["tags"][row, :count]]
        np.testing.assert_allclose(
            by_number["probabilities"][row, :count].sum(axis=1), 1.0, atol=1e-5
        )


def test_invalid_texts_are_empty_and_leave_the_other_rows_alone(served):
    texts = [b"Ada Byron sleeps", b"", b"   \t\n", b"Rome \xff\xfe", b"\x00\x01", b"Rome " * 20_000]
    outputs = served.call("explain", text=np.array(texts, object))
    assert outputs["length"].tolist() == [3, 0, 0, 3, 0, 24]
    assert outputs["tags"][0, :3].tolist() == [b"B-PER", b"I-PER", b"O"]
    for row in (1, 2, 4):
        for name in ("tokens", "tags"):
            assert set(outputs[name][row].tolist()) == {b""}
        assert not outputs["start"][row].any() and not outputs["probabilities"][row].any()
    assert outputs["tokens"][3, :3].tolist() == [b"Rome", "\ufffd".encode(), "\ufffd".encode()]
    assert outputs["end"][3, :3].tolist() == [4, 6, 7]
    assert np.isfinite(outputs["probabilities"]).all()
    empty = served.call("serving_default", text=np.array([b"", b" "], object))
    assert empty["length"].tolist() == [0, 0] and empty["tags"].shape == (2, 0)


def test_rows_of_an_invalid_length_are_empty(served):
    words, characters = np.full((5, 3), 2, np.int32), np.full((5, 3, 20), 2, np.int32)
    length = [3, 0, -1, 4, 1]
    outputs = served.call("tensors", words=words, characters=characters, length=length)
    sums = outputs["probabilities"].sum(axis=2)
    expected = [[1, 1, 1], [0, 0, 0], [0, 0, 0], [0, 0, 0], [1, 0, 0]]
    np.testing.assert_allclose(sums, expected, atol=1e-5)
    tokens = np.full((5, 3), "Rome", object)
    tags = served.call("tokens", tokens=tokens, length=length)["tags"]
    assert [[bool(tag) for tag in row] for row in tags] == [[bool(n) for n in r] for r in expected]
    no_steps = served.call(
        "tensors",
        words=np.zeros((2, 0), np.int32),
        characters=np.zeros((2, 0, 20), np.int32),
        length=[0, 0],
    )
    assert no_steps["tags"].shape == (2, 0)
    odd = np.array([["", "\x00a", "x" * 500]], object)
    assert served.call("tokens", tokens=odd, length=[3])["tags"].shape == (1, 3)


def test_the_longest_rows_beyond_the_limits_are_empty(served):
    tokens = np.full((2, 49_153), "Rome", object)
    tags = served.call("tokens", tokens=tokens, length=[49_153, 2])["tags"]
    alone = served.call("tokens", tokens=tokens[:1, :2], length=[2])["tags"][0]
    assert not tags[0].astype(bool).any() and tags[1, :2].tolist() == alone.tolist()
    # With the short row, 491 rows of 100 tokens are within 49,152 tokens.
    tokens = np.full((500, 100), "Rome", object)
    tags = served.call("tokens", tokens=tokens, length=[100] * 499 + [2])["tags"].astype(bool)
    assert tags.sum(axis=1).tolist() == [100] * 490 + [0] * 9 + [2]
    texts = ["Rome " * 4_000] * 300 + ["Ada Byron sleeps"]  # 16,384 bytes are read
    outputs = served.call("explain", text=texts)
    assert outputs["length"].tolist() == [24] * 255 + [0] * 45 + [3]
    for name in ("tokens", "tags", "start", "end", "probabilities"):
        assert not outputs[name][255:300].astype(bool).any()
    assert outputs["tags"][-1, :3].tolist() == [b"B-PER", b"I-PER", b"O"]


@pytest.mark.parametrize("size", [0, 1, 129])
def test_a_batch_has_any_size(served, size):
    for name in ("serving_default", "explain"):
        outputs = served.call(name, text=np.array(["Ada Byron sleeps"] * size, object))
        assert all(len(value) == size for value in outputs.values())


def test_the_keras_model_equals_the_export(served):
    model = find(served.path).model
    random = np.random.default_rng(1)
    inputs = {
        "words": random.integers(1, 30, (2, 5)).astype(np.int32),
        "characters": random.integers(0, 20, (2, 5, 20)).astype(np.int32),
        "length": np.array([5, 2], np.int32),
    }
    live, exported = model(inputs), served.call("tensors", **inputs)
    np.testing.assert_array_equal(live["tags"], exported["tags"])
    np.testing.assert_allclose(live["probabilities"], exported["probabilities"], atol=1e-6)


def test_example_requests_have_every_bucket_length():
    requests = serving.examples([8, 16], 20)
    assert [row["words"].shape for row in requests["tensors"]] == [(2, 8), (2, 16)]
    assert [row["tokens"].shape for row in requests["tokens"]] == [(2, 8), (2, 16)]
