"""Verifies an export the way a server meets it: without Keras, without the code that made it.

Run it, do not import it: `python -P check.py VERSION_DIR [--tolerance 1e-5]`. It asks every
signature each request of the export's own warm-up file, twice: through `tf.saved_model.load`, and
through TensorFlow's C++ SavedModel loader, which is the one inside TF Serving. Each answer must
equal the recorded one. The last line of standard output is one JSON object: what was compared, or
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
Ask = Callable[[str, Arrays], Arrays]  # signature name, inputs -> outputs


class CheckError(Exception):
    """The export does not answer as it should."""


def main() -> None:
    """Checks the folder on the command line; see the module."""
    parser = argparse.ArgumentParser(description="Verifies an export.")
    parser.add_argument("directory", type=Path, help="folder with saved_model.pb")
    parser.add_argument("--tolerance", type=float, default=1e-5, help="of floats, relative")
    parser.add_argument("--gpu", action="store_true", help="let it run on a GPU")
    flags = parser.parse_args()
    try:
        print(json.dumps(check(flags.directory, flags.tolerance)))
    except Exception as error:  # CheckError, or whatever TensorFlow raises
        kind = "" if isinstance(error, CheckError) else f"{type(error).__name__}: "
        print(json.dumps({"error": f"{kind}{error}"}))
        sys.exit(1)


def check(directory: Path, tolerance: float) -> dict[str, Any]:
    """Compares both loaders' answers with the recorded ones.

    Returns:
      `requests`, the number of requests to each signature, and `largest_difference` of a float for
      each loader, relative to the largest value of its tensor.

    Raises:
      CheckError: an answer differs, a signature has no request, or a banned module was needed.
    """
    signatures = read_signatures(directory)
    records = read_records(directory)
    requests = {name: 0 for name in signatures}
    for record in records:
        requests[record.request.model_spec.signature_name] += 1
    unasked = [name for name, count in requests.items() if not count]
    if unasked:
        raise CheckError(f"no warm-up request for {unasked}")

    def largest_difference(loader: str) -> float:
        ask = LOADERS[loader](directory, signatures)
        differences = [0.0]
        for number, record in enumerate(records):
            name = record.request.model_spec.signature_name
            expected = to_arrays(record.response.outputs)
            answer = ask(name, to_arrays(record.request.inputs))
            where = f"{loader} loader, record {number}, signature {name!r}"
            if set(answer) != set(expected):
                raise CheckError(f"{where}: outputs {sorted(answer)}, recorded {sorted(expected)}")
            for key in expected:
                found = difference(answer[key], expected[key])
                if not found <= tolerance:
                    raise CheckError(
                        f"{where}: output {key!r} differs from the live model's by {found:.2g} of "
                        f"its largest value, more than {tolerance:.2g}"
                    )
                differences.append(found)
        return max(differences)

    # Most of the time goes into loading and into the first request of each signature, of which
    # the one loader's work and the other's have nothing to do with each other.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        largest = dict(zip(LOADERS, pool.map(largest_difference, LOADERS), strict=True))

    used = [name for name in sys.modules if name.split(".")[0] in BANNED and sys.modules[name]]
    if used:
        raise CheckError(f"the check was to run without {used}")
    return {"requests": requests, "largest_difference": largest}


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """Largest difference of two arrays, relative to the largest value of `b` (at least 0.01).

    Infinite where they cannot be compared: other shapes, other types, strings or whole numbers
    that are not the same, NaN or infinity in different places.

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
    """Reads the `SignatureDef` of each signature that a client can ask."""
    saved = saved_model_pb2.SavedModel.FromString((directory / "saved_model.pb").read_bytes())
    (graph,) = [g for g in saved.meta_graphs if "serve" in g.meta_info_def.tags]
    return {name: s for name, s in graph.signature_def.items() if not name.startswith("__")}


def read_records(directory: Path) -> list[Any]:
    """Reads the warm-up file: a `PredictLog` for each request, with the live model's answer."""
    path = directory / "assets.extra" / "tf_serving_warmup_requests"
    return [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log
        for record in tf.data.TFRecordDataset(str(path))
    ]


def to_arrays(protos: Mapping[str, Any]) -> Arrays:
    """Makes arrays of `TensorProto`s; strings become an object array of bytes."""
    return {name: tf.make_ndarray(proto) for name, proto in protos.items()}


def load_in_python(directory: Path, signatures: Mapping[str, Any]) -> Ask:
    """Loads with `tf.saved_model.load`."""
    loaded = tf.saved_model.load(str(directory))

    def ask(name: str, inputs: Arrays) -> Arrays:
        types = {key: info.dtype for key, info in signatures[name].inputs.items()}
        tensors = {key: tf.constant(value, types[key]) for key, value in inputs.items()}
        return {key: value.numpy() for key, value in loaded.signatures[name](**tensors).items()}

    return ask


# --- TensorFlow's C++ loader, through the C API of the installed package -------------------------


class Output(ctypes.Structure):
    """`TF_Output`: one output of an operation of the graph."""

    _fields_ = [("operation", ctypes.c_void_p), ("index", ctypes.c_int)]


POINTER, INT, SIZE, TEXT = ctypes.c_void_p, ctypes.c_int, ctypes.c_size_t, ctypes.c_char_p
OUTPUTS, DIMENSIONS = ctypes.POINTER(Output), ctypes.POINTER(ctypes.c_int64)
STRING_BYTES = 24  # sizeof(TF_TString)
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
    "TF_AllocateTensor": (POINTER, INT, DIMENSIONS, INT, SIZE),
    "TF_DeleteTensor": (None, POINTER),
    "TF_TensorType": (INT, POINTER),
    "TF_NumDims": (INT, POINTER),
    "TF_Dim": (ctypes.c_int64, POINTER, INT),
    "TF_TensorData": (POINTER, POINTER),
    "TF_TensorByteSize": (SIZE, POINTER),
    "TF_StringInit": (None, POINTER),
    "TF_StringCopy": (None, POINTER, TEXT, SIZE),
    "TF_StringGetDataPointer": (POINTER, POINTER),
    "TF_StringGetSize": (SIZE, POINTER),
    "TF_StringDealloc": (None, POINTER),
}


def c_api() -> ctypes.CDLL:
    """Opens TensorFlow's C API, and declares the functions used here."""
    c = ctypes.CDLL(str(next(Path(tf.sysconfig.get_lib()).glob("libtensorflow_cc*"))))
    for name, (result, *arguments) in PROTOTYPES.items():
        function = getattr(c, name)
        function.restype, function.argtypes = result, arguments
    return c


def load_in_cpp(directory: Path, signatures: Mapping[str, Any]) -> Ask:
    """Loads with the C++ loader; asks by the tensors that the signatures name."""
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

    def ask(name: str, inputs: Arrays) -> Arrays:
        given, wanted = signatures[name].inputs, signatures[name].outputs
        if set(inputs) != set(given):
            raise CheckError(f"{name!r} takes {sorted(given)}, the request has {sorted(inputs)}")
        feeds = (Output * len(given))(*(find(info.name) for info in given.values()))
        values = [write_tensor(c, inputs[key], info.dtype) for key, info in given.items()]
        fetches = (Output * len(wanted))(*(find(info.name) for info in wanted.values()))
        answers = (POINTER * len(wanted))()
        c.TF_SessionRun(
            *(session, None, feeds, (POINTER * len(values))(*values), len(values)),
            *(fetches, answers, len(wanted), None, 0, None, status),
        )
        succeed()
        result = {key: read_tensor(c, t) for key, t in zip(wanted, answers, strict=True)}
        for tensor in answers:
            c.TF_DeleteTensor(tensor)
        for tensor in values:  # last: an answer may share the memory of a request
            delete_written(c, tensor)
        return result

    return ask


def write_tensor(c: ctypes.CDLL, array: np.ndarray, dtype: int) -> int:
    """Copies an array (strings: objects of bytes) into a new `TF_Tensor`; gives its address."""
    text = dtype == tf.string.as_datatype_enum
    size = array.size * (STRING_BYTES if text else array.itemsize)
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    tensor = c.TF_AllocateTensor(dtype, shape, array.ndim, size)
    data = c.TF_TensorData(tensor)
    if not text and size:
        ctypes.memmove(data, np.ascontiguousarray(array).ctypes.data, size)
    for position, value in enumerate(array.flat if text else ()):
        c.TF_StringInit(data + position * STRING_BYTES)
        c.TF_StringCopy(data + position * STRING_BYTES, value, len(value))
    return tensor


def read_tensor(c: ctypes.CDLL, tensor: int) -> np.ndarray:
    """Copies a `TF_Tensor` into an array (strings: objects of bytes)."""
    shape = [c.TF_Dim(tensor, axis) for axis in range(c.TF_NumDims(tensor))]
    dtype = tf.as_dtype(c.TF_TensorType(tensor))
    data, size = c.TF_TensorData(tensor), c.TF_TensorByteSize(tensor)
    if dtype != tf.string:
        content = ctypes.string_at(data, size) if size else b""
        return np.frombuffer(content, dtype.as_numpy_dtype).reshape(shape)
    places = (data + start for start in range(0, size, STRING_BYTES))
    texts = np.empty(size // STRING_BYTES, object)
    for position, place in enumerate(places):
        texts[position] = ctypes.string_at(
            c.TF_StringGetDataPointer(place), c.TF_StringGetSize(place)
        )
    return texts.reshape(shape)


def delete_written(c: ctypes.CDLL, tensor: int) -> None:
    """Frees what `write_tensor` made: the text of its strings is no part of the tensor's memory."""
    if c.TF_TensorType(tensor) == tf.string.as_datatype_enum:
        for start in range(0, c.TF_TensorByteSize(tensor), STRING_BYTES):
            c.TF_StringDealloc(c.TF_TensorData(tensor) + start)
    c.TF_DeleteTensor(tensor)


LOADERS: Mapping[str, Callable[..., Ask]] = {"python": load_in_python, "c++": load_in_cpp}


if __name__ == "__main__":
    main()
