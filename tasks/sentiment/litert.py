"""The classifier for telephones and boards: a LiteRT file for one text of a fixed length.

A version folder, `saved_models/sentiment-litert/<n>/`, holds `model.tflite`,
`model_quantised.tflite` (the weights as whole numbers of 8 bits), `vocabulary.txt` and, like any
export, `assets.extra/config.json`. They take `ids` `<int32>[1, length]` and `length`
`<int32>[1]`, and give `probabilities` `<float32>[1, classes]` and `attention`
`<float32>[1, length]`. The text is cut into words by the
program around it, as `common.text.tokenize` does; `load` here does so with TensorFlow, and answers
like any other export.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import rnn_kernels
from common.commands import cli
from common.errors import ExportError
from common.serving.publish import Example, Function, disable_cudnn, publish_folder
from common.serving.served import LITERT, SETTINGS, Served, latest
from common.serving.targets import Target
from common.text import Vocabulary
from tasks.sentiment import serving

import keras
import numpy as np
import tensorflow as tf

QUANTISED = "model_quantised.tflite"
VOCABULARY = "vocabulary.txt"


def convert(model: keras.Model, length: int, *, quantised: bool) -> bytes:
    """Converts a classifier for texts of `length` words.

    Args:
      model: of `tasks.sentiment.model.build`.
      length: words of a text; a shorter one is padded.
      quantised: whether the weights become 8 bits each (dynamic range).
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
        # Not Keras's variables but TensorFlow's inside them: the former are lost on the way.
        holder = tf.Module()
        holder.weights = [variable.value for variable in model.variables]
        converter = tf.lite.TFLiteConverter.from_concrete_functions([concrete], holder)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        # The recurrent loops keep their steps in lists, which become plain tensors.
        converter._experimental_lower_tensor_list_ops = True
        if quantised:
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        return converter.convert()


def publish(
    signatures: Mapping[str, Function],
    *,
    model: keras.Model,
    resources: Sequence[Vocabulary],
    settings: Mapping[str, Any],
    examples: Mapping[str, Sequence[Example]],
    directory: Path,
    target: Target,
    finish: Callable[[Path], None] | None = None,
    tolerance: float = 1e-4,
) -> Path:
    """Writes, verifies and publishes the next version, as `common.serving.publish.publish` does.

    Args:
      signatures: of `tasks.sentiment.serving`, which the float file must equal.
      model: what to convert.
      resources: the vocabulary.
      settings: as for `common.serving.publish.publish`; `max_tokens` is the fixed length.
      examples: requests for each signature.
      directory: of the versions.
      target: `litert`.
      finish: takes the staged folder; scores and writes the card, to which the sizes are added.
      tolerance: largest difference of a probability.

    Returns:
      The version folder.

    Raises:
      ExportError: the runtime is missing, or answers otherwise than the live model.
    """

    def write(staged: Path) -> None:
        (vocabulary,) = resources
        shutil.copy(vocabulary.path, staged / VOCABULARY)
        for name, quantised in ((LITERT, False), (QUANTISED, True)):
            content = convert(model, settings["max_tokens"], quantised=quantised)
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
    """Says how large the two files are."""
    before, after = ((folder / name).stat().st_size / 1e6 for name in (LITERT, QUANTISED))
    return f"LiteRT: {before:.3f} MB, {after:.3f} MB with weights of 8 bits"


def load(path: Path, file: str = LITERT) -> Served:
    """Loads a version so that it answers as the SavedModels do: the same text handling around it.

    Args:
      path: a version folder, or the folder of the versions, which gives the newest.
      file: which of its two files is asked.

    Raises:
      ExportError: the runtime is not installed.
    """
    folder = path if (path / file).exists() else latest(path)
    settings = json.loads((folder / SETTINGS).read_text(encoding="utf-8"))
    classifier = _Interpreted(folder / file)
    vocabulary = Vocabulary(folder / VOCABULARY)
    signatures = serving.signatures(
        classifier, vocabulary, settings["labels"], settings["max_tokens"]
    )
    functions = {name: _by_name(function) for name, function in signatures.items()}
    return Served(folder, settings, functions)


def _by_name(function: Function) -> Any:
    """The same function with its inputs by name, as those of a loaded SavedModel are."""

    def call(**inputs: tf.Tensor) -> dict[str, tf.Tensor]:
        return function.python_function(**inputs)

    specs = {spec.name: spec for spec in function.input_signature}
    return tf.function(call).get_concrete_function(**specs)


def _compare(served: Served, live: Function, name: str, request: Example, tolerance: float) -> None:
    """Asks both the same."""
    found = served.call(name, **request)
    expected = live(*(tf.constant(request[s.name], s.dtype) for s in live.input_signature))
    for key, value in expected.items():
        wanted = value.numpy()
        same = found[key].shape == wanted.shape and (
            np.allclose(found[key], wanted, atol=tolerance)
            if np.issubdtype(wanted.dtype, np.floating)
            else np.array_equal(found[key], wanted)
        )
        if not same:
            raise ExportError(f"LiteRT answers {name!r} otherwise than the live model: {key!r}")


class _Interpreted:
    """Stands where the Keras model stands: runs rows of any number and time through the file."""

    def __init__(self, path: Path):
        """Opens the file."""
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
        """Takes and gives what the model does."""
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
        answers = np.zeros((len(ids), self.classes), np.float32)
        attention = np.zeros((len(ids), self.time), np.float32)
        for row, count in enumerate(length):
            if count > self.time:
                continue  # longer than the file takes: the empty answer
            words = np.zeros((1, self.time), np.int32)
            words[0, :count] = ids[row, :count]
            said = self.runner(ids=words, length=np.array([count], np.int32))
            answers[row], attention[row] = said["probabilities"][0], said["attention"][0]
        return answers, attention
