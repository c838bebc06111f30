"""Tests and a benchmark of everything that needs a GPU: `python -m tests.gpu`.

It runs the tests marked `gpu`, then compares training steps and exports with stock Keras and
PyTorch. The last line is one JSON object: the card, the versions, the tests that passed, the first
line of each failure, the seconds, and ratios of times, above 1.0 where our layers are faster.
"""

import argparse
import json
import os
import platform
import sys
import time
import traceback

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

from tests.gpu import benchmark

import keras
import pytest
import tensorflow as tf


class Outcomes:
    """A plugin of pytest that counts the tests that passed and keeps the reasons of the others."""

    def __init__(self):
        self.passed, self.failed, self.skipped = 0, {}, {}

    def pytest_runtest_logreport(self, report):
        """Record a test; each has a report for its set-up, its call and its end."""
        if report.failed:
            crash = getattr(report.longrepr, "reprcrash", None)
            message = crash.message if crash else str(report.longrepr)
            self.failed[report.nodeid] = (message.strip() or "no message").splitlines()[0][:300]
        elif report.skipped:
            self.skipped[report.nodeid] = str(report.longrepr)[:300]
        elif report.when == "call":
            self.passed += 1


def card(kind):
    """Return the name of the device."""
    devices = tf.config.list_physical_devices(kind)
    details = tf.config.experimental.get_device_details(devices[0])
    return details.get("device_name", platform.processor() or platform.machine())


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu", description="Test and measure what needs a GPU."
    )
    parser.add_argument(
        "--device",
        choices=("GPU", "CPU"),
        default="GPU",
        help="CPU shows that the tests themselves work (default: GPU)",
    )
    parser.add_argument(
        "--repeats", type=int, default=20, help="measured calls of each layer (default: 20)"
    )
    parser.add_argument(
        "--torch", default=sys.executable, help="Python interpreter of an environment with PyTorch"
    )
    options = parser.parse_args()
    if not tf.config.list_physical_devices(options.device):
        reason = f"TensorFlow {tf.__version__} finds no GPU: pip install -e '.[test,gpu]'"
        print(json.dumps({"error": reason}))
        return 1
    start = time.perf_counter()
    os.environ["TESTED_DEVICE"] = options.device
    outcomes = Outcomes()
    words = ["-m", "gpu", "-n", "2", "--dist", "load", "-q", "-p", "no:cacheprovider"]
    code = pytest.main([*words, os.path.dirname(__file__)], plugins=[outcomes])
    try:
        ratios = benchmark.run(f"{options.device}:0", options.repeats, options.torch)
    except Exception as error:  # the results of the tests are printed in any case
        traceback.print_exc()
        ratios, code = {"benchmark_error": f"{type(error).__name__}: {error}"[:300]}, 1
    facts = {
        "device": card(options.device),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "passed": outcomes.passed,
        "failed": outcomes.failed,
        "skipped": outcomes.skipped,
        **ratios,
        "seconds": round(time.perf_counter() - start),
    }
    print(json.dumps(facts))
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
