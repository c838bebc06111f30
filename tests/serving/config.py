"""Statuses and configuration files of TensorFlow Model Server, for its test double (`server.py`).

Comments name the files of github.com/tensorflow/serving and github.com/tensorflow/tensorflow that
the double follows.
"""

import functools

from google.protobuf import (
    descriptor_pb2,
    descriptor_pool,
    message_factory,
    text_format,
    wrappers_pb2,
)

# `ToHTTPStatusCode` of tensorflow_serving/model_servers/http_server.cc.
HTTP_STATUS = {
    "CANCELLED": 499,
    "UNKNOWN": 500,
    "INVALID_ARGUMENT": 400,
    "DEADLINE_EXCEEDED": 504,
    "NOT_FOUND": 404,
    "ALREADY_EXISTS": 409,
    "PERMISSION_DENIED": 403,
    "RESOURCE_EXHAUSTED": 429,
    "FAILED_PRECONDITION": 400,
    "ABORTED": 409,
    "OUT_OF_RANGE": 400,
    "UNIMPLEMENTED": 501,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DATA_LOSS": 500,
    "UNAUTHENTICATED": 401,
}


class StatusError(Exception):
    """A status that is not OK: the name of its code, and a message."""

    def __init__(self, code, message):
        super().__init__(message)
        self.code = code


def type_name(dtype):
    """Return the name of a type in the server's messages (`DataTypeString`)."""
    return {"float16": "half", "float32": "float", "float64": "double"}.get(dtype.name, dtype.name)


INTEGER, BOOLEAN, STRING = (f".google.protobuf.{kind}Value" for kind in ("Int64", "Bool", "String"))
# The wrappers of a field, `bool`, `str`, or a list of one type for a repeated field. Numbers of
# fields are missing, since the server reads these messages as text.
FIELDS = {
    # tensorflow_serving/servables/tensorflow/session_bundle_config.proto, and the two last fields
    # as bundle_factory_util.h reads them. The priorities of TensorFlow's `BatchFunction` are
    # attributes of that op; the server reads none of them from this file.
    "BatchingParameters": {
        "max_batch_size": INTEGER,
        "batch_timeout_micros": INTEGER,
        "max_enqueued_batches": INTEGER,
        "num_batch_threads": INTEGER,
        "thread_pool_name": STRING,
        "allowed_batch_sizes": [int],
        "pad_variable_length_inputs": bool,
        "enable_large_batch_splitting": BOOLEAN,
        "max_execution_batch_size": INTEGER,
    },
    # tensorflow_serving/config/monitoring_config.proto
    "PrometheusConfig": {"enable": bool, "path": str},
    "MonitoringConfig": {"prometheus_config": ".tensorflow.serving.PrometheusConfig"},
}


@functools.cache
def messages():
    """Return the server's message classes that `tensorflow-serving-api` lacks, by name."""
    file = descriptor_pb2.FileDescriptorProto(
        name="server_configuration.proto", package="tensorflow.serving", syntax="proto3"
    )
    file.dependency.append(wrappers_pb2.DESCRIPTOR.name)
    kinds = descriptor_pb2.FieldDescriptorProto
    types = {bool: kinds.TYPE_BOOL, str: kinds.TYPE_STRING, int: kinds.TYPE_INT64}
    for message, fields in FIELDS.items():
        added = file.message_type.add(name=message)
        for number, (name, kind) in enumerate(fields.items(), 1):
            field = added.field.add(name=name, number=number, label=kinds.LABEL_OPTIONAL)
            if isinstance(kind, list):
                field.label, (kind,) = kinds.LABEL_REPEATED, kind
            if isinstance(kind, str):
                field.type, field.type_name = kinds.TYPE_MESSAGE, kind
            else:
                field.type = types[kind]
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(wrappers_pb2.DESCRIPTOR.serialized_pb)
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(
            pool.FindMessageTypeByName(f"tensorflow.serving.{name}")
        )
        for name in FIELDS
    }


def read_text(path, message):
    """Parse a file in the text form of a message.

    Raises:
      StatusError: it is no such message, or has an unknown field.
    """
    try:
        return text_format.Parse(path.read_text(encoding="utf-8"), message)
    except text_format.ParseError as error:
        # `ParseProtoTextFile` of tensorflow_serving/util/proto_util.cc; the server logs the rest.
        message = f"Invalid protobuf file: '{path}': {error}"
        raise StatusError("INVALID_ARGUMENT", message) from error


def read_batching(path):
    """Read a file of `BatchingParameters`."""
    return read_text(path, messages()["BatchingParameters"]())
