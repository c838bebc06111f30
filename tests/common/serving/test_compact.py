"""Compact graphs: smaller, with the same signatures and the same outputs to the bit."""

import shutil

from common.serving.compact import compact
from common.serving.versions import GRAPH
from tests.common.serving.classifier import IDS, LENGTH, TEXTS

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


def library(folder):
    saved = saved_model_pb2.SavedModel.FromString((folder / GRAPH).read_bytes())
    return saved.meta_graphs[0].graph_def.library.function


@pytest.fixture
def saved(task, tmp_path):
    """A SavedModel as TensorFlow writes it, and the same one made compact."""
    holder = tf.Module()
    holder.resources = [task.model, task.table]
    tf.saved_model.save(holder, str(tmp_path / "whole"), signatures=task.signatures)
    shutil.copytree(tmp_path / "whole", tmp_path / "small")
    compact(tmp_path / "small")
    return tmp_path / "whole", tmp_path / "small"


def test_a_compact_export_has_the_same_signatures_and_outputs(saved):
    whole, small = (tf.saved_model.load(str(folder)).signatures for folder in saved)
    assert sorted(whole) == sorted(small)
    inputs = {
        "serving_default": {"text": tf.constant(TEXTS)},
        "explain": {"text": tf.constant(TEXTS)},
        "tensors": {"ids": tf.constant(IDS), "length": tf.constant(LENGTH)},
    }
    for name, values in inputs.items():
        assert str(whole[name].structured_outputs) == str(small[name].structured_outputs)
        expected, outputs = whole[name](**values), small[name](**values)
        for key, value in expected.items():
            np.testing.assert_array_equal(outputs[key].numpy(), value.numpy())


def test_names_inside_functions_are_numbers_and_public_arguments_stay(saved):
    whole, small = ({f.signature.name: f for f in library(folder)} for folder in saved)
    assert any("/" in node.name for function in whole.values() for node in function.node_def)
    assert len(small) < len(whole)  # equal functions are kept once
    for name, after in small.items():
        before = whole[name]
        assert [node.name for node in after.node_def] == [*map(str, range(len(before.node_def)))]
        assert [node.op for node in after.node_def] == [node.op for node in before.node_def]
        if name.startswith("__inference_signature_wrapper"):
            assert [arg.name for arg in before.signature.input_arg] == [
                arg.name for arg in after.signature.input_arg
            ]
    sizes = [(folder / GRAPH).stat().st_size for folder in saved]
    assert sizes[1] < 0.6 * sizes[0]


def test_the_fingerprint_is_that_of_the_compact_graph(saved):
    whole, small = (tf.saved_model.experimental.read_fingerprint(str(folder)) for folder in saved)
    assert small.saved_model_checksum != whole.saved_model_checksum
    shutil.copytree(saved[1], saved[1].with_name("again"))
    compact(saved[1].with_name("again"))  # changes nothing more
    again = tf.saved_model.experimental.read_fingerprint(str(saved[1].with_name("again")))
    assert again.saved_model_checksum == small.saved_model_checksum
