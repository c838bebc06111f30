"""The REST interface of TensorFlow Model Server, for its test double (`server.py`).

Paths follow tensorflow_serving/model_servers/http_rest_api_util.cc, the order of the checks
http_rest_api_handler.cc, and JSON tensorflow_serving/util/json_tensor.cc.
"""

import base64
import binascii
import http.server
import json
import math
import re
import urllib.parse

from tests.serving.config import HTTP_STATUS, StatusError, type_name

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow_serving.apis import get_model_metadata_pb2

MODEL = r"(?i:/v1/models{}(?:/versions/(\d+)|/labels/([^/:]+))?{})"
PREDICT = re.compile(MODEL.format("/([^/:]+)", ":(classify|regress|predict)"))
STATUS = re.compile(MODEL.format("(?:/([^/:]+))?", "(?:/(metadata))?"))
TYPES = {dict: "Object", list: "Array", str: "String", bool: "Bool", type(None): "Null"}


def invalid(message):
    return StatusError("INVALID_ARGUMENT", message)


# --- Requests -------------------------------------------------------------------------------------


def is_base64(value):
    return isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)


def type_error(value, dtype):
    kind = str(value) if isinstance(value, bool) else TYPES.get(type(value), "Number")
    text = json.dumps(value)
    return invalid(f"JSON Value: {text} Type: {kind} is not of expected type: {type_name(dtype)}")


def limits(dtype):
    """Return the smallest and the largest whole number that the server reads for a type."""
    if dtype.is_floating:
        exact = 2 ** (np.finfo(dtype.as_numpy_dtype).nmant + 1) - 1
        return -exact, exact
    # It reads every smaller whole number as int32.
    holder = np.int32 if dtype in (tf.int16, tf.int8, tf.uint8) else dtype.as_numpy_dtype
    return int(np.iinfo(holder).min), int(np.iinfo(holder).max)


def convert(value, dtype):
    """Convert one JSON value (`AddValueToTensor`)."""
    if dtype == tf.string:
        if isinstance(value, str):
            return value.encode()
        if not isinstance(value, dict):
            raise type_error(value, dtype)
        if not is_base64(value):
            text = json.dumps(value)
            raise invalid(f"JSON Value: {text} not formatted correctly for base64 data")
        try:
            return base64.b64decode(value["b64"], validate=True)
        except binascii.Error as error:
            raise invalid("Unable to base64 decode") from error
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if dtype.is_bool and isinstance(value, bool):
        return value
    if dtype.is_floating and number:
        # A whole number must have an exact value (`IsLosslessDecimal`).
        too_large = float(np.finfo(dtype.as_numpy_dtype).max) < abs(value) < math.inf
        if too_large or (isinstance(value, int) and abs(value) > limits(dtype)[1]):
            message = f"Cannot convert JSON value: {json.dumps(value)} to {type_name(dtype)} "
            raise invalid(message + "without loss of precision.")
        return value
    whole = dtype.is_integer and number and isinstance(value, int)
    if whole and limits(dtype)[0] <= value <= limits(dtype)[1]:
        return value
    raise type_error(value, dtype)


def leaves(value, dtype, shape, level=0):
    """Yield the values of nested lists, converted (`FillTensorProto`)."""
    if not isinstance(value, list):
        if level != len(shape):
            raise invalid(
                f"JSON Value: {json.dumps(value)} found at incorrect level: {level + 1} in the "
                f"JSON DOM. Expected at level: {len(shape)}"
            )
        yield convert(value, dtype)
        return
    if level >= len(shape):
        message = f"Encountered list at unexpected level: {level} expected < {len(shape)}"
        raise invalid(message)
    if len(value) != shape[level]:
        raise invalid(
            f"Encountered list at unexpected size: {len(value)} at level: {level} "
            f"expected size: {shape[level]}"
        )
    for item in value:
        yield from leaves(item, dtype, shape, level + 1)


def to_array(value, dtype):
    """Convert a JSON value to an array of a signature's type."""
    dtype = tf.as_dtype(dtype)
    shape, first = [], value
    while isinstance(first, list):  # `GetDenseTensorShape`
        shape.append(len(first))
        first = first[0] if first else None
    if dtype == tf.string:
        array = np.empty(int(np.prod(shape)), object)
        array[:] = list(leaves(value, dtype, shape))
        return array.reshape(shape)
    try:  # all numbers at once, since a clip has a million
        array = np.array(value)
        low, high = limits(dtype)
        are_numbers = array.dtype.kind in ("iuf" if dtype.is_floating else "iu")
        finite = array[np.isfinite(array)]
        if are_numbers and low <= np.min(finite, initial=0) and np.max(finite, initial=0) <= high:
            return array.astype(dtype.as_numpy_dtype)
    except (TypeError, ValueError):
        pass  # `leaves` finds what is wrong
    flat = np.fromiter(leaves(value, dtype, shape), float if dtype.is_floating else np.int64)
    return flat.astype(dtype.as_numpy_dtype).reshape(shape)


def from_instances(rows, wanted):
    """Convert rows to arrays (`FillTensorMapFromInstancesList`)."""
    if not isinstance(rows[0], dict) and len(wanted) > 1:
        raise invalid(
            "instances is a plain list, but expecting list of objects as multiple input tensors "
            "required as per tensorinfo_map"
        )
    are_objects = isinstance(rows[0], dict) and not is_base64(rows[0])
    columns = {name: [] for name in wanted}
    for number, row in enumerate(rows):
        if are_objects != (isinstance(row, dict) and not is_base64(row)):
            expected, found = ("object", "list") if are_objects else ("value/list", "object")
            message = f"Expecting {expected} but got {found} at item {number} of input list"
            raise invalid(message)
        for name, value in row.items() if are_objects else [(next(iter(wanted)), row)]:
            failed = f"Failed to process element: {number}" + f" key: {name}" * are_objects
            try:
                if name not in wanted:
                    raise invalid(f"JSON object: does not have named input: {name}")
                array = to_array(value, wanted[name].dtype)
                shape = columns[name][0].shape if columns[name] else array.shape
                if array.size != np.prod(shape, dtype=int):
                    size = np.prod(shape, dtype=int)
                    raise invalid(f"Expecting tensor size: {size} but got: {array.size}")
                if array.shape != shape:
                    expected, got = (
                        "[" + ",".join(map(str, s)) + "]" for s in (shape, array.shape)
                    )
                    raise invalid(f"Expecting shape {expected} but got: {got}")
            except StatusError as error:
                message = f"{failed} of 'instances' list. Error: {error.code}: {error}"
                raise invalid(message) from error
            columns[name].append(array)
        if are_objects and set(row) != set(wanted):
            raise invalid(
                f"Failed to process element: {number} of 'instances' list. JSON object: "
                f"{json.dumps(row)} keys must be equal to: {','.join(sorted(wanted))}"
            )
    return {name: np.stack(arrays) for name, arrays in columns.items()}


def from_inputs(values, wanted):
    """Convert columns to arrays (`FillTensorMapFromInputsMap`); other names are ignored."""
    if not isinstance(values, dict) or is_base64(values):
        if len(wanted) > 1:
            raise invalid(
                "inputs is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        values = {next(iter(wanted)): values}
    for name in wanted:
        if name not in values:
            raise invalid(f"Missing named input: {name} in 'inputs' object.")
    return {name: to_array(values[name], wanted[name].dtype) for name in wanted}


def read_request(body, inputs_of):
    """Return the signature's name, its inputs as arrays, and whether they came row by row.

    Args:
      body: of the request.
      inputs_of: returns the inputs of a signature, and fails if there is none; called after the
        JSON was parsed, as the server does.
    """
    try:
        request = json.loads(body)
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    text = json.dumps(request)
    if not isinstance(request, dict):
        raise invalid(f"JSON Value: {text} Is not object")
    signature = request.get("signature_name", "")
    if not isinstance(signature, str):
        raise invalid(
            f"JSON Value: {text} not formatted correctly. 'signature_name' key must be a string "
            "value."
        )
    signature = signature or "serving_default"
    wanted = inputs_of(signature)
    if "instances" not in request and "inputs" not in request:
        raise invalid("Missing 'inputs' or 'instances' key")
    by_row = "instances" in request
    if by_row and "inputs" in request:
        raise invalid(
            f"JSON Value: {text} Not formatted correctly expecting only one of 'inputs' or "
            "'instances' keys to exist "
        )
    if not by_row:
        return signature, from_inputs(request["inputs"], wanted), False
    if not isinstance(request["instances"], list):
        raise invalid(f"JSON Value: {text} Excepting 'instances' to be an list/array")
    if not request["instances"]:
        raise invalid(f"JSON Value: {text} No values in 'instances' array")
    return signature, from_instances(request["instances"], wanted), True


# --- Responses ------------------------------------------------------------------------------------


def to_json(array, name):
    """Convert an array to a JSON value; strings of an output `..._bytes` in base64."""
    if array.dtype == np.float32:  # written with the nine digits that restore it
        flat = [float(f"{value:.9g}") for value in array.ravel().tolist()]
    elif array.dtype == object:
        flat = [text(value, name) for value in array.ravel()]
    else:
        return array.tolist()
    nested = np.empty(len(flat), object)
    nested[:] = flat
    return nested.reshape(array.shape).tolist()


def text(value, name):
    if name.endswith("_bytes"):
        return {"b64": base64.b64encode(value).decode()}
    return value.decode()  # JSON holds UTF-8 only


def to_response(outputs, by_row):
    """Return the JSON response of `:predict` (`MakeJsonFromTensors`)."""
    if by_row:
        for name, array in outputs.items():
            if not array.ndim:
                raise invalid(f"Tensor name: {name} has no shape information ")
        if len({len(array) for array in outputs.values()}) > 1:
            sizes = {name: len(array) for name, array in outputs.items()}
            raise invalid(f"Tensor name: {name} has inconsistent batch size: {sizes}")
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
        self._respond(STATUS, self._describe)

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self._respond(PREDICT, lambda *address: self._predict(body, *address))

    def _respond(self, pattern, function):
        path = urllib.parse.urlsplit(self.path).path
        if not path.lower().startswith("/v1/"):  # no handler of the server
            self.send_error(404)
            return
        try:
            match = pattern.fullmatch(path)
            if not match:
                raise invalid(f"Malformed request: {self.command} {path}")
            name, number, label, verb = match.groups()
            if name is None:
                raise invalid("Missing model name in request.")
            if number and int(number) >= 2**63:
                raise invalid(f"Failed to convert version: {number} to numeric.")
            name, label = (part and urllib.parse.unquote(part) for part in (name, label))
            response = function(name, int(number) if number else None, label, verb and verb.lower())
            status = 200
        except StatusError as error:
            status, response = HTTP_STATUS[error.code], {"error": str(error)}
        content = json.dumps(response, ensure_ascii=False).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _describe(self, name, number, label, verb):
        """Return the status or the metadata of a model; the status ignores a label."""
        if verb is None:
            return json_format.MessageToDict(
                self.double.status(name, number),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        version = self.double.find(name, number, label)
        signatures = get_model_metadata_pb2.SignatureDefMap(signature_def=version.definitions)
        definitions = json_format.MessageToDict(signatures, preserving_proto_field_name=True)
        spec = {"name": name, "signature_name": "", "version": str(version.number)}
        return {"model_spec": spec, "metadata": {"signature_def": definitions}}

    def _predict(self, body, name, number, label, verb):
        if verb != "predict":
            raise StatusError("UNIMPLEMENTED", f"The double has no {verb}")

        def inputs_of(signature):
            """Find a signature as `GetInfoMap` does; over gRPC the error is another one."""
            definitions = self.double.find(name, number, label).signatures
            if signature not in definitions:
                message = f'Serving signature name: "{signature}" not found in signature def'
                raise invalid(message)
            return definitions[signature].inputs

        signature, inputs, by_row = read_request(body, inputs_of)
        version = self.double.find(name, number, label)
        return to_response(version.predict(signature, inputs), by_row)
