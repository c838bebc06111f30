"""Seconds of the longest requests that each export answers, on one core.

    python -m tests.benchmarks.longest_request --root saved_models --models music dna

An export computes no row beyond its bounds (`max_...` in `assets.extra/config.json`), so the
largest requests within them are the slowest ones: one row of the largest length, as many rows of it
as the budget of a batch allows, and as many short rows. Each runs twice on one core; the second run
is measured. `rows` counts those whose outputs are not empty: fewer than sent means that the request
was beyond a bound. The last line is one JSON object.
"""

import argparse
import json
import os
import time
from pathlib import Path

from common.serving.versions import latest, read_settings

TEXT = "the quick brown fox jumped over the lazy dog , and nobody in London saw it . "
FRENCH = "le chat dort sur la grande table et tout le monde le regarde avec plaisir . "


def fill_budget(longest, budget, rows):
    """Return the (rows, length) to send: one longest row, the most longest and the most short."""
    most = min(budget // longest, rows)
    shapes = [(1, longest), (most, longest), (rows, max(1, min(longest, budget // rows)))]
    return list(dict.fromkeys(shapes))


def repeat(name, text, rows):
    """Return a request of equal texts."""
    import numpy as np

    return {name: np.array([text.encode()] * rows, object)}


def text_requests(limits, words, unit):
    """Yield requests of texts with about one token per word."""
    longest, budget = limits[f"max_{unit}"], limits[f"max_batch_{unit}"]
    tokens = words.split()
    for rows, length in fill_budget(longest, budget, limits["max_rows"]):
        text = " ".join((tokens * (length // len(tokens) + 1))[:length])
        yield f"{rows} x {length} {unit}", repeat("text", text, rows)
    long = (words * (limits["max_bytes"] // len(words) + 1))[: limits["max_bytes"]]
    rows = min(limits["max_batch_bytes"] // limits["max_bytes"], limits["max_rows"])
    yield (
        f"{rows} x {limits['max_bytes']} bytes",
        repeat("text", long, rows),
    )


def dna_requests(limits):
    """Yield requests of random bases."""
    import numpy as np

    bases = np.random.default_rng(0).choice(list("ACGT"), limits["max_bases"])
    sizes = limits["max_bases"], limits["max_batch_bases"], limits["max_rows"]
    for rows, length in fill_budget(*sizes):
        yield (
            f"{rows} x {length} bases",
            repeat("sequence", "".join(bases[:length]), rows),
        )


def music_requests(limits):
    """Yield requests of all the frames that may be added, after a prime or after nothing."""
    import numpy as np

    sizes = limits["max_frames"], limits["max_batch_frames"], limits["max_rows"]
    shapes = fill_budget(*sizes)
    shapes.append((limits["max_batch_frames"] // limits["max_steps"], limits["max_steps"]))
    for rows, length in shapes:
        steps = min(limits["max_steps"], length)
        prime = np.zeros([rows, max(1, length - steps), 88], np.float32)
        prime[:, ::2, 40:44] = 1.0
        yield (
            f"{rows} x ({length - steps} + {steps}) frames",
            {
                "prime": prime,
                "prime_length": np.full(rows, length - steps, np.int32),
                "steps": np.full(rows, steps, np.int32),
                "temperature": np.ones(rows, np.float32),
                "top_p": np.full(rows, 0.9, np.float32),
                "seed": np.arange(2 * rows, dtype=np.int32).reshape(rows, 2),
            },
        )


def speech_requests(limits):
    """Yield requests of noise."""
    import numpy as np

    noise = np.random.default_rng(0).normal(0.0, 0.1, limits["max_samples"]).astype(np.float32)
    sizes = limits["max_samples"], limits["max_batch_samples"], limits["max_rows"]
    for rows, length in fill_budget(*sizes):
        yield (
            f"{rows} x {length} samples",
            {
                "audio": np.tile(noise[:length], (rows, 1)),
                "length": np.full(rows, length, np.int32),
            },
        )


def video_requests(limits):
    """Yield requests of noise: as many frames as allowed, and as many pixels."""
    import numpy as np

    generator = np.random.default_rng(0)
    rate, longest = limits["frame_rate"], limits["max_frames"]
    shapes = [
        (rows, length, 64)
        for rows, length in fill_budget(longest, limits["max_batch_frames"], limits["max_rows"])
    ]
    side = int((limits["max_pixels"] // longest) ** 0.5)
    shapes.append((limits["max_batch_pixels"] // limits["max_pixels"], longest, side))
    for rows, length, side in shapes:
        frames = generator.integers(0, 256, [1, length, side, side, 3], dtype=np.uint8)
        yield (
            f"{rows} x {length} frames of {side} x {side}",
            {
                "frames": np.repeat(frames, rows, axis=0),
                "length": np.full(rows, length, np.int32),
                "size": np.full([rows, 2], side, np.int32),
                "frame_rate": np.full(rows, rate, np.float32),
            },
        )


REQUESTS = {
    "sentiment": lambda limits: text_requests(limits, TEXT, "tokens"),
    "ner": lambda limits: text_requests(limits, TEXT, "tokens"),
    "dna": dna_requests,
    "translation": lambda limits: text_requests(limits, FRENCH, "subwords"),
    "music": music_requests,
    "speech": speech_requests,
    "video": video_requests,
}


def main():
    """Measure; see the module."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path("saved_models"))
    parser.add_argument("--models", nargs="+", choices=REQUESTS, default=list(REQUESTS))
    flags = parser.parse_args()
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # before TensorFlow counts the cores
    from common.serving.served import load_export

    slowest = {}
    for model in flags.models:
        version = latest(flags.root / model)
        served, limits = load_export(version), read_settings(version)
        slowest[model] = {"seconds": 0.0, "request": ""}
        for name, inputs in REQUESTS[model](limits):
            served.call("serving_default", **inputs)
            start = time.perf_counter(), time.process_time()
            outputs = served.call("serving_default", **inputs)
            wall, cpu = time.perf_counter() - start[0], time.process_time() - start[1]
            rows = sum(
                any(output[row : row + 1].astype(bool).any() for output in outputs.values())
                for row in range(len(next(iter(outputs.values()))))
            )
            line = f"{model:12} {name:36} {wall:7.2f} s, CPU {cpu:7.2f} s, rows {rows}"
            print(line, flush=True)
            if cpu > slowest[model]["seconds"]:
                slowest[model] = {"seconds": round(cpu, 2), "request": name}
    print(json.dumps({"benchmark": "longest_request", "one_core": slowest}))


if __name__ == "__main__":
    main()
