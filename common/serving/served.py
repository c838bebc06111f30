"""Exports on disk and on a server."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from common.errors import ExportError

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

GRAPH = "saved_model.pb"


SETTINGS = Path("assets.extra", "config.json")


LITERT = "model.tflite"


@dataclasses.dataclass(frozen=True)
class Served:
    """A published model: the SavedModel itself, as a server runs it, without a Keras model.

    Attributes:
      path: the version folder.
      settings: what was published with it.
      functions: its signatures; `call` is the way to use them.
    """

    path: Path
    settings: Mapping[str, Any]
    functions: Mapping[str, Callable[..., Mapping[str, tf.Tensor]]] = dataclasses.field(repr=False)

    def call(self, signature: str, /, **inputs: Any) -> dict[str, np.ndarray]:
        """Asks one signature.

        Args:
          signature: its name, such as `serving_default`.
          **inputs: its inputs, with the batch first; converted to the signature's types.

        Returns:
          Its outputs; strings are `bytes` in an `object` array.

        Raises:
          ExportError: it has no such signature, or other inputs.

        Example:
          >>> served.call("serving_default", text=np.array(["A warm and funny film."]))["stars"]
          array([5], dtype=int32)
        """
        if signature not in self.functions:
            raise ExportError(f"{self.path} has no {signature!r}, only {sorted(self.functions)}")
        function = self.functions[signature]
        specs = function.structured_input_signature[1]
        if set(inputs) != set(specs):
            raise ExportError(f"{signature!r} takes {sorted(specs)}, not {sorted(inputs)}")
        tensors = {name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()}
        return {name: value.numpy() for name, value in function(**tensors).items()}


def load_export(path: Path) -> Served:
    """Loads a published model.

    Args:
      path: a version folder, or the folder of a task's versions, which gives the newest.

    Raises:
      FileNotFoundError: nothing was published there yet.
      ExportError: the folder is no whole export.

    Example:
      >>> load_export(Path("saved_models/sentiment")).settings["labels"]
      ['negative', 'positive']
    """
    looks_like_version = (
        path.name.isdigit() or (path / GRAPH).exists() or (path / SETTINGS).exists()
    )
    folder = path if path.is_dir() and looks_like_version else latest(path)
    for needed in (GRAPH, SETTINGS):
        if not (folder / needed).is_file():
            raise ExportError(f"{folder} is no export of this project: it lacks {needed}")
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    return Served(folder, settings, tf.saved_model.load(str(folder)).signatures)


def versions(directory: Path) -> list[int]:
    """Lists the published versions of a task, the oldest first; empty if there are none."""
    if not directory.is_dir():
        return []
    found = (path for path in directory.iterdir() if re.fullmatch("[0-9]+", path.name))
    return sorted(int(path.name) for path in found if path.is_dir())


def latest(directory: Path) -> Path:
    """Gives the folder of the newest version of a task.

    Raises:
      FileNotFoundError: there is none; the message says how to train one.
    """
    found = versions(directory)
    if not found:
        task, _, target = directory.name.partition("-")
        flag = f" --target {target}" if target else ""
        raise FileNotFoundError(
            f"{directory} holds no published model. Train one with "
            f"`python -m tasks.{task}.train --output {directory.parent}{flag}`"
        )
    return directory / str(found[-1])


TIMEOUT = 120.0  # seconds


@dataclasses.dataclass(frozen=True)
class Remote:
    """A model on a server; whatever takes an `Served` takes it.

    Attributes:
      url: of the model, `http://host:8501/v1/models/<name>`.
      path: the version folder from which the settings come.
      settings: what was published with it.
      signatures: name -> `inputs` and `outputs`, name -> type.
    """

    url: str
    path: Path
    settings: Mapping[str, Any]
    signatures: Mapping[str, Mapping[str, Mapping[str, tf.DType]]]

    def call(self, signature: str, /, **inputs: Any) -> dict[str, np.ndarray]:
        """Asks one signature; as `Served.call`.

        Raises:
          ExportError: there is no such signature, the server refuses, or does not answer.

        Example:
          >>> connect("http://localhost:8501", Path("saved_models/sentiment")).call(
          ...     "serving_default", text=np.array(["A warm and funny film."]))["stars"]
          array([5], dtype=int32)
        """
        if signature not in self.signatures:
            raise ExportError(f"{self.url} has no {signature!r}, only {sorted(self.signatures)}")
        types = self.signatures[signature]
        if set(inputs) != set(types["inputs"]):
            raise ExportError(
                f"{signature!r} takes {sorted(types['inputs'])}, not {sorted(inputs)}"
            )
        rows = {name: _to_json(inputs[name], kind) for name, kind in types["inputs"].items()}
        body = {"signature_name": signature, "inputs": rows}
        outputs = _call(f"{self.url}:predict", body)["outputs"]
        if len(types["outputs"]) == 1:  # which TF Serving does not name
            outputs = dict.fromkeys(types["outputs"], outputs)
        return {name: _from_json(outputs[name], kind) for name, kind in types["outputs"].items()}


def connect(server: str, directory: Path) -> Remote:
    """Finds the model that is named as the folder of its versions on a server.

    Args:
      server: its REST address, such as `http://localhost:8501`.
      directory: the folder of versions that it serves; `assets.extra/config.json` of the version on
        the server is read, and nothing else.

    Raises:
      ExportError: the server does not answer, or has no such model.
      FileNotFoundError: the folder has no such version.
    """
    url = f"{server.rstrip('/')}/v1/models/{directory.name}"
    metadata = _call(f"{url}/metadata")
    path = directory / metadata["model_spec"]["version"]
    settings = json.loads((path / SETTINGS).read_text(encoding="utf-8"))
    found = metadata["metadata"]["signature_def"]["signature_def"]
    signatures = {
        name: {
            side: {
                key: tf.dtypes.as_dtype(types_pb2.DataType.Value(tensor["dtype"]))
                for key, tensor in signature[side].items()
            }
            for side in ("inputs", "outputs")
        }
        for name, signature in found.items()
        if not name.startswith("__")  # TensorFlow's own
    }
    return Remote(url, path, settings, signatures)


def _call(url: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The JSON that an address answers with, to a POST if there is a body."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(url, data, timeout=TIMEOUT) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            said = error.read().decode("utf-8", "replace")
        try:
            said = json.loads(said)["error"]
        except (ValueError, KeyError, TypeError):  # a proxy's page, say
            said = f"{error.code} {error.reason}"
        raise ExportError(f"{url}: {said}") from None
    except (OSError, ValueError) as error:  # no server, a timeout, an answer that is no JSON
        raise ExportError(f"{url}: {getattr(error, 'reason', None) or error}") from None


def _to_json(value: Any, kind: tf.DType) -> Any:
    """Nested lists; text in base64, since it may be no UTF-8."""
    if kind != tf.string:
        return np.asarray(value).astype(kind.as_numpy_dtype).tolist()

    def encode(item: Any) -> Any:
        if isinstance(item, list):
            return [encode(one) for one in item]
        item = item if isinstance(item, bytes) else str(item).encode()
        return {"b64": base64.b64encode(item).decode()}

    return encode(np.asarray(value, object).tolist())


def _from_json(value: Any, kind: tf.DType) -> np.ndarray:
    """Nested lists as an array; text as `bytes`, as `Served.call` gives it."""
    if kind != tf.string:
        return np.array(value, kind.as_numpy_dtype)

    def decode(item: Any) -> Any:
        if isinstance(item, list):
            return [decode(one) for one in item]
        return base64.b64decode(item["b64"]) if isinstance(item, dict) else item.encode()

    return np.array(decode(value), object)
