"""Asks a model on a running TF Serving, over REST, in the words of `common.export.Served`.

    http://host:8501/v1/models/<task>:predict

A server gives answers but not the settings (labels, rates, limits) that were exported beside them;
these are read from the folder that it serves.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import urllib.error
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from common import export
from common.export import ExportError

import numpy as np
import tensorflow as tf
from tensorflow.core.framework import types_pb2

TIMEOUT = 120.0  # seconds


@dataclasses.dataclass(frozen=True)
class Remote:
    """A model on a server; whatever takes an `export.Served` takes it.

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

    def ask(self, signature: str, /, **inputs: Any) -> dict[str, np.ndarray]:
        """Asks one signature; as `export.Served.ask`.

        Raises:
          ExportError: there is no such signature, the server refuses, or does not answer.

        Example:
          >>> connect("http://localhost:8501", Path("saved_models/sentiment")).ask(
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
    settings = json.loads((path / export.SETTINGS).read_text(encoding="utf-8"))
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
    """Nested lists as an array; text as `bytes`, as `export.Served.ask` gives it."""
    if kind != tf.string:
        return np.array(value, kind.as_numpy_dtype)

    def decode(item: Any) -> Any:
        if isinstance(item, list):
            return [decode(one) for one in item]
        return base64.b64decode(item["b64"]) if isinstance(item, dict) else item.encode()

    return np.array(decode(value), object)
