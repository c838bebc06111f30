"""Time to generate music: the export, and the same model run step by step from Python.

    pip install -e '.[music]'
    python -m tests.benchmarks.music --model saved_models/music

The export generates all steps in one graph loop. The Python loop runs the same code on the same
weights eagerly; it is slow, so only a few steps are measured and its time for all steps is
extrapolated. The last line is one JSON object; all times are in seconds.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from common.commands import report
from common.serving.served import load_export
from common.serving.versions import find
from tasks.music import generation
from tasks.music.habits import Habits
from tasks.music.midi import KEYS

import numpy as np
import tensorflow as tf


def timed(function, repeats):
    """Return the median time of several calls, and the last result."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        result = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), result


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.music",
        description="Measure the time to generate music.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--model", type=Path, default=Path("saved_models/music"), help="export to measure"
    )
    parser.add_argument("--steps", type=int, default=512, help="steps of the export")
    parser.add_argument("--python_steps", type=int, default=40, help="steps of the Python loop")
    parser.add_argument("--repeats", type=int, default=3, help="calls of the export")
    options = parser.parse_args()
    served = load_export(options.model)
    kept = Habits(**served.settings["habits"])
    layers = generation.parts(find(served.path).model, kept)

    def by_export(steps, rows=1):
        ones = np.ones(rows)
        outputs = served.call(
            "serving_default",
            prime=np.zeros((rows, 1, KEYS)),
            prime_length=0 * ones,
            steps=steps * ones,
            temperature=ones,
            top_p=ones,
            seed=np.stack([0 * ones, 7 + np.arange(rows)], axis=1),
        )
        return outputs["notes"][0]

    def by_loop():
        steps = options.python_steps
        return generation.generate(
            layers,
            prime=tf.zeros([1, 1, KEYS]),
            prime_length=tf.constant([0]),
            length=tf.constant([steps]),
            temperature=tf.ones(1),
            top_p=tf.ones(1),
            seed=tf.constant([[0, 7]]),
            steps=steps,
        ).numpy()[0]

    by_export(8), by_export(8, rows=16)  # the first call of a graph is slow
    one, notes = timed(lambda: by_export(options.steps), options.repeats)
    many, _ = timed(lambda: by_export(options.steps, rows=16), 1)
    short, eager = timed(by_loop, 1)
    same = bool(np.array_equal(eager > 0, notes[: len(eager)] > 0))
    extrapolated = short / options.python_steps * options.steps
    rows = [
        {"program": "export, 1 row", "steps": options.steps, "seconds": one},
        {"program": "export, 16 rows", "steps": options.steps, "seconds": many},
        {"program": "Python loop, 1 row", "steps": options.python_steps, "seconds": short},
        {"program": "the same, extrapolated", "steps": options.steps, "seconds": extrapolated},
    ]
    print(report.table(rows))
    result = {
        "benchmark": "music",
        "model": str(served.path),
        "steps": options.steps,
        "export_seconds": round(one, 3),
        "export_16_rows_seconds": round(many, 3),
        "python_steps": options.python_steps,
        "python_seconds": round(short, 3),
        "python_seconds_reckoned": round(extrapolated, 1),
        "same_music": same,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
