"""Published models, on disk or on a server, with one Protocol for both.

`Served` is what `evaluate`, `predict` and the page of `python -m tasks demo` use: `call` runs one
signature, `predict` runs any number of rows through it, in batches and in order. `load_export`
loads a SavedModel of this machine; `connect` finds a model on a running TF Serving. TensorFlow is
imported when it is first used, so that commands check their flags first.
"""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import http.client
import json
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from common.data import map_in_order
from common.errors import ExportError
from common.serving import versions
from common.serving.versions import GRAPH, Published
from common.start_up import start_tensorflow

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf
    from tensorflow.core.framework import types_pb2

Row = TypeVar("Row")
Arrays = dict[str, np.ndarray]

TIMEOUT = 120.0  # seconds that a server may take for one request, with all attempts
RETRIES = 3  # attempts after the first; safe, since a prediction changes nothing


class Served(Protocol):
    """A published model that can be called.

    Attributes:
      path: the version folder.
      settings: the settings that were published with it.
    """

    path: Path
    settings: Mapping[str, Any]

    def call(self, signature: str, /, **inputs: Any) -> Arrays:
        """Run one signature.

        Args:
          signature: its name, such as `serving_default`.
          **inputs: its inputs, with the batch first; converted to the signature's types.

        Returns:
          Its outputs; strings are `bytes` in an `object` array.

        Raises:
          ExportError: there is no such signature, it takes other inputs, or a server fails.
        """

    def predict(
        self,
        signature: str,
        rows: Iterable[Row],
        to_request: Callable[[Sequence[Row]], Mapping[str, Any]],
        *,
        batch_size: int,
        length_of: Callable[[Row], int] = len,  # type: ignore[assignment]  # rows are mostly sized
        window: int = 64,
        budget: int | None = None,
    ) -> Iterator[tuple[Row, dict[str, Any]]]:
        """Run any number of rows through a signature, in batches of similar length.

        A batch has no more rows than the export computes: `max_rows` of its settings.

        Args:
          signature: its name.
          rows: read lazily.
          to_request: the inputs of the signature for some rows.
          batch_size: rows in a request.
          length_of: the length by which rows are batched.
          window: batches that are read ahead and sorted by length; bounds the memory.
          budget: maximum number of rows of a batch times its longest length.

        Yields:
          Each row with its outputs, in the order of `rows`.
        """

        def run(batch: list[Row]) -> list[tuple[Row, dict[str, Any]]]:
            outputs = self.call(signature, **to_request(batch))
            return [
                (row, {name: value[place] for name, value in outputs.items()})
                for place, row in enumerate(batch)
            ]

        return map_in_order(
            run,
            rows,
            batch_size=min(batch_size, self.settings.get("max_rows", batch_size)),
            length_of=length_of,
            window=window,
            budget=budget,
        )


def text_request(texts: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the inputs of a signature that takes `text`.

    Example:
      >>> text_request(["A film."])
      {'text': array(['A film.'], dtype=object)}
    """
    return {"text": np.array(texts, dtype=object)}


# --- On this machine ------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class LocalExport(Served):
    """A SavedModel of this machine, as a server runs it: without a Keras model.

    Attributes:
      path: the version folder.
      settings: the settings that were published with it.
      functions: its signatures; see `call`.
    """

    path: Path
    settings: Mapping[str, Any]
    functions: Mapping[str, Any] = dataclasses.field(repr=False)

    def call(self, signature: str, /, **inputs: Any) -> Arrays:
        """Run one signature; see `Served.call`."""
        if signature not in self.functions:
            raise ExportError(f"{self.path} has no {signature!r}, only {sorted(self.functions)}")
        function = self.functions[signature]
        specs = function.structured_input_signature[1]
        _check_inputs(signature, inputs, specs)
        tensors = {name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()}
        return {name: value.numpy() for name, value in function(**tensors).items()}


def load_export(path: str | Path | None, task: str | None = None) -> LocalExport:
    """Load a published SavedModel.

    Args:
      path: a version folder, or the folder of a task's versions, of which the newest is loaded.
        None means `saved_models/<task>`.
      task: the task that the model must be of. None accepts any.

    Raises:
      FileNotFoundError: nothing was published there yet.
      ExportError: the folder is incomplete.
      InputError: the model is of another task.

    Example::

        load_export("saved_models/sentiment").settings["labels"]
    """
    return load_version(versions.find(path, task))


def load_version(published: Published) -> LocalExport:
    """Load the SavedModel of a version folder.

    Raises:
      ExportError: the folder holds none.
    """
    path = published.path
    if _kept is not None and path in _kept:
        return _kept[path]
    if not (path / GRAPH).is_file():
        raise ExportError(f"{path} is no export of this project: it lacks {GRAPH}")
    start_tensorflow()
    export = LocalExport(path, published.settings, tf.saved_model.load(str(path)).signatures)
    if _kept is not None:
        _kept[path] = export
    return export


_kept: dict[Path, LocalExport] | None = None


def keep_loaded() -> None:
    """Let `load_version` load each version once in this process, which will load it often."""
    global _kept
    _kept = {}


def _check_inputs(signature: str, inputs: Mapping[str, Any], expected: Mapping[str, Any]) -> None:
    if set(inputs) != set(expected):
        raise ExportError(f"{signature!r} takes {sorted(expected)}, not {sorted(inputs)}")


# --- On a server ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class RemoteExport(Served):
    """A model on a running TF Serving, called over REST.

    A server returns predictions but no settings (labels, rates, limits); these are read from the
    folder that it serves.

    Attributes:
      url: of the model, `http://host:8501/v1/models/<name>`.
      path: the version folder from which the settings come.
      settings: the settings that were published with it.
      signatures: name -> `inputs` and `outputs`, name -> type.
    """

    url: str
    path: Path
    settings: Mapping[str, Any]
    signatures: Mapping[str, Mapping[str, Mapping[str, tf.DType]]]

    def call(self, signature: str, /, **inputs: Any) -> Arrays:
        """Run one signature; see `Served.call`."""
        if signature not in self.signatures:
            raise ExportError(f"{self.url} has no {signature!r}, only {sorted(self.signatures)}")
        types = self.signatures[signature]
        _check_inputs(signature, inputs, types["inputs"])
        columns = {name: _to_json(inputs[name], kind) for name, kind in types["inputs"].items()}
        body = {"signature_name": signature, "inputs": columns}
        outputs = _fetch(f"{self.url}:predict", "outputs", body)["outputs"]
        if len(types["outputs"]) == 1:  # TF Serving does not name a single output
            outputs = dict.fromkeys(types["outputs"], outputs)
        return {name: _from_json(outputs[name], kind) for name, kind in types["outputs"].items()}


def connect(server: str, directory: Path) -> RemoteExport:
    """Find a model on a running TF Serving, by the name of the folder of its versions.

    Args:
      server: its REST address, such as `http://localhost:8501`.
      directory: the folder of versions that it serves. Only `assets.extra/config.json` of the
        version on the server is read.

    Raises:
      ExportError: the server does not respond, or has no such model; or the folder has no such
        version.

    Example::

        model = connect("http://localhost:8501", Path("saved_models/sentiment"))
        model.call("serving_default", text=["A warm and funny film."])["stars"]
    """
    start_tensorflow()
    url = f"{server.rstrip('/')}/v1/models/{directory.name}"
    response = _fetch(f"{url}/metadata", "metadata")
    version = response["model_spec"]["version"]
    path = directory / version
    if not path.is_dir():
        raise ExportError(
            f"{server} serves version {version} of {directory.name}, which is not in {directory}. "
            "Name the folder that the server serves."
        )
    definitions = response["metadata"]["signature_def"]["signature_def"]
    signatures = {
        name: {
            side: {
                key: tf.dtypes.as_dtype(types_pb2.DataType.Value(tensor["dtype"]))
                for key, tensor in definition[side].items()
            }
            for side in ("inputs", "outputs")
        }
        for name, definition in definitions.items()
        if not name.startswith("__")  # TensorFlow's own
    }
    return RemoteExport(url, path, versions.read_settings(path), signatures)


def _fetch(url: str, key: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the JSON response of an address, to a POST if there is a body.

    An attempt is repeated, after a growing pause, if the server cannot be reached, breaks the
    connection, or is overloaded: a run over a large file should survive that.

    Raises:
      ExportError: no attempt succeeded, or the response lacks `key`.
    """
    data = None if body is None else json.dumps(body).encode()
    deadline = time.monotonic() + TIMEOUT
    attempt = 0
    while True:
        try:
            seconds = max(deadline - time.monotonic(), 0.001)
            with urllib.request.urlopen(url, data, timeout=seconds) as response:
                content = json.load(response)
            if isinstance(content, dict) and key in content:
                return content
            raise ExportError(f"{url}: not a response of TF Serving, since it lacks {key!r}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            message, repeat = _explain(error)
        pause = 0.2 * 2**attempt * random.uniform(0.5, 1.0)
        if not repeat or attempt == RETRIES or time.monotonic() + pause > deadline:
            raise ExportError(f"{url}: {message}")
        time.sleep(pause)
        attempt += 1


def _explain(error: Exception) -> tuple[object, bool]:
    """Return the message of a failed attempt, and whether another one may succeed."""
    if isinstance(error, urllib.error.HTTPError):
        message = f"{error.code} {error.reason}"
        with error, contextlib.suppress(OSError, http.client.HTTPException, ValueError):
            content = json.load(error)  # a proxy's page is no JSON
            if isinstance(content, dict):
                message = content.get("error", message)
        return message, error.code in (502, 503, 504)
    reason = getattr(error, "reason", None) or error
    return reason, isinstance(reason, ConnectionError | http.client.HTTPException)


def _to_json(value: Any, kind: tf.DType) -> Any:
    """Return nested lists; text in base64, since it may be invalid UTF-8."""
    if kind.name != "string":
        return np.asarray(value).astype(kind.as_numpy_dtype).tolist()

    def encode(item: Any) -> Any:
        if isinstance(item, list):
            return [encode(one) for one in item]
        item = item if isinstance(item, bytes) else str(item).encode()
        return {"b64": base64.b64encode(item).decode()}

    return encode(np.asarray(value, object).tolist())


def _from_json(value: Any, kind: tf.DType) -> np.ndarray:
    """Return an array of nested lists; text as `bytes`."""
    if kind.name != "string":
        return np.array(value, kind.as_numpy_dtype)

    def decode(item: Any) -> Any:
        if isinstance(item, list):
            return [decode(one) for one in item]
        return base64.b64decode(item["b64"]) if isinstance(item, dict) else item.encode()

    return np.array(decode(value), object)
