"""Verification of exports: any difference from the recorded outputs is found."""

import shutil
from pathlib import Path

from common.errors import ExportError
from common.serving import check
from common.serving import publish as publishing
from common.serving.publish import WARM_UP, verify
from common.serving.served import load_export
from tests.common.serving.classifier import IDS, LENGTH, damage

import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import prediction_log_pb2

pytestmark = pytest.mark.serving


@pytest.mark.parametrize("live", [None, 1e-2])  # 1e-2: the live model ran on another device
def test_verification_notices_other_weights(copy, tmp_path, task, monkeypatch, live):
    weights = task.model.get_weights()
    with monkeypatch.context() as patch:
        patch.setattr(publishing, "verify", lambda *arguments: None)
        task.model.set_weights([2 * weight for weight in weights])
        try:
            other = task.publish(tmp_path / "other")
        finally:
            task.model.set_weights(weights)
    shutil.copytree(other / "variables", copy / "variables", dirs_exist_ok=True)
    before = (copy / WARM_UP).read_bytes()
    with pytest.raises(ExportError, match=r"python loader, record 0, .*the live model's by"):
        verify(copy, live=live)
    assert (copy / WARM_UP).read_bytes() == before


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


def assert_recorded_by_the_export(folder: Path) -> None:
    functions, records = load_export(folder).functions, check.read_records(folder)
    assert records
    for record in records:
        specs = functions[record.request.model_spec.signature_name].structured_input_signature[1]
        inputs = {
            name: tf.constant(value, specs[name].dtype)
            for name, value in check.to_arrays(record.request.inputs).items()
        }
        outputs = functions[record.request.model_spec.signature_name](**inputs)
        recorded = check.to_arrays(record.response.outputs)
        assert recorded.keys() == outputs.keys()
        for name, output in outputs.items():
            assert recorded[name].dtype == output.numpy().dtype
            np.testing.assert_array_equal(recorded[name], output.numpy())


def test_responses_of_another_device_are_replaced_by_those_of_the_export(copy):
    def round_otherwise(log):
        scores = tf.make_ndarray(log.response.outputs["probabilities"]) * np.float32(1.005)
        log.response.outputs["probabilities"].CopyFrom(tf.make_tensor_proto(scores))
        if "class" in log.response.outputs and len(scores) == 1:  # one row of 11
            changed = 1 - tf.make_ndarray(log.response.outputs["class"])
            log.response.outputs["class"].CopyFrom(tf.make_tensor_proto(changed))

    change_record(copy, "serving_default", round_otherwise)
    change_record(copy, "tensors", round_otherwise)
    facts = verify(copy, live=1e-2)
    assert facts["largest_difference"]["python"] == pytest.approx(0.005, rel=0.01)
    assert facts["largest_difference"]["c++"] < 1e-6
    assert_recorded_by_the_export(copy)


def test_the_device_of_the_live_model_decides_the_tolerance(task, monkeypatch):
    def devices(*kinds):
        found = [tf.config.LogicalDevice(f"/device:{kind}:0", kind) for kind in kinds]
        monkeypatch.setattr(tf.config, "list_logical_devices", lambda: found)

    devices("CPU")
    assert publishing._live_tolerance(task.model, 1e-5) == 1e-5
    devices("CPU", "GPU")
    assert publishing._live_tolerance(task.model, 1e-5) == 1e-2
    monkeypatch.setattr(type(task.model), "compute_dtype", "bfloat16")
    assert publishing._live_tolerance(task.model, 1e-5) == 1e-1


def test_a_request_that_hangs_is_named(task, tmp_path, unverified):
    @tf.function(input_signature=[tf.TensorSpec([None], tf.string, name="text")])
    def explain(text):
        turns = tf.while_loop(
            lambda turns: tf.reduce_any(tf.equal(text, "loop")), lambda turns: [turns + 1], [0]
        )
        return {"turns": tf.repeat(turns, tf.size(text))}

    folder = task.publish(tmp_path / "toy", signatures={**task.signatures, "explain": explain})

    def loop(log):
        log.request.inputs["text"].CopyFrom(tf.make_tensor_proto(np.array(["loop"])))

    change_record(folder, "explain", loop)
    hung = r"(python|c\+\+) loader, record 3, signature 'explain'"
    with pytest.raises(ExportError, match=f"verification stopped after 40 s in {hung}; {hung}$"):
        verify(folder, seconds=40)


def test_a_loader_that_ended_is_not_named():
    lines = b"""python loader, loading
        a line of TensorFlow
c++ loader, loading
c++ loader, record 0, signature 'tensors'
python loader, end
"""
    assert publishing._unfinished(lines) == "c++ loader, record 0, signature 'tensors'"
    assert publishing._unfinished(None) == "its start"


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
    assert_recorded_by_the_export(task.publish(tmp_path / "toy"))
    assert facts["requests"] == {"serving_default": 2, "tensors": 1, "explain": 2}
    assert set(facts["largest_difference"]) == {"python", "c++"}
    assert max(facts["largest_difference"].values()) < 1e-6


def test_cpp_loader_accepts_and_returns_strings_of_any_length(copy):
    signatures = check.read_signatures(copy)
    call = check.CppExport(copy, signatures)
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
        check.CppExport(copy / "assets.extra", signatures)


def compare_devices(outputs, expected):
    places = [f"python loader, record {number}" for number in range(len(outputs))]
    return check.compare_devices(places, outputs, expected, 1e-2)


def response(labels, scores, attention=None):
    """Return a response with a text, a float, and a float whose length depends on the text."""
    attention = [[0.5] * len(label) for label in labels] if attention is None else attention
    longest = max(map(len, attention))
    return {
        "label": np.array(labels, object),
        "score": np.array(scores, np.float32),
        "attention": np.array([row + [0.0] * (longest - len(row)) for row in attention]),
    }


ROWS = response([b"one", b"two", b"three", b"four"], [0.1, 0.2, 0.3, 0.5])


def test_on_another_device_floats_may_round_and_few_rows_may_be_decided_otherwise():
    rounded = {**ROWS, "score": ROWS["score"] + np.float32([0, 0, 0, 0.004])}
    assert compare_devices([rounded], [ROWS]) == pytest.approx(0.008, rel=0.01)
    with pytest.raises(check.CheckError, match=r"'score' differs from the live model's by 0\.008"):
        check.compare_exactly(["python loader, record 0"], [rounded], [ROWS], 1e-5)
    one = response([b"one", b"two", b"threescore", b"four"], [0.1, 0.2, 0.9, 0.5])
    assert compare_devices([one], [ROWS]) == 0.0  # one row of four, its floats and its length
    with pytest.raises(check.CheckError, match="'label' differs"):
        check.compare_exactly(["p"], [{"label": one["label"]}], [{"label": ROWS["label"]}], 1e-5)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (
            response([b"one", b"2", b"3", b"four"], [0.1, 0.2, 0.3, 0.5]),
            "python loader: 2 of 4 rows have other text or whole numbers .* more than 25%",
        ),
        (
            response([b"one", b"two", b"3", b"four"], [0.1, 0.3, 0.3, 0.5]),
            "record 0: output 'score' differs from the live model's by 0.2",
        ),
        (
            response([b"one", b"two", b"three", b"four"], [0.1, 0.2, np.nan, 0.5]),
            "'score' differs from the live model's by inf",
        ),
        ({**ROWS, "score": ROWS["score"][:3]}, "'score' differs"),
        ({**ROWS, "label": np.array([1, 2, 3, 4])}, "'label' differs"),
        ({"label": ROWS["label"]}, "outputs .'label'., recorded"),
    ],
)
def test_on_another_device_any_other_difference_is_noticed(outputs, message):
    with pytest.raises(check.CheckError, match=message):
        compare_devices([outputs], [ROWS])


def test_sampled_floats_of_whole_numbers_are_decisions():
    notes = np.zeros((4, 3, 2), np.float32)
    other = notes.copy()
    other[2, 1:, 0] = 1.0
    assert compare_devices([{"notes": other}], [{"notes": notes}]) == 0.0
    other[3, 1:, 0] = 1.0
    with pytest.raises(check.CheckError, match="2 of 4 rows"):
        compare_devices([{"notes": other}], [{"notes": notes}])
    empty = {"notes": notes[:0]}
    assert compare_devices([empty, {"notes": notes}], [empty, {"notes": notes}]) == 0.0


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
