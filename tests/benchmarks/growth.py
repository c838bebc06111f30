"""Growth of the time of a training step with length, units and batch size.

    python -m tests.benchmarks.growth --plot common/growth.png

One LSTM layer; one size varies, the others stay at 100 steps, 128 units and inputs, batch 32. The
output is a Markdown table of medians in milliseconds: stock Keras, our layer, and PyTorch where it
is installed (extra `[bench]`). The last line is one JSON object: for each size, the exponent of our
time over its last doubling.
"""

import argparse
import json
import math
from pathlib import Path

from common import plots
from common.commands import report
from tests.benchmarks.rnn import interleaved, train_calls

SIZES = {
    "length": (50, 100, 200, 400, 800, 1600, 3200),
    "units": (32, 64, 128, 256, 512, 1024),
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256),
}
USUAL = {"length": 100, "units": 128, "batch": 32}
COLOURS = {"keras": "C1", "ours": "C0", "torch": "C2"}


def measure(name, size, repeats):
    """Return the milliseconds of a training step with one size varied."""
    at = {**USUAL, name: size}
    shape = (at["batch"], at["length"], at["units"], at["units"], 1, False, False)
    calls = train_calls("LSTM", shape)
    del calls["limit"]
    return interleaved(calls, repeats)


def draw(rows, path):
    """Draw one panel for each size; both axes are logarithmic."""
    with plots.picture(path, (12, 3.6)) as figure:
        for axes, name in zip(figure.subplots(1, len(SIZES)), SIZES, strict=True):
            mine = [row for row in rows if row["varied"] == name]
            for kind, colour in COLOURS.items():
                if kind in mine[0]:
                    sizes, times = [r["size"] for r in mine], [r[kind] for r in mine]
                    axes.plot(sizes, times, marker=".", color=colour, label=kind)
            axes.set_xscale("log", base=2)
            axes.set_yscale("log")
            axes.set(xlabel=name, ylabel="ms per training step")
            axes.grid(alpha=0.3)
            axes.legend()


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.growth",
        description="Measure the time of a training step against the sizes of a layer.",
    )
    parser.add_argument("--repeats", type=int, default=7, help="steps of each size (default: 7)")
    parser.add_argument("--plot", type=Path, help="draw the table into this PNG file")
    options = parser.parse_args()
    rows = []
    for name, sizes in SIZES.items():
        for size in sizes:
            times = measure(name, size, options.repeats)
            rows.append(
                {"varied": name, "size": size, **{k: round(v, 2) for k, v in times.items()}}
            )
            print(rows[-1], flush=True)
    print(report.table([{k: str(v) for k, v in row.items()} for row in rows]))
    if options.plot:
        draw(rows, options.plot)
    growth = {}
    for name in SIZES:
        *_, before, last = (row["ours"] for row in rows if row["varied"] == name)
        growth[f"{name}_exponent"] = round(math.log2(last / before), 2)
    print(json.dumps(growth))


if __name__ == "__main__":
    main()
