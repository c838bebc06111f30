"""Requests per second, latency and memory of the exports on the loopback server.

    python -m tests.benchmarks.serving --root saved_models --models sentiment ner --requests 300

The server is the test double `tests/serving/server.py` in a separate process, written in Python. So
this measures the exports, the messages and the gain of batching, not TF Serving. Each of 1, 8 and
64 clients sends one row at a time by gRPC and waits for the response. The rows come from the
export's warm-up records, without those that have empty outputs.

`live` compares `predict` of the same network as a Keras model with signature
`tensors` on the server, for one client and the same rows. Translation and music are left out, since
they decode outside the network. Memory is that of the server, after the first load and after
`--memory_requests` more requests. The last line is one JSON object; above 1.0, serving is faster.
"""

import argparse
import concurrent.futures
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common.serving import check
from common.serving.models_config import write_models_config
from common.serving.versions import find, latest, versions

import grpc
import numpy as np
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2
from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
BATCHING = Path(__file__).resolve().parents[2] / "saved_models" / "batching.config"


class Process:
    """A server of one model in a separate process."""

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
        self._process.communicate("")  # it stops when its standard input ends
        self._folder.cleanup()

    def megabytes(self):
        """Return the resident memory."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) / 1024


def rows(version, signature):
    """Yield a request for each row of the warm-up records whose outputs are not empty."""
    for record in check.read_records(version):
        if record.request.model_spec.signature_name != signature:
            continue
        inputs = check.to_arrays(record.request.inputs)
        outputs = check.to_arrays(record.response.outputs)
        for row in range(len(next(iter(inputs.values())))):
            if any(array[row : row + 1].astype(bool).any() for array in outputs.values()):
                yield {name: array[row : row + 1] for name, array in inputs.items()}


def as_request(model, signature, inputs):
    """Return the message of a request."""
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, array in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
    return request


def send(address, requests, clients, count):
    """Send `count` requests; return the requests per second and the milliseconds of each."""
    waiting = itertools.islice(itertools.cycle(requests), count)
    with grpc.insecure_channel(address, options=UNLIMITED) as channel:
        predict = PredictionServiceStub(channel).Predict

        def call(request):
            start = time.perf_counter()
            predict(request)
            return 1000 * (time.perf_counter() - start)

        with concurrent.futures.ThreadPoolExecutor(clients) as pool:
            list(pool.map(call, requests[: 2 * clients]))  # connect and warm up
            start = time.perf_counter()
            latencies = list(pool.map(call, waiting))
            return count / (time.perf_counter() - start), latencies


def load(root, model, options):
    """Measure the speed of a model by clients and batching, and the server's memory."""
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
                    f"  {model}: {before:.0f} MB, after {options.memory_requests} more requests "
                    f"{server.megabytes():.0f} MB",
                    flush=True,
                )
    return result


def live(root, model, options):
    """Return the time of `predict` of the Keras model over that of signature `tensors` served."""
    version = latest(root / model)
    network = find(version).model
    names = set(network.input) if isinstance(network.input, dict) else None
    recorded = list(rows(version, "tensors"))
    if names is None or not names <= set(recorded[0]) or model in ("translation", "music"):
        return None
    count = min(options.requests, 100)
    inputs = [{name: row[name] for name in names} for row in recorded]
    for row in inputs:
        network.predict(row, verbose=0)
    start = time.perf_counter()
    for row in itertools.islice(itertools.cycle(inputs), count):
        network.predict(row, verbose=0)
    seconds = time.perf_counter() - start
    with Process(root, model, batching=False) as server:
        requests = [as_request(model, "tensors", row) for row in recorded]
        speed, _ = send(server.address, requests, 1, count)
    print(f"  {model}: live {count / seconds:.1f} rows/s, served {speed:.1f}", flush=True)
    return round(speed * seconds / count, 2)


def parse_options(module, description):
    """Return the options of a benchmark of exports under load, and the tasks to measure."""
    parser = argparse.ArgumentParser(prog=f"python -m {module}", description=description)
    parser.add_argument(
        "--root",
        type=Path,
        default=Path("saved_models"),
        help="folder of the exports (default: %(default)s)",
    )
    parser.add_argument("--models", nargs="+", help="tasks (default: all that have a version)")
    parser.add_argument(
        "--clients",
        nargs="+",
        type=int,
        default=[1, 8, 64],
        help="numbers of simultaneous clients (default: 1 8 64)",
    )
    parser.add_argument(
        "--requests", type=int, default=300, help="requests of each row (default: %(default)s)"
    )
    parser.add_argument(
        "--memory_requests",
        type=int,
        default=10_000,
        help="requests between the two measurements of memory; 0 = none (default: %(default)s)",
    )
    options = parser.parse_args()
    return options, options.models or sorted(p.name for p in options.root.iterdir() if versions(p))


def main():
    options, models = parse_options(
        "tests.benchmarks.serving", "Measure the exports under load on a test double of the server."
    )
    print("| model | clients | batching | requests/s | p50 ms | p95 ms | p99 ms |")
    print("|---|---|---|---|---|---|---|")
    result = {}
    for model in models:
        result[model] = load(options.root, model, options)
        result[model]["live_over_served"] = live(options.root, model, options)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
