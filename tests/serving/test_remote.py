"""A model on a server returns the outputs of the local export; see `common.serving.served`."""

from common.errors import ExportError
from common.serving.publish import WARM_UP
from common.serving.served import connect
from tests.tasks.shipped import NAMES

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

pytestmark = pytest.mark.serving


def requests_of(path):
    """Return the inputs of the first warm-up request of each signature."""
    requests = {}
    for record in tf.data.TFRecordDataset(str(path / WARM_UP)).as_numpy_iterator():
        request = prediction_log_pb2.PredictionLog.FromString(record).predict_log.request
        inputs = {name: tf.make_ndarray(proto) for name, proto in request.inputs.items()}
        requests.setdefault(request.model_spec.signature_name, inputs)
    return requests


@pytest.mark.parametrize("name", NAMES)
def test_a_server_returns_the_outputs_of_the_export(name, root, served, server):
    model = connect(server.rest, root / name)
    assert model.settings == served[name].settings and model.path == root / name / "1"
    for signature, inputs in requests_of(root / name / "1").items():
        expected = served[name].call(signature, **inputs)
        outputs = model.call(signature, **inputs)
        assert set(outputs) == set(expected)
        for key, value in expected.items():
            assert outputs[key].dtype == value.dtype and outputs[key].shape == value.shape, key
            if value.dtype.kind == "f":
                np.testing.assert_allclose(outputs[key], value, rtol=1e-5, atol=1e-5)
            else:
                np.testing.assert_array_equal(outputs[key], value)


def test_invalid_utf8_arrives_unchanged(root, served, server):
    model = connect(server.rest, root / "ner")
    text = np.array([b"Ada\xff lives in Rome ."], object)
    remote, local = (one.call("serving_default", text=text) for one in (model, served["ner"]))
    assert remote["tokens"].tolist() == local["tokens"].tolist()


def test_errors_of_a_server_are_reported(root, server, tmp_path):
    model = connect(server.rest, root / "sentiment")
    with pytest.raises(ExportError, match=r"has no 'sing', only \['explain', "):
        model.call("sing", text=["x"])
    with pytest.raises(ExportError, match=r"'serving_default' takes \['text'\], not \['words'\]"):
        model.call("serving_default", words=["x"])
    with pytest.raises(ExportError, match=r"/v1/models/sentiment:predict: ."):
        model.call("serving_default", text=[["x"], ["y"]])  # wrong rank
    with pytest.raises(ExportError, match=r"/v1/models/chess/metadata: ."):
        connect(server.rest, tmp_path / "chess")
    with pytest.raises(ExportError, match=r"127\.0\.0\.1:9/v1/models/ner/metadata: .*refused"):
        connect("http://127.0.0.1:9", root / "ner")
    message = r"serves version \d+ of sentiment, which is not in .*sentiment\. Name the folder"
    with pytest.raises(ExportError, match=message):
        connect(server.rest, tmp_path / "sentiment")
