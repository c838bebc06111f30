"""The LiteRT export of sentiment: its files, run by the LiteRT runtime."""

import json

from common.errors import ExportError
from common.serving import targets
from common.serving.versions import LITERT, SETTINGS
from common.word_embedding import WordEmbedding
from tasks.sentiment import litert_export, model, predict
from tasks.sentiment.config import Config
from tests.tasks import test_targets

import keras
import numpy as np
import pytest

pytestmark = pytest.mark.serving

Interpreter = pytest.importorskip("ai_edge_litert.interpreter").Interpreter


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    keras.utils.set_random_seed(3)
    return test_targets.sentiment(tmp_path_factory.mktemp("vocabulary"))


@pytest.fixture(scope="module")
def version(small, tmp_path_factory):
    target = targets.choose("litert", "sentiment", no_litert=None)
    return litert_export.publish(
        small.sign(target),
        model=small.model,
        resources=small.resources,
        settings={"labels": ["a", "b", "c"], "max_tokens": 192, "window": 12},
        examples=small.examples,
        directory=tmp_path_factory.mktemp("saved_models") / target.folder("sentiment"),
        target=target,
    )


def test_a_version_has_its_files_and_no_server_lists_it(version):
    assert version.name == "1" and version.parent.name == "sentiment-litert"
    for name in (LITERT, litert_export.QUANTISED, litert_export.VOCABULARY, SETTINGS):
        assert (version / name).is_file()
    assert "litert" not in (version.parents[1] / "models.config").read_text()
    assert json.loads((version / SETTINGS).read_text())["window"] == 12


@pytest.mark.parametrize(("file", "tolerance"), [(LITERT, 1e-5), (litert_export.QUANTISED, 0.02)])
def test_both_files_equal_the_live_model(small, version, file, tolerance):
    texts = np.array(["a warm film", "", "london london", "film " * 40], object)
    live = small.sign(targets.PORTABLE)
    served = litert_export.load(version, file)
    for name in ("serving_default", "explain"):
        outputs, expected = served.call(name, text=texts), live[name](texts)
        for key, value in expected.items():
            if value.dtype.is_floating:
                np.testing.assert_allclose(outputs[key], value, atol=tolerance)
            elif file == LITERT:
                np.testing.assert_array_equal(outputs[key], value)


def test_a_row_longer_than_the_input_of_the_file_is_empty(version):
    served = predict.load_model(version.parent)
    assert served.path == version
    ids = np.ones((2, 20), np.int32)
    probabilities = served.call("tensors", ids=ids, length=[20, 3])["probabilities"]
    np.testing.assert_array_equal(probabilities[0], 0.0)
    np.testing.assert_allclose(probabilities[1].sum(), 1.0, atol=1e-5)


def test_an_incomplete_version_is_refused(tmp_path):
    folder = tmp_path / "sentiment-litert" / "1"
    (folder / SETTINGS).parent.mkdir(parents=True)
    (folder / SETTINGS).write_text("{}")
    with pytest.raises(ExportError, match="is no export of this project: it lacks"):
        predict.load_model(folder.parent)


def test_weights_of_8_bits_make_the_file_smaller_at_nearly_the_same_outputs():
    keras.utils.set_random_seed(3)
    embedding = WordEmbedding(3000, 3000, 48)
    built = model.build(Config(units=64), embedding, classes=5)
    embedding.set_fixed(np.random.default_rng(0).normal(size=(3000, 48)))
    plain, quantised = (litert_export.convert(built, 8, quantised=q) for q in (False, True))
    assert len(quantised) < 0.5 * len(plain)
    ids, length = np.arange(2, 10, dtype=np.int32)[None], np.array([8], np.int32)
    expected = built({"ids": ids, "length": length})["probabilities"]
    for content, tolerance in ((plain, 1e-5), (quantised, 0.03)):
        runner = Interpreter(model_content=content).get_signature_runner()
        probabilities = runner(ids=ids, length=length)["probabilities"]
        np.testing.assert_allclose(probabilities, expected, atol=tolerance)
