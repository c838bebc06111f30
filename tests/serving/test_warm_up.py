"""The warm-up records of every export, replayed through TensorFlow's C++ loader."""

from common.data import bucket_lengths
from common.serving import check
from tests.tasks.shipped import NAMES, task_of

import pytest
from tensorflow.core.protobuf import saved_model_pb2

pytestmark = pytest.mark.serving


@pytest.mark.parametrize("model", NAMES)
def test_the_cpp_loader_returns_the_recorded_outputs(model, root):
    version = root / model / "1"
    signatures = check.read_signatures(version)
    call = check.CppExport(version, signatures)
    called = []
    for record in check.read_records(version):
        spec = record.request.model_spec
        assert spec.name == task_of(model)  # servers read the signature alone
        outputs = call(spec.signature_name, check.to_arrays(record.request.inputs))
        expected = check.to_arrays(record.response.outputs)
        assert set(outputs) == set(expected) == set(signatures[spec.signature_name].outputs)
        for name, array in expected.items():
            assert check.difference(outputs[name], array) <= 1e-5, name
        called.append(spec.signature_name)
    assert set(called) == set(signatures)


@pytest.mark.parametrize("model", NAMES)
def test_no_export_holds_gradient_functions(model, root):
    """They make the file larger, and each `tf.saved_model.load` would keep memory for ever."""
    content = (root / model / "1" / "saved_model.pb").read_bytes()
    (graph,) = saved_model_pb2.SavedModel.FromString(content).meta_graphs
    library = graph.graph_def.library
    assert not library.registered_gradients
    nodes = (node for function in library.function for node in function.node_def)
    assert not [node.name for node in nodes if "_gradient_op_type" in node.attr]


@pytest.mark.parametrize("model", NAMES)
def test_every_signature_accepts_no_rows(model, root, served):
    for record in check.read_records(root / model / "1"):
        inputs = check.to_arrays(record.request.inputs)
        no_rows = {name: array[:0] for name, array in inputs.items()}
        outputs = served[model].call(record.request.model_spec.signature_name, **no_rows)
        assert {len(array) for array in outputs.values()} == {0}


def lengths(root, task, signature, tensor, axis):
    """Return the sizes of an input or output along an axis, over the records of a signature."""
    sizes = set()
    for record in check.read_records(root / task / "1"):
        if record.request.model_spec.signature_name == signature:
            for protos in (record.request.inputs, record.response.outputs):
                if tensor in protos:
                    sizes.add(check.to_arrays(protos)[tensor].shape[axis])
    return sizes


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
def test_both_raw_signatures_have_the_same_requests(task, root):
    """The lengths of `explain` are therefore also those of `serving_default`."""
    requests = {"serving_default": [], "explain": []}
    for record in check.read_records(root / task / "1"):
        name = record.request.model_spec.signature_name
        if name in requests:
            inputs = {k: v.SerializeToString() for k, v in record.request.inputs.items()}
            requests[name].append(inputs)
    assert requests["serving_default"] and requests["serving_default"] == requests["explain"]


def test_every_length_of_speech_has_a_record(root):
    sizes = {
        name: lengths(root, "speech", name, "audio", 1)
        for name in ("serving_default", "tensors", "explain")
    }
    assert len(sizes["tensors"]) == 2 and len({frozenset(one) for one in sizes.values()}) == 1
