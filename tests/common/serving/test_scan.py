"""Scans: nodes, functions and tensors that a server cannot run are refused."""

import re

from common.errors import ExportError
from common.serving.scan import scan
from tests.common.serving.classifier import damage

import pytest
import tensorflow as tf


@pytest.mark.parametrize(
    ("op", "device", "message"),
    [
        ("CudnnRNNV3", "", "'intruder' .CudnnRNNV3. of {where} is a cuDNN op"),
        ("EagerPyFunc", "", "'intruder' .EagerPyFunc. of {where} is Python code"),
        ("FastWordpiece", "", "'intruder' .FastWordpiece. of {where} is an op that TensorFlow"),
        ("Identity", "/device:GPU:0", "'intruder' .Identity. of {where} is pinned .*GPU:0"),
        ("Identity", "/job:worker/device:TPU:1", "'intruder' .Identity. of {where} is pinned"),
    ],
)
@pytest.mark.parametrize("place", ["graph", "function"])
def test_nodes_that_a_server_cannot_run_are_refused(copy, op, device, message, place):
    where = []

    def intrude(meta_graph):
        function = meta_graph.graph_def.library.function[0]
        nodes = meta_graph.graph_def.node if place == "graph" else function.node_def
        nodes.add(name="intruder", op=op, device=device)
        where.append(
            "the main graph" if place == "graph" else f"function {function.signature.name!r}"
        )

    scan(copy)  # nothing to refuse in the published version
    damage(copy, intrude)
    with pytest.raises(ExportError, match=message.format(where=re.escape(where[0]))):
        scan(copy)


@pytest.mark.parametrize("attribute", ["_XlaMustCompile", "_XlaCompile"])
@pytest.mark.parametrize("place", ["node", "function"])
def test_nodes_and_functions_marked_for_xla_are_refused(copy, attribute, place):
    def mark(meta_graph, value):
        function = meta_graph.graph_def.library.function[0]
        holder = function if place == "function" else function.node_def[0]
        holder.attr[attribute].b = value

    damage(copy, lambda meta_graph: mark(meta_graph, False))
    scan(copy)  # a false mark is accepted
    damage(copy, lambda meta_graph: mark(meta_graph, True))
    with pytest.raises(ExportError, match="compiled by XLA"):
        scan(copy)


@pytest.mark.parametrize(
    ("kind", "shape", "dtype", "message"),
    [
        ("input", [], tf.int32, "input 'seed' .* batch"),
        ("input", [3], tf.int32, "input 'seed' .*shape .3,.* batch"),
        ("input", None, tf.int32, "input 'seed' .*unknown.* batch"),
        ("output", [], tf.float32, "output 'seed' .* batch"),
        ("output", [1, None], tf.float32, "output 'seed' .* batch"),
        ("output", [None], tf.bfloat16, "output 'seed' of signature 'tensors' is bfloat16"),
    ],
)
def test_tensors_that_a_server_cannot_batch_are_refused(copy, kind, shape, dtype, message):
    def add(meta_graph):
        signature = meta_graph.signature_def["tensors"]
        info = (signature.inputs if kind == "input" else signature.outputs)["seed"]
        info.dtype = dtype.as_datatype_enum
        info.tensor_shape.CopyFrom(tf.TensorShape(shape).as_proto())

    damage(copy, add)
    with pytest.raises(ExportError, match=message):
        scan(copy)
