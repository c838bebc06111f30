"""How long an export takes to make music, beside the same model walked step by step from Python.

    pip install -e '.[music]'
    python -m tests.benchmarks.music --model saved_models/music

The export is asked for all steps at once: one graph loop. The Python loop runs the same code on the
same weights eagerly, an operation at a time, for a few steps, since it is slow; what it takes for
all of them is reckoned from these. The last line is one JSON object; all times are in seconds.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

from common.commands import report
from common.serving.served import load_export
from tasks.music import generation
from tasks.music.data import KEYS

import keras
import numpy as np
import tensorflow as tf


def timed(function, repeats):
    """The median time of some calls, and the last answer."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        answer = function()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds), answer


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.music", description="Seconds of making music."
    )
    parser.add_argument("--model", type=Path, default=Path("saved_models/music"))
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--python_steps", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    served = load_export(options.model)
    layers = generation.parts(keras.models.load_model(served.path / "model.keras"))

    def ask(steps, rows=1):
        ones = np.ones(rows)
        answer = served.call(
            "serving_default",
            prime=np.zeros((rows, 1, KEYS)),
            prime_length=0 * ones,
            steps=steps * ones,
            temperature=ones,
            top_p=ones,
            seed=np.stack([0 * ones, 7 + np.arange(rows)], axis=1),
        )
        return answer["notes"][0]

    def walk():
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

    ask(8), ask(8, rows=16)  # the first call of a graph prepares it
    one, notes = timed(lambda: ask(options.steps), options.repeats)
    many, _ = timed(lambda: ask(options.steps, rows=16), 1)
    short, eager = timed(walk, 1)
    same = bool(np.array_equal(eager, notes[: len(eager)]))
    reckoned = short / options.python_steps * options.steps
    rows = [
        {"way": "export, 1 row", "steps": options.steps, "seconds": one},
        {"way": "export, 16 rows", "steps": options.steps, "seconds": many},
        {"way": "Python loop, 1 row", "steps": options.python_steps, "seconds": short},
        {"way": "the same, reckoned", "steps": options.steps, "seconds": reckoned},
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
        "python_seconds_reckoned": round(reckoned, 1),
        "same_music": same,
    }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
