"""The recurrent layers beside stock Keras's and PyTorch's: `python -m tests.benchmarks.rnn`.

Prints a table of medians in milliseconds, all measured in turn in one run. The last line is one
JSON object of ratios, geometric means over the shapes; 1.0 is equal, more is faster. `limit` is the
time of the matrix products alone, done as large ones. PyTorch is optional (extra `[bench]`).
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

from common import rnn, rnn_kernels

import keras
import numpy as np
import tensorflow as tf

try:
    import torch
except ImportError:
    torch = None

# batch, time, features, units, layers, bidirectional, ragged
TRAINING = [
    (32, 100, 128, 128, 1, False, False),
    (32, 100, 256, 256, 1, False, False),
    (64, 50, 256, 256, 1, False, False),
    (16, 300, 64, 64, 1, False, False),
    (32, 40, 100, 200, 1, True, True),
    (8, 800, 80, 320, 3, True, False),
]
INFERENCE = [(1, 100, 128, 128, 1, False, False)]
GATES = {"LSTM": 4, "GRU": 3}


def interleaved(calls, repeats):
    """Median milliseconds of each call, called in turn."""
    for call in calls.values():
        call()
        call()
    times = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def make_keras(module, cell, shape):
    """A deep network of `module`'s layers of that name."""
    _, _, features, units, layers, bidirectional, _ = shape
    network = []
    for _ in range(layers):
        layer = getattr(module, cell)(units, return_sequences=True)
        wrap = rnn.bidirectional if module is rnn else keras.layers.Bidirectional
        network.append(wrap(layer) if bidirectional else layer)
        network[-1].build((None, None, features))
        features = units * (1 + bidirectional)

    def forward(x, mask):
        for layer in network:
            x = layer(x, mask=mask)
        return x

    return forward, [w.value for layer in network for w in layer.trainable_weights]


def train_keras(module, cell, shape, x, weight, mask):
    forward, variables = make_keras(module, cell, shape)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(forward(x, mask) * weight)
        return tape.gradient(loss, [x, *variables])

    return lambda: step(x)[-1].numpy()


def make_torch(cell, shape):
    _, _, features, units, layers, bidirectional, _ = shape
    kind = getattr(torch.nn, cell)
    return kind(features, units, layers, batch_first=True, bidirectional=bidirectional)


def train_torch(cell, shape, x, weight, lengths):
    network = make_torch(cell, shape)
    x = torch.tensor(x.numpy(), requires_grad=True)
    weight = torch.tensor(weight.numpy())
    tools = torch.nn.utils.rnn

    def step():
        x.grad = None
        network.zero_grad(set_to_none=True)
        given = x
        if lengths is not None:
            packing = {"batch_first": True, "enforce_sorted": False}
            given = tools.pack_padded_sequence(x, torch.tensor(lengths), **packing)
        out, _ = network(given)
        if lengths is not None:
            total = x.shape[1]
            out, _ = tools.pad_packed_sequence(out, batch_first=True, total_length=total)
        (out * weight).sum().backward()

    return step


def products(cell, shape, training):
    """The matrix products of a walk: forward, and in training by inputs and by weights."""
    batch, steps, features, units, layers, bidirectional, _ = shape
    pairs = []
    for _ in range(layers):
        width = GATES[cell] * units
        for _ in range(1 + bidirectional):  # each its own, or TensorFlow would do them once
            rows = tf.random.normal([batch * steps, features + units])
            matrix = tf.random.normal([features + units, width])
            pairs.append((rows, matrix, tf.random.normal([batch * steps, width])))
        features = units * (1 + bidirectional)

    @tf.function
    def run():
        sums = []
        for rows, matrix, d in pairs:
            sums.append(tf.matmul(rows, matrix)[0, 0])
            if training:
                sums.append(tf.matmul(d, matrix, transpose_b=True)[0, 0])
                sums.append(tf.matmul(rows, d, transpose_a=True)[0, 0])
        return tf.add_n(sums)

    return lambda: run().numpy()


def train_calls(cell, shape, seed=0):
    batch, steps, features, units, _, bidirectional, ragged = shape
    x = tf.random.normal([batch, steps, features], seed=seed)
    weight = tf.random.normal([batch, steps, units * (1 + bidirectional)], seed=seed)
    lengths = np.random.default_rng(seed).integers(5, 41, batch) if ragged else None
    mask = tf.constant(np.arange(steps) < lengths[:, None]) if ragged else None
    calls = {
        "keras": train_keras(keras.layers, cell, shape, x, weight, mask),
        "ours": train_keras(rnn, cell, shape, x, weight, mask),
        "limit": products(cell, shape, True),
    }
    if torch:
        calls["torch"] = train_torch(cell, shape, x, weight, lengths)
    return calls


def ask_calls(cell, shape):
    x = tf.random.normal(shape[:3])

    def call(module):
        forward, _ = make_keras(module, cell, shape)
        ask = tf.function(lambda x: forward(x, None))
        return lambda: ask(x).numpy()

    calls = {"keras": call(keras.layers), "ours": call(rnn), "limit": products(cell, shape, False)}
    if torch:
        network, given = make_torch(cell, shape), torch.tensor(x.numpy())

        def ask_torch():
            with torch.no_grad():
                network(given)

        calls["torch"] = ask_torch
    return calls


def export_calls(cell, shape, folder):
    """SavedModel against SavedModel, of any batch and time, asked by a session as TF Serving is."""
    x = tf.random.normal(shape[:3]).numpy()
    calls = {}
    for name, module in (("keras", keras.layers), ("ours", rnn)):
        forward, variables = make_keras(module, cell, shape)
        holder = tf.Module()
        holder.kept = variables
        spec = tf.TensorSpec([None, None, shape[2]], name="x")
        with rnn_kernels.portable():
            ask = tf.function(lambda x, f=forward: {"y": f(x, None)}, input_signature=[spec])
            signatures = {"serving_default": ask.get_concrete_function()}
            tf.saved_model.save(holder, str(folder / name), signatures=signatures)
        session = tf.compat.v1.Session(graph=tf.Graph())
        with session.graph.as_default():
            loaded = tf.compat.v1.saved_model.load(session, ["serve"], str(folder / name))
        signature = loaded.signature_def["serving_default"]
        names = signature.inputs["x"].name, signature.outputs["y"].name
        fed, fetched = (session.graph.get_tensor_by_name(n) for n in names)
        run = session.make_callable(fetched, [fed])
        calls[name] = lambda run=run: run(x)
    return calls


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.rnn", description="Recurrent layers beside their peers."
    )
    parser.add_argument("--repeats", type=int, default=20, help="calls of each, at least 20")
    parser.add_argument("--cells", nargs="+", choices=sorted(GATES), default=["LSTM", "GRU"])
    kinds = ("train", "inference", "export")
    parser.add_argument("--what", nargs="+", choices=kinds, default=kinds)
    options = parser.parse_args()
    measured = {kind: [] for kind in kinds}
    print(f"{'what':10} {'cell':5} {'[batch, time, features, units] layers':44} milliseconds")
    for cell in options.cells:
        jobs = [("train", shape) for shape in TRAINING]
        jobs += [(kind, shape) for kind in ("inference", "export") for shape in INFERENCE]
        for kind, shape in (job for job in jobs if job[0] in options.what):
            with tempfile.TemporaryDirectory() as folder:
                if kind == "train":
                    calls = train_calls(cell, shape)
                elif kind == "inference":
                    calls = ask_calls(cell, shape)
                else:
                    calls = export_calls(cell, shape, Path(folder))
                # What takes a millisecond or two is asked more often, for it varies more.
                times = interleaved(calls, options.repeats * (1 if kind == "train" else 10))
            measured[kind].append(times)
            more = " bidirectional" * shape[5] + " ragged" * shape[6]
            title = f"{list(shape[:4])} {shape[4]}{more}"
            figures = "  ".join(f"{name} {value:.2f}" for name, value in times.items())
            print(f"{kind:10} {cell:5} {title:44} {figures}", flush=True)

    def ratios(kind, other):
        return [times[other] / times["ours"] for times in measured[kind] if other in times]

    result = {
        "train_keras_over_ours": ratios("train", "keras"),
        "train_torch_over_ours": ratios("train", "torch"),
        "inference_keras_over_ours": ratios("inference", "keras"),
        "limit_over_ours": ratios("train", "limit"),
        "export_keras_over_ours": ratios("export", "keras"),
    }
    result = {k: round(statistics.geometric_mean(v), 3) if v else None for k, v in result.items()}
    worst = min(ratios("train", "torch"), default=None)
    result["train_torch_over_ours_worst"] = None if worst is None else round(worst, 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
