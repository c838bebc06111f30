"""The recurrent layers compared with stock Keras and PyTorch: `python -m tests.benchmarks.rnn`.

The output is a table of medians in milliseconds; the compared layers run alternately. `limit` is
the time of the matrix products alone, computed as a few large ones. PyTorch is optional (extra
`[bench]`). The last line is one JSON object of ratios, geometric means over the shapes; above 1.0
our layers are faster.
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
    """Return the median milliseconds of each call; the calls alternate."""
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
    """Return the forward pass and the weights of stacked layers of a module."""
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
        inputs = x
        if lengths is not None:
            packing = {"batch_first": True, "enforce_sorted": False}
            inputs = tools.pack_padded_sequence(x, torch.tensor(lengths), **packing)
        out, _ = network(inputs)
        if lengths is not None:
            total = x.shape[1]
            out, _ = tools.pad_packed_sequence(out, batch_first=True, total_length=total)
        (out * weight).sum().backward()

    return step


def products(cell, shape, training):
    """Return the matrix products alone: of the forward pass, and in training also of gradients."""
    batch, steps, features, units, layers, bidirectional, _ = shape
    pairs = []
    for _ in range(layers):
        width = GATES[cell] * units
        for _ in range(1 + bidirectional):  # new tensors each, or TensorFlow would compute one
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


def inference_calls(cell, shape):
    x = tf.random.normal(shape[:3])

    def call(module):
        forward, _ = make_keras(module, cell, shape)
        function = tf.function(lambda x: forward(x, None))
        return lambda: function(x).numpy()

    calls = {"keras": call(keras.layers), "ours": call(rnn), "limit": products(cell, shape, False)}
    if torch:
        network, inputs = make_torch(cell, shape), torch.tensor(x.numpy())

        def call_torch():
            with torch.no_grad():
                network(inputs)

        calls["torch"] = call_torch
    return calls


def export_calls(cell, shape, folder):
    """Return calls of SavedModels for any batch and time, by a session as in TF Serving."""
    x = tf.random.normal(shape[:3]).numpy()
    calls = {}
    for name, module in (("keras", keras.layers), ("ours", rnn)):
        forward, variables = make_keras(module, cell, shape)
        holder = tf.Module()
        holder.weights = variables
        spec = tf.TensorSpec([None, None, shape[2]], name="x")
        with rnn_kernels.portable():
            function = tf.function(lambda x, f=forward: {"y": f(x, None)}, input_signature=[spec])
            signatures = {"serving_default": function.get_concrete_function()}
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
        prog="python -m tests.benchmarks.rnn",
        description="Compare the recurrent layers with Keras and PyTorch.",
    )
    kinds = ("train", "inference", "export")
    parser.add_argument(
        "--repeats", type=int, default=20, help="calls of each, 20 or more (default: 20)"
    )
    parser.add_argument(
        "--cells",
        nargs="+",
        choices=sorted(GATES),
        default=["LSTM", "GRU"],
        help="layers to measure (default: both)",
    )
    parser.add_argument(
        "--what", nargs="+", choices=kinds, default=kinds, help="measurements (default: all)"
    )
    options = parser.parse_args()
    measured = {kind: [] for kind in kinds}
    print(f"{'kind':10} {'cell':5} {'[batch, time, features, units] layers':44} milliseconds")
    for cell in options.cells:
        jobs = [("train", shape) for shape in TRAINING]
        jobs += [(kind, shape) for kind in ("inference", "export") for shape in INFERENCE]
        for kind, shape in (job for job in jobs if job[0] in options.what):
            with tempfile.TemporaryDirectory() as folder:
                if kind == "train":
                    calls = train_calls(cell, shape)
                elif kind == "inference":
                    calls = inference_calls(cell, shape)
                else:
                    calls = export_calls(cell, shape, Path(folder))
                # Short calls vary more, so they are repeated more often.
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
