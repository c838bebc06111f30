"""Run a signature of an export in OpenVINO, in the environment of `server.py`.

It reads a pickled job from standard input: `export` (a version folder), `signature` and `requests`
(inputs by name). OpenVINO reads a SavedModel's `serving_default` only, so TensorFlow first saves
the signature under this name. Then OpenVINO converts and compiles it for this CPU and runs the
requests. It writes a pickled list of outputs by name, or the message of an error as text.
"""

import pickle
import sys
import tempfile

import openvino
import tensorflow as tf


def run(job):
    """Return the outputs of all requests; see the module."""
    with tempfile.TemporaryDirectory() as folder:
        loaded = tf.saved_model.load(job["export"])
        signatures = {"serving_default": loaded.signatures[job["signature"]]}
        tf.saved_model.save(loaded, folder, signatures=signatures)
        model = openvino.Core().read_model(folder)
        hint = {"INFERENCE_PRECISION_HINT": "f32"}  # on some CPUs it would be bfloat16
        compiled = openvino.Core().compile_model(model, "CPU", hint)
        names = [output.any_name for output in compiled.outputs]
        results = []
        for inputs in job["requests"]:
            outputs = compiled(inputs)
            results.append({name: outputs[name].copy() for name in names})
        return results


if __name__ == "__main__":
    job = pickle.load(sys.stdin.buffer)
    try:
        result = run(job)
    except Exception as error:  # any error of the converter; it names the op
        result = f"{type(error).__name__}: {error}"
    pickle.dump(result, sys.stdout.buffer)
