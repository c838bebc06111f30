"""Verify an export in the way a server runs it: without Keras and without the code that made it.

Run it, do not import it: `python -P check.py VERSION_DIR [--tolerance 1e-5] [--live 1e-5]`. Each
request of the export's own warm-up file runs twice: through `tf.saved_model.load`, and through the
C++ loader of TensorFlow, which is also the loader of TF Serving. The outputs must equal the
recorded ones. The last line of standard output is one JSON object: the number of requests and the
differences, or `{"error": ...}` with exit code 1. Standard error has a line before each step.

With `--live TOLERANCE`, the recorded outputs are those of the live model. The outputs of the Python
loader must equal them within that tolerance and then replace them, so that responses are recorded
on the device where they are checked. The C++ loader must then return them within `--tolerance`.

If `--live` is above `--tolerance`, the live model ran on another device, which rounds differently.
Where two values are nearly equal, a decision can differ there: an arg max, a beam, a sampled key, a
tie in max pooling. All outputs of that row depend on it. So floats are compared in the rows whose
text and whole numbers are equal, and at most the fraction `CHANGED` of the rows of all requests may
have other text or whole numbers. Wrong weights change almost every row, which is an error.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import ctypes
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
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
WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")
CHANGED = 0.25  # largest fraction of rows with other decisions on another device


class CheckError(Exception):
    """The outputs of the export differ from the recorded ones."""


def main() -> None:
    """Check the folder on the command line; see the module."""
    parser = argparse.ArgumentParser(description="Verify an export.")
    parser.add_argument("directory", type=Path, help="folder with saved_model.pb")
    parser.add_argument(
        "--tolerance", type=float, default=1e-5, help="relative tolerance of floats"
    )
    parser.add_argument(
        "--live", type=float, help="tolerance of the live model's outputs, which are then replaced"
    )
    parser.add_argument("--gpu", action="store_true", help="run on a GPU")
    flags = parser.parse_args()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # as for the live model
    try:
        print(json.dumps(check(flags.directory, flags.tolerance, flags.live, gpu=flags.gpu)))
    except Exception as error:  # CheckError, or any error of TensorFlow
        kind = "" if isinstance(error, CheckError) else f"{type(error).__name__}: "
        print(json.dumps({"error": f"{kind}{error}"}))
        sys.exit(1)


def check(
    directory: Path, tolerance: float, live: float | None = None, *, gpu: bool = False
) -> dict[str, Any]:
    """Compare the outputs of both loaders with the recorded ones; see the module.

    Args:
      directory: folder with `saved_model.pb`.
      tolerance: of floats.
      live: tolerance if the recorded outputs are the live model's; then new ones are recorded.
      gpu: whether the loaders run on a GPU. There the tolerance is `live` for both, since sums may
        have another order in each run.

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

    # Loading and the first request of each signature take most of the time; the loaders do not
    # share this work.
    with concurrent.futures.ThreadPoolExecutor() as pool:
        results = pool.map(lambda loader: run(loader, directory, signatures, records), LOADERS)
        outputs = dict(zip(LOADERS, results, strict=True))

    recorded = [to_arrays(record.response.outputs) for record in records]
    live_limit = tolerance if live is None else live
    limits = {"python": live_limit, "c++": live_limit if gpu else tolerance}
    largest = {}
    for loader, limit in limits.items():
        places = [place_of(loader, number, record) for number, record in enumerate(records)]
        compare = compare_devices if limit > tolerance else compare_exactly
        largest[loader] = compare(places, outputs[loader], recorded, limit)
        if live is not None:
            recorded = outputs["python"]
    if live is not None:
        write_records(directory, signatures, records, recorded)

    used = [name for name in sys.modules if name.split(".")[0] in BANNED and sys.modules[name]]
    if used:
        raise CheckError(f"the check must run without {used}")
    return {"requests": requests, "largest_difference": largest}


def run(
    loader: str, directory: Path, signatures: Mapping[str, Any], records: Sequence[Any]
) -> list[Arrays]:
    """Return the outputs of each request; say on standard error what is done next."""
    say(f"{loader} loader, loading")
    call = LOADERS[loader](directory, signatures)
    outputs = []
    for number, record in enumerate(records):
        say(place_of(loader, number, record))
        name = record.request.model_spec.signature_name
        outputs.append(call(name, to_arrays(record.request.inputs)))
    say(f"{loader} loader, end")
    return outputs


def say(line: str) -> None:
    """Write a line on standard error at once and whole, since two threads write there."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


def place_of(loader: str, number: int, record: Any) -> str:
    """Name a request for messages."""
    return (
        f"{loader} loader, record {number}, signature {record.request.model_spec.signature_name!r}"
    )


# --- Comparison ----------------------------------------------------------------------------------


def compare_exactly(
    places: Sequence[str], outputs: Sequence[Arrays], expected: Sequence[Arrays], tolerance: float
) -> float:
    """Compare outputs of one device: text and whole numbers must be equal.

    Args:
      places: name of each request.
      outputs: of the loader, for each request.
      expected: the recorded outputs.
      tolerance: of floats.

    Returns:
      The largest difference; see `difference`.

    Raises:
      CheckError: an output differs.
    """
    largest = 0.0
    for place, output, reference in zip(places, outputs, expected, strict=True):
        require_same_names(place, output, reference)
        for key in reference:
            gap = require_close(place, key, output[key], reference[key], tolerance)
            largest = max(largest, gap)
    return largest


def compare_devices(
    places: Sequence[str], outputs: Sequence[Arrays], expected: Sequence[Arrays], tolerance: float
) -> float:
    """Compare outputs of two devices: a few rows may have other text and whole numbers.

    Takes and returns the same as `compare_exactly`. A decision may also change the length of an
    output, which ends in zeros or empty text.
    """
    largest, changed, rows = 0.0, 0, 0
    for place, output, reference in zip(places, outputs, expected, strict=True):
        require_same_names(place, output, reference)
        pairs = {key: to_same_shape(output[key], reference[key]) for key in reference}
        for key, (a, b) in pairs.items():
            if a.shape != b.shape or a.dtype != b.dtype:
                require_close(place, key, a, b, tolerance)  # raises
        discrete = {key for key, pair in pairs.items() if all(map(is_discrete, pair))}
        differs = np.zeros(len(next(iter(reference.values()))), bool)
        for key in discrete:
            a, b = pairs[key]
            differs |= np.any(a != b, axis=tuple(range(1, a.ndim)))
        for key in pairs.keys() - discrete:
            a, b = pairs[key]
            largest = max(largest, require_close(place, key, a[~differs], b[~differs], tolerance))
        changed, rows = changed + int(differs.sum()), rows + differs.size
    if changed > CHANGED * rows:
        raise CheckError(
            f"{places[0].split(',')[0]}: {changed} of {rows} rows have other text or whole numbers "
            f"than the live model's, more than {CHANGED:.0%}"
        )
    return largest


def require_same_names(place: str, outputs: Arrays, expected: Arrays) -> None:
    """Raise a `CheckError` unless a response has the recorded outputs."""
    if set(outputs) != set(expected):
        raise CheckError(f"{place}: outputs {sorted(outputs)}, recorded {sorted(expected)}")


def require_close(
    place: str, key: str, output: np.ndarray, expected: np.ndarray, tolerance: float
) -> float:
    """Return the `difference` of two arrays; raise a `CheckError` if it is too large."""
    gap = difference(output, expected)
    if not gap <= tolerance:
        raise CheckError(
            f"{place}: output {key!r} differs from the live model's by {gap:.2g} of its largest "
            f"value, more than {tolerance:.2g}"
        )
    return gap


def is_discrete(array: np.ndarray) -> bool:
    """Return whether an array holds text or whole numbers, if as floats, such as 0 and 1.

    Example:
      >>> is_discrete(np.array([0.0, 1.0])), is_discrete(np.array([0.5, 1.0]))
      (True, False)
    """
    return not np.issubdtype(array.dtype, np.floating) or bool(np.all(array == np.round(array)))


def to_same_shape(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pad two arrays with zeros or empty text at the end of all dimensions but the batch.

    Example:
      >>> to_same_shape(np.array([[1]]), np.array([[1, 2]]))
      (array([[1, 0]]), array([[1, 2]]))
    """
    if a.dtype != b.dtype or a.ndim != b.ndim or len(a) != len(b):
        return a, b  # which `difference` refuses
    shape = np.maximum(a.shape, b.shape)

    def pad(array: np.ndarray) -> np.ndarray:
        padded = np.full(shape, b"" if array.dtype == object else 0, array.dtype)
        padded[tuple(map(slice, array.shape))] = array
        return padded

    return pad(a), pad(b)


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
    """Read the warm-up file: a `PredictLog` per request, with the recorded outputs."""
    return [
        prediction_log_pb2.PredictionLog.FromString(record.numpy()).predict_log
        for record in tf.data.TFRecordDataset(str(directory / WARM_UP))
    ]


def write_records(
    directory: Path,
    signatures: Mapping[str, Any],
    records: Sequence[Any],
    outputs: Sequence[Arrays],
) -> None:
    """Write the warm-up file with new outputs."""
    with tf.io.TFRecordWriter(str(directory / WARM_UP)) as writer:
        for record, arrays in zip(records, outputs, strict=True):
            types = signatures[record.request.model_spec.signature_name].outputs
            for key, array in arrays.items():
                proto = tf.make_tensor_proto(array, types[key].dtype, array.shape)
                record.response.outputs[key].CopyFrom(proto)
            log = prediction_log_pb2.PredictionLog(predict_log=record)
            writer.write(log.SerializeToString())


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
    "TF_DeleteSessionOptions": (None, POINTER),
    "TF_LoadSessionFromSavedModel": (
        *(POINTER, POINTER, POINTER, TEXT, ctypes.POINTER(TEXT), INT),
        *(POINTER, POINTER, POINTER),
    ),
    "TF_GraphOperationByName": (POINTER, POINTER, TEXT),
    "TF_SessionRun": (
        *(None, POINTER, POINTER, OUTPUTS, ctypes.POINTER(POINTER), INT),
        *(OUTPUTS, ctypes.POINTER(POINTER), INT, POINTER, INT, POINTER, POINTER),
    ),
    "TF_DeleteSession": (None, POINTER, POINTER),
    "TF_DeleteGraph": (None, POINTER),
    "TF_DeleteStatus": (None, POINTER),
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


class CppExport:
    """An export loaded with the C++ loader; a call feeds and fetches the tensors of a signature."""

    def __init__(self, directory: Path, signatures: Mapping[str, Any]) -> None:
        self._c = c = c_api()
        self._signatures = signatures
        self._status = c.TF_NewStatus()
        self._graph, tags = c.TF_NewGraph(), (TEXT * 1)(b"serve")
        options = c.TF_NewSessionOptions()
        self._session = c.TF_LoadSessionFromSavedModel(
            options, None, os.fsencode(directory), tags, 1, self._graph, None, self._status
        )
        c.TF_DeleteSessionOptions(options)
        self._succeed()

    def _succeed(self) -> None:
        if self._c.TF_GetCode(self._status):
            raise RuntimeError(f"C++ loader: {self._c.TF_Message(self._status).decode()}")

    def _find(self, tensor: str) -> Output:
        operation, _, index = tensor.partition(":")
        return Output(self._c.TF_GraphOperationByName(self._graph, operation.encode()), int(index))

    def __call__(self, name: str, inputs: Arrays) -> Arrays:
        """Return the outputs of a signature."""
        c, status = self._c, self._status
        given, wanted = self._signatures[name].inputs, self._signatures[name].outputs
        if set(inputs) != set(given):
            raise CheckError(f"{name!r} takes {sorted(given)}, the request has {sorted(inputs)}")
        feeds = (Output * len(given))(*(self._find(info.name) for info in given.values()))
        values = [write_tensor(c, inputs[key], info.dtype, status) for key, info in given.items()]
        self._succeed()
        fetches = (Output * len(wanted))(*(self._find(info.name) for info in wanted.values()))
        results = (POINTER * len(wanted))()
        c.TF_SessionRun(
            *(self._session, None, feeds, (POINTER * len(values))(*values), len(values)),
            *(fetches, results, len(wanted), None, 0, None, status),
        )
        self._succeed()
        outputs = {key: read_tensor(c, t) for key, t in zip(wanted, results, strict=True)}
        for tensor in (*results, *values):
            c.TF_DeleteTensor(tensor)
        return outputs

    def close(self) -> None:
        """Release the session, its weights and its graph."""
        self._c.TF_DeleteSession(self._session, self._status)
        self._c.TF_DeleteGraph(self._graph)
        self._c.TF_DeleteStatus(self._status)


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


LOADERS: Mapping[str, Callable[..., Call]] = {"python": load_in_python, "c++": CppExport}


if __name__ == "__main__":
    main()
