"""Sentiment on small devices: the files, asked through LiteRT's own runtime."""

import json

from common.serving import targets
from common.serving.served import SETTINGS
from common.word_embedding import WordEmbedding
from tasks.sentiment import evaluate, litert, model
from tasks.sentiment.config import Config
from tests.tasks import test_targets

import keras
import numpy as np
import pytest

Interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    keras.utils.set_random_seed(3)
    return test_targets.sentiment(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def version(small, tmp_path_factory):
    target = targets.choose("litert", "sentiment", no_litert=None)
    return litert.publish(
        small.sign(target),
        model=small.model,
        resources=small.resources,
        settings={"labels": ["a", "b", "c"], "max_tokens": 12},
        examples=small.examples,
        directory=tmp_path_factory.mktemp("saved_models") / target.folder("sentiment"),
        target=target,
    )


def test_a_version_has_its_files_and_no_server_lists_it(version):
    assert version.name == "1" and version.parent.name == "sentiment-litert"
    for name in (litert.LITERT, litert.QUANTISED, litert.VOCABULARY, SETTINGS):
        assert (version / name).is_file()
    assert "litert" not in (version.parents[1] / "models.config").read_text()
    assert json.loads((version / SETTINGS).read_text())["max_tokens"] == 12


def test_both_files_answer_like_the_live_model(small, version):
    texts = np.array(["a warm film", "", "london london", "film " * 40], object)
    live = small.sign(targets.PORTABLE)
    for file, tolerance in ((litert.LITERT, 1e-5), (litert.QUANTISED, 0.02)):
        served = litert.load(version, file)
        for name in ("serving_default", "explain"):
            found, expected = served.call(name, text=texts), live[name](texts)
            for key, value in expected.items():
                if value.dtype.is_floating:
                    np.testing.assert_allclose(found[key], value, atol=tolerance)
                elif file == litert.LITERT:
                    np.testing.assert_array_equal(found[key], value)


def test_a_row_longer_than_the_file_takes_gets_the_empty_answer(version):
    served = evaluate.load(version.parent)
    ids = np.ones((2, 20), np.int32)
    found = served.call("tensors", ids=ids, length=[20, 3])["probabilities"]
    np.testing.assert_array_equal(found[0], 0.0)
    np.testing.assert_allclose(found[1].sum(), 1.0, atol=1e-5)


def test_weights_of_8_bits_make_the_file_smaller_and_keep_the_answers(tmp_path):
    keras.utils.set_random_seed(3)
    embedding = WordEmbedding(3000, 3000, 48)
    built = model.build(Config(units=64), embedding, classes=5)
    embedding.fixed.assign(np.random.default_rng(0).normal(size=(3000, 48)))
    plain, quantised = (litert.convert(built, 8, quantised=q) for q in (False, True))
    assert len(quantised) < 0.5 * len(plain)
    ids, length = np.arange(2, 10, dtype=np.int32)[None], np.array([8], np.int32)
    expected = built({"ids": ids, "length": length})["probabilities"]
    for content, tolerance in ((plain, 1e-5), (quantised, 0.03)):
        runner = Interpreter(model_content=content).get_signature_runner()
        found = runner(ids=ids, length=length)["probabilities"]
        np.testing.assert_allclose(found, expected, atol=tolerance)
