"""An export as a model of Triton's Python backend.

Triton imports this file in a process of its own for each version of a model, with the packages of
the environment of `server.py`. The folder of the version holds it and `export`, a SavedModel.
Triton decides which requests are merged; this file stacks their rows, padded as TF Serving pads
them, and gives each request its rows of the outputs.
"""

import sys
from pathlib import Path

sys.modules["keras"] = None  # an export must not need it

import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402
import triton_python_backend_utils as triton  # noqa: E402


def stack(arrays):
    """Concatenate rows of different shapes, each tensor padded with its own first element."""
    shape = np.max([array.shape[1:] for array in arrays], axis=0, initial=0)
    return np.concatenate(
        [
            np.pad(
                array,
                [(0, 0), *((0, int(n)) for n in shape - array.shape[1:])],
                constant_values=array.flat[0] if array.size else 0,
            )
            for array in arrays
        ]
    )


class TritonPythonModel:
    """One version of an export; Triton calls both methods."""

    def initialize(self, args):
        """Load the SavedModel."""
        version = Path(args["model_repository"]) / args["model_version"]
        self._export = tf.saved_model.load(str(version / "export"))

    def execute(self, requests):
        """Return the responses to requests that Triton has merged.

        All of them have the same inputs, which are named `<signature>.<name>`: Triton never merges
        requests that differ in their optional inputs.
        """
        inputs = [{x.name(): x.as_numpy() for x in request.inputs()} for request in requests]
        signature = next(iter(inputs[0])).split(".")[0]
        merged = {
            name.split(".")[1]: tf.constant(stack([one[name] for one in inputs]))
            for name in inputs[0]
        }
        outputs = self._export.signatures[signature](**merged)
        ends = np.cumsum([len(next(iter(one.values()))) for one in inputs])[:-1]
        parts = {name: np.split(value.numpy(), ends) for name, value in outputs.items()}
        return [
            triton.InferenceResponse(
                [triton.Tensor(f"{signature}.{name}", part[n]) for name, part in parts.items()]
            )
            for n in range(len(requests))
        ]
