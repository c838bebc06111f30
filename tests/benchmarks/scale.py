"""Time and memory of training and prediction against the size of the user's table.

    python -m tests.benchmarks.scale --rows 10000 100000 1000000
    python -m tests.benchmarks.scale --rows 10000000 --tasks sentiment --predict_rows 0

Tables are made by formula: reviews of about 590 bytes, pairs of sentences of about 145, sentences
of about 130 bytes with the tags of their names.
For each size the `train` command of a task starts twice with its defaults, in a process of its own,
which ends after `--steps` steps: "first" is the first start, which also prepares the table if it is
large, "again" is the second. Seconds count from the start of the process to the end of the first
step. Rows a second are those of the median step after the first 50, memory is the peak of the
process.

Then `predict` reads `--predict_rows` rows in 8 files, alone and with workers, through the exports
in saved_models. Its seconds include the start of the processes. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from common.commands import report
from tests.tasks.exports import ROOT

TABLES = {"sentiment": "table.csv", "translation": "table.tsv", "ner": "table.conll"}
# Word clusters would be downloaded anew for each table.
FLAGS = {"ner": ("--clusters", "none")}
SKIPPED = 50  # steps, in which the shapes of batches are compiled
FILES = 8
WORDS = [a + b + c for a in ("ba", "do", "fi", "gu", "ke", "la", "mo", "ni", "pu", "re") for b in
         ("lan", "mer", "nos", "pit", "rud", "sel", "tob", "vin", "wek", "zam") for c in
         ("", "a", "en", "is", "o")]  # fmt: skip


# --- Tables ---------------------------------------------------------------------------------------


def word(number: int, place: int) -> str:
    """Return a word that follows from two numbers, frequent ones more often."""
    value = (number * 2_654_435_761 + place * 40_503) % 1_000_003
    return WORDS[value % len(WORDS) if value % 3 else value % 40]


def reviews(count: int) -> Iterator[str]:
    """Yield the lines of a table of reviews, in which one word decides the class."""
    yield "text,label"
    phrases = [" ".join(word(n, k) for k in range(8)) for n in range(5000)]
    for number in range(count):
        parts = [phrases[(number * 7919 + 104_729 * k) % len(phrases)] for k in range(10)]
        label = number * 31 % 5
        yield f"{' '.join(parts)} {number} grade{label},{label + 1}"


def pairs(count: int) -> Iterator[str]:
    """Yield the lines of a table of sentence pairs; each word has one translation."""
    for number in range(count):
        words = [word(number, place) for place in range(6 + number % 8)]
        source = " ".join(words)
        target = " ".join(word[::-1] for word in words)
        yield f"{source} {number}.\t{target} {number}."


def sentences(count: int) -> Iterator[str]:
    """Yield the lines of a CoNLL file, in which the form of a word says what it is."""
    for number in range(count):
        for place in range(8 + number % 9):
            token = word(number, place)
            kind = ("PER", "LOC", "ORG")[(number + place) % 3]
            is_name = (number * 31 + place) % 6 == 0
            yield f"{token.capitalize()}{kind.lower()}\tB-{kind}" if is_name else f"{token}\tO"
        yield f"{number}\tO\n"


LINES = {"sentiment": reviews, "translation": pairs, "ner": sentences}


def write(path: Path, lines: Iterator[str]) -> None:
    """Write lines to a file."""
    with open(path, "w", encoding="utf-8") as file:
        file.writelines(f"{line}\n" for line in lines)


def write_table(task: str, count: int, folder: Path) -> Path:
    """Write the table of a task."""
    path = folder / TABLES[task]
    write(path, LINES[task](count))
    return path


# --- Training -------------------------------------------------------------------------------------


def clock():
    """Return the callback of a training, which measures and then ends the process."""
    import keras

    start, steps = float(os.environ["SCALE_START"]), int(os.environ["SCALE_STEPS"])

    class Clock(keras.callbacks.Callback):
        times: list[float] = []  # noqa: RUF012

        def on_train_batch_end(self, batch, logs=None):
            self.times.append(time.time())
            if len(self.times) < steps:
                return
            # The median, since an epoch of a small table ends among these steps.
            seconds = statistics.median(b - a for a, b in itertools.pairwise(self.times[SKIPPED:]))
            result = {
                "first_step": self.times[0] - start,
                "steps_per_second": 1.0 / seconds,
                "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            }
            Path(os.environ["SCALE_RESULT"]).write_text(json.dumps(result))
            os._exit(0)

    return Clock()


def train(task: str, table: Path, steps: int) -> dict[str, float]:
    """Start a training, and return what its callback measured."""
    folder = table.parent
    (folder / "result.json").unlink(missing_ok=True)
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "CUDA_VISIBLE_DEVICES": "",
        "SCALE_START": str(time.time()),
        "SCALE_STEPS": str(steps),
        "SCALE_RESULT": str(folder / "result.json"),
    }
    line = [sys.executable, "-m", f"tasks.{task}.train", "--data", str(table), "--verbose", "0"]
    line += ["--callbacks", "tests.benchmarks.scale:clock", "--data_dir", str(folder / "data")]
    line += ["--output", str(folder / "models"), "--batch_size", "64", *FLAGS.get(task, ())]
    done = subprocess.run(
        line, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    if not (folder / "result.json").exists():
        raise SystemExit(done.stdout[-2000:] + done.stderr[-3000:])
    return json.loads((folder / "result.json").read_text())


def measure_training(task: str, rows: int, steps: int, folder: Path) -> dict[str, object]:
    """Return the row of the table for one size."""
    table = write_table(task, rows, folder)
    first, again = (train(task, table, steps) for _ in range(2))
    return {
        "task": task,
        "rows": rows,
        "MB": round(table.stat().st_size / 1e6),
        "first_s": round(first["first_step"], 1),
        "again_s": round(again["first_step"], 1),
        "rows_per_s": round(64 * again["steps_per_second"]),
        "first_peak_MB": round(first["peak"]),
        "again_peak_MB": round(again["peak"]),
    }


# --- Prediction -----------------------------------------------------------------------------------


def write_inputs(task: str, rows: int, folder: Path) -> list[Path]:
    """Write the rows to predict, in several files of one text a line."""
    text = "\n".join(LINES[task](rows))
    if task == "ner":
        blocks = text.removesuffix("\n").split("\n\n")
        texts = [" ".join(line.split("\t")[0] for line in block.splitlines()) for block in blocks]
    else:
        separator = "," if task == "sentiment" else "\t"
        texts = [line.split(separator)[0] for line in text.splitlines()][-rows:]
    paths = []
    for number in range(FILES):
        paths.append(folder / f"{number}.txt")
        write(paths[-1], iter(texts[number::FILES]))
    return paths


def measure_prediction(task: str, rows: int, workers: int, folder: Path) -> dict[str, object]:
    """Return the row of the table for one number of workers."""
    paths = write_inputs(task, rows, folder)
    output = folder / f"out_{workers}"
    line = [sys.executable, "-m", f"tasks.{task}.predict", "--file", *map(str, paths)]
    line += ["--model", str(ROOT / "saved_models" / task), "--output", str(output)]
    line += ["--workers", str(workers)] if workers > 1 else []
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    start = time.monotonic()
    done = subprocess.run(
        line, env=environment, cwd=folder, capture_output=True, text=True, check=False
    )
    seconds = time.monotonic() - start
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    files = sorted(output.glob("*")) if output.is_dir() else [output]
    found = sum(len(path.read_text(encoding="utf-8").splitlines()) for path in files)
    if found != rows:
        raise SystemExit(f"{found} of {rows} rows were predicted")
    row = {"task": task, "rows": rows, "workers": workers, "seconds": round(seconds, 1)}
    return row | {"rows_per_s": round(rows / seconds)}


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.scale",
        description=__doc__.splitlines()[0],
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--tasks", nargs="+", default=list(TABLES), choices=TABLES)
    parser.add_argument("--steps", type=int, default=200, help="steps of each training")
    parser.add_argument("--predict_rows", type=int, default=50_000, help="0: no prediction")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], help="of prediction")
    parser.add_argument("--folder", type=Path, help="of the tables (default: a temporary one)")
    flags = parser.parse_args()
    trainings, predictions = [], []
    for task in flags.tasks:
        for rows in flags.rows:
            with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
                trainings.append(measure_training(task, rows, flags.steps, Path(folder)))
                print(trainings[-1], flush=True)
        for workers in flags.workers if flags.predict_rows else ():
            with tempfile.TemporaryDirectory(dir=flags.folder) as folder:
                made = measure_prediction(task, flags.predict_rows, workers, Path(folder))
                predictions.append(made)
                print(made, flush=True)
    for table in (trainings, predictions):
        if table:
            print(f"\n{report.table(table)}")
    print(json.dumps({"training": trainings, "prediction": predictions}))


if __name__ == "__main__":
    main()
