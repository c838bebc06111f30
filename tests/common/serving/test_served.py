"""Published models that are loaded and called on this machine."""

from common.errors import ExportError
from common.serving.served import load_export, text_request
from common.serving.versions import latest
from tests.common.serving.classifier import IDS, LENGTH, OWN_SETTINGS, TEXTS

import numpy as np
import pytest


def test_a_version_or_the_newest_is_loaded(published):
    first, second, _ = published
    assert load_export(first).path == first
    assert load_export(first.parent).path == second


@pytest.mark.parametrize(
    "make", [lambda path: None, lambda path: (path / "run").mkdir(parents=True)]
)
def test_a_missing_model_is_reported_with_the_training_command(tmp_path, make):
    make(tmp_path / "saved_models" / "ner")
    message = r"ner holds no published model.*`python -m tasks\.ner\.train --output .*saved_models`"
    for find in (latest, load_export):
        with pytest.raises(FileNotFoundError, match=message):
            find(tmp_path / "saved_models" / "ner")


@pytest.mark.parametrize("missing", ["saved_model.pb", "assets.extra/config.json"])
def test_the_missing_file_of_an_incomplete_export_is_named(copy, missing):
    (copy / missing).unlink()
    with pytest.raises(ExportError, match=f"is no export .* lacks {missing}"):
        load_export(copy)
    with pytest.raises(ExportError, match=f"is no export .* lacks {missing}"):
        load_export(copy.rename(copy.parent / "downloaded"))


def test_wrong_calls_are_refused_with_the_names_that_exist(published):
    served = load_export(published.first)
    with pytest.raises(ExportError, match=r"no 'beam', only .'explain', 'serving_default'"):
        served.call("beam", text=TEXTS)
    with pytest.raises(ExportError, match=r"'tensors' takes \['ids', 'length'\], not"):
        served.call("tensors", ids=IDS)


def test_outputs_equal_those_of_the_live_model(task, published):
    served = load_export(published.second)
    live = task.model.predict({"ids": IDS, "length": LENGTH}, verbose=0)["probabilities"]
    probabilities = served.call("tensors", ids=IDS, length=LENGTH)["probabilities"]
    np.testing.assert_allclose(probabilities, live, rtol=0, atol=1e-6)

    # The same three sequences as text, which also tests the vocabulary and the splitting.
    texts = ["a good film", "bad", "élan x élan y"]
    outputs = served.call("serving_default", text=texts)
    np.testing.assert_allclose(outputs["probabilities"], live, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(outputs["class"], live.argmax(axis=1))
    assert [label.decode() for label in outputs["label"]] == [
        OWN_SETTINGS["labels"][k] for k in live.argmax(axis=1)
    ]
    tokens = served.call("explain", text=["a  b", "c"])["tokens"]
    assert tokens.tolist() == [[b"a", b"b"], [b"c", b""]]


def test_padding_values_change_nothing(published):
    served = load_export(published.first)
    plain = served.call("tensors", ids=IDS, length=LENGTH)["probabilities"]
    junk = np.where(np.arange(9) < LENGTH[:, None], np.pad(IDS, [(0, 0), (0, 5)]), 5)
    padded = served.call("tensors", ids=junk, length=LENGTH)["probabilities"]
    np.testing.assert_allclose(padded, plain, rtol=0, atol=1e-6)


def test_predictions_come_with_their_rows_in_the_order_of_the_rows(published):
    served = load_export(published.second)
    texts = ["a good film", "bad", "élan x élan y", "a", "good good", "x y z", "film"]
    requests = []

    def to_request(rows):
        requests.append(list(rows))
        return text_request(rows)

    predictions = list(
        served.predict("serving_default", iter(texts), to_request, batch_size=2, window=2)
    )
    assert [text for text, _ in predictions] == texts
    for text, outputs in predictions:
        alone = served.call("serving_default", text=[text])
        assert outputs["label"] == alone["label"][0]
        np.testing.assert_allclose(
            outputs["probabilities"], alone["probabilities"][0], rtol=0, atol=1e-6
        )
    # Of four texts that are read ahead, the shortest share a request.
    assert requests[:2] == [["a", "bad"], ["a good film", "élan x élan y"]]


def test_rows_are_read_as_they_are_needed(published):
    read = []

    def rows():
        for number in range(100):
            read.append(number)
            yield "a good film"

    served = load_export(published.second)
    predictions = served.predict("serving_default", rows(), text_request, batch_size=2, window=3)
    next(predictions)
    assert len(read) == 6
