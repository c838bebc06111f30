"""Verify an export in the way a server runs it: without Keras and without the code that made it.

Run it, do not import it: `python -P check.py VERSION_DIR [--tolerance 1e-5]`. It runs each request
of the export's own warm-up file twice: through `tf.saved_model.load`, and through the C++ loader of
TensorFlow, which is also the loader of TF Serving. The outputs must equal the recorded ones. The
last line of standard output is one JSON object: the number of requests and the differences, or
`{"error": ...}` with exit code 1.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import ctypes
import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BANNED = ("keras", "tf_keras", "common", "tasks")
if __name__ == "__main__":
    # `import tensorflow` itself imports Keras where it finds it. None makes every import fail.
    sys.modules.update(dict.fromkeys(BANNED))  # type: ignore[arg-type]
    os.environ.update(TF_CPP_MIN_LOG_LEVEL="3")
    if "--gpu" not in sys.argv:
        os.environ.update(CUDA_VISIBLE_DEVICES="-1")

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402
from tensorflow_serving.apis import prediction_log_pb2  # noqa: E402

Arrays = Mapping[str, np.ndarray]
Call = Callable[[str, Arrays], Arrays]  # signature name, inputs -> outputs


class CheckError(Exception):
    """The outputs of the export differ from the recorded ones."""


def main() -> None:
    """Check the folder on the command line; see the module."""
    parser = argparse.ArgumentParser(description="Verify an export.")
    parser.add_argument("directory", type=Path, help="folder with saved_model.pb")
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="relative tolerance of floats"
    )
    parser.add_argument("--gpu", action="store_true", help="run on a GPU")
    flags = parser.parse_args()
    try:
        print(json.dumps(check(flags.directory, flags.tolerance)))
    except Exception as error:  # CheckError, or any error of TensorFlow
        kind = "" if isinstance(error, CheckError) else f"{type(error).__name__}: "
        print(json.dumps({"error": f"{kind}{error}"}))
        sys.exit(1)


def check(directory: Path, tolerance: float) -> dict[str, Any]:
    """Compare the outputs of both loaders with the recorded ones.

    Returns:
      `requests`, the number of requests to each signature, and `largest_difference` of a float for
      each loader, relative to the largest value of its tensor.

    Raises:
      CheckError: an output differs, a signature has no request, or a banned module was needed.
    """
    signatures = read_signatures(directory)
    records = read_records(directory)
    requests = {name: 0 for name in signatures}
    for record in records:
        requests[record.request.model_spec.signature_name] += 1
    unused = [name for name, count in requests.items() if not count]
    if unused:
        raise CheckError(f"no warm-up request for {unused}")

    def largest_difference(loader: str) -> float:
        call = LOADERS[loader](directory, signatures)
        differences = [0.0]
        for number, record in enumerate(records):
            name = record.request.model_spec.signature_name
            expected = to_arrays(record.response.outputs)
            outputs = call(name, to_arrays(record.request.inputs))
            where = f"{loader} loader, record {number}, signature {name!r}"
            if set(outputs) != set(expected):
                raise CheckError(f"{where}: outputs {sorted(outputs)}, recorded {sorted(expected)}")
            for key in expected:
                gap = difference(outputs[key], expected[key])
                if not gap <= tolerance:
                    raise CheckError(
                        f"{where}: output {key!r} differs from the live model's by {gap:.2g} of "
                        f"its largest value, more than {tolerance:.2g}"
                    )
                differences.append(gap)
        return max(differences)

    # Loading and the first request of each signature take most of the time; the loaders do not
    # share this work.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        largest = dict(zip(LOADERS, pool.map(largest_difference, LOADERS), strict=True))

    used = [name for name in sys.modules if name.split(".")[0] in BANNED and sys.modules[name]]
    if used:
        raise CheckError(f"the check must run without {used}")
    return {"requests": requests, "largest_difference": largest}


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Return the largest difference of two arrays, relative to the largest value of `b`.

    That value counts as 0.01 at least. The result is infinite if the arrays cannot be compared:
    different shapes or types, different strings or whole numbers, NaN or infinity in different
    places.

    Example:
      >>> difference(np.array([1.0, 4.0]), np.array([1.0, 5.0]))
      0.2
    """
    if a.shape != b.shape or a.dtype != b.dtype:
        return np.inf
    if not np.issubdtype(b.dtype, np.floating):
        return 0.0 if np.array_equal(a, b) else np.inf
    finite = np.isfinite(b)
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return np.inf
    a, b = a[finite].astype(np.float64), b[finite].astype(np.float64)
    gap = np.max(np.abs(a - b), initial=0.0) / max(np.max(np.abs(b), initial=0.0), 0.01)
    return float(gap) if np.isfinite(gap) else np.inf


def read_signatures(directory: Path) -> dict[str, Any]:
    """Read the `SignatureDef` of each signature that a client can call."""
    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    (graph,) = [g for g in saved.meta_graphs if "serve" in g.meta_info_def.tags]
    return {name: s for name, s in graph.signature_def.items() if not name.startswith("__")}


def read_records(directory: Path) -> list[Any]:
    """Read the warm-up file: a `PredictLog` per request, with the outputs of the live model."""
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    return [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log
        for record in tf.data.TFRecordDataset(str(path))
    ]


def to_arrays(protos: Mapping[str, Any]) -> Arrays:
    """Convert `TensorProto`s to arrays; strings become an object array of bytes."""
    return {name: tf.make_ndarray(proto) for name, proto in protos.items()}


def load_in_python(directory: Path, signatures: Mapping[str, Any]) -> Call:
    """Load with `tf.saved_model.load`."""
    loaded = tf.saved_model.load(str(directory))

    def call(name: str, inputs: Arrays) -> Arrays:
        types = {key: info.dtype for key, info in signatures[name].inputs.items()}
        tensors = {key: tf.constant(value, types[key]) for key, value in inputs.items()}
        return {key: value.numpy() for key, value in loaded.signatures[name](**tensors).items()}

    return call


# --- TensorFlow's C++ loader, through the C API of the installed package -------------------------


class Output(ctypes.Structure):
    """`TF_Output`: one output of an operation of the graph."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


POINTER, INT, SIZE, TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
OUTPUTS, DIMENSIONS = ctypes.POINTER(Output), ctypes.POINTER(ctypes.c_int64)
PROTOTYPES: Mapping[str, tuple[Any, ...]] = {  # name -> result, arguments
    "TF_NewStatus": (POINTER,),
    "TF_GetCode": (INT, POINTER),
    "TF_Message": (TEXT, POINTER),
    "TF_NewGraph": (POINTER,),
    "TF_NewSessionOptions": (POINTER,),
    "TF_LoadSessionFromSavedModel": (
        *(POINTER, POINTER, POINTER, TEXT, ctypes.POINTER(TEXT), INT),
        *(POINTER, POINTER, POINTER),
    ),
    "TF_GraphOperationByName": (POINTER, POINTER, TEXT),
    "TF_SessionRun": (
        *(None, POINTER, POINTER, OUTPUTS, ctypes.POINTER(POINTER), INT),
        *(OUTPUTS, ctypes.POINTER(POINTER), INT, POINTER, INT, POINTER, POINTER),
    ),
    "TF_NewBufferFromString": (POINTER, TEXT, SIZE),
    "TF_DeleteBuffer": (None, POINTER),
    "TF_AllocateTensor": (POINTER, INT, DIMENSIONS, INT, SIZE),
    "TF_TensorFromProto": (None, POINTER, POINTER, POINTER),
    "TF_DeleteTensor": (None, POINTER),
    "TF_TensorType": (INT, POINTER),
    "TF_NumDims": (INT, POINTER),
    "TF_Dim": (ctypes.c_int64, POINTER, INT),
    "TF_TensorData": (POINTER, POINTER),
    "TF_TensorByteSize": (SIZE, POINTER),
    "TF_StringGetDataPointer": (POINTER, POINTER),
    "TF_StringGetSize": (SIZE, POINTER),
}


def c_api() -> ctypes.CDLL:
    """Open the C API of TensorFlow, and declare the functions used here."""
    c = ctypes.CDLL(str(next(Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc*"))))
    for name, (result, *arguments) in PROTOTYPES.items():
        function = getattr(c, name)
        function.restype, function.argtypes = result, arguments
    return c


def load_in_cpp(directory: Path, signatures: Mapping[str, Any]) -> Call:
    """Load with the C++ loader; feed and fetch the tensors that the signatures name."""
    c = c_api()
    status = c.TF_NewStatus()

    def succeed() -> None:
        if c.TF_GetCode(status):
            raise RuntimeError(f"C++ loader: {c.TF_Message(status).decode()}")

    graph, tags = c.TF_NewGraph(), (TEXT * 1)(b"serve")
    session = c.TF_LoadSessionFromSavedModel(
        c.TF_NewSessionOptions(), None, os.fsencode(directory), tags, 1, graph, None, status
    )
    succeed()

    def find(tensor: str) -> Output:
        operation, _, index = tensor.partition(":")
        return Output(c.TF_GraphOperationByName(graph, operation.encode()), int(index))

    def call(name: str, inputs: Arrays) -> Arrays:
        given, wanted = signatures[name].inputs, signatures[name].outputs
        if set(inputs) != set(given):
            raise CheckError(f"{name!r} takes {sorted(given)}, the request has {sorted(inputs)}")
        feeds = (Output * len(given))(*(find(info.name) for info in given.values()))
        values = [write_tensor(c, inputs[key], info.dtype, status) for key, info in given.items()]
        succeed()
        fetches = (Output * len(wanted))(*(find(info.name) for info in wanted.values()))
        results = (POINTER * len(wanted))()
        c.TF_SessionRun(
            *(session, None, feeds, (POINTER * len(values))(*values), len(values)),
            *(fetches, results, len(wanted), None, 0, None, status),
        )
        succeed()
        outputs = {key: read_tensor(c, t) for key, t in zip(wanted, results, strict=True)}
        for tensor in (*results, *values):
            c.TF_DeleteTensor(tensor)
        return outputs

    return call


def write_tensor(c: ctypes.CDLL, array: np.ndarray, dtype: int, status: int) -> int:
    """Copy an array (strings: objects of bytes) into a new `TF_Tensor`; return its address."""
    content = tf.make_tensor_proto(array, dtype).SerializeToString()
    buffer = c.TF_NewBufferFromString(content, len(content))
    tensor = c.TF_AllocateTensor(tf.bool.as_datatype_enum, None, 0, 1)  # any, to be replaced
    c.TF_TensorFromProto(buffer, tensor, status)
    c.TF_DeleteBuffer(buffer)
    return tensor


def read_tensor(c: ctypes.CDLL, tensor: int) -> np.ndarray:
    """Copy a `TF_Tensor` into an array (strings: objects of bytes)."""
    shape = [c.TF_Dim(tensor, axis) for axis in range(c.TF_NumDims(tensor))]
    dtype = tf.as_dtype(c.TF_TensorType(tensor))
    data, size = c.TF_TensorData(tensor), c.TF_TensorByteSize(tensor)
    if dtype != tf.string:
        content = ctypes.string_at(data, size) if size else b""
        return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
    texts = np.empty(shape, object)
    for position in range(texts.size):
        place = data + position * (size // texts.size)
        texts.flat[position] = ctypes.string_at(
            c.TF_StringGetDataPointer(place), c.TF_StringGetSize(place)
        )
    return texts


LOADERS: Mapping[str, Callable[..., Call]] = {"python": load_in_python, "c++": load_in_cpp}


if __name__ == "__main__":
    main()
