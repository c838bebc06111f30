"""The exports on the test double of the server: messages, batching, versions, files."""

import base64
import concurrent.futures
import json
import re
import shutil
import urllib.error
import urllib.request
from pathlib import Path

from common.errors import ExportError
from common.serving import check
from common.serving.models_config import write_models_config
from tests.replay.test_replay import VERSIONS
from tests.serving import server as double
from tests.serving.batching import Options
from tests.serving.config import messages, read_batching
from tests.tasks.own import video
from tests.tasks.shipped import NAMES, signatures

import grpc
import numpy as np
import pytest
import tensorflow as tf
import yaml
from google.protobuf import text_format
from tensorflow_serving.apis import (
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_management_pb2,
    model_service_pb2_grpc,
    predict_pb2,
)
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub
from tensorflow_serving.config import model_server_config_pb2

pytestmark = pytest.mark.serving


def get(url, body=None):
    """Send a request; return the status and the JSON response. `body` is JSON or text."""
    if body is not None:
        body = (body if isinstance(body, str) else json.dumps(body)).encode()
    try:
        with urllib.request.urlopen(url, body) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.fixture(scope="module")
def stub(server):
    with grpc.insecure_channel(server.grpc, options=double.UNLIMITED) as channel:
        yield PredictionServiceStub(channel)


def request_of(task, signature="serving_default", *, version=None, label=None, **inputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = task, signature
    if version:
        request.model_spec.version.value = version
    if label:
        request.model_spec.version_label = label
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def assert_same(outputs, expected, tolerance=1e-5):
    """Compare outputs, except for trailing padding (0, "", alignment -1) where they are longer."""
    assert set(outputs) == set(expected)
    for name, array in expected.items():
        missing = [(0, more) for more in np.subtract(outputs[name].shape, array.shape)]
        padding = b"" if array.dtype == object else -1 if name == "alignment" else 0
        array = np.pad(array, missing, constant_values=padding)
        assert check.difference(outputs[name], array) <= tolerance, name


# --- Messages -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", NAMES)
def test_status_and_metadata_agree_with_the_golden_files(model, server, stub, served):
    """Sizes that depend on the labels or settings of a model are those of the model itself."""
    golden = json.loads(signatures(model).read_text())
    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = model
    by_grpc = get_model_metadata_pb2.SignatureDefMap()
    assert stub.GetModelMetadata(request).metadata["signature_def"].Unpack(by_grpc)
    status, response = get(f"{server.rest}/v1/models/{model}/metadata")
    by_rest = response["metadata"]["signature_def"]["signature_def"]
    assert status == 200 and response["model_spec"]["version"] == "1"
    # With TensorFlow's own, as the server lists all of them (get_model_metadata_impl.cc).
    names = {*golden, "__saved_model_init_op"}
    assert names == set(by_grpc.signature_def) == set(by_rest)
    for name, signature in golden.items():
        function = served[model].functions[name]
        own = {
            "inputs": function.structured_input_signature[1],
            "outputs": function.structured_outputs,
        }
        for kind in ("inputs", "outputs"):
            infos = getattr(by_grpc.signature_def[name], kind)
            assert set(infos) == set(by_rest[name][kind]) == set(signature[kind])
            for key, (dtype, shape) in signature[kind].items():
                assert tf.as_dtype(infos[key].dtype).name == dtype
                sizes = tf.TensorShape(infos[key].tensor_shape).as_list()
                assert sizes == own[kind][key].shape.as_list()
                assert [size is None for size in sizes] == [size is None for size in shape]
    state = {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK"}}
    state["status"]["error_message"] = ""
    for url in (model, f"{model}/versions/1"):
        assert get(f"{server.rest}/v1/models/{url}") == (200, {"model_version_status": [state]})
    with grpc.insecure_channel(server.grpc) as channel:
        request = get_model_status_pb2.GetModelStatusRequest()
        request.model_spec.name = model
        response = model_service_pb2_grpc.ModelServiceStub(channel).GetModelStatus(request)
    (reported,) = response.model_version_status
    assert reported.version == 1
    assert reported.state == get_model_status_pb2.ModelVersionStatus.AVAILABLE


def test_rest_accepts_rows_and_columns_and_base64(server, served):
    url = f"{server.rest}/v1/models/sentiment:predict"
    texts = ["superb", "awful plot", "\u00fcber"]
    expected = served["sentiment"].call("serving_default", text=texts)
    by_column = get(url, {"inputs": {"text": texts}})[1]["outputs"]
    assert by_column["stars"] == expected["stars"].tolist()
    np.testing.assert_allclose(by_column["probabilities"], expected["probabilities"], rtol=1e-6)
    assert get(url, {"inputs": texts})[1]["outputs"] == by_column  # the only input needs no name
    raw = [{"b64": base64.b64encode(text.encode()).decode()} for text in texts]
    assert get(url, {"inputs": {"text": raw}})[1]["outputs"] == by_column
    rows = [
        {name: by_column[name][row] for name in ("label", "stars", "probabilities", "truncated")}
        for row in range(3)
    ]
    for instances in (texts, raw, [{"text": text} for text in texts]):
        assert get(url, {"instances": instances})[1]["predictions"] == rows
    body = {"signature_name": "explain", "instances": ["superb plot"]}
    assert get(url, body)[1]["predictions"][0]["tokens"] == ["superb", "plot"]
    empty = {"inputs": {"text": []}}
    outputs = {"label": [], "stars": [], "probabilities": [], "truncated": []}
    assert get(url, empty)[1]["outputs"] == outputs


NO_SIGNATURE = 'Serving signature name: "x" not found in signature def'


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("jazz:predict", {"inputs": ["a"]}, 404, "Servable not found for request: Latest(jazz)"),
        ("ner/versions/7:predict", {"inputs": ["a"]}, 404, "Specific(ner, 7)"),
        ("ner/labels/best:predict", {"inputs": ["a"]}, 400, "version label: best"),
        ("ner/versions/0", None, 404, "Could not find version 0 of model ner"),
        ("jazz", None, 404, "Could not find any versions of model jazz"),
        ("jazz/metadata", None, 404, "Servable not found for request: Latest(jazz)"),
        ("ner:guess", {"inputs": ["a"]}, 400, "Malformed request"),
        ("ner:predict", "{", 400, "JSON Parse error"),
        ("ner:predict", "[]", 400, "Is not object"),
        ("ner:predict", {"input": ["a"]}, 400, "Missing 'inputs' or 'instances'"),
        ("ner:predict", {"instances": []}, 400, "No values in 'instances'"),
        # `GetInfoMap` of model_servers/http_rest_api_handler.cc; gRPC has another status and text.
        ("ner:predict", {"signature_name": "x", "inputs": []}, 400, NO_SIGNATURE),
        ("ner:predict", {"inputs": {"text": [7]}}, 400, "not of expected type: string"),
        ("ner:predict", {"inputs": {"word": ["a"]}}, 400, "Missing named input: text"),
        ("ner:predict", {"inputs": {"text": [["a"], ["b", "c"]]}}, 400, "unexpected size"),
        ("ner:predict", {"inputs": {"text": [["a"]]}}, 400, "1D vector"),  # wrong rank
        ("speech:predict", {"inputs": [[0.1]]}, 400, "inputs is a plain value/list"),
        ("speech:predict", {"inputs": {"audio": [[0.1]], "length": [1.5]}}, 400, "type: int32"),
        ("speech:predict", {"inputs": {"audio": [["a"]], "length": [1]}}, 400, "type: float"),
        ("speech:predict", {"instances": [{"audio": [0.1]}]}, 400, "keys must be equal to"),
    ],
)
def test_rest_reports_errors(path, body, status, message, server):
    returned, response = get(f"{server.rest}/v1/models/{path}", body)
    assert (returned, list(response)) == (status, ["error"]) and message in response["error"]


def test_grpc_reports_errors_and_filters_outputs(stub):
    request = request_of("sentiment", text=["superb"])
    request.output_filter.append("stars")
    response = stub.Predict(request)
    assert list(response.outputs) == ["stars"] and response.model_spec.version.value == 1
    filtered, twice, unnamed = (request_of("ner", text=["a"]) for _ in range(3))
    filtered.output_filter.append("stars")
    twice.output_filter.extend(["tags", "tags"])
    unnamed.model_spec.Clear()
    for request, code, message in [
        (request_of("jazz", text=["a"]), "NOT_FOUND", "Latest(jazz)"),
        (request_of("ner", text=["a"], version=7), "NOT_FOUND", "Specific(ner, 7)"),
        (unnamed, "INVALID_ARGUMENT", "ModelSpec has no name specified."),
        # servables/tensorflow/predict_util.cc, tensorflow/cc/saved_model/util.cc
        (request_of("ner", "x", text=["a"]), "FAILED_PRECONDITION", 'key "x" not found.'),
        (
            request_of("ner", text=["a"], words=["a"]),
            "INVALID_ARGUMENT",
            "input size does not match signature: 2!=1 len({text,words}) != len({text}). "
            "Sent extra: {words}. Missing but required: {}.",
        ),
        (
            request_of("ner", words=["a"]),
            "INVALID_ARGUMENT",
            "Signature input alias: text(feed name: serving_default_text:0) not found in request",
        ),
        (filtered, "INVALID_ARGUMENT", "output tensor alias not found in signature: stars"),
        (twice, "INVALID_ARGUMENT", "duplicate output tensor alias: tags"),
        (
            request_of("ner", text=[1.0]),
            "INVALID_ARGUMENT",
            "Expects arg[0] to be string but float is provided",
        ),
        (request_of("ner", text=[["a"]]), "INVALID_ARGUMENT", "1D vector"),
        # kErrorMessageLimit of model_servers/grpc_status_util.cc
        (request_of("j" * 2000, text=["a"]), "NOT_FOUND", "j...TRUNCATED"),
    ]:
        with pytest.raises(grpc.RpcError) as refused:
            stub.Predict(request)
        assert refused.value.code() is grpc.StatusCode[code] and message in refused.value.details()
    request = get_model_metadata_pb2.GetModelMetadataRequest()
    request.model_spec.name = "ner"
    with pytest.raises(grpc.RpcError, match="must specify at least one metadata_field"):
        stub.GetModelMetadata(request)
    request.metadata_field.append("graph")
    with pytest.raises(grpc.RpcError, match=r"Metadata field .* is not supported"):
        stub.GetModelMetadata(request)


def test_the_server_reads_nan_from_json(server, served):
    sound = np.sin(np.arange(8000)).astype(np.float32)
    rows = [[float("nan"), *sound[1:].tolist()], sound.tolist()]
    body = {"inputs": {"audio": rows, "length": [8000, 8000]}}
    outputs = get(f"{server.rest}/v1/models/speech:predict", body)[1]["outputs"]
    assert outputs["text"][0] == "" and outputs["confidence"][0] == 0
    alone = served["speech"].call("serving_default", audio=[sound], length=[8000])
    assert outputs["text"][1] == alone["text"][0].decode()


# --- Batching -------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", NAMES)
def test_merged_requests_get_the_outputs_they_get_alone(model, batching_server):
    """Send all warm-up requests at once; their lengths differ, so the server pads them."""
    version = batching_server.find(model)
    records = check.read_records(batching_server.root / model / "1")
    by_signature = {}
    for record in records:
        name = record.request.model_spec.signature_name
        inputs = check.to_arrays(record.request.inputs)
        pair = (inputs, check.to_arrays(record.response.outputs))
        by_signature.setdefault(name, []).append(pair)
        # The rows one by one, as clients send them.
        count = len(next(iter(inputs.values())))
        for row in range(count):
            one = [{k: v[row : row + 1] for k, v in part.items()} for part in pair]
            by_signature[name].append(one)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        for name, pairs in by_signature.items():
            futures = [pool.submit(version.predict, name, inputs) for inputs, _ in pairs]
            for future, (_, expected) in zip(futures, pairs, strict=True):
                outputs = future.result()
                for key, array in expected.items():
                    # The recorded batch may have held longer rows: remove their padding.
                    size = np.minimum(array.shape, outputs[key].shape)
                    expected[key] = array[tuple(slice(n) for n in size)]
                # Sums of another batch size run in another order. Those of `dna` are of logarithms
                # of some hundreds, of which float32 keeps four digits after the point.
                tolerance = 1e-3 if model == "dna" else 1e-4
                assert_same(outputs, expected, tolerance)
            assert max(version.batchers[name].sizes) > 1


def test_64_clients_at_once_get_their_own_outputs(batching_server, served):
    clips = [video.body(label, person) for person in range(60, 62) for label in video.CLASSES]
    texts = [f"{'the plot ' * (n % 7)}{('superb', 'awful')[n % 2]}" for n in range(64)]
    with grpc.insecure_channel(batching_server.grpc, options=double.UNLIMITED) as channel:
        stub = PredictionServiceStub(channel)
        futures = [
            stub.Predict.future(request_of("sentiment", text=[text]), timeout=120) for text in texts
        ]
        clip_futures = [
            stub.Predict.future(
                request_of(
                    "video",
                    frames=clip[None, : 12 + 4 * n],
                    length=np.array([12 + 4 * n], np.int32),
                    size=np.array([clip.shape[1:3]], np.int32),
                    frame_rate=np.array([video.RATE], np.float32),
                ),
                timeout=120,
            )
            for n, clip in enumerate(clips)
        ]
        labels = [tf.make_ndarray(f.result().outputs["label"])[0] for f in futures]
        rows = [tf.make_ndarray(f.result().outputs["probabilities"])[0] for f in clip_futures]
    assert labels == served["sentiment"].call("serving_default", text=texts)["label"].tolist()
    for n, (clip, probabilities) in enumerate(zip(clips, rows, strict=True)):
        alone = served["video"].call(
            "serving_default",
            frames=clip[None, : 12 + 4 * n],
            length=[12 + 4 * n],
            size=[clip.shape[1:3]],
            frame_rate=[video.RATE],
        )
        np.testing.assert_allclose(probabilities, alone["probabilities"][0], atol=1e-5)


# --- Versions, labels, files ----------------------------------------------------------------------


@pytest.fixture
def two_versions(root, tmp_path):
    """A folder with two versions of one model."""
    for number in ("1", "2"):
        shutil.copytree(root / "sentiment" / "1", tmp_path / "sentiment" / number)
    write_models_config(tmp_path)
    return tmp_path


def test_versions_labels_and_a_rollback(two_versions, client):
    path = two_versions / "models.config"

    def version(**selected):
        request = request_of("sentiment", text=["a"], **selected)
        return stub.Predict(request).model_spec.version.value

    def write(versions, labels):
        config = double.read_text(path, model_server_config_pb2.ModelServerConfig())
        (entry,) = config.model_config_list.config
        entry.model_version_policy.specific.versions[:] = versions
        entry.version_labels.clear()
        entry.version_labels.update(labels)
        return config

    with (
        double.Server(two_versions) as server,
        grpc.insecure_channel(server.grpc) as channel,
    ):
        stub = PredictionServiceStub(channel)
        models = model_service_pb2_grpc.ModelServiceStub(channel)

        def reload(*args):
            request = model_management_pb2.ReloadConfigRequest(config=write(*args))
            models.HandleReloadConfigRequest(request)

        assert version() == 2 and list(server.versions("sentiment")[0]) == [2]
        with pytest.raises(grpc.RpcError, match="NOT_FOUND"):
            version(version=1)
        reload([1, 2], {"stable": 1, "canary": 2})
        assert version(label="stable") == 1 and version(label="canary") == 2 and version() == 2
        url = f"{server.rest}/v1/models/sentiment"
        states = get(f"{url}/labels/stable")[1]["model_version_status"]
        assert [state["version"] for state in states] == ["2", "1"]  # a status ignores the label
        assert get(f"{url}/labels/canary:predict", {"inputs": ["superb"]})[0] == 200
        assert client.call_rest(server.rest, "sentiment", {"text": ["superb"]}, label="stable")
        reload([1, 2], {"stable": 2})  # promoted
        assert version(label="stable") == 2
        with pytest.raises(grpc.RpcError, match="Unrecognized servable version label: canary"):
            version(label="canary")
        reload([1], {"stable": 1})  # rolled back
        assert version(label="stable") == 1 == version()
        # `UpdateModelVersionLabelMap` of model_servers/server_core.cc: a label in use cannot move
        # together with the loading of its version.
        with pytest.raises(grpc.RpcError, match="Request to assign label to version 2 of model se"):
            reload([1, 2], {"stable": 2})
        assert version(label="stable") == 1 == version()  # an invalid list changes nothing
        reload([1, 2], {"stable": 1})
        reload([1, 2], {"stable": 2, "next": 3})  # a new label may name any version
        assert version(label="stable") == 2
        with pytest.raises(grpc.RpcError, match=r"Servable not found .* Specific\(sentiment, 3\)"):
            version(label="next")


def test_the_list_keeps_entries_that_a_person_has_edited(two_versions):
    path = two_versions / "models.config"
    config = double.read_text(path, model_server_config_pb2.ModelServerConfig())
    (entry,) = config.model_config_list.config
    entry.model_version_policy.specific.versions[:] = [1, 2]
    entry.version_labels["stable"] = 1
    path.write_text(str(config))
    shutil.copytree(two_versions / "sentiment", two_versions / "ner")
    write_models_config(two_versions)
    again = double.read_text(path, model_server_config_pb2.ModelServerConfig())
    assert [e.name for e in again.model_config_list.config] == ["sentiment", "ner"]
    assert again.model_config_list.config[0] == entry
    assert not again.model_config_list.config[1].version_labels
    path.write_text("not a message {")
    with pytest.raises(ExportError, match=r"models\.config: .*delete it"):
        write_models_config(two_versions)


def test_the_list_names_the_folders_that_have_a_version(root):
    config = double.read_text(root / "models.config", model_server_config_pb2.ModelServerConfig())
    listed = {entry.name: entry.base_path for entry in config.model_config_list.config}
    folders = sorted(path.name for path in root.iterdir() if path.is_dir())
    assert listed == {name: f"/models/{name}" for name in NAMES} and sorted(listed) == folders
    absent = model_server_config_pb2.ModelServerConfig()
    absent.model_config_list.config.add(name="absent", base_path="/models/absent")
    with (
        double.Server(root) as server,
        pytest.raises(double.StatusError, match="No versions of servable absent found"),
    ):
        server.reload(absent)


def test_the_configuration_files_parse(pytestconfig):
    folder = pytestconfig.rootpath / "saved_models"
    options = Options.read(read_batching(folder / "batching.config"))
    # Without padding, requests of unequal length fail; the parts of a split one cannot be joined.
    assert options.pad and not options.split and options.timeout > 0
    monitoring = double.read_text(folder / "monitoring.config", messages()["MonitoringConfig"]())
    assert monitoring.prometheus_config.enable
    readme = (folder / "README.md").read_text()
    assert monitoring.prometheus_config.path in readme


def test_the_compose_file_and_the_kubernetes_file_start_the_same_server(pytestconfig):
    folder = pytestconfig.rootpath / "saved_models"
    compose = yaml.safe_load((folder / "docker-compose.yml").read_text())
    (block,) = re.findall(r"```yaml\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    scraped = yaml.safe_load(block)
    assert scraped["scrape_configs"][0]["metrics_path"] == "/monitoring/prometheus/metrics"
    deployment, service = yaml.safe_load_all((folder / "kubernetes.yaml").read_text())
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    for name, profile in compose["services"].items():
        assert profile["command"] == container["args"] and profile["profiles"] == [name]
    assert container["image"] == compose["services"]["cpu"]["image"]
    for flag in container["args"]:
        if "_file=" in flag:
            path = Path(flag.split("=/models/")[1])
            assert path.name == "models.config" or (folder / path).is_file()
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {port["targetPort"]: port["port"] for port in service["spec"]["ports"]}
    assert sorted(compose["services"]["cpu"]["ports"]) == [f"{p}:{p}" for p in (8500, 8501)]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert labels == deployment["spec"]["selector"]["matchLabels"] == service["spec"]["selector"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    (mounted,) = container["volumeMounts"]
    (volume,) = deployment["spec"]["template"]["spec"]["volumes"]
    assert mounted["mountPath"] == "/models" and mounted["name"] == volume["name"]


def test_every_image_names_a_version_in_which_the_exports_were_replayed(pytestconfig):
    """No `latest`: a restart would change the server without a word."""
    files = [*pytestconfig.rootpath.glob("*.md")]
    for folder in ("common", "tasks", "saved_models"):
        for suffix in ("md", "yml", "yaml", "py", "config"):
            files += (pytestconfig.rootpath / folder).rglob(f"*.{suffix}")
    tags = {}
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert ":latest" not in text, path
        # An image without a tag is `latest`; the repository of the source is no image.
        for tag in re.findall(r"(?<!github\.com/)\btensorflow/serving\b(:[\w.-]+)?", text):
            tags.setdefault(tag.removeprefix(":").removesuffix("-gpu"), []).append(path.name)
    assert set(tags) == set(VERSIONS), tags


def test_the_labels_in_the_readme_parse(pytestconfig):
    readme = (pytestconfig.rootpath / "saved_models" / "README.md").read_text()
    (block,) = re.findall(r"```pbtxt\n(model_config_list.*?)```", readme, re.DOTALL)
    config = text_format.Parse(block, model_server_config_pb2.ModelServerConfig())
    (entry,) = config.model_config_list.config
    assert dict(entry.version_labels) == {"stable": 1, "canary": 2}
    policies = re.findall(r"`model_version_policy (\{.*?\})`", readme, re.DOTALL)
    assert len(policies) == 2
    for text in policies:
        written = f"model_version_policy {text}"
        parsed = text_format.Parse(written, model_server_config_pb2.ModelConfig())
        assert parsed.model_version_policy.WhichOneof("policy_choice") in ("specific", "latest")
