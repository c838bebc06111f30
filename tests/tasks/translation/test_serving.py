"""The signatures of the export: equal results for text and tensors, and invalid rows."""

from common.serving.versions import find
from tasks.translation import model, train
from tasks.translation.shortlist import Shortlist
from tasks.translation.sources import encode_source
from tasks.translation.subwords import Subwords
from tests.tasks import commands
from tests.tasks.own.translation import own_pairs

import numpy as np
import pytest
import tensorflow as tf


def as_ids(served, texts):
    reader = Subwords(served.path / "assets" / train.SOURCE)
    source = encode_source(reader, tf.constant(texts), max_length=24)
    return source.ids.numpy(), source.length.numpy()


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/translation.json")


def test_the_other_rows_of_a_batch_change_nothing(served):
    texts = [s for s, _ in own_pairs(seed=4)[:9]] + ["", "Le", "Le chat noir dort. " * 9]
    together = served.call("serving_default", text=texts)
    for row, text in enumerate(texts):
        alone = served.call("serving_default", text=[text])
        assert alone["translation"][0] == together["translation"][row]
        np.testing.assert_allclose(alone["score"][0], together["score"][row], atol=1e-5)


def test_values_in_the_padding_change_nothing(served):
    ids, length = as_ids(served, ["Le chat noir dort.", "Un chien court.", "Mon"])
    expected = served.call("tensors", ids=ids, length=length)
    junk = np.random.default_rng(0).integers(-9, 10**6, (3, ids.shape[1] + 4)).astype(np.int32)
    for row, count in enumerate(length):
        junk[row, :count] = ids[row, :count]
    outputs = served.call("tensors", ids=junk, length=length)
    np.testing.assert_array_equal(outputs["target_ids"], expected["target_ids"])
    np.testing.assert_allclose(outputs["score"], expected["score"], atol=1e-5)


def test_text_and_tensors_return_the_same_translation(served):
    texts = ["Le chat noir dort.", "Votre mouton petit mange."]
    ids, length = as_ids(served, texts)
    by_number = served.call("tensors", ids=ids, length=length)
    by_text = served.call("serving_default", text=texts)
    writer = Subwords(served.path / "assets" / train.TARGET)
    decoded = writer.decode(
        tf.constant(by_number["target_ids"]), tf.constant(by_number["target_length"])
    )
    assert decoded.numpy().tolist() == by_text["translation"].tolist()
    np.testing.assert_allclose(by_number["score"], by_text["score"], atol=1e-6)
    assert by_number["target_ids"].shape == (2, 24)


def test_invalid_texts_are_empty_and_leave_the_other_rows_alone(served):
    good = "Le chat noir dort."
    texts = [good.encode(), b"", b" \t\n", b"Le chat \xff\xfe", b"\x00\x01", "東京 😀".encode()]
    texts += [b"a" * 10_000, b"Le chat noir dort. " * 600]
    outputs = served.call("serving_default", text=np.array(texts, object))
    assert [row for row, text in enumerate(outputs["translation"]) if not text] == [1, 2, 4]
    assert outputs["score"][[1, 2, 4]].tolist() == [0, 0, 0]
    assert np.isfinite(outputs["score"]).all() and (outputs["score"] <= 0).all()
    assert outputs["translation"][0] == b"The black cat sleeps."
    for text in outputs["translation"]:
        text.decode()
    # The long texts are cut, and the answer says so.
    assert not outputs["truncated"][[0, 1, 2, 4]].any() and outputs["truncated"][[6, 7]].all()


def test_capitals_and_typography_are_the_same_sentence(served):
    texts = [
        "Le chat noir dort.",
        "LE CHAT NOIR DORT.",
        "le chat noir dort.",
        "Le\u00a0chat noir dort .",
    ]
    outputs = served.call("serving_default", text=np.array(texts, object))
    assert outputs["translation"][:3].tolist() == [
        b"The black cat sleeps.",
        b"THE BLACK CAT SLEEPS.",
        b"The black cat sleeps.",
    ]
    np.testing.assert_allclose(outputs["score"][1:3], outputs["score"][0], atol=1e-5)


def test_rows_of_an_invalid_length_or_id_are_empty(served):
    ids, length = as_ids(served, ["Le chat noir dort."])
    ids = np.repeat(ids, 6, axis=0)
    count = int(length[0])
    ids[4, 0], ids[5, 0] = -1, 10**6
    lengths = [count, 0, -1, count + 1, count, count]
    outputs = served.call("tensors", ids=ids, length=lengths)
    assert (outputs["target_length"] > 0).tolist() == [True, False, False, False, False, False]
    assert not outputs["target_ids"][1:].any() and not outputs["score"][1:].any()
    no_steps = served.call("tensors", ids=np.zeros((2, 0), np.int32), length=[0, 0])
    assert no_steps["target_length"].tolist() == [0, 0]
    too_long = served.call("tensors", ids=np.full((1, 40), 9, np.int32), length=[40])
    assert too_long["target_length"].tolist() == [0]


def test_the_last_of_too_many_rows_are_empty(served):
    """A request has at most 16,384 subwords: 682 rows with translations of up to 24."""
    ids, length = as_ids(served, ["Le chat noir dort."])
    outputs = served.call("tensors", ids=np.repeat(ids, 690, axis=0), length=np.repeat(length, 690))
    assert (outputs["target_length"] > 0).tolist() == [True] * 682 + [False] * 8
    assert not outputs["target_ids"][682:].any() and not outputs["score"][682:].any()
    explained = served.call("explain", text=["", "Le chat noir dort."])
    assert explained["translations"].tolist()[0] == [b""] * 5
    assert explained["attention"][1].any() and not explained["attention"][0].any()


@pytest.mark.parametrize("size", [0, 1, 33])
def test_a_batch_has_any_size(served, size):
    for name in ("serving_default", "explain"):
        outputs = served.call(name, text=np.array(["Le chat dort."] * size, object))
        assert all(len(value) == size for value in outputs.values())


def test_explain_returns_subwords_hypotheses_and_attention(served):
    texts = ["Le chat noir dort.", "", "Un chien"]
    explained = served.call("explain", text=texts)
    outputs = served.call("serving_default", text=texts)
    assert explained["translations"][:, 0].tolist() == outputs["translation"].tolist()
    assert explained["translations"].shape == explained["scores"].shape == (3, 5)
    assert (np.diff(explained["scores"], axis=1) <= 0).all() and not explained["scores"][1].any()
    for row, text in enumerate(texts):
        tokens = [token.decode() for token in explained["tokens"][row] if token]
        written = [token.decode() for token in explained["target_tokens"][row] if token]
        assert "".join(tokens).removesuffix("</s>").strip() == text
        translation = "".join(written).removesuffix("</s>").strip()
        assert translation == outputs["translation"][row].decode()
        sums = explained["attention"][row].sum(axis=-1)
        np.testing.assert_allclose(sums[: len(written)], 1.0, atol=1e-5)
        assert not sums[len(written) :].any()
        assert not explained["attention"][row, :, len(tokens) :].any()
    # The first text is the longest.
    tokens = [token for token in explained["tokens"][0] if token]
    assert len(tokens) == explained["attention"].shape[2]


def test_the_keras_model_equals_the_export(served):
    live = find(served.path).model
    assets = served.path / "assets"
    lists = Shortlist(assets / train.SHORTLIST, len(Subwords(assets / train.TARGET)))
    ids, length = as_ids(served, ["Le chat noir dort.", "Un chien court."])
    outputs = model.translate(
        *(live, tf.constant(ids), tf.constant(length)),
        **{"max_length": 24, "beam": 5, "alpha": 0.6, "shortlist": lists},
    )
    expected = served.call("tensors", ids=ids, length=length)
    np.testing.assert_array_equal(outputs.tokens[:, 0], expected["target_ids"])
    np.testing.assert_allclose(outputs.score[:, 0], expected["score"], atol=1e-5)
