"""Export to LiteRT, for telephones and boards: a classifier of one text of a fixed length.

A version folder, `saved_models/sentiment-litert/<n>/`, contains `model.tflite`,
`model_quantised.tflite` (weights quantised to 8 bits), `vocabulary.txt` and, like any export,
`assets.extra/config.json`. The models map `ids` `<int32>[1, length]` and `length` `<int32>[1]` to
`probabilities` `<float32>[1, classes]` and `attention` `<float32>[1, length]`. The application that
uses them must tokenise the text like `common.text.tokenize`; `load` does so with TensorFlow and
provides the same signatures as any other export.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import rnn_kernels
from common.commands import cli
from common.errors import ExportError
from common.serving import versions
from common.serving.publish import disable_cudnn, publish_folder
from common.serving.served import LocalExport, Served
from common.serving.targets import Example, Examples, Function, Signatures, Target
from common.serving.versions import LITERT
from common.text import Vocabulary
from tasks.sentiment import serving
from tasks.sentiment.tokens import Reader

import keras
import numpy as np
import tensorflow as tf

QUANTISED = "model_quantised.tflite"
VOCABULARY = "vocabulary.txt"


# --- writing --------------------------------------------------------------------------------------


def convert(model: keras.Model, length: int, *, quantised: bool) -> bytes:
    """Convert a classifier to a LiteRT model of one text.

    Args:
      model: a model of `tasks.sentiment.model.build`.
      length: number of tokens; shorter texts are padded.
      quantised: whether to quantise the weights to 8 bits (dynamic range quantisation).

    Returns:
      The content of a `.tflite` file.
    """

    @tf.function(
        input_signature=[
            tf.TensorSpec([1, length], tf.int32, name="ids"),
            tf.TensorSpec([1], tf.int32, name="length"),
        ]
    )
    def classify(ids: tf.Tensor, length: tf.Tensor) -> dict[str, tf.Tensor]:
        outputs = model({"ids": ids, "length": length}, training=False)
        return {name: tf.cast(outputs[name], tf.float32) for name in ("probabilities", "attention")}

    with disable_cudnn(model), rnn_kernels.portable():
        concrete = classify.get_concrete_function()
        # The converter finds TensorFlow variables but not the Keras variables that wrap them.
        holder = tf.Module()
        holder.weights = [variable.value for variable in model.variables]
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantised:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def publish(
    signatures: Signatures,
    *,
    model: keras.Model,
    resources: Sequence[Reader],
    settings: Mapping[str, Any],
    examples: Examples,
    directory: Path,
    target: Target,
    finish: Callable[[Path], None] | None = None,
    tolerance: float = 1e-4,
) -> Path:
    """Write, verify and publish the next version, like `common.serving.publish.publish`.

    Args:
      signatures: the functions of `tasks.sentiment.serving`, which the float model must match.
      model: the model to convert.
      resources: the reader of texts.
      settings: as for `common.serving.publish.publish`; `window` is the fixed length.
      examples: requests for each signature.
      directory: the folder of the versions.
      target: unused, since the target is always `litert`.
      finish: a function of the staged folder that scores it and writes the model card, to which the
        sizes of the files are added.
      tolerance: largest accepted difference of a probability.

    Returns:
      The version folder.

    Raises:
      ExportError: the LiteRT runtime is not installed, or its outputs differ from the live model's.
    """

    def write(staged: Path) -> None:
        (reader,) = resources
        shutil.copy(reader.vocabulary.path, staged / VOCABULARY)
        for name, quantised in ((LITERT, False), (QUANTISED, True)):
            content = convert(model, settings["window"], quantised=quantised)
            (staged / name).write_bytes(content)
        served = load(staged)
        for name, requests in examples.items():
            for request in requests:
                _compare(served, signatures[name], name, request, tolerance)
        cli.say(describe_sizes(staged))
        if finish is not None:
            finish(staged)
            with open(staged / "model_card.md", "a", encoding="utf-8") as card:
                card.write(f"\n{describe_sizes(staged)}.\n")

    return publish_folder(write, settings=settings, directory=directory)


def describe_sizes(folder: Path) -> str:
    """Return a sentence with the sizes of the two models."""
    plain, quantised = ((folder / name).stat().st_size / 1e6 for name in (LITERT, QUANTISED))
    return f"LiteRT: {plain:.3f} MB, {quantised:.3f} MB with 8-bit weights"


def _compare(served: Served, live: Function, name: str, request: Example, tolerance: float) -> None:
    """Check that a signature and the live function return the same outputs for a request."""
    outputs = served.call(name, **request)
    expected = live(*(tf.constant(request[s.name], s.dtype) for s in live.input_signature))
    for key, tensor in expected.items():
        output, value = outputs[key], tensor.numpy()
        equal = output.shape == value.shape and (
            np.allclose(output, value, atol=tolerance)
            if np.issubdtype(value.dtype, np.floating)
            else np.array_equal(output, value)
        )
        if not equal:
            raise ExportError(
                f"output {key!r} of signature {name!r} differs between LiteRT and the live model"
            )


# --- loading --------------------------------------------------------------------------------------


def load(path: Path, file: str = LITERT) -> LocalExport:
    """Load a LiteRT version, with the signatures of a SavedModel.

    Args:
      path: a version folder, or the folder of the versions, of which the newest is loaded.
      file: name of the model file in the version folder.

    Raises:
      FileNotFoundError: nothing was published there yet.
      ExportError: the folder is incomplete, or the LiteRT runtime is not installed.
    """
    published = versions.find(path)
    settings = published.settings
    signatures = serving.signatures(
        _Interpreter(published.path / file),
        Reader(Vocabulary(published.path / VOCABULARY)),
        settings["labels"],
        settings["window"],
    )
    functions = {name: _with_named_inputs(function) for name, function in signatures.items()}
    return LocalExport(published.path, settings, functions)


def _with_named_inputs(function: Function) -> tf.types.experimental.ConcreteFunction:
    """Convert a function to one with keyword inputs, like the signatures of a SavedModel."""

    def call(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return function.python_function(**inputs)

    specs = {spec.name: spec for spec in function.input_signature}
    return tf.function(call).get_concrete_function(**specs)


class _Interpreter:
    """A LiteRT model with the interface of the Keras model, for batches of any size.

    Args:
      path: the model file.

    Raises:
      ExportError: the LiteRT runtime is not installed.
    """

    def __init__(self, path: Path):
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError as error:
            raise ExportError(
                "LiteRT's runtime is not installed: pip install ai-edge-litert"
            ) from error
        self.runner = Interpreter(model_path=str(path)).get_signature_runner()
        details = self.runner.get_output_details()
        self.classes = int(details["probabilities"]["shape"][-1])
        self.time = int(self.runner.get_input_details()["ids"]["shape"][-1])

    def __call__(self, inputs: Mapping[str, tf.Tensor], training: bool) -> dict[str, tf.Tensor]:
        """Classify a batch; see `tasks.sentiment.model.build`."""
        time = tf.shape(inputs["ids"])[1]
        probabilities, attention = tf.numpy_function(
            self._run, [inputs["ids"], inputs["length"]], [tf.float32, tf.float32]
        )
        probabilities.set_shape([None, self.classes])
        attention.set_shape([None, self.time])
        missing = tf.maximum(0, time - self.time)
        return {
            "probabilities": probabilities,
            "attention": tf.pad(attention[:, :time], [[0, 0], [0, missing]]),
        }

    def _run(self, ids: np.ndarray, length: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run the rows of a batch one by one; a row longer than the model's input gets zeros."""
        probabilities = np.zeros((len(ids), self.classes), np.float32)
        attention = np.zeros((len(ids), self.time), np.float32)
        for row, count in enumerate(length):
            if count > self.time:
                continue
            padded = np.zeros((1, self.time), np.int32)
            padded[0, :count] = ids[row, :count]
            outputs = self.runner(ids=padded, length=np.array([count], np.int32))
            probabilities[row] = outputs["probabilities"][0]
            attention[row] = outputs["attention"][0]
        return probabilities, attention
