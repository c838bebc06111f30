"""A test double of TensorFlow Model Server: its messages and its interfaces over real exports.

It serves gRPC (`PredictionService`, `ModelService`, with the messages of `tensorflow-serving-api`)
and REST, reads the same `models.config` and `batching.config`, and merges requests as its batching
session does, including the padding. Statuses, messages and the order of checks follow the source of
TF Serving, which `rest.py`, `batching.py` and `config.py` name. It differs in four points:
`tf.saved_model.load` loads the exports, new versions are detected only when the configuration is
read, a request has no time limit, and there are no metrics for Prometheus. It runs as with
`--allow_version_labels_for_unavailable_models`, which `docker-compose.yml` sets.

    with Server(Path("saved_models")) as server:
        server.grpc, server.rest   # "127.0.0.1:41234", "http://127.0.0.1:41235"
"""

import argparse
import concurrent.futures
import functools
import http.server
import json
import sys
import threading
from pathlib import Path

from common.serving import check
from common.serving.versions import versions
from tests.serving.batching import Scheduler
from tests.serving.config import StatusError, read_batching, read_text, type_name
from tests.serving.rest import Handler

import grpc
import tensorflow as tf
from tensorflow.core.protobuf import saved_model_pb2
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
MESSAGE_LIMIT = 1024  # kErrorMessageLimit of model_servers/grpc_status_util.cc


# --- Models ---------------------------------------------------------------------------------------


class Version:
    """One version of a model, loaded.

    Attributes:
      number: of the version.
      definitions: all signatures of the graph, with TensorFlow's own.
      signatures: those that a client can call.
      batchers: the queue of each signature; empty without batching.
    """

    def __init__(self, folder, scheduler):
        self.number = int(folder.name)
        saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        self.definitions = dict(saved.meta_graphs[0].signature_def)
        self.signatures = check.read_signatures(folder)
        self._call = check.load_in_python(folder, self.signatures)
        self._scheduler = scheduler
        self.batchers = {}
        if scheduler is not None:
            for name in self.signatures:
                self.batchers[name] = scheduler.add(functools.partial(self.run, name))

    def run(self, signature, inputs):
        try:
            return self._call(signature, inputs)
        except tf.errors.OpError as error:
            code = next(c.name for c in grpc.StatusCode if c.value[0] == error.error_code)
            raise StatusError(code, error.message) from error
        except (TypeError, ValueError) as error:  # the loader's errors for a wrong rank
            raise StatusError("INVALID_ARGUMENT", str(error)) from error

    def predict(self, signature, inputs, names=()):
        """Run a signature on arrays, with the checks of `RunPredict` (predict_util.cc).

        Args:
          signature: its name.
          inputs: name -> array.
          names: the outputs to return; default: all.
        """
        if signature not in self.signatures:
            message = f'Serving signature key "{signature}" not found.'
            raise StatusError("FAILED_PRECONDITION", message)
        definition = self.signatures[signature]
        check_inputs(definition.inputs, inputs)
        for place, name in enumerate(names):
            message = f"output tensor alias not found in signature: {name} Outputs expected to be"
            message += f" in the set {listed(definition.outputs)}."
            if name in names[:place]:
                message = f"duplicate output tensor alias: {name}"
            if name not in definition.outputs or name in names[:place]:
                raise StatusError("INVALID_ARGUMENT", message)
        call = self.batchers.get(signature) or functools.partial(self.run, signature)
        outputs = call(inputs)
        return {name: outputs[name] for name in names or outputs}

    def close(self):
        for queue in self.batchers.values():
            self._scheduler.remove(queue)


def listed(names):
    return f"{{{','.join(sorted(names))}}}"


def check_inputs(wanted, inputs):
    """Refuse inputs of other names or types."""
    message = None
    # `VerifyRequestInputsSize`, then `GetInputValues` of tensorflow/cc/saved_model/util.cc.
    if len(inputs) != len(wanted):
        message = (
            f"input size does not match signature: {len(inputs)}!={len(wanted)} len("
            f"{listed(inputs)}) != len({listed(wanted)}). Sent extra: "
            f"{listed(set(inputs) - set(wanted))}. Missing but required: "
            f"{listed(set(wanted) - set(inputs))}."
        )
    elif missing := sorted(set(wanted) - set(inputs)):
        message = (
            f"Signature input alias: {missing[0]}(feed name: {wanted[missing[0]].name}) not found "
            "in request and no default value provided. Inputs expected to be in the request "
            f"{listed(inputs)}, or default input alias set: "
        )
    else:  # `FunctionCallFrame::SetArgs` of tensorflow/core/framework/function.cc
        for place, name in enumerate(sorted(wanted, key=lambda name: wanted[name].name)):
            expected, given = tf.as_dtype(wanted[name].dtype), tf.as_dtype(inputs[name].dtype)
            if given != expected:
                names = f"{type_name(expected)} but {type_name(given)}"
                message = f"Expects arg[{place}] to be {names} is provided"
    if message:
        raise StatusError("INVALID_ARGUMENT", message)


class Server:
    """Serve the models in `models.config` of a folder, on two free ports of the loopback device.

    Args:
      root: the folder that is mounted as `/models`, with `models.config`.
      batching: merge requests by these `BatchingParameters`, or those of this file.
    """

    def __init__(self, root, batching=None):
        self.root = Path(root)
        if isinstance(batching, Path):
            batching = read_batching(batching)
        self._scheduler = None if batching is None else Scheduler(batching)
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
        if self._scheduler:
            self._scheduler.__exit__()

    def reload(self, config=None):
        """Load and unload versions as `config` says, or `models.config`, which is read again."""
        if config is None:
            config = model_server_config_pb2.ModelServerConfig()
            read_text(self.root / "models.config", config)
        labels = {e.name: self._checked_labels(e) for e in config.model_config_list.config}
        models = {}
        for entry in config.model_config_list.config:
            folder = self.root / Path(entry.base_path).relative_to("/models")
            old = self._models.get(entry.name, {})
            models[entry.name] = {
                number: old.get(number) or Version(folder / str(number), self._scheduler)
                for number in self._wanted(entry, versions(folder))
            }
        with self._lock:
            unloaded = [
                version
                for name, loaded in self._models.items()
                for number, version in loaded.items()
                if number not in models.get(name, {})
            ]
            self._models, self._labels = models, labels
        for version in unloaded:
            version.close()

    def _checked_labels(self, entry):
        """Return the labels of an entry (`UpdateModelVersionLabelMap` of server_core.cc).

        They are checked before any version is loaded: a label in use moves only to a version that
        is served already; a new one may name any.
        """
        old = self._labels.get(entry.name, {})
        for label, number in entry.version_labels.items():
            served = self._models.get(entry.name, {})
            if old.get(label, number) != number and number not in served:
                raise StatusError(
                    "FAILED_PRECONDITION",
                    f"Request to assign label to version {number} of model {entry.name}, which is "
                    "not currently available for inference",
                )
        return dict(entry.version_labels)

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
        """Return the loaded versions of a model by number, and its labels."""
        with self._lock:
            return self._models.get(name, {}), self._labels.get(name, {})

    def find(self, name, number=None, label=None):
        """Return a version by its number or its label; the newest without either."""
        if not name:  # `ServableRequestFromModelSpec` of model_servers/server_core.cc
            raise StatusError("INVALID_ARGUMENT", "ModelSpec has no name specified.")
        versions, labels = self.versions(name)
        request = f"Latest({name})"
        if label:
            if label not in labels:
                message = f"Unrecognized servable version label: {label}"
                raise StatusError("INVALID_ARGUMENT", message)
            number = labels[label]
        if number is not None:
            request = f"Specific({name}, {number})"
        elif versions:
            number = max(versions)
        if number not in versions:
            raise StatusError("NOT_FOUND", f"Servable not found for request: {request}")
        return versions[number]

    def of_spec(self, spec):
        number = spec.version.value if spec.HasField("version") else None
        return self.find(spec.name, number, spec.version_label)

    def status(self, name, number=None):
        """Return the `GetModelStatusResponse` of one version or of all (get_model_status_impl.cc).

        The server ignores a label here.
        """
        versions, _ = self.versions(name)
        if number is not None and number not in versions:
            message = f"Could not find version {number} of model {name}"
            raise StatusError("NOT_FOUND", message)
        if not versions:
            raise StatusError("NOT_FOUND", f"Could not find any versions of model {name}")
        response = get_model_status_pb2.GetModelStatusResponse()
        for version in sorted(versions if number is None else [number], reverse=True):
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
            message = str(error)
            if len(message) > MESSAGE_LIMIT:
                message = f"{message[:MESSAGE_LIMIT]}...TRUNCATED"
            context.abort(grpc.StatusCode[error.code], message)

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
        inputs = check.to_arrays(request.inputs)
        outputs = version.predict(signature, inputs, list(request.output_filter))
        infos = version.signatures[signature].outputs
        response = predict_pb2.PredictResponse()
        for name, array in outputs.items():
            proto = tf.make_tensor_proto(array, infos[name].dtype, array.shape)
            response.outputs[name].CopyFrom(proto)
        response.model_spec.name, response.model_spec.signature_name = spec.name, signature
        response.model_spec.version.value = version.number
        return response

    @with_status
    def GetModelMetadata(self, request):  # noqa: N802
        if not request.metadata_field:
            message = "GetModelMetadataRequest must specify at least one metadata_field"
            raise StatusError("INVALID_ARGUMENT", message)
        for field in request.metadata_field:
            if field != "signature_def":  # the format is the server's
                message = f"Metadata field %s is not supported{field}"
                raise StatusError("INVALID_ARGUMENT", message)
        version = self.server.of_spec(request.model_spec)
        response = get_model_metadata_pb2.GetModelMetadataResponse()
        response.model_spec.name = request.model_spec.name
        response.model_spec.version.value = version.number
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.definitions)
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
        return self.server.status(spec.name, number)

    @with_status
    def HandleReloadConfigRequest(self, request):  # noqa: N802
        self.server.reload(request.config)
        return model_management_pb2.ReloadConfigResponse()


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
