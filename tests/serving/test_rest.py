"""The test double's REST interface follows TF Serving's; no model is needed.

The docstrings name the files of github.com/tensorflow/serving that say so.
"""

import contextlib
import functools
import http.server
import json
import threading
import types
import urllib.error
import urllib.request

from tests.serving import rest
from tests.serving.config import HTTP_STATUS, StatusError

import grpc
import numpy as np
import pytest
import tensorflow as tf


def info(dtype):
    return types.SimpleNamespace(dtype=tf.as_dtype(dtype).as_datatype_enum)


@contextlib.contextmanager
def serving(**methods):
    """Yield the URL of REST over a double with these methods."""
    handler = functools.partial(rest.Handler, types.SimpleNamespace(**methods))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def send(url, body=None):
    """Return the status and the JSON response, or the text of another one."""
    try:
        with urllib.request.urlopen(url, body) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            content = error.read()
        with contextlib.suppress(ValueError):
            content = json.loads(content)
        return error.code, content


def read(body, **inputs):
    """Read a request to a signature with these inputs."""
    if not isinstance(body, str):
        body = json.dumps(body)
    return rest.read_request(body, lambda name: {k: info(v) for k, v in inputs.items()})


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("CANCELLED", 499),
        ("UNKNOWN", 500),
        ("INVALID_ARGUMENT", 400),
        ("DEADLINE_EXCEEDED", 504),
        ("NOT_FOUND", 404),
        ("ALREADY_EXISTS", 409),
        ("PERMISSION_DENIED", 403),
        ("UNAUTHENTICATED", 401),
        ("RESOURCE_EXHAUSTED", 429),
        ("FAILED_PRECONDITION", 400),
        ("ABORTED", 409),
        ("OUT_OF_RANGE", 400),
        ("UNIMPLEMENTED", 501),
        ("INTERNAL", 500),
        ("UNAVAILABLE", 503),
        ("DATA_LOSS", 500),
    ],
)
def test_every_status_has_the_http_status_of_the_server(code, status):
    """`ToHTTPStatusCode` of tensorflow_serving/model_servers/http_server.cc."""

    def find(*_):
        raise StatusError(code, "no")

    with serving(find=find) as url:
        for target, body in ((":predict", b"{}"), ("/metadata", None)):
            assert send(f"{url}/v1/models/ner{target}", body) == (status, {"error": "no"})
    assert set(HTTP_STATUS) == {code.name for code in grpc.StatusCode} - {"OK"}


@pytest.mark.parametrize(
    ("path", "body", "status", "message"),
    [
        ("/v1/models", None, 400, "Missing model name in request."),
        ("/v1/models/a:predict", None, 400, "Malformed request: GET /v1/models/a:predict"),
        ("/v1/models/a", b"{}", 400, "Malformed request: POST /v1/models/a"),
        ("/v1/models/a:guess", b"{}", 400, "Malformed request: POST /v1/models/a:guess"),
        (f"/v1/models/a/versions/{2**63}", None, 400, f"Failed to convert version: {2**63} to num"),
        ("/V1/Models/a%20b/Versions/3/Metadata?x=1", None, 404, "a b, 3, None"),
        ("/v1/models/a/labels/x%2Fy/metadata", None, 404, "a, None, x/y"),
        ("/v1/models/a/labels/stable", None, 404, "status of a, None"),  # ignores the label
        ("/v1/models/a:predict", b"{", 400, "JSON Parse error"),  # before the model is looked up
        ("/v1/models/a:classify", b"{}", 501, "classify"),
    ],
)
def test_paths_are_read_as_the_server_reads_them(path, body, status, message):
    """`ParseModelInfo` of http_rest_api_util.cc, `ProcessRequest` of http_rest_api_handler.cc."""

    def find(name, number, label):
        raise StatusError("NOT_FOUND", f"{name}, {number}, {label}")

    def get_status(name, number):
        raise StatusError("NOT_FOUND", f"status of {name}, {number}")

    with serving(find=find, status=get_status) as url:
        returned, response = send(url + path, body)
        assert returned == status and message in response["error"]
        assert send(f"{url}/v2/models/a")[0] == send(f"{url}/", b"{}")[0] == 404


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"inputs": [7]}, "JSON Value: 7 Type: Number is not of expected type: string"),
        ({"inputs": [None]}, "JSON Value: null Type: Null is not"),
        ({"inputs": [["a"], ["b", "c"]]}, "unexpected size: 2 at level: 1 expected size: 1"),
        ({"inputs": [["a"], "b"]}, '"b" found at incorrect level: 2 in the JSON DOM. Expected a'),
        ({"inputs": ["a", ["b"]]}, "Encountered list at unexpected level: 1 expected < 1"),
        ({"inputs": [{"b64": "?"}]}, "Unable to base64 decode"),
        ({"inputs": [{"b32": "A"}]}, "not formatted correctly for base64 data"),
        ({"inputs": {"other": ["a"]}}, "Missing named input: text in 'inputs' object."),
        ({"instances": 7}, "Excepting 'instances' to be an list/array"),
        ({"instances": []}, "No values in 'instances' array"),
        ({"instances": ["a"], "inputs": ["a"]}, "expecting only one of 'inputs' or 'instances'"),
        ({"instances": [{"text": "a"}, "b"]}, "Expecting object but got list at item 1"),
        ({"instances": ["a", {"text": "b"}]}, "Expecting value/list but got object at item 1"),
        ({"instances": [{"word": "a"}]}, "does not have named input: word"),
        ({"instances": [{}]}, "Failed to process element: 0 of 'instances' list. JSON object: {}"),
        ({"instances": [["a"], ["b", "c"]]}, "Expecting tensor size: 1 but got: 2"),
        ({"instances": [["a"], [["b"]]]}, "Expecting shape [1] but got: [1,1]"),
        ({"signature_name": 7, "inputs": []}, "'signature_name' key must be a string value."),
        ({}, "Missing 'inputs' or 'instances' key"),
    ],
)
def test_texts_that_the_server_refuses(body, message):
    """tensorflow_serving/util/json_tensor.cc"""
    with pytest.raises(StatusError) as refused:
        read(body, text="string")
    assert message in str(refused.value) and refused.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("dtype", "value", "message"),
    [
        ("float32", 2**24, "Cannot convert JSON value: 16777216 to float without loss"),
        ("float32", 1e39, "Cannot convert JSON value: 1e+39 to float without loss"),
        ("float32", True, "JSON Value: true Type: True is not of expected type: float"),
        ("int32", 1.0, "JSON Value: 1.0 Type: Number is not of expected type: int32"),
        ("int32", 2**31, "JSON Value: 2147483648 Type: Number is not"),
        ("int32", "1", 'JSON Value: "1" Type: String is not'),
        ("uint8", 2**31, "JSON Value: 2147483648 Type: Number is not"),
        ("bool", 1, "JSON Value: 1 Type: Number is not"),
    ],
)
def test_numbers_that_the_server_refuses(dtype, value, message):
    """`AddValueToTensor`, `IsLosslessDecimal` of tensorflow_serving/util/json_tensor.cc."""
    with pytest.raises(StatusError) as refused:
        read({"inputs": [value]}, x=dtype)
    assert message in str(refused.value)


def test_requests_by_row_and_by_column():
    """`FillPredictRequestFromJson` of tensorflow_serving/util/json_tensor.cc."""
    body = '{"inputs": {"x": [[1, 2.5], [NaN, -Infinity]], "n": [1, 255], "more": 3}}'
    signature, inputs, by_row = read(body, x="float32", n="uint8")
    assert signature == "serving_default" and not by_row and set(inputs) == {"x", "n"}
    np.testing.assert_array_equal(inputs["x"], np.float32([[1, 2.5], [np.nan, -np.inf]]))
    assert inputs["n"].dtype == np.uint8 and inputs["n"].tolist() == [1, 255]
    rows = [{"x": [1, 2], "s": "a"}, {"s": {"b64": "Yg=="}, "x": [3, 4]}]
    signature, inputs, by_row = read(
        {"signature_name": "other", "instances": rows}, x="int64", s="string"
    )
    assert signature == "other" and by_row
    assert inputs["x"].tolist() == [[1, 2], [3, 4]] and inputs["s"].tolist() == [b"a", b"b"]
    empty = read({"inputs": {"x": [], "s": [[]]}}, x="float32", s="string")[1]
    assert empty["x"].shape == (0,) and empty["s"].shape == (1, 0)


def test_responses_by_row_and_by_column():
    """`MakeJsonFromTensors`, `WriteDecimal` of tensorflow_serving/util/json_tensor.cc."""
    outputs = {
        "p": np.float32([[0.2, 1.0], [np.nan, 1e-7]]),
        "raw_bytes": np.array([b"a", b"\xff"]),
    }
    outputs["raw_bytes"] = outputs["raw_bytes"].astype(object)
    text = json.dumps(rest.to_response(outputs, by_row=False))
    assert text == (
        '{"outputs": {"p": [[0.200000003, 1.0], [NaN, 1.00000001e-07]], '
        '"raw_bytes": [{"b64": "YQ=="}, {"b64": "/w=="}]}}'
    )
    rows = rest.to_response(outputs, by_row=True)["predictions"]
    assert rows[0] == {"p": [0.200000003, 1.0], "raw_bytes": {"b64": "YQ=="}}
    single = {"n": np.array([[1], [2]])}
    assert rest.to_response(single, by_row=False) == {"outputs": [[1], [2]]}
    assert rest.to_response(single, by_row=True) == {"predictions": [[1], [2]]}
    with pytest.raises(StatusError, match="Tensor name: n has no shape information"):
        rest.to_response({"n": np.array(1)}, by_row=True)
    with pytest.raises(StatusError, match="inconsistent batch size"):
        rest.to_response({"n": np.zeros(1), "m": np.zeros(2)}, by_row=True)
