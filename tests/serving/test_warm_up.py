"""The warm-up records of every export, replayed through TensorFlow's C++ loader."""

from common.data import bucket_lengths
from common.serving import check
from tests.tasks.exports import TASKS

import pytest

pytestmark = pytest.mark.serving


@pytest.mark.parametrize("task", TASKS)
def test_every_record_gets_its_answer_from_the_cpp_loader(task, root):
    version = root / task / "1"
    signatures = check.read_signatures(version)
    ask = check.load_in_cpp(version, signatures)
    asked = []
    for record in check.read_records(version):
        spec = record.request.model_spec
        assert spec.name == task
        answer = ask(spec.signature_name, check.to_arrays(record.request.inputs))
        expected = check.to_arrays(record.response.outputs)
        assert set(answer) == set(expected) == set(signatures[spec.signature_name].outputs)
        for name, array in expected.items():
            assert check.difference(answer[name], array) <= 1e-5, name
        asked.append(spec.signature_name)
    assert set(asked) == set(signatures)


@pytest.mark.parametrize("task", TASKS)
def test_every_signature_answers_no_rows(task, root, served):
    for record in check.read_records(root / task / "1"):
        inputs = check.to_arrays(record.request.inputs)
        asked = {name: array[:0] for name, array in inputs.items()}
        answer = served[task].call(record.request.model_spec.signature_name, **asked)
        assert {len(array) for array in answer.values()} == {0}


def lengths(root, task, signature, tensor, axis):
    """How long each record of a signature is, along an axis of an input or an output."""
    found = set()
    for record in check.read_records(root / task / "1"):
        if record.request.model_spec.signature_name == signature:
            for protos in (record.request.inputs, record.response.outputs):
                if tensor in protos:
                    found.add(check.to_arrays(protos)[tensor].shape[axis])
    return found


@pytest.mark.parametrize(
    ("task", "signature", "tensor"),
    [
        ("sentiment", "tensors", "ids"),
        ("sentiment", "explain", "tokens"),
        ("ner", "tensors", "words"),
        ("ner", "tokens", "tokens"),
        ("ner", "serving_default", "tokens"),
        ("ner", "explain", "tokens"),
        ("video", "tensors", "frames"),
        ("video", "explain", "frame_probabilities"),
    ],
)
def test_every_bucket_has_a_record(task, signature, tensor, root, served):
    buckets = bucket_lengths(served[task].settings["config"]["max_length"])
    assert set(buckets) <= lengths(root, task, signature, tensor, 1)


@pytest.mark.parametrize("task", ["sentiment", "video", "speech", "translation", "dna"])
def test_both_raw_signatures_are_asked_the_same(task, root):
    """So what holds of the lengths of `explain` holds of `serving_default`."""
    asked = {"serving_default": [], "explain": []}
    for record in check.read_records(root / task / "1"):
        name = record.request.model_spec.signature_name
        if name in asked:
            asked[name].append({k: v.SerializeToString() for k, v in record.request.inputs.items()})
    assert asked["serving_default"] and asked["serving_default"] == asked["explain"]


def test_every_length_of_speech_has_a_record(root):
    found = {
        name: lengths(root, "speech", name, "audio", 1)
        for name in ("serving_default", "tensors", "explain")
    }
    assert len(found["tensors"]) == 2 and len({frozenset(one) for one in found.values()}) == 1
