"""Requests per second, latency and memory of the exports on the Triton inference server.

    python -m tests.benchmarks.triton_load --root saved_models --models sentiment --requests 300

The server is a real one, in an environment that the first run makes; see `tests/triton/server.py`.
Each of 1, 8 and 64 clients, which are threads of one process, sends one row at a time by gRPC and
waits for the response. The rows come from the export's warm-up records, without those that have
empty outputs. Each model has one process, which runs one batch at a time; merging follows
`batching.config`. This measures the exports under Triton, not TF Serving.

Memory is that of the server and of the model's process, before and after `--memory_requests` more
requests with merging on. The last line is one JSON object.
"""

import itertools
import json
import tempfile
from pathlib import Path

from common.serving.versions import latest
from tests.benchmarks.serving import parse_options, rows
from tests.triton.server import ENVIRONMENT, Server, add_version, make_environment

import numpy as np


def load(server, model, requests, clients, count):
    """Return the requests per second, the percentiles of milliseconds, and the size of a batch."""
    repeated = list(itertools.islice(itertools.cycle(requests), count))
    server.send(repeated[: 2 * len(requests)], clients, outputs=False)  # warm up
    before = server.counts(model)
    seconds, results = server.send(repeated, clients, outputs=False)
    assert all(version for _, version, _ in results)
    done, executions = np.subtract(server.counts(model), before)
    p50, p95, p99 = np.percentile([1000 * one for one, _, _ in results], [50, 95, 99])
    figures = {"requests_per_second": count / seconds, "p50": p50, "p95": p95, "p99": p99}
    figures["rows_per_batch"] = done / executions
    return {name: round(float(value), 1) for name, value in figures.items()}


def measure(python, version, model, merging, options):
    """Return the figures of one export by the number of clients, and the memory."""
    result = {}
    requests = [(model, "serving_default", row) for row in rows(version, "serving_default")]
    with tempfile.TemporaryDirectory() as folder:
        repository = Path(folder) / "models"
        add_version(repository, model, 1, version, merging)
        with Server(python, repository) as server:
            for clients in options.clients:
                count = max(options.requests, 2 * clients)
                result[clients] = load(server, model, requests, clients, count)
            if merging and options.memory_requests:
                before = server.megabytes()
                load(server, model, requests, 8, options.memory_requests)
                after = server.megabytes()
                result["megabytes"] = {
                    name: [round(size), round(after[name])] for name, size in before.items()
                }
    return result


def print_rows(model, off, on):
    """Print the rows of the table for one export, and its memory."""
    for clients in (key for key in off if key in on):
        cells = [model, clients]
        for figures in (off[clients], on[clients]):
            cells.append(figures["requests_per_second"])
            cells.append(" / ".join(str(figures[name]) for name in ("p50", "p95", "p99")))
        print("|", " | ".join(map(str, cells)), "|", flush=True)
    if "megabytes" in on:
        print(f"  {model}: MB before and after: {on['megabytes']}", flush=True)


def main():
    options, models = parse_options(
        "tests.benchmarks.triton_load",
        "Measure the exports under load on the Triton inference server.",
    )
    python = make_environment(ENVIRONMENT)
    times = "p50 / p95 / p99 ms"
    print(f"| export | clients | requests/s, merging off | {times} | requests/s, on | {times} |")
    print("|---|---|---|---|---|---|")
    result = {}
    for model in models:
        version = latest(options.root / model)
        off, on = (measure(python, version, model, merging, options) for merging in (False, True))
        print_rows(model, off, on)
        result[model] = {"off": off, "on": on}
    print(json.dumps(result))


if __name__ == "__main__":
    main()
