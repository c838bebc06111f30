"""Memory of a process that loads the same exports again and again.

    python -m tests.benchmarks.reloads --root saved_models --reloads 30

Each reload loads the version, runs its first warm-up request, and releases it. The C++ loader is
the one of TF Serving; `python` is `tf.saved_model.load`, which notebooks use. Each runs in a
process of its own per export. Printed are the resident memory after the 5th and the last load, and
the growth per reload between them, in MB. The last line is one JSON object.
"""

import argparse
import gc
import json
import os
import re
import subprocess
import sys
from pathlib import Path

from common.serving.versions import latest
from tasks.__main__ import TASKS

FIRST = 5  # loads until allocators and caches have settled


def megabytes():
    """Return the resident memory of this process."""
    return int(re.search(r"VmRSS:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) / 1024


def reload(version, loader, reloads):
    """Load, call and release a version; yield the memory after each time."""
    from common.serving import check

    signatures, records = check.read_signatures(version), check.read_records(version)
    record = next(
        r for r in records if r.request.model_spec.signature_name == "serving_default"
    ).request
    inputs = check.to_arrays(record.inputs)
    for _ in range(reloads):
        call = check.LOADERS[loader](version, signatures)
        call("serving_default", inputs)
        if loader == "c++":
            call.close()
        del call
        gc.collect()
        yield megabytes()


def main():
    """Measure; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("saved_models"))
    parser.add_argument("--models", nargs="+", choices=TASKS, default=list(TASKS))
    parser.add_argument("--reloads", type=int, default=30)
    parser.add_argument("--loader", choices=("python", "c++"), help=argparse.SUPPRESS)
    flags = parser.parse_args()
    if flags.loader:  # the process of one export
        (model,) = flags.models
        print(json.dumps([*reload(latest(flags.root / model), flags.loader, flags.reloads)]))
        return
    growth = {"python": {}, "c++": {}}
    for model in flags.models:
        for loader in growth:
            command = [sys.executable, "-m", "tests.benchmarks.reloads", "--loader", loader]
            command += ["--root", str(flags.root), "--reloads", str(flags.reloads)]
            done = subprocess.run(
                [*command, "--models", model],
                capture_output=True,
                text=True,
                check=True,
                env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
            )
            memory = json.loads(done.stdout.splitlines()[-1])
            slope = (memory[-1] - memory[FIRST - 1]) / (len(memory) - FIRST)
            growth[loader][model] = round(slope, 2)
            print(
                f"{model:12} {loader:7} {memory[FIRST - 1]:7.0f} MB after {FIRST} loads, "
                f"{memory[-1]:7.0f} MB after {len(memory)}: {slope:+.2f} MB per reload",
                flush=True,
            )
    print(json.dumps({"benchmark": "reloads", "reloads": flags.reloads, "growth": growth}))


if __name__ == "__main__":
    main()
