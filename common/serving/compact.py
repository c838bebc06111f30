"""Make the graph of a SavedModel smaller without changing what it computes.

More than half of a graph's bytes are the names of nodes and arguments inside functions, which spell
out the nested scopes in which they were traced, and shapes that every loader infers again. Loops of
several signatures are equal but for these names, so they are kept once. The names of functions that
can be called from outside, of their arguments, and of everything in the main graph, where
signatures and weights are, stay.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from common.serving.versions import GRAPH

from etils import epy

with epy.lazy_imports():
    from common import tensorflow_internals

    from tensorflow.core.protobuf import saved_model_pb2

UNUSED = ("_output_shapes", "_user_specified_name")  # attributes of nodes that no kernel reads


def compact(directory: Path) -> None:
    """Shorten the graph of a SavedModel.

    Args:
      directory: folder with `saved_model.pb`.
    """
    path = directory / GRAPH
    saved = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    for graph in saved.meta_graphs:
        library = graph.graph_def.library
        public = {*graph.object_graph_def.concrete_functions, *graph.meta_info_def.function_aliases}
        public.update(node.op for node in _nodes(graph.graph_def))  # called by their names
        for function in library.function:
            is_inner = function.signature.name not in public
            _compact_function(function, with_arguments=is_inner)
        while same := _equal_functions(library.function, public):
            _replace_functions(graph.graph_def, same)
    path.write_bytes(saved.SerializeToString(deterministic=True))
    tensorflow_internals.write_fingerprint(directory)


def _nodes(graph: Any) -> Iterator[Any]:
    """Yield the nodes of a graph and of its functions."""
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _compact_function(function: Any, *, with_arguments: bool) -> None:
    """Number the nodes of a function, and its arguments and outputs, if no caller names them."""
    signature = function.signature
    # Names of arguments begin with a letter, so a number is never one.
    names = {node.name: str(index) for index, node in enumerate(function.node_def)}
    if with_arguments:
        names |= {arg.name: f"a{index}" for index, arg in enumerate(signature.input_arg)}
        for arg in signature.input_arg:
            arg.name = names[arg.name]
        for attributes in function.arg_attr.values():
            attributes.attr.pop("_user_specified_name", None)

    def renamed(reference: str) -> str:
        """Return `node`, `node:output:0` or `^node` with the new name."""
        control = "^" if reference.startswith("^") else ""
        node, colon, output = reference.removeprefix("^").partition(":")
        return f"{control}{names.get(node, node)}{colon}{output}"

    for node in function.node_def:
        node.name = names[node.name]
        node.input[:] = map(renamed, node.input)
        node.ClearField("experimental_debug_info")
        for name in UNUSED:
            node.attr.pop(name, None)
        if "_class" in node.attr:  # nodes on the same device: `loc:@node`
            places = node.attr["_class"].list.s
            places[:] = [_renamed_place(place, names) for place in places]
    outputs = {arg.name: f"r{index}" for index, arg in enumerate(signature.output_arg)}
    for results, numbers in ((function.ret, outputs), (function.control_ret, {})):
        references = {name: renamed(reference) for name, reference in results.items()}
        results.clear()
        for name, reference in references.items():
            results[numbers.get(name, name) if with_arguments else name] = reference
    for arg in signature.output_arg if with_arguments else ():
        arg.name = outputs[arg.name]


def _renamed_place(place: bytes, names: Mapping[str, str]) -> bytes:
    """Return a constraint `loc:@node` with the new name."""
    prefix, at, node = place.decode().partition("@")
    return f"{prefix}{at}{names.get(node, node)}".encode()


def _equal_functions(functions: Iterable[Any], public: Container[str]) -> dict[str, str]:
    """Return the inner functions that are equal to an earlier one, and its name."""
    first: dict[bytes, str] = {}
    same = {}
    for function in functions:
        name = function.signature.name
        if name not in public:
            function.signature.name = ""
            earlier = first.setdefault(function.SerializeToString(deterministic=True), name)
            function.signature.name = name
            if earlier != name:
                same[name] = earlier
    return same


def _replace_functions(graph: Any, same: Mapping[str, str]) -> None:
    """Let all nodes call other functions in the place of some, which are removed."""
    kept = [function for function in graph.library.function if function.signature.name not in same]
    del graph.library.function[:]
    graph.library.function.extend(kept)
    for node in _nodes(graph):
        for value in node.attr.values():
            # Reading a field of a message that is not set would set nothing, writing it would.
            called = [value.func] if value.HasField("func") else value.list.func
            for function in called:
                function.name = same.get(function.name, function.name)
