"""Publishes a model as a TF Serving version folder, or not at all.

`publish` traces the signatures, saves them, looks through the graph for what a server cannot run,
records the warm-up requests, asks them again in a process that has neither Keras nor this project
(`common/serving/check.py`), lets the task score the export, and only then gives it a version
number and a place in TF Serving's list of models. `load` is how `evaluate` and `predict` ask a
published model.

A version folder holds `saved_model.pb`, `variables/`, `assets/` (vocabularies), `model.keras` (for
notebooks and fine-tuning), `assets.extra/config.json` (the settings) and
`assets.extra/tf_serving_warmup_requests` (which TF Serving runs before it takes traffic).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import rnn_kernels
from common.errors import ExportError
from common.files import write_atomically
from common.serving.scan import scan
from common.serving.served import LITERT, SETTINGS, latest, versions
from common.serving.targets import PORTABLE, Target

import keras
import numpy as np
import tensorflow as tf
from google.protobuf import text_format
from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2
from tensorflow_serving.config import model_server_config_pb2

Function = tf.types.experimental.PolymorphicFunction
Example = Mapping[str, np.ndarray]

WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")
REQUIRED = ("serving_default", "tensors")
CHECK = Path(__file__).with_name("check.py")


# --- Publishing ----------------------------------------------------------------------------------


def publish(
    signatures: Mapping[str, Function],
    *,
    model: keras.Model,
    resources: Sequence[Any],
    examples: Mapping[str, Sequence[Example]],
    settings: Mapping[str, Any],
    directory: Path,
    target: Target = PORTABLE,
    finish: Callable[[Path], None] | None = None,
    tolerance: float = 1e-5,
) -> Path:
    """Writes, verifies and publishes the next version of a model.

    The folder is written under a name that is no integer, so TF Serving never sees half a model,
    and renamed at the end. If anything goes wrong on the way, nothing is left behind; what a
    killed process left is removed by the next call on the same host.

    Args:
      signatures: name -> `tf.function` with an `input_signature` of named `tf.TensorSpec`s, each
        with the batch as first dimension, that returns a dict of tensors, likewise. Must hold
        `serving_default` and `tensors`. They are traced anew here, with compiled loops off, and
        with cuDNN off for every target but `gpu`.
      model: what the functions ask; also written as `model.keras`, without optimizer and compile
        settings.
      resources: what the functions use beside the model and constants: tables, vocabularies,
        `tf.Module`s.
      examples: the requests for each signature, input name -> array; text as `str`, `bytes` or
        `object` arrays. They verify the export and warm the server up, so give one for every
        bucket length.
      settings: what `evaluate`, `predict` and users need to know; anything JSON can hold.
      directory: folder of the task's versions, such as `saved_models/sentiment`. Its name is the
        model's name in the warm-up requests.
      target: what the signatures were made for.
      finish: called with the staged and verified folder, which `load` opens. Scores the export and
        writes its model card. An exception stops the publication.
      tolerance: largest difference of a float from the live model's answer, relative to the largest
        value of its tensor. Text and whole numbers must be equal.

    Returns:
      The version folder, `directory/<n>`, n one more than the largest there.

    Raises:
      ExportError: the export would not serve, or answers otherwise than the live model.
      ValueError, TypeError: the settings cannot be written as JSON.
      OSError: the disk is full, or the folder cannot be written.

    Example:
      >>> publish({"serving_default": ask_text, "tensors": ask_ids}, model=model,
      ...         resources=[vocabulary], settings={"labels": ["bad", "good"]},
      ...         examples={"serving_default": [{"text": np.array(["A film."])}],
      ...                   "tensors": [{"ids": ids, "length": length}]},
      ...         directory=Path("saved_models/sentiment"))
      PosixPath('saved_models/sentiment/1')
    """
    _require(signatures, examples)

    def write(staged: Path) -> None:
        _save_keras(model, staged / "model.keras")
        layers = [] if target.name == "gpu" else [model, *resources]
        with disable_cudnn(*layers), rnn_kernels.portable():
            live = _save_graph(signatures, model, resources, target, staged)
            scan(staged, target)
            _record(live, examples, model_name=directory.name, path=staged / WARM_UP)
        verify(staged, tolerance, target)
        if finish is not None:
            finish(staged)

    return publish_folder(write, settings=settings, directory=directory)


def publish_folder(
    write: Callable[[Path], None], *, settings: Mapping[str, Any], directory: Path
) -> Path:
    """Publishes the next version as `publish` does, whatever is in it.

    Args:
      write: fills a staged folder, in which there are the settings already. An exception stops the
        publication.
      settings: see `publish`.
      directory: see `publish`.

    Returns:
      The version folder, `directory/<n>`.
    """
    written_settings = json.dumps(settings, indent=2, ensure_ascii=False, allow_nan=False)
    directory.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(directory)
    staged = directory / f".staging-{os.getpid()}-{socket.gethostname()}-{secrets.token_hex(4)}"
    try:
        (staged / SETTINGS).parent.mkdir(parents=True)
        (staged / SETTINGS).write_text(written_settings + "\n", encoding="utf-8")
        write(staged)
        _write_through(staged)
        version = _take_next_version(staged, directory)
    finally:
        shutil.rmtree(staged, ignore_errors=True)  # after the rename there is nothing there
    write_models_config(directory.parent)
    return version


def write_models_config(root: Path) -> Path:
    """Writes TF Serving's list of the models below a folder: those of which there is a version.

    A server opens no port while a listed model has none, so the list names no other. The folders
    stand in it as the server sees them when `root` is mounted as `/models`. What the file says of a
    model already is kept: its version policy and labels are a person's choice.

    Args:
      root: the folder of the tasks' folders, such as `saved_models`.

    Returns:
      `root/models.config`, replaced whole.

    Raises:
      ExportError: the file that is there is no list of models.
    """
    path = root / "models.config"
    before = model_server_config_pb2.ModelServerConfig()
    try:
        text_format.Parse(path.read_text(encoding="utf-8"), before)
    except FileNotFoundError:
        pass
    except (text_format.ParseError, UnicodeDecodeError) as error:
        raise ExportError(f"{path}: {error}; mend the file or delete it") from error
    written = {entry.name: entry for entry in before.model_config_list.config}
    config = model_server_config_pb2.ModelServerConfig()
    config.model_config_list.SetInParent()
    for directory in sorted(path for path in root.iterdir() if versions(path)):
        if (latest(directory) / LITERT).exists():
            continue  # for small devices, not for servers
        new = model_server_config_pb2.ModelConfig(
            name=directory.name,
            base_path=f"/models/{directory.name}",
            model_platform="tensorflow",
        )
        config.model_config_list.config.append(written.get(directory.name, new))
    write_atomically(path, text_format.MessageToString(config).encode())
    return path


@contextlib.contextmanager
def disable_cudnn(*owners: Any) -> Iterator[None]:
    """Makes what is traced inside run on any device; puts the layers back as they were.

    Keras chooses cuDNN while it traces, by asking whether this host has a GPU.

    Args:
      *owners: models and layers, looked through to the innermost (both halves of a
        `Bidirectional`, models in models). Anything else is passed over.

    Example:
      >>> with disable_cudnn(model):
      ...     concrete = function.get_concrete_function()
    """
    before = {
        layer: layer.use_cudnn
        for owner in owners
        if isinstance(owner, keras.Layer)
        for layer in owner._flatten_layers()
        if hasattr(layer, "use_cudnn")
    }
    try:
        for layer in before:
            layer.use_cudnn = False
        yield
    finally:
        for layer, use_cudnn in before.items():
            layer.use_cudnn = use_cudnn


def verify(staged: Path, tolerance: float = 1e-5, target: Target = PORTABLE) -> dict[str, Any]:
    """Asks an export its warm-up requests in a new process, without Keras and this project.

    Both `tf.saved_model.load` and TensorFlow's C++ loader must give the recorded answers; see
    `common/serving/check.py`.

    Args:
      staged: folder with `saved_model.pb` and the warm-up requests.
      tolerance: as for `publish`.
      target: what it was made for; one for GPUs is asked on a GPU.

    Returns:
      `requests`, the number for each signature, and `largest_difference` for each loader.

    Raises:
      ExportError: with the first difference, or the reason why it does not load.
    """
    command = [sys.executable, "-P", CHECK, staged.resolve(), "--tolerance", str(tolerance)]
    if target.name == "gpu":
        command.append("--gpu")
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    try:
        facts = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):  # it did not come as far as to say why
        facts = {"error": f"exit code {done.returncode}: {done.stderr.strip()[-2000:]}"}
    if "error" in facts:
        raise ExportError(f"{staged}: verification failed: {facts['error']}")
    return facts


# --- Asking what was published -------------------------------------------------------------------


# --- The steps of `publish` ----------------------------------------------------------------------


def _require(signatures: Mapping[str, Function], examples: Mapping[str, Sequence[Example]]) -> None:
    """Refuses what cannot be exported whatever the model, before anything is traced."""
    for name in REQUIRED:
        if name not in signatures:
            raise ExportError(f"signature {name!r} is missing")
    for name, function in signatures.items():
        specs = function.input_signature
        if specs is None or not all(isinstance(s, tf.TensorSpec) and s.name for s in specs):
            raise ExportError(f"signature {name!r} needs an input_signature of named TensorSpecs")
        if not examples.get(name):
            raise ExportError(f"signature {name!r} needs an example request to be verified with")
        names = sorted(spec.name for spec in specs)
        for example in examples[name]:
            if sorted(example) != names:
                raise ExportError(f"signature {name!r} takes {names}, an example {sorted(example)}")
    if strangers := sorted(set(examples) - set(signatures)):
        raise ExportError(f"examples for {strangers}, which are no signatures")


def _save_keras(model: keras.Model, path: Path) -> None:
    """Saves architecture and weights; the optimizer's state would triple the size."""
    optimizer, compiled = getattr(model, "optimizer", None), model.compiled
    model.optimizer, model.compiled = None, False
    try:
        model.save(path)
    finally:
        model.optimizer, model.compiled = optimizer, compiled


def _save_graph(
    signatures: Mapping[str, Function],
    model: keras.Model,
    resources: Sequence[Any],
    target: Target,
    path: Path,
) -> Mapping[str, Any]:
    """Traces the signatures and writes the SavedModel; gives the traced functions."""
    live = {}
    for name, function in signatures.items():
        # A new function, since the old one may have been traced before, with cuDNN or XLA.
        renewed = tf.function(function.python_function, input_signature=function.input_signature)
        live[name] = renewed.get_concrete_function()
        if not isinstance(live[name].structured_outputs, Mapping):
            raise ExportError(f"signature {name!r} must return a dict, which names its outputs")
    holder = tf.Module()
    # Not the model, which would bring its optimizer along; and not Keras's variables but
    # TensorFlow's inside them: with the former the C++ loader restores nothing.
    holder.weights = [variable.value for variable in model.variables]
    holder.resources = list(resources)
    holder.cores = target.cores  # so that whoever loads it can ask, compile and lower each alone
    options = tf.saved_model.SaveOptions(function_aliases=target.cores)
    try:
        with _full_disk_as_os_error(path):
            tf.saved_model.save(holder, str(path), signatures=live, options=options)
    except AssertionError as error:
        if "untracked" not in str(error):
            raise
        raise ExportError(
            f"a signature uses a table or variable that is neither the model's nor in `resources`: "
            f"{error}"
        ) from error
    return live


def _record(
    live: Mapping[str, Any],
    examples: Mapping[str, Sequence[Example]],
    *,
    model_name: str,
    path: Path,
) -> None:
    """Asks the traced functions every example, and writes requests and answers as TF Serving's."""
    records = []
    for name, function in live.items():
        specs = function.structured_input_signature[0]
        for example in examples[name]:
            inputs = {spec.name: tf.constant(example[spec.name], spec.dtype) for spec in specs}
            log = prediction_log_pb2.PredictLog(
                request=predict_pb2.PredictRequest(
                    model_spec=model_pb2.ModelSpec(name=model_name, signature_name=name),
                    inputs=_protos(inputs),
                ),
                response=predict_pb2.PredictResponse(outputs=_protos(function(*inputs.values()))),
            )
            records.append(prediction_log_pb2.PredictionLog(predict_log=log).SerializeToString())
    with _full_disk_as_os_error(path), tf.io.TFRecordWriter(str(path)) as writer:
        for record in records:
            writer.write(record)


@contextlib.contextmanager
def _full_disk_as_os_error(path: Path) -> Iterator[None]:
    """Turns what TensorFlow's writers raise on a full disk into what Python's raise."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _protos(tensors: Mapping[str, tf.Tensor]) -> dict[str, Any]:
    return {
        name: tf.make_tensor_proto(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape)
        for name, tensor in tensors.items()
    }


def _remove_abandoned(directory: Path) -> None:
    """Removes what processes of this host left when they were killed."""
    pattern = re.compile(rf"\.staging-(\d+)-{re.escape(socket.gethostname())}-[0-9a-f]+")
    for path in directory.iterdir():
        match = pattern.fullmatch(path.name)
        if match and not _is_alive(int(match[1])):
            shutil.rmtree(path, ignore_errors=True)


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # signal 0 only asks
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        pass
    return True


def _write_through(directory: Path) -> None:
    """Waits until the disk has it all, so that a power cut cannot leave an empty version."""
    for path in (directory, *directory.rglob("*")):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _take_next_version(staged: Path, directory: Path) -> Path:
    """Renames the staged folder to the next number that nobody else has taken."""
    number = max(versions(directory), default=0) + 1
    while True:
        target = directory / str(number)
        try:
            os.rename(staged, target)
        except OSError:
            if not target.exists():
                raise
            number += 1  # another process was first
        else:
            return target
