"""Scan a SavedModel for ops and tensors that a server cannot run or return."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.errors import ExportError
from common.serving.targets import PORTABLE, Target
from common.serving.versions import GRAPH

from etils import epy

with epy.lazy_imports():
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2


def scan(directory: Path, target: Target = PORTABLE) -> None:
    """Refuse a SavedModel that a server of stock TensorFlow could not run.

    Args:
      directory: folder with `saved_model.pb`.
      target: the target of the export. An export for a GPU must hold cuDNN ops; one for a TPU must
        name the target's cores, without ops that the compiler of a TPU refuses.

    Raises:
      ExportError: names the node and the function, or the signature and the tensor. A node, in the
        graph or in any function, is a cuDNN op, Python code, an op that TensorFlow does not have,
        or is pinned to an accelerator; or a function or a node is marked for XLA, which TF Serving
        refuses on a CPU by default; or a tensor of a signature has no batch dimension, or is
        bfloat16; or a core holds text, a table, a ragged tensor or a CTC search; or there is no
        cuDNN op for a GPU, or no core for a TPU.
    """
    saved = saved_model_pb2.SavedModel.FromString((directory / GRAPH).read_bytes())
    for graph in saved.meta_graphs:
        functions = graph.graph_def.library.function
        own = {function.signature.name for function in functions}
        _scan_nodes("the main graph", graph.graph_def.node, own, target)
        for function in functions:
            where = f"function {function.signature.name!r}"
            if _is_compiled(function):
                raise ExportError(f"{where} is compiled by XLA: trace it without jit_compile")
            _scan_nodes(where, function.node_def, own, target)
        for name, signature in graph.signature_def.items():
            if not name.startswith("__"):  # TensorFlow's own, such as __saved_model_init_op
                _scan_signature(name, signature)
        if target.name == "tpu":
            _scan_cores(graph, target.cores)
        nodes = itertools.chain(graph.graph_def.node, *(f.node_def for f in functions))
        if target.name == "gpu" and not any(node.op.startswith("Cudnn") for node in nodes):
            raise ExportError("no node is a cuDNN op: --target portable gives the same export")


def _scan_nodes(where: str, nodes: Iterable[Any], functions: set[str], target: Target) -> None:
    """Refuse nodes that only the host that traced them could run."""
    for node in nodes:
        reason = None
        device = tf.DeviceSpec.from_string(node.device).device_type
        if node.op.startswith("Cudnn") and target.name != "gpu":
            reason = "a cuDNN op, which runs on a GPU only: it was traced with cuDNN on"
        elif "PyFunc" in node.op:
            reason = "Python code, which no server has"
        elif node.op not in functions and not hasattr(tf.raw_ops, node.op):
            reason = "an op that TensorFlow itself does not have"
        elif device not in (None, "CPU") and (target.name, device) != ("gpu", "GPU"):
            reason = f"pinned to the device {node.device!r}"
        elif _is_compiled(node):
            reason = "compiled by XLA: trace it without jit_compile"
        if reason:
            raise ExportError(f"node {node.name!r} ({node.op}) of {where} is {reason}")


def _is_compiled(holder: Any) -> bool:
    """Return whether a function or a node is marked for compilation by XLA."""
    return any(
        holder.attr[name].b for name in ("_XlaMustCompile", "_XlaCompile") if name in holder.attr
    )


def _scan_signature(name: str, signature: Any) -> None:
    """Refuse tensors that TF Serving cannot batch, or cannot put into a REST response."""
    for kind, tensors in {"input": signature.inputs, "output": signature.outputs}.items():
        for key, info in tensors.items():
            shape = tf.TensorShape(info.tensor_shape)
            if not shape.rank or shape[0] is not None:
                raise ExportError(
                    f"{kind} {key!r} of signature {name!r} has shape {shape}: its first dimension "
                    "must be the batch, of any size"
                )
            if info.dtype == tf.bfloat16.as_datatype_enum:
                raise ExportError(
                    f"{kind} {key!r} of signature {name!r} is bfloat16, which TF Serving's REST "
                    "interface cannot read or write: cast it to float32"
                )


# Ops that the compiler of a TPU refuses. Text is found by the types of attributes, in any op.
HOST_OPS = re.compile("Lookup|HashTable|Ragged|String|CTC|PyFunc|Sparse(?!Softmax)|^Unique|^Where$")


def _scan_cores(graph: Any, cores: Mapping[str, Any]) -> None:
    """Refuse a core without an alias, or with ops that only run on the host."""
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    named: dict[str, set[str]] = {}
    for function, alias in graph.meta_info_def.function_aliases.items():
        named.setdefault(alias, set()).add(function)
    missing = sorted(set(cores) - set(named))
    if missing or not cores:
        raise ExportError(f"cores without a function alias: {missing or 'all'}")
    for alias, roots in named.items():
        for node in _reachable_nodes(functions, roots):
            is_text = any(tf.string.as_datatype_enum == a.type for a in node.attr.values())
            if is_text or HOST_OPS.search(node.op):
                raise ExportError(
                    f"node {node.name!r} ({node.op}) of core {alias!r} only runs on the host: keep "
                    "text, tables and ragged tensors outside the core"
                )


def _reachable_nodes(functions: Mapping[str, Any], roots: Iterable[str]) -> Iterator[Any]:
    """Yield the nodes of functions and of all functions that they call."""
    visited: set[str] = set()
    pending = list(roots)
    while pending:
        name = pending.pop()
        if name in visited or name not in functions:
            continue
        visited.add(name)
        for node in functions[name].node_def:
            yield node
            for attribute in node.attr.values():
                called = [attribute.func.name, *(f.name for f in attribute.list.func)]
                pending += [name for name in called if name]
