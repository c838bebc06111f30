"""A test double of TensorFlow Model Server: its messages and its interfaces over real exports.

It serves gRPC (`PredictionService`, `ModelService`, with the messages of `tensorflow-serving-api`)
and REST as TF Serving documents them, reads the same `models.config` and `batching.config`, and
merges requests as its batching session does, including the padding. It differs from TF Serving in
three points: `tf.saved_model.load` loads the exports, new versions are detected only when the
configuration is read, and there are no metrics for Prometheus.

    with Server(Path("saved_models")) as server:
        server.grpc, server.rest   # "127.0.0.1:41234", "http://127.0.0.1:41235"
"""

import argparse
import base64
import concurrent.futures
import functools
import http.server
import json
import queue
import re
import sys
import threading
import time
from pathlib import Path

from common.serving import check
from common.serving.versions import versions

import grpc
import numpy as np
import tensorflow as tf
from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    json_format,
    message_factory,
    text_format,
    wrappers_pb2,
)
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)
from tensorflow_serving.config import model_server_config_pb2

UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
HTTP_STATUS = {"INVALID_ARGUMENT": 400, "NOT_FOUND": 404, "FAILED_PRECONDITION": 412}
PREDICT = re.compile(
    r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(:predict|/metadata)?"
)


class StatusError(Exception):
    """A status that is not OK: the name of its code, and a message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


# --- Configuration --------------------------------------------------------------------------------


@functools.cache
def messages():
    """Return the server's message classes that `tensorflow-serving-api` lacks, by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="server_configuration.proto", package="tensorflow.serving", syntax="proto3"
    )
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    number = ".google.protobuf.Int64Value"
    fields = {
        # of servables/tensorflow/session_bundle_config.proto
        "BatchingParameters": [
            ("max_batch_size", 1, number),
            ("batch_timeout_micros", 2, number),
            ("max_enqueued_batches", 3, number),
            ("num_batch_threads", 4, number),
            ("thread_pool_name", 5, ".google.protobuf.StringValue"),
            ("pad_variable_length_inputs", 7, bool),
        ],
        # of config/monitoring_config.proto
        "PrometheusConfig": [("enable", 1, bool), ("path", 2, str)],
        "MonitoringConfig": [("prometheus_config", 1, ".tensorflow.serving.PrometheusConfig")],
    }
    kinds = descriptor_pb2.FieldDescriptorProto
    for message, rows in fields.items():
        added = file.message_type.add(name=message)
        for name, place, kind in rows:
            field = added.field.add(name=name, number=place, label=kinds.LABEL_OPTIONAL)
            if isinstance(kind, str):
                field.type, field.type_name = kinds.TYPE_MESSAGE, kind
            else:
                field.type = {bool: kinds.TYPE_BOOL, str: kinds.TYPE_STRING}[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
        )
        for name in fields
    }


def read_text(path, message):
    """Parse a file in the text form of a message."""
    return text_format.Parse(path.read_text(encoding="utf-8"), message)


# --- Batching -------------------------------------------------------------------------------------


def pad_and_merge(tasks):
    """Merge requests; pad unequal lengths with the first element of their own tensor."""
    merged = {}
    for name in tasks[0]:
        arrays = [task[name] for task in tasks]
        longest = np.max([array.shape[1:] for array in arrays], axis=0, initial=0)
        padded = []
        for array in arrays:
            padding = [(0, 0), *((0, int(n)) for n in longest - array.shape[1:])]
            if any(after for _, after in padding):
                if not array.size:
                    message = "Got empty tensor in batch of non-empty tensors."
                    raise StatusError("INVALID_ARGUMENT", message)
                array = np.pad(array, padding, constant_values=array.flat[0])
            padded.append(array)
        merged[name] = np.concatenate(padded)
    return merged


class Batcher:
    """Merge requests to one signature that arrive together, and split the outputs again.

    Attributes:
      sizes: the number of requests in each batch.
    """

    def __init__(self, call, parameters):
        self.call, self.parameters = call, parameters
        self.sizes = []
        # Not a `SimpleQueue`: in CPython 3.11 its `get` waits longer than its timeout if another
        # thread takes the item first.
        self._waiting = queue.Queue()
        count = parameters.num_batch_threads.value
        self._threads = [threading.Thread(target=self._work, daemon=True) for _ in range(count)]
        for thread in self._threads:
            thread.start()

    def __call__(self, inputs):
        rows = {len(array) for array in inputs.values()}
        if len(rows) != 1:
            message = "Batching Run() input tensors must have equal 0th-dimension size"
            raise StatusError("INVALID_ARGUMENT", message)
        most = self.parameters.max_batch_size.value
        if max(rows) > most:
            message = f"Task size {max(rows)} is larger than maximum input batch size {most}"
            raise StatusError("INVALID_ARGUMENT", message)
        future = concurrent.futures.Future()
        self._waiting.put((inputs, max(rows), future))
        return future.result()

    def close(self):
        for _ in self._threads:
            self._waiting.put(None)
        for thread in self._threads:
            thread.join()

    def _work(self):
        most = self.parameters.max_batch_size.value
        next_task = None  # a request that was too large for the previous batch
        while True:
            task = next_task or self._waiting.get()
            if task is None:
                return
            batch, size, next_task = [task], task[1], None
            deadline = time.monotonic() + self.parameters.batch_timeout_micros.value / 1e6
            while size < most:
                try:
                    task = self._waiting.get(timeout=max(0.0, deadline - time.monotonic()))
                except queue.Empty:
                    break
                if task is None:
                    self._waiting.put(None)  # stop after this batch
                    break
                if size + task[1] > most:
                    next_task = task
                    break
                batch.append(task)
                size += task[1]
            self._run(batch)

    def _run(self, batch):
        self.sizes.append(len(batch))
        try:
            outputs = self.call(pad_and_merge([inputs for inputs, _, _ in batch]))
            ends = np.cumsum([size for _, size, _ in batch])
            for name, array in outputs.items():
                if len(array) != ends[-1]:
                    raise StatusError(
                        "FAILED_PRECONDITION",
                        f"output {name!r}: Batched output tensor's 0th dimension does not equal "
                        "the sum of the 0th dimension sizes of the input tensors",
                    )
        except BaseException as error:
            for _, _, future in batch:
                future.set_exception(error)
            return
        for (_, size, future), end in zip(batch, ends, strict=True):
            future.set_result({name: array[end - size : end] for name, array in outputs.items()})


# --- Models ---------------------------------------------------------------------------------------


class Version:
    """One version of a model, loaded."""

    def __init__(self, folder, parameters):
        self.number = int(folder.name)
        self.signatures = check.read_signatures(folder)
        self._call = check.load_in_python(folder, self.signatures)
        self.batchers = {}
        if parameters is not None:
            for name in self.signatures:
                self.batchers[name] = Batcher(functools.partial(self.run, name), parameters)

    def run(self, signature, inputs):
        try:
            return self._call(signature, inputs)
        except tf.errors.OpError as error:
            code = next(c.name for c in grpc.StatusCode if c.value[0] == error.error_code)
            raise StatusError(code, error.message) from error
        except (TypeError, ValueError) as error:  # the loader's errors for a wrong rank
            raise StatusError("INVALID_ARGUMENT", str(error)) from error

    def predict(self, signature, inputs):
        """Run a signature on arrays, with the checks of the server."""
        wanted = self.inputs(signature)
        if set(inputs) != set(wanted):
            message = f"input size does not match signature: {sorted(inputs)}, not {sorted(wanted)}"
            raise StatusError("INVALID_ARGUMENT", message)
        for name, array in inputs.items():
            expected = tf.as_dtype(wanted[name].dtype).as_numpy_dtype
            if array.dtype != expected:
                message = f"input {name!r} is {array.dtype}, expected {np.dtype(expected)}"
                raise StatusError("INVALID_ARGUMENT", message)
        call = self.batchers.get(signature) or functools.partial(self.run, signature)
        return call(inputs)

    def inputs(self, signature):
        if signature not in self.signatures:
            message = f'Serving signature key "{signature}" not found.'
            raise StatusError("FAILED_PRECONDITION", message)
        return self.signatures[signature].inputs

    def close(self):
        for batcher in self.batchers.values():
            batcher.close()


class Server:
    """Serve the models in `models.config` of a folder, on two free ports of the loopback device.

    Args:
      root: the folder that is mounted as `/models`, with `models.config`.
      batching: merge requests by these `BatchingParameters`, or those of this file.
    """

    def __init__(self, root, batching=None):
        self.root = Path(root)
        if isinstance(batching, Path):
            batching = read_text(batching, messages()["BatchingParameters"]())
        self._parameters = batching
        self._models, self._labels, self._lock = {}, {}, threading.Lock()
        self.reload()
        self._grpc = grpc.server(concurrent.futures.ThreadPoolExecutor(80), options=UNLIMITED)
        add = prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server
        add(PredictionService(self), self._grpc)
        model_service_pb2_grpc.add_ModelServiceServicer_to_server(ModelService(self), self._grpc)
        self.grpc = f"127.0.0.1:{self._grpc.add_insecure_port('127.0.0.1:0')}"
        handler = functools.partial(Handler, self)
        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.rest = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self):
        self._grpc.start()
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_):
        self._grpc.stop(grace=5).wait()
        self._http.shutdown()
        self._http.server_close()
        for loaded in self._models.values():
            for version in loaded.values():
                version.close()

    def reload(self, config=None):
        """Load and unload versions as `config` says, or `models.config`, which is read again."""
        if config is None:
            config = model_server_config_pb2.ModelServerConfig()
            read_text(self.root / "models.config", config)
        models, labels = {}, {}
        for entry in config.model_config_list.config:
            folder = self.root / Path(entry.base_path).relative_to("/models")
            wanted = self._wanted(entry, versions(folder))
            old = self._models.get(entry.name, {})
            models[entry.name] = {
                number: old.get(number) or Version(folder / str(number), self._parameters)
                for number in wanted
            }
            for label, number in entry.version_labels.items():
                if number not in wanted:
                    message = f"label {label!r} of {entry.name!r}: version {number} is not served"
                    raise StatusError("FAILED_PRECONDITION", message)
            labels[entry.name] = dict(entry.version_labels)
        with self._lock:
            unloaded = [
                version
                for name, versions in self._models.items()
                for number, version in versions.items()
                if number not in models.get(name, {})
            ]
            self._models, self._labels = models, labels
        for version in unloaded:
            version.close()

    def _wanted(self, entry, present):
        """Return the version numbers that an entry of `models.config` selects."""
        policy = entry.model_version_policy
        kind = policy.WhichOneof("policy_choice")
        if kind == "specific":
            wanted = [number for number in policy.specific.versions if number in present]
        elif kind == "all":
            wanted = present
        else:
            wanted = present[-max(1, policy.latest.num_versions) :]
        if not wanted:
            raise StatusError("NOT_FOUND", f"No versions of servable {entry.name} found")
        return wanted

    def versions(self, name):
        with self._lock:
            if name not in self._models:
                raise StatusError("NOT_FOUND", f"Servable not found for request: Latest({name})")
            return self._models[name], self._labels[name]

    def find(self, name, number=None, label=None):
        """Return a version by its number or its label; the newest without either."""
        versions, labels = self.versions(name)
        if label:
            if label not in labels:
                message = f"Unrecognized servable version label: {label}"
                raise StatusError("INVALID_ARGUMENT", message)
            number = labels[label]
        number = max(versions) if number is None else number
        if number not in versions:
            message = f"Servable not found for request: Specific({name}, {number})"
            raise StatusError("NOT_FOUND", message)
        return versions[number]

    def of_spec(self, spec):
        number = spec.version.value if spec.HasField("version") else None
        return self.find(spec.name, number, spec.version_label)

    def status(self, name, number=None, label=None):
        """Return the `GetModelStatusResponse` of one version or of all."""
        versions, _ = self.versions(name)
        if number is not None or label:
            versions = [self.find(name, number, label).number]
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in sorted(versions, reverse=True):
            state = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            response.model_version_status.add(version=version, state=state).status.SetInParent()
        return response


# --- gRPC -----------------------------------------------------------------------------------------


def with_status(method):
    """Return a `StatusError` as the status of the call."""

    @functools.wraps(method)
    def call(self, request, context):
        try:
            return method(self, request)
        except StatusError as error:
            context.abort(grpc.StatusCode[error.code], str(error))

    return call


class PredictionService(prediction_service_pb2_grpc.PredictionServiceServicer):
    """`Predict` and `GetModelMetadata`."""

    def __init__(self, server):
        self.server = server

    @with_status
    def Predict(self, request):  # noqa: N802
        spec = request.model_spec
        version = self.server.of_spec(spec)
        signature = spec.signature_name or "serving_default"
        outputs = version.predict(signature, check.to_arrays(request.inputs))
        infos = version.signatures[signature].outputs
        response = predict_pb2.PredictResponse()
        for name in request.output_filter or outputs:
            if name not in outputs:
                message = f"output tensor alias not found in signature: {name}"
                raise StatusError("INVALID_ARGUMENT", message)
            proto = tf.make_tensor_proto(outputs[name], infos[name].dtype, outputs[name].shape)
            response.outputs[name].CopyFrom(proto)
        response.model_spec.name, response.model_spec.signature_name = spec.name, signature
        response.model_spec.version.value = version.number
        return response

    @with_status
    def GetModelMetadata(self, request):  # noqa: N802
        if list(request.metadata_field) != ["signature_def"]:
            raise StatusError("INVALID_ARGUMENT", "Metadata field must be signature_def")
        version = self.server.of_spec(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version.number
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        response.metadata["signature_def"].Pack(signatures)
        return response


class ModelService(model_service_pb2_grpc.ModelServiceServicer):
    """`GetModelStatus` and `HandleReloadConfigRequest`."""

    def __init__(self, server):
        self.server = server

    @with_status
    def GetModelStatus(self, request):  # noqa: N802
        spec = request.model_spec
        number = spec.version.value if spec.HasField("version") else None
        return self.server.status(spec.name, number, spec.version_label)

    @with_status
    def HandleReloadConfigRequest(self, request):  # noqa: N802
        self.server.reload(request.config)
        return model_management_pb2.ReloadConfigResponse()


# --- REST -----------------------------------------------------------------------------------------


def is_base64(value):
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def to_array(value, dtype):
    """Convert a JSON value to an array of a signature's type."""
    dtype = tf.as_dtype(dtype).as_numpy_dtype
    if dtype is not object:
        try:
            array = np.array(value)
        except ValueError as error:  # rows of unequal length
            message = f"Encountered list at unexpected size: {error}"
            raise StatusError("INVALID_ARGUMENT", message) from error
        kinds = {"f": "iuf", "i": "iu", "u": "iu", "b": "b"}[np.dtype(dtype).kind]
        if array.size and array.dtype.kind not in kinds:
            message = f"JSON Value is not of expected type: {np.dtype(dtype)}"
            raise StatusError("INVALID_ARGUMENT", message)
        return array.astype(dtype)

    def leaf(one):
        if is_base64(one):
            return base64.b64decode(one["b64"], validate=True)
        if isinstance(one, str):
            return one.encode()
        raise StatusError("INVALID_ARGUMENT", "JSON Value is not of expected type: string")

    shape, flat = [], [value]
    while flat and isinstance(flat[0], list):
        shape.append(len(flat[0]))
        if any(not isinstance(one, list) or len(one) != shape[-1] for one in flat):
            raise StatusError("INVALID_ARGUMENT", "Encountered list at unexpected size")
        flat = [item for one in flat for item in one]
    array = np.empty(len(flat), object)
    array[:] = [leaf(one) for one in flat]
    return array.reshape(shape)


def to_json(array, name):
    """Convert an array to a JSON value; strings of an output `..._bytes` in base64."""
    if array.dtype != object:
        return array.tolist()
    if array.ndim:
        return [
            to_json(row, name) if isinstance(row, np.ndarray) else text(row, name) for row in array
        ]
    return text(array.item(), name)


def text(value, name):
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(value).decode()}
    return value.decode()  # JSON holds UTF-8 only


def read_request(body, inputs_of):
    """Return the signature's name, its inputs as arrays, and whether they came row by row."""
    try:
        request = json.loads(body)
    except ValueError as error:
        raise StatusError("INVALID_ARGUMENT", f"JSON Parse error: {error}") from error
    if not isinstance(request, dict):
        raise StatusError("INVALID_ARGUMENT", "JSON Value: Is not object")
    signature = request.get("signature_name", "serving_default")
    wanted = inputs_of(signature)
    if ("instances" in request) == ("inputs" in request):
        message = "Missing 'inputs' or 'instances' key, or both are there"
        raise StatusError("INVALID_ARGUMENT", message)
    by_row = "instances" in request
    values = request["instances" if by_row else "inputs"]
    if by_row:
        if not isinstance(values, list) or not values:
            raise StatusError("INVALID_ARGUMENT", "No values in 'instances' array")
        if isinstance(values[0], dict) and not is_base64(values[0]):
            if any(not isinstance(row, dict) or set(row) != set(wanted) for row in values):
                message = f"keys must be equal to: {','.join(sorted(wanted))}"
                raise StatusError("INVALID_ARGUMENT", message)
            values = {name: [row[name] for row in values] for name in wanted}
    if not isinstance(values, dict) or is_base64(values):
        if len(wanted) > 1:
            message = f"{'instances' if by_row else 'inputs'} is a plain list, but expecting names"
            raise StatusError("INVALID_ARGUMENT", message)
        values = {next(iter(wanted)): values}
    for name in wanted:
        if name not in values:
            raise StatusError("INVALID_ARGUMENT", f"Missing named input: {name}")
    return signature, {n: to_array(values[n], wanted[n].dtype) for n in wanted}, by_row


def to_response(outputs, by_row):
    """Return the JSON response of `:predict`."""
    values = {name: to_json(array, name) for name, array in outputs.items()}
    if not by_row:
        return {"outputs": values if len(values) > 1 else next(iter(values.values()))}
    if len(values) == 1:
        return {"predictions": next(iter(values.values()))}
    rows = zip(*values.values(), strict=True)
    return {"predictions": [dict(zip(values, row, strict=True)) for row in rows]}


class Handler(http.server.BaseHTTPRequestHandler):
    """`/v1/models/<name>`, its `/metadata` and its `:predict`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def __init__(self, server_double, *args):
        self.double = server_double
        super().__init__(*args)

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._respond(self._describe)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._respond(lambda *address: self._predict(body, *address))

    def _respond(self, function):
        try:
            match = PREDICT.fullmatch(self.path)
            if not match:
                raise StatusError("INVALID_ARGUMENT", f"Malformed request: {self.path}")
            name, number, label, verb = match.groups()
            status, response = 200, function(name, int(number) if number else None, label, verb)
        except StatusError as error:
            status, response = HTTP_STATUS.get(error.code, 500), {"error": str(error)}
        content = json.dumps(response, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _describe(self, name, number, label, verb):
        """Return the status or the metadata of a model."""
        if verb is None:
            return json_format.MessageToDict(
                self.double.status(name, number, label),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        version = self.double.find(name, number, label)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.signatures)
        definitions = json_format.MessageToDict(signatures, preserving_proto_field_name=True)
        spec = {"name": name, "signature_name": "", "version": str(version.number)}
        return {"model_spec": spec, "metadata": {"signature_def": definitions}}

    def _predict(self, body, name, number, label, verb):
        if verb != ":predict":
            raise StatusError("INVALID_ARGUMENT", f"Malformed request: {self.path}")
        version = self.double.find(name, number, label)
        signature, inputs, by_row = read_request(body, version.inputs)
        return to_response(version.predict(signature, inputs), by_row)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.serving.server",
        description="Serve the models of a folder until standard input ends. A test double.",
    )
    parser.add_argument("root", type=Path, help="folder with models.config, such as saved_models")
    parser.add_argument(
        "--batching", type=Path, help="merge requests by this file (saved_models/batching.config)"
    )
    options = parser.parse_args()
    with Server(options.root, options.batching) as server:
        print(json.dumps({"grpc": server.grpc, "rest": server.rest}), flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
