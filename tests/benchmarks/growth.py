"""How the cost of a training step grows with length, width and batch.

    python -m tests.benchmarks.growth --plot common/growth.png

One LSTM layer; one of the three is varied, the other two stay at 100 steps, 128 units (as many
inputs), batch 32. Prints a Markdown table of medians in milliseconds: stock Keras, ours, and
PyTorch where it is installed (extra `[bench]`). The last line is one JSON object: the exponent with
which our time grows over the last doubling of each.
"""

import argparse
import json
import math
from pathlib import Path

from common.commands import report
from tests.benchmarks.rnn import interleaved, train_calls

from matplotlib.figure import Figure

SIZES = {
    "length": (50, 100, 200, 400, 800, 1600, 3200),
    "units": (32, 64, 128, 256, 512, 1024),
    "batch": (1, 2, 4, 8, 16, 32, 64, 128, 256),
}
USUAL = {"length": 100, "units": 128, "batch": 32}
COLOURS = {"keras": "tab:orange", "ours": "tab:blue", "torch": "tab:green"}


def measure(name, size, repeats):
    """Milliseconds of one training step with one size varied."""
    at = {**USUAL, name: size}
    shape = (at["batch"], at["length"], at["units"], at["units"], 1, False, False)
    calls = train_calls("LSTM", shape)
    del calls["limit"]
    return interleaved(calls, repeats)


def draw(rows, path):
    """One panel for each size, both axes logarithmic."""
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(SIZES)), SIZES, strict=True):
        mine = [row for row in rows if row["varied"] == name]
        for kind, colour in COLOURS.items():
            if kind in mine[0]:
                sizes, times = [r["size"] for r in mine], [r[kind] for r in mine]
                axes.plot(sizes, times, marker=".", color=colour, label=kind)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set(xlabel=name, ylabel="ms a training step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.growth", description="Time against the sizes of a layer."
    )
    parser.add_argument("--repeats", type=int, default=7, help="steps of each (default 7)")
    parser.add_argument("--plot", type=Path, help="draw the table into this PNG")
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
