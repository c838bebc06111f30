"""Verification of exports: any difference from the recorded outputs is found."""

import shutil
from pathlib import Path

from common.errors import ExportError
from common.serving import check
from common.serving import publish as publishing
from common.serving.publish import WARM_UP, verify
from tests.common.serving.classifier import IDS, LENGTH, damage

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

pytestmark = pytest.mark.serving


def test_verification_notices_other_weights(copy, tmp_path, task, monkeypatch):
    weights = task.model.get_weights()
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "verify", lambda *arguments: None)
        task.model.set_weights([2 * weight for weight in weights])
        try:
            other = task.publish(tmp_path / "other")
        finally:
            task.model.set_weights(weights)
    shutil.copytree(other / "variables", copy / "variables", dirs_exist_ok=True)
    with pytest.raises(ExportError, match=r"python loader, record 0, .*the live model's by"):
        verify(copy)


def change_record(folder: Path, signature: str, change) -> None:
    path = folder / WARM_UP
    logs = [
        prediction_log_pb2.PredictionLog.FromString(record.numpy())
        for record in tf.data.TFRecordDataset(str(path))
    ]
    with tf.io.TFRecordWriter(str(path)) as writer:
        for log in logs:
            if log.predict_log.request.model_spec.signature_name == signature:
                change(log.predict_log)
            writer.write(log.SerializeToString())


def test_verification_notices_another_output(copy):
    def change(log):
        tokens = tf.make_ndarray(log.response.outputs["tokens"])
        tokens[0, 0] += b"!"
        log.response.outputs["tokens"].CopyFrom(tf.make_tensor_proto(tokens))

    change_record(copy, "explain", change)
    with pytest.raises(ExportError, match="signature 'explain': output 'tokens' differs"):
        verify(copy)


def test_verification_notices_a_difference_of_the_cpp_loader_alone(copy):
    def swap(meta_graph):  # Python reads outputs from the saved objects, a server from signatures
        outputs = meta_graph.signature_def["serving_default"].outputs
        outputs["label"].name, outputs["class"].name = outputs["class"].name, outputs["label"].name

    damage(copy, swap)
    with pytest.raises(ExportError, match=r"c\+\+ loader, record 0.*'(label|class)' differs"):
        verify(copy)


def test_publishing_runs_all_requests_by_both_loaders(task, tmp_path, monkeypatch):
    facts = {}
    monkeypatch.setattr(publishing, "verify", lambda *given: facts.update(verify(*given)))
    task.publish(tmp_path / "toy")
    assert facts["requests"] == {"serving_default": 2, "tensors": 1, "explain": 2}
    assert set(facts["largest_difference"]) == {"python", "c++"}
    assert max(facts["largest_difference"].values()) < 1e-6


def test_cpp_loader_accepts_and_returns_strings_of_any_length(copy):
    signatures = check.read_signatures(copy)
    call = check.load_in_cpp(copy, signatures)
    long = np.array([b"short", b"much longer than the 22 bytes that fit inline", b""], object)
    tokens = call("explain", {"text": long})["tokens"]
    assert tokens.tolist()[1] == long[1].split()
    assert tokens.shape == (3, 9)
    empty = call("explain", {"text": np.empty([0], object)})["tokens"]
    assert empty.shape[0] == 0
    numbers = call("tensors", {"ids": IDS, "length": LENGTH})["probabilities"]
    assert numbers.dtype == np.float32
    np.testing.assert_allclose(numbers.sum(axis=1), 1, atol=1e-6)
    with pytest.raises(RuntimeError, match=r"C\+\+ loader: "):
        call("tensors", {"ids": IDS[:, :, None], "length": LENGTH})
    with pytest.raises(RuntimeError, match=r"C\+\+ loader: "):
        check.load_in_cpp(copy / "assets.extra", signatures)


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ([1.0, 4.0], [1.0, 5.0], 0.2),
        ([0.0, 1e-5], [0.0, 0.0], 1e-3),  # relative to 0.01, not to zero
        ([np.nan, np.inf, 1.0], [np.nan, np.inf, 1.0], 0.0),
        ([np.nan, 1.0], [0.0, 1.0], np.inf),
        ([0.0, 1.0], [np.nan, 1.0], np.inf),
        ([1.0, np.inf], [1.0, -np.inf], np.inf),
        ([1, 2], [1, 3], np.inf),
        ([1, 2], [1.0, 2.0], np.inf),
        ([1.0, 2.0], [[1.0, 2.0]], np.inf),
        ([], [], 0.0),
    ],
)
def test_difference(a, b, expected):
    assert check.difference(np.array(a), np.array(b)) == pytest.approx(expected)


def test_a_missing_export_is_reported(tmp_path):
    with pytest.raises(ExportError, match="verification failed: FileNotFoundError"):
        verify(tmp_path)
