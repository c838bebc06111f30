"""Time of a training step on 1, 2 and 4 workers, and the bytes they reduce.

    python -m tests.benchmarks.scaling --workers 1 2 4 --steps 40

`common.training.fit.fit` trains a tagger with one bidirectional LSTM on random sequences under
`MultiWorkerMirroredStrategy`. The workers are processes of this machine, connected over the
loopback device. Each worker runs on one core, as if it were a separate machine; with more workers
than cores, workers share a core, as the last column shows.

Weak scaling: `--batch` rows for each worker, so the global batch grows. Strong scaling: `--batch`
rows over all workers. The time of a step is the median over the last epoch, measured by the chief.
Bytes are those of the gradients, which each step sums over the workers; in a ring of n, each worker
sends and receives 2 (n - 1) / n of them. Efficiency is the rows per second of each worker, relative
to a single worker. The last line is one JSON object.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.ports import free_ports

TIME, INPUTS, UNITS, CLASSES = 50, 64, 128, 10
EPOCHS = 3  # the first one traces, the last one is timed


# --- One worker -----------------------------------------------------------------------------------


def work(rows, steps):
    """Fit as one of the workers of `TF_CONFIG`; print times and sizes as JSON."""
    from common import rnn
    from common.training.distribution import make_strategy
    from common.training.fit import FitOptions, fit

    import keras
    import numpy as np
    import tensorflow as tf

    strategy = make_strategy("multiworker")
    keras.utils.set_random_seed(1)
    with strategy.scope():
        x = keras.Input((None, INPUTS), name="x")
        encoded = rnn.bidirectional(rnn.LSTM(UNITS, return_sequences=True))(x)
        model = keras.Model({"x": x}, {"y": keras.layers.Dense(CLASSES)(encoded)})
        optimizer = keras.optimizers.Adam(1e-3)
    random = np.random.default_rng(0)
    examples = {
        "x": random.normal(size=(rows, TIME, INPUTS)).astype(np.float32),
        "label": random.integers(CLASSES, size=(rows, TIME)),
    }
    batches = tf.data.Dataset.from_tensors(examples).cache().repeat(steps)

    def losses(outputs, batch):
        values = keras.losses.sparse_categorical_crossentropy(
            batch["label"], outputs["y"], from_logits=True
        )
        return tf.reduce_mean(values, axis=-1), tf.ones_like(values[:, 0])

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.times = [time.perf_counter()]

        def on_train_batch_end(self, batch, logs=None):
            self.times.append(time.perf_counter())

    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        fit(
            model,
            optimizer=optimizer,
            losses=losses,
            train=lambda epoch: batches,
            validation=batches.take(1),
            score=lambda pairs: {"rows": sum(len(batch["x"]) for batch, _ in pairs)},
            monitor="rows",
            mode="max",
            options=FitOptions(
                directory=Path(folder),
                epochs=EPOCHS,
                patience=EPOCHS,
                strategy=strategy,
                callbacks=[clock],
                verbose=0,
            ),
        )
    seconds = [after - before for before, after in zip(clock.times, clock.times[1:], strict=False)]
    size = sum(4 * math.prod(variable.shape) for variable in model.trainable_variables)
    print(json.dumps({"seconds": statistics.median(seconds), "bytes": size}), flush=True)


# --- All workers ----------------------------------------------------------------------------------


def run(count, rows, steps):
    """Run `count` workers on a global batch of `rows`; return the chief's result."""
    addresses = [f"127.0.0.1:{port}" for port in free_ports(count)]
    cores = sorted(os.sched_getaffinity(0))
    line = [sys.executable, "-m", "tests.benchmarks.scaling"]
    line += ["--work", str(rows), "--steps", str(steps)]
    processes = []
    for index in range(count):
        task = {"type": "worker", "index": index}
        environment = {
            **os.environ,
            "TF_CONFIG": json.dumps({"cluster": {"worker": addresses}, "task": task}),
            "TF_NUM_INTRAOP_THREADS": "1",
            "OMP_NUM_THREADS": "1",
        }
        processes.append(
            subprocess.Popen(
                line,
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
                preexec_fn=lambda i=index: os.sched_setaffinity(0, {cores[i % len(cores)]}),
            )
        )
    outputs = [process.communicate()[0] for process in processes]
    if any(process.returncode for process in processes):
        raise SystemExit(f"a worker of {count} failed")
    return json.loads(outputs[0].splitlines()[-1])


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.scaling",
        description="Measure a training step on several workers.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--workers", type=int, nargs="+", default=[1, 2, 4], help="numbers of workers"
    )
    parser.add_argument(
        "--batch", type=int, default=64, help="rows per worker (weak) or in all (strong)"
    )
    parser.add_argument("--steps", type=int, default=40, help="steps per epoch")
    parser.add_argument("--work", type=int, help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.work is not None:
        work(flags.work, flags.steps)
        return
    cores = len(os.sched_getaffinity(0))
    print(
        "| scaling | workers | global batch | ms/step | rows/s | bytes reduced per step | "
        "efficiency | workers per core |\n|---|---|---|---|---|---|---|---|"
    )
    results = []
    for kind in ("weak", "strong"):
        alone = None
        for count in flags.workers:
            rows = flags.batch * (count if kind == "weak" else 1)
            measured = run(count, rows, flags.steps)
            speed = rows / measured["seconds"]
            alone = alone or speed / count
            sent = measured["bytes"] if count > 1 else 0
            results.append(
                {
                    "scaling": kind,
                    "workers": count,
                    "rows": rows,
                    "milliseconds": round(1e3 * measured["seconds"], 2),
                    "rows_per_second": round(speed, 1),
                    "bytes": sent,
                    "efficiency": round(speed / count / alone, 3),
                }
            )
            row = results[-1]
            print(
                f"| {kind} | {count} | {rows} | {row['milliseconds']} | {row['rows_per_second']} | "
                f"{sent:,} | {row['efficiency']} | {max(1.0, count / cores):g} |",
                flush=True,
            )
    print(json.dumps({"benchmark": "scaling", "results": results}))


if __name__ == "__main__":
    main()
