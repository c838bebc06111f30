"""Requests a second, latency and memory of the exports behind the loopback server.

    python -m tests.benchmarks.serving --root saved_models --models sentiment ner --requests 300

The server is the test double of `tests/serving/server.py` in a process of its own, in Python: what
is measured is the exports behind its messages, and what batching gains, not TF Serving. Each of
1, 8 and 64 clients sends one row at a time by gRPC and waits for its answer; the rows are those of
the export's warm-up records that have an answer. `live` is the same network as a Keras model,
`model.keras`, asked by `predict`, beside signature `tensors` through the server, one client, the
same rows; it is left out where the network alone does not give the answer (translation and music
decode). Memory is the server's, after the load and after as many requests more. The last line is
one JSON object; in its ratios 1.0 is equal, more says that serving is faster.
"""

import argparse
import concurrent.futures
import importlib
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.serving import check
from common.serving.publish import write_models_config
from common.serving.served import latest, versions

import grpc
import keras
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
BATCHING = Path(__file__).resolve().parents[2] / "saved_models" / "batching.config"


class Process:
    """The server as a process of its own, over one model."""

    def __init__(self, root, model, batching):
        self._folder = tempfile.TemporaryDirectory()
        folder = Path(self._folder.name)
        newest = latest(root / model)
        (folder / model).mkdir()
        (folder / model / newest.name).symlink_to(newest.resolve())
        write_models_config(folder)
        line = [sys.executable, "-m", "tests.serving.server", str(folder)]
        line += ["--batching", str(BATCHING)] if batching else []
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self._process = subprocess.Popen(line, **pipes)
        self.address = json.loads(self._process.stdout.readline())["grpc"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.communicate("")  # standard input ends: it stops
        self._folder.cleanup()

    def megabytes(self):
        """Resident memory."""
        said = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", said)[1]) / 1024


def rows(version, signature):
    """Rows of the warm-up records that have an answer, each a request of its own."""
    for record in check.read_records(version):
        if record.request.model_spec.signature_name != signature:
            continue
        inputs = check.to_arrays(record.request.inputs)
        outputs = check.to_arrays(record.response.outputs)
        for row in range(len(next(iter(inputs.values())))):
            if any(array[row : row + 1].astype(bool).any() for array in outputs.values()):
                yield {name: array[row : row + 1] for name, array in inputs.items()}


def as_request(model, signature, inputs):
    """The message of a request."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def send(address, requests, clients, count):
    """Sends `count` requests; gives requests a second, and the milliseconds of each."""
    waiting = itertools.islice(itertools.cycle(requests), count)
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        predict = PredictionServiceStub(channel).Predict

        def ask(request):
            start = time.perf_counter()
            predict(request)
            return 1000 * (time.perf_counter() - start)

        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            list(pool.map(ask, requests[: 2 * clients]))  # connects, and warms up
            start = time.perf_counter()
            latencies = list(pool.map(ask, waiting))
            return count / (time.perf_counter() - start), latencies


def load(root, model, options):
    """Speed of one model by clients and batching; and the server's memory."""
    version = latest(root / model)
    requests = [
        as_request(model, "serving_default", row) for row in rows(version, "serving_default")
    ]
    result = {}
    for batching in (False, True):
        with Process(root, model, batching) as server:
            for clients in options.clients:
                count = max(options.requests, 2 * clients)
                speed, latencies = send(server.address, requests, clients, count)
                p50, p95, p99 = np.percentile(latencies, [50, 95, 99])
                name = f"{clients}_clients" + ("_batching" if batching else "")
                result[name] = {
                    "requests_per_second": round(speed, 1),
                    **{
                        k: round(float(v), 1) for k, v in (("p50", p50), ("p95", p95), ("p99", p99))
                    },
                }
                print(
                    f"| {model} | {clients} | {'on' if batching else 'off'} | {speed:.1f} | "
                    f"{p50:.1f} | {p95:.1f} | {p99:.1f} |",
                    flush=True,
                )
            if batching and options.memory_requests:
                before = server.megabytes()
                send(server.address, requests, 8, options.memory_requests)
                result["megabytes"] = [round(before), round(server.megabytes())]
                print(
                    f"  {model}: {before:.0f} MB, after {options.memory_requests} requests more "
                    f"{server.megabytes():.0f} MB",
                    flush=True,
                )
    return result


def live(root, model, options):
    """How much longer `predict` of the live Keras model takes than signature `tensors` served."""
    version = latest(root / model)
    importlib.import_module(f"tasks.{model}.model")  # its layers
    network = keras.models.load_model(version / "model.keras", compile=False)
    names = set(network.input) if isinstance(network.input, dict) else None
    given = list(rows(version, "tensors"))
    if names is None or not names <= set(given[0]) or model in ("translation", "music"):
        return None
    count = min(options.requests, 100)
    asked = [{name: row[name] for name in names} for row in given]
    for row in asked:
        network.predict(row, verbose=0)
    start = time.perf_counter()
    for row in itertools.islice(itertools.cycle(asked), count):
        network.predict(row, verbose=0)
    seconds = time.perf_counter() - start
    with Process(root, model, batching=False) as server:
        requests = [as_request(model, "tensors", row) for row in given]
        speed, _ = send(server.address, requests, 1, count)
    print(f"  {model}: live {count / seconds:.1f} a second, served {speed:.1f}", flush=True)
    return round(speed * seconds / count, 2)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.serving",
        description="Load on the exports behind the loopback server (a test double).",
    )
    parser.add_argument("--root", type=Path, default=Path("saved_models"), help="of the exports")
    parser.add_argument("--models", nargs="+", help="tasks (default: all that have a version)")
    parser.add_argument("--clients", nargs="+", type=int, default=[1, 8, 64], help="at once")
    parser.add_argument("--requests", type=int, default=300, help="of each cell (default 300)")
    parser.add_argument(
        "--memory_requests", type=int, default=10_000, help="0 = do not measure (default 10,000)"
    )
    options = parser.parse_args()
    models = options.models or sorted(p.name for p in options.root.iterdir() if versions(p))
    print("| model | clients | batching | requests/s | p50 ms | p95 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|")
    result = {}
    for model in models:
        result[model] = load(options.root, model, options)
        result[model]["live_over_served"] = live(options.root, model, options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
