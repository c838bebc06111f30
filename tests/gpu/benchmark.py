"""Training steps and exports of the recurrent layers, compared with stock Keras and PyTorch."""

import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from common import rnn
from tests.benchmarks.rnn import interleaved, make_keras, train_keras

import keras
import tensorflow as tf

# cell, batch, time, features, units, layers, bidirectional
CASES = [
    ("LSTM", 32, 100, 256, 256, 1, False),
    ("GRU", 32, 100, 256, 256, 1, False),
    ("LSTM", 64, 50, 512, 512, 1, True),
    ("GRU", 8, 400, 80, 320, 3, True),
]


def export_call(module, case, x, folder):
    """Save the layers as a server's SavedModel for any batch and time; return a call of it."""
    cell, *shape = case
    forward, variables = make_keras(module, cell, (*shape, False))
    holder = tf.Module()
    holder.weights = variables
    spec = tf.TensorSpec([None, None, shape[2]], name="x")
    function = tf.function(lambda x: {"y": forward(x, None)}, input_signature=[spec])
    tf.saved_model.save(holder, str(folder), signatures=function.get_concrete_function())
    loaded = tf.saved_model.load(str(folder))
    return lambda: loaded.signatures["serving_default"](x=x)["y"][-1, -1].numpy()


def measure(case, device, repeats):
    """Return the milliseconds of a training step and of a request, of Keras's layers and ours."""
    cell, *shape = case
    batch, steps, features, units, _, bidirectional = shape
    modules = {"keras": keras.layers, "ours": rnn}
    with tf.device(device), tempfile.TemporaryDirectory() as folder:
        x = tf.random.normal([batch, steps, features])
        weight = tf.random.normal([batch, steps, units * (1 + bidirectional)])
        training = {
            name: train_keras(module, cell, (*shape, False), x, weight, None)
            for name, module in modules.items()
        }
        exports = {
            name: export_call(module, case, x, Path(folder, name))
            for name, module in modules.items()
        }
        return {
            "train": interleaved(training, repeats),
            "export": interleaved(exports, repeats),
        }


def torch_times(python, device, repeats):
    """Return the version of PyTorch and its times, or the reason why there are none."""
    script = Path(__file__).with_name("torch_times.py")
    words = ["cuda" if device.startswith("GPU") else "cpu", str(repeats), json.dumps(CASES)]
    done = subprocess.run([python, script, *words], capture_output=True, text=True, check=False)
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
        return f"not measured: {reason}", None
    facts = json.loads(done.stdout.splitlines()[-1])
    return facts["version"], facts["times"]


def run(device, repeats, python=sys.executable):
    """Print a table of milliseconds; return the ratios, above 1.0 where our layers are faster.

    Args:
      device: as TensorFlow names it, such as `GPU:0`.
      repeats: number of calls of each.
      python: the Python interpreter that has PyTorch.
    """
    version, theirs = torch_times(python, device, repeats)
    ratios = {}
    print(f"milliseconds on {device}; PyTorch: {version}")
    for number, case in enumerate(CASES):
        for kind, times in measure(case, device, repeats).items():
            if theirs:
                times["torch"] = theirs[number][kind]
            figures = "  ".join(f"{name} {value:.2f}" for name, value in times.items())
            print(f"{kind:8} {case!s:44} {figures}", flush=True)
            for peer in times:
                if peer != "ours":
                    ratio = times[peer] / times["ours"]
                    ratios.setdefault(f"{kind}_{peer}_over_ours", []).append(ratio)
    means = {name: round(statistics.geometric_mean(v), 3) for name, v in ratios.items()}
    return {"torch": version, **means}
