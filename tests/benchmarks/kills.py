"""Kill trainings at random moments, resume them, and compare their exports bit by bit.

    python -m tests.benchmarks.kills --kills 100

Each task trains a tiny model on its own test data once without interruption. Then a training of the
same command is killed by SIGKILL after a random part of that time, data preparation and publication
included, and resumed. Every published version must be complete and hold the very weights of the
uninterrupted run. The last line is one JSON object.
"""

import argparse
import collections
import concurrent.futures
import dataclasses
import importlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.tasks.exports import ROOT, TASKS

EPOCHS = 3


@dataclasses.dataclass(frozen=True)
class Reference:
    """A training without interruption: its folder, its duration, and its export."""

    task: str
    data: Path
    seconds: float
    files: frozenset[str]
    weights: dict


def command(task):
    """Return the words of the training of a task."""
    words = [*map(str, importlib.import_module(f"tests.tasks.own.{task}").TRAIN)]
    words[words.index("--epochs") + 1] = str(EPOCHS)
    words[words.index("--score") + 1] = "none"
    return [sys.executable, "-m", f"tasks.{task}.train", *words, "--deterministic"]


def start(words, folder):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.Popen(
        words,
        cwd=folder,
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def versions(folder, task):
    """Return the version folders of a task."""
    return [path for path in (folder / "saved_models" / task).glob("*") if path.name.isdigit()]


def content(version):
    """Return the files of a version, and the variables of its SavedModel."""
    import tensorflow as tf

    reader = tf.train.load_checkpoint(str(version / "variables" / "variables"))
    names = reader.get_variable_to_shape_map()
    weights = {
        name: reader.get_tensor(name) for name in sorted(names) if "CHECKPOINTABLE" not in name
    }
    files = {str(path.relative_to(version)) for path in version.rglob("*") if path.is_file()}
    return frozenset(files), weights


def make_reference(task, root):
    folder = root / task / "whole"
    (root / task / "data").mkdir(parents=True)
    importlib.import_module(f"tests.tasks.own.{task}").write_data(root / task / "data")
    shutil.copytree(root / task / "data", folder)
    begin = time.monotonic()
    process = start(command(task), folder)
    _, errors = process.communicate()
    assert process.returncode == 0, errors
    seconds = time.monotonic() - begin
    return Reference(task, root / task / "data", seconds, *content(*versions(folder, task)))


def kill_and_resume(reference, number, moment, folder):
    """Return the outcome: `equal`, `told to start anew`, or a description of the failure."""
    task = reference.task
    shutil.copytree(reference.data, folder)
    process = start(command(task), folder)
    try:
        process.wait(timeout=moment * reference.seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
    process.communicate()
    published = len(versions(folder, task)) if (folder / "saved_models" / task).is_dir() else 0
    process = start([*command(task), "--resume"], folder)
    _, errors = process.communicate()
    where = f"{task}, kill {number} at {moment:.3f}"
    if process.returncode:
        told = "leave out --resume to start anew" in errors
        return "told to start anew" if told else f"{where}: {errors.strip()[-500:]}"
    if len(versions(folder, task)) != published + 1:
        return f"{where}: {len(versions(folder, task))} versions"
    for version in versions(folder, task):
        files, weights = content(version)
        if files != reference.files:
            return f"{where}: {version.name} differs in {sorted(files ^ reference.files)}"
        if weights.keys() != reference.weights.keys() or any(
            (weights[name] != reference.weights[name]).any() for name in weights
        ):
            return f"{where}: the weights of version {version.name} differ"
    if left := [path.name for path in (folder / "saved_models" / task).glob(".staging*")]:
        return f"{where}: {left} left"
    shutil.rmtree(folder)
    return "equal"


def main():
    """Kill and resume; print a line for each kill, and the counts."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100, help="number of kills, over all tasks")
    parser.add_argument("--jobs", type=int, default=2, help="trainings at a time")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    flags = parser.parse_args()
    moments = random.Random(flags.seed)
    outcomes = collections.Counter()
    with (
        tempfile.TemporaryDirectory() as root,
        concurrent.futures.ThreadPoolExecutor(flags.jobs) as pool,
    ):
        root = Path(root)
        made = pool.map(lambda task: make_reference(task, root), flags.tasks)
        references = dict(zip(flags.tasks, made, strict=True))
        futures = []
        for number in range(flags.kills):
            reference = references[flags.tasks[number % len(flags.tasks)]]
            folder, moment = root / reference.task / str(number), moments.random()
            futures.append(pool.submit(kill_and_resume, reference, number, moment, folder))
        for number, future in enumerate(futures, start=1):
            outcome = future.result()
            outcomes[outcome if outcome in ("equal", "told to start anew") else "failed"] += 1
            print(f"{number} of {flags.kills}: {outcome}", flush=True)
    print(json.dumps({"kills": flags.kills, **outcomes}))
    sys.exit(outcomes["failed"] > 0)


if __name__ == "__main__":
    main()
