"""A scan of a SavedModel for what a server cannot run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from common.errors import ExportError
from common.serving.served import GRAPH
from common.serving.targets import PORTABLE, Target

import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2


def scan(directory: Path, target: Target = PORTABLE) -> None:
    """Looks through a SavedModel for what a server of stock TensorFlow cannot run or answer.

    Args:
      directory: folder with `saved_model.pb`.
      target: what it is made for. That of a GPU holds cuDNN ops; that of a TPU names the target's
        cores, in which there is nothing that a TPU's compiler refuses.

    Raises:
      ExportError: a node, in the graph or in any function, is a cuDNN op, Python code, an op that
        TensorFlow does not bring, or is pinned to an accelerator; or a function or a node is to be
        compiled by XLA, which TF Serving refuses on a CPU unless it is told otherwise; or a tensor
        of a signature has no batch dimension, or is bfloat16; or a core holds text, a table, a
        ragged tensor or a search through CTC paths. Names the node and the function, or the
        signature and the tensor. Or there is no cuDNN op for a GPU, or no core for a TPU.
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
    """Refuses nodes that only the host which traced them could run."""
    for node in nodes:
        reason = None
        device = tf.DeviceSpec.from_string(node.device).device_type
        if node.op.startswith("Cudnn") and target.name != "gpu":
            reason = "a cuDNN op, which runs on a GPU only: it was traced with cuDNN on"
        elif "PyFunc" in node.op:
            reason = "Python code, which no server has"
        elif node.op not in functions and not hasattr(tf.raw_ops, node.op):
            reason = "an op that TensorFlow itself does not bring"
        elif device not in (None, "CPU") and (target.name, device) != ("gpu", "GPU"):
            reason = f"pinned to the device {node.device!r}"
        elif _is_compiled(node):
            reason = "compiled by XLA: trace it without jit_compile"
        if reason:
            raise ExportError(f"node {node.name!r} ({node.op}) of {where} is {reason}")


def _is_compiled(holder: Any) -> bool:
    """Whether a function or a node is marked to be compiled by XLA."""
    return any(
        holder.attr[name].b for name in ("_XlaMustCompile", "_XlaCompile") if name in holder.attr
    )


def _scan_signature(name: str, signature: Any) -> None:
    """Refuses tensors that TF Serving cannot batch, or cannot put into a REST answer."""
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


# What the compiler of a TPU does not take. Text hides in any op, by the type of an attribute.
HOST_OPS = re.compile("Lookup|HashTable|Ragged|String|CTC|PyFunc|Sparse(?!Softmax)|^Unique|^Where$")


def _scan_cores(graph: Any, cores: Mapping[str, Any]) -> None:
    """Refuses a core that is not named, or in which there is what only a host runs."""
    functions = {function.signature.name: function for function in graph.graph_def.library.function}
    named: dict[str, set[str]] = {}
    for function, alias in graph.meta_info_def.function_aliases.items():
        named.setdefault(alias, set()).add(function)
    missing = sorted(set(cores) - set(named))
    if missing or not cores:
        raise ExportError(f"cores without a function alias: {missing or 'all'}")
    for alias, roots in named.items():
        seen, left = set(), list(roots)
        while left:
            function = left.pop()
            if function in seen or function not in functions:
                continue
            seen.add(function)
            for node in functions[function].node_def:
                text = any(tf.string.as_datatype_enum == a.type for a in node.attr.values())
                if text or HOST_OPS.search(node.op):
                    raise ExportError(
                        f"node {node.name!r} ({node.op}) of core {alias!r} is for the host: keep "
                        "text, tables and ragged tensors outside the core"
                    )
                for attribute in node.attr.values():
                    called = [attribute.func.name, *(f.name for f in attribute.list.func)]
                    left += [name for name in called if name]
