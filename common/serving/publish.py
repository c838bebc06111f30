"""Publish a model as a TF Serving version folder, or not at all.

`publish` traces the signatures, saves them, scans the graph for what a server cannot run, removes
from it what nothing reads, and records the warm-up requests with the outputs of the live model. A
process without Keras and without this project (`common/serving/check.py`) then runs these requests,
compares its outputs with the recorded ones, and records its own. The task scores the export. Only
then does the export get a version number and a place in TF Serving's list of models.

A version folder holds `saved_model.pb`, `variables/`, `assets/` (vocabularies),
`assets.extra/config.json` (the settings), `assets.extra/architecture.json` (the Keras layers, for
notebooks and fine-tuning) and `assets.extra/tf_serving_warmup_requests` (which TF Serving runs
before it accepts traffic).
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import ExportError
from common.files import make_public, make_public_folder, remove_abandoned, unique_path
from common.serving.compact import compact
from common.serving.models_config import list_version
from common.serving.scan import scan
from common.serving.targets import PORTABLE, Example, Function, Target
from common.serving.versions import ARCHITECTURE, SETTINGS, versions
from common.serving.weights import from_halves, reading, round_weights, stored

from etils import epy

with epy.lazy_imports():
    from common import rnn_kernels

    import keras
    import tensorflow as tf
    from tensorflow_serving.apis import model_pb2, predict_pb2, prediction_log_pb2

WARM_UP = Path("assets.extra", "tf_serving_warmup_requests")
REQUIRED = ("serving_default", "tensors")
CHECK = Path(__file__).with_name("check.py")
STAGING = ".staging"  # prefix of a folder that is no version yet

# Floats of a live model on a GPU or TPU may differ by this much from those of the CPU, relative to
# the largest value of their tensor: sums of another order, and products of 8 bits in bfloat16.
DEVICE_TOLERANCE = {"float32": 1e-2, "bfloat16": 1e-1}

# The time limit of the verification: far above any export's need on a busy machine.
CHECK_SECONDS = 600.0
CHECK_SECONDS_PER_REQUEST = 60.0


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
    """Write, verify and publish the next version of a model.

    The folder is written under a name that is no integer, so that TF Serving never sees half a
    model, and renamed at the end. If anything fails, nothing is left. Files of a killed process are
    removed by the next call on the same host.

    Args:
      signatures: name -> `tf.function` with an `input_signature` of named `tf.TensorSpec`s, which
        returns a dict of tensors; all with the batch as first dimension. `serving_default` and
        `tensors` are required. They are traced anew here, with compiled loops off, and with cuDNN
        off for every target but `gpu`.
      model: the model that the functions call. Its layers are written, too, so that
        `common.serving.versions.find(...).model` makes it again from the weights of the SavedModel.
        Large weights are stored in 16 bits, and rounded in the model, too.
      resources: other objects that the functions use: tables, vocabularies, `tf.Module`s.
      examples: the requests for each signature, input name -> array; text as `str`, `bytes` or
        `object` arrays. They verify the export and warm a server up, so there should be one for
        every bucket length.
      settings: settings for `evaluate`, `predict` and users; anything that JSON can hold.
      directory: folder of the task's versions, such as `saved_models/sentiment`. Its name is the
        model's name in the warm-up requests.
      target: the target for which the signatures were made.
      finish: called with the staged and verified folder, to score it and to write its model card.
        An exception stops the publication.
      tolerance: largest difference of a float from the live model's output, relative to the largest
        value of its tensor. Text and whole numbers must be equal. A live model on a GPU or TPU is
        compared with `DEVICE_TOLERANCE`, and a few rows may have other text or whole numbers; see
        `common/serving/check.py`.

    Returns:
      The version folder, `directory/<n>`, where n is one more than the largest there.

    Raises:
      ExportError: a server could not run the export, or its outputs differ from the live model's.
      ValueError, TypeError: the settings cannot be written as JSON.
      OSError: the disk is full, or the folder cannot be written.

    Example::

        publish(
            {"serving_default": classify_text, "tensors": classify_ids},
            model=model,
            resources=[vocabulary],
            settings={"labels": ["bad", "good"]},
            examples={
                "serving_default": [{"text": np.array(["A film."])}],
                "tensors": [{"ids": ids, "length": length}],
            },
            directory=Path("saved_models/sentiment"),
        )
    """
    _require(signatures, examples)

    def write(staged: Path) -> None:
        (staged / ARCHITECTURE).write_text(architecture(model), encoding="utf-8")
        layers = [] if target.name == "gpu" else [model, *resources]
        with disable_cudnn(*layers), rnn_kernels.portable():
            live = _save_graph(signatures, model, resources, target, staged)
            scan(staged, target)
            compact(staged)
            with without_tf32():
                _record(live, examples, model_name=directory.name, path=staged / WARM_UP)
        requests = sum(map(len, examples.values()))
        seconds = CHECK_SECONDS + CHECK_SECONDS_PER_REQUEST * requests
        verify(staged, tolerance, target, seconds, _live_tolerance(model, tolerance))
        if finish is not None:
            finish(staged)

    return publish_folder(write, settings=settings, directory=directory)


def publish_folder(
    write: Callable[[Path], None], *, settings: Mapping[str, Any], directory: Path
) -> Path:
    """Publish the next version with any content.

    Args:
      write: fills a staged folder, which holds the settings already. An exception stops the
        publication.
      settings: see `publish`.
      directory: see `publish`.

    Returns:
      The version folder, `directory/<n>`.
    """
    written_settings = json.dumps(settings, indent=2, ensure_ascii=False, allow_nan=False)
    make_public_folder(directory)
    remove_abandoned(directory, STAGING)
    staged = unique_path(directory, STAGING)
    with _exit_at_sigterm():
        try:
            (staged / SETTINGS).parent.mkdir(parents=True)
            (staged / SETTINGS).write_text(written_settings + "\n", encoding="utf-8")
            write(staged)
            _write_through(staged)
            version = _take_next_version(staged, directory)
        finally:
            shutil.rmtree(staged, ignore_errors=True)  # gone already after the rename
    list_version(version)
    return version


@contextlib.contextmanager
def disable_cudnn(*owners: Any) -> Iterator[None]:
    """Trace the functions of the block for any device; then restore the layers.

    Keras selects cuDNN while it traces, if this host has a GPU.

    Args:
      *owners: models and layers; nested ones are included (both halves of a `Bidirectional`, models
        in models). Other objects are ignored.

    Example::

        with disable_cudnn(model):
            concrete = function.get_concrete_function()
    """
    before = {
        layer: layer.use_cudnn for layer in _nested_layers(*owners) if hasattr(layer, "use_cudnn")
    }
    try:
        for layer in before:
            layer.use_cudnn = False
        yield
    finally:
        for layer, use_cudnn in before.items():
            layer.use_cudnn = use_cudnn


def _nested_layers(*owners: Any) -> list[keras.Layer]:
    """Return the layers among the owners and all layers in their attributes, lists and dicts."""
    visited: dict[int, Any] = {}
    pending = [owner for owner in owners if isinstance(owner, keras.Layer)]
    while pending:
        value = pending.pop()
        if id(value) in visited:
            continue
        if isinstance(value, keras.Layer):
            pending.extend(vars(value).values())
        elif isinstance(value, Mapping):
            pending.extend(value.values())
        elif isinstance(value, list | tuple | set):
            pending.extend(value)
        else:
            continue
        visited[id(value)] = value
    return [value for value in visited.values() if isinstance(value, keras.Layer)]


def verify(
    staged: Path,
    tolerance: float = 1e-5,
    target: Target = PORTABLE,
    seconds: float = CHECK_SECONDS,
    live: float | None = None,
) -> dict[str, Any]:
    """Run the warm-up requests of an export in a new process, without Keras and this project.

    Both `tf.saved_model.load` and the C++ loader of TensorFlow must return the recorded outputs;
    see `common/serving/check.py`.

    Args:
      staged: folder with `saved_model.pb` and the warm-up requests.
      tolerance: as for `publish`.
      target: the target of the export; one for GPUs runs on a GPU.
      seconds: the time limit.
      live: tolerance of the recorded outputs if they are the live model's. Then those of
        `tf.saved_model.load` replace them, and the C++ loader must return these. None: nothing is
        written.

    Returns:
      `requests`, the number for each signature, and `largest_difference` for each loader.

    Raises:
      ExportError: with the first difference, the reason why it does not load, or the requests that
        ran at the time limit.
    """
    command = [sys.executable, "-P", str(CHECK), str(staged.resolve())]
    command += ["--tolerance", str(tolerance)]
    if live is not None:
        command += ["--live", str(live)]
    if target.name == "gpu":
        command.append("--gpu")
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise ExportError(
            f"{staged}: verification stopped after {seconds:.0f} s in {_unfinished(error.stderr)}"
        ) from error
    try:
        facts = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):  # it ended before it printed a reason
        facts = {"error": f"exit code {done.returncode}: {done.stderr.strip()[-2000:]}"}
    if "error" in facts:
        raise ExportError(f"{staged}: verification failed: {facts['error']}")
    return facts


def _unfinished(progress: bytes | None) -> str:
    """Return what each loader did last, from the lines of `check.py`, unless it ended."""
    lines = (progress or b"").decode(errors="replace").splitlines()
    last = {line.split(",")[0]: line for line in lines if " loader, " in line}
    return "; ".join(line for line in last.values() if not line.endswith(", end")) or "its start"


# --- The steps of `publish` ----------------------------------------------------------------------


def _require(signatures: Mapping[str, Function], examples: Mapping[str, Sequence[Example]]) -> None:
    """Refuse signatures and examples that cannot be exported, before anything is traced."""
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
    if unknown := sorted(set(examples) - set(signatures)):
        raise ExportError(f"examples for {unknown}, which are no signatures")


def architecture(model: keras.Model) -> str:
    """Return the layers of a model as JSON; the weights are those of the SavedModel."""
    config = keras.saving.serialize_keras_object(model)
    config.pop("compile_config", None)
    return json.dumps(config)


def _save_graph(
    signatures: Mapping[str, Function],
    model: keras.Model,
    resources: Sequence[Any],
    target: Target,
    path: Path,
) -> Mapping[str, Any]:
    """Trace the signatures and write the SavedModel; return the traced functions."""
    # The compiler of a TPU takes weights as they are; there `--precision bfloat16` halves them.
    halves = () if target.name == "tpu" else round_weights(model)
    live = {}
    with reading(halves):
        for name, function in signatures.items():
            # The function may have been traced before, with cuDNN or XLA.
            run = from_halves(function.python_function)
            renewed = tf.function(run, input_signature=function.input_signature)
            live[name] = renewed.get_concrete_function()
            if not isinstance(live[name].structured_outputs, Mapping):
                raise ExportError(f"signature {name!r} must return a dict, which names its outputs")
    holder = tf.Module()
    # Not the model, which would include its optimizer. The variables of TensorFlow inside those of
    # Keras, since the C++ loader does not restore the latter.
    holder.weights = stored(model, halves)
    holder.resources = list(resources)
    holder.cores = target.cores  # so that each can be called, compiled and lowered alone
    options = tf.saved_model.SaveOptions(function_aliases=target.cores)
    try:
        with _full_disk_as_os_error(path):
            tf.saved_model.save(holder, str(path), signatures=live, options=options)
        _require_no_optimizer(path)
    except AssertionError as error:
        if "untracked" not in str(error):
            raise
        raise ExportError(
            f"a signature uses a table or variable that is neither the model's nor in `resources`: "
            f"{error}"
        ) from error
    return live


def _require_no_optimizer(path: Path) -> None:
    """Refuse an export that holds a whole model: a resource has one as an attribute."""
    reader = tf.train.load_checkpoint(str(path / "variables" / "variables"))
    whole = [name for name in reader.get_variable_to_shape_map() if "/optimizer/" in name]
    if whole:
        raise ExportError(f"`resources` hold the optimizer of a model: {sorted(whole)[0]}")


def _record(
    live: Mapping[str, Any],
    examples: Mapping[str, Sequence[Example]],
    *,
    model_name: str,
    path: Path,
) -> None:
    """Write the requests and the outputs of the traced functions as TF Serving's warm-up file."""
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
def without_tf32() -> Iterator[None]:
    """Compute in float32 on GPUs that round the factors of products to 10 bits by default."""
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(False)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def _live_tolerance(model: keras.Model, tolerance: float) -> float:
    """Return the tolerance for the outputs of the live model, which depends on its device."""
    if all(device.device_type == "CPU" for device in tf.config.list_logical_devices()):
        return tolerance
    return DEVICE_TOLERANCE["bfloat16" if model.compute_dtype == "bfloat16" else "float32"]


@contextlib.contextmanager
def _full_disk_as_os_error(path: Path) -> Iterator[None]:
    """Raise the `OSError` of Python where the writers of TensorFlow meet a full disk."""
    try:
        yield
    except tf.errors.ResourceExhaustedError as error:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) from error


def _protos(tensors: Mapping[str, tf.Tensor]) -> dict[str, Any]:
    return {
        name: tf.make_tensor_proto(tensor.numpy(), dtype=tensor.dtype, shape=tensor.shape)
        for name, tensor in tensors.items()
    }


@contextlib.contextmanager
def _exit_at_sigterm() -> Iterator[None]:
    """Let SIGTERM raise `SystemExit` in the block, unless the program handles it, to clean up."""
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return

    def stop(number: int, _: Any) -> None:
        raise SystemExit(128 + number)

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _write_through(directory: Path) -> None:
    """Flush the folder to disk, so that a power cut cannot leave an empty version.

    Every user may read it then, since a server often runs as another one.
    """
    for path in (directory, *directory.rglob("*")):
        make_public(path)
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _take_next_version(staged: Path, directory: Path) -> Path:
    """Rename the staged folder to the next number that no other process has used."""
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
