"""List the seven tasks, train all of them, or open a page to try them.

    sequence-suite                                  # data, model, last score, versions
    sequence-suite examples                         # seven inputs and the answers to them
    sequence-suite train --quick                    # all seven, a few minutes on 2 cores
    sequence-suite train --score test speech video  # two of them, with their full defaults
    sequence-suite demo                             # a page in the browser, for the exports
    sequence-suite ner predict "Ada lives in Rome." # or train, tune, evaluate; each other task
    sequence-suite ner push hf://ada/names          # upload a model to the Hugging Face Hub
    source <(sequence-suite completion)             # the Tab key completes tasks and flags

`python -m tasks` does the same as `sequence-suite`, and `python -m tasks.ner.predict` as
`sequence-suite ner predict`. `train` trains all tasks, several at a time where cores and memory
allow it, and prints a scoreboard; a task that fails does not stop the others. Each command has its
own `--help`. The last line of `train`, and each line of `--json`, is a JSON object.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import functools
import importlib
import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Literal, get_args

import common
from common.commands import cli
from common.errors import InputError, TrainingError
from common.serving.versions import (
    MODELS,
    card_scores,
    latest,
    read_settings,
    task_folder,
    versions,
)
from common.start_up import LINES, cores

import tyro

Task = Literal["sentiment", "ner", "dna", "translation", "music", "speech", "video"]
TASKS: tuple[str, ...] = get_args(Task)
# By the time that their default and quick trainings take.
LONGEST_FIRST = ("speech", "video", "dna", "ner", "sentiment", "translation", "music")
# The metric of a task on the scoreboard; a lower wer or nll is better.
METRICS = {
    "sentiment": "accuracy",
    "ner": "f1",
    "dna": "stop_f1",
    "translation": "bleu",
    "music": "nll",
    "speech": "wer",
    "video": "accuracy",
}
# What `predict` of a task is called with.
INPUTS = {
    "sentiment": '"A warm and funny film."',
    "ner": '"Ada lives in Rome."',
    "dna": "genome.fa",
    "translation": '"Où est la gare ?"',
    "music": "--out new.mid",
    "speech": "recording.wav",
    "video": "clip.mp4",
}
QUICK_MODELS = Path("quick_models")  # apart, since the newest version is what `load` returns
# Published scores on the test split of the default data. The other default data sets belong to this
# project or have no published score; BENCHMARKS.md has the others.
PUBLISHED = {"dna": "0.976 on test (Prodigal)"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """Flags of the list."""

    models: Path = MODELS
    """folder of the exports"""
    json: bool = False
    """print one JSON object per line"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Flags of `train`; the command of each task has many more."""

    tasks: tyro.conf.Positional[tuple[Task, ...]] = ()
    """tasks to train (default: all seven)"""
    quick: bool = False
    """smaller budgets, a few minutes in all on 2 cores, with lower scores"""
    jobs: int | None = None
    """tasks trained at a time, each on its own cores (default: from cores and memory; 1 on a
    GPU)"""
    output: Path | None = None
    """exports are written to OUTPUT/<task>/<n>/, checkpoints and logs to OUTPUT/<task>/run/
    (default: saved_models; quick_models with --quick)"""
    data_dir: Path | None = None
    """folder of prepared data sets (default: that of tensorflow-datasets)"""
    score: Literal["validation", "test", "none"] = "validation"
    """split on which the exports are scored; use 'test' only for the final run"""
    resume: bool = False
    """continue the interrupted run of each task after its last checkpoint"""

    @property
    def folder(self) -> Path:
        """The folder of the exports."""
        return self.output or (QUICK_MODELS if self.quick else MODELS)

    def words(self, task: str) -> list[str]:
        """Return the flags for the command of a task."""
        words = ["--output", str(self.folder), "--score", self.score, "--verbose", "2"]
        words += [] if self.data_dir is None else ["--data_dir", str(self.data_dir)]
        words += ["--resume"] if self.resume else []
        if self.quick:
            for name, value in importlib.import_module(f"tasks.{task}.config").QUICK.items():
                words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
        return words

    def resuming_command(self, tasks: Sequence[str]) -> str:
        """Return the command that resumes some tasks."""
        words = ["python", "-m", "tasks", "train", *["--quick"][: self.quick], "--resume"]
        words += ["--output", str(self.folder), "--score", self.score]
        words += [] if self.data_dir is None else ["--data_dir", str(self.data_dir)]
        words += [] if self.jobs is None else ["--jobs", str(self.jobs)]
        return shlex.join([*words, *tasks])


# --- The list -------------------------------------------------------------------------------------


def describe(task: str, models: Path) -> dict[str, Any]:
    """Return a task's row of the list: data and score of its newest export, or its default data."""
    config = importlib.import_module(f"tasks.{task}.config")
    row: dict[str, Any] = {
        "task": task,
        "data": f"{config.DEFAULT} (default)",
        "model": config.Config.__doc__.splitlines()[0].rstrip("."),
        "scores": {},
        "versions": versions(task_folder(task, models)),
    }
    if row["versions"]:
        newest = latest(task_folder(task, models))
        settings = read_settings(newest)
        trained = settings["training_data"]
        row["data"] = trained["dataset"] or Path(trained["data"]).name
        with contextlib.suppress(FileNotFoundError):
            row["scores"] = card_scores(newest / "model_card.md")
    return row


def print_list(argv: list[str]) -> None:
    """Print the tasks; see the module."""
    flags = cli.parse(List, argv, doc=__doc__)
    rows = [describe(task, flags.models) for task in TASKS]
    if flags.json:
        for row in rows:
            cli.print_result(row)
        return
    print(aligned([_for_person(row) for row in rows]))
    if not any(row["versions"] for row in rows):
        print(f"\n{flags.models} holds no trained model yet: python -m tasks train --quick")


def _for_person(row: Mapping[str, Any]) -> dict[str, str]:
    metric, scores = METRICS[row["task"]], row["scores"]
    score = f"{metric} {scores[metric]} ({scores['split']})" if metric in scores else "-"
    numbers = ", ".join(map(str, row["versions"])) or "-"
    return {**{k: row[k] for k in ("task", "data", "model")}, "score": score, "versions": numbers}


def aligned(rows: Sequence[Mapping[str, str]]) -> str:
    """Return rows as a table with aligned columns, headed by the keys of the first row.

    Example:
      >>> print(aligned([{"task": "ner", "f1": "0.8"}]))
      task  f1
      ner   0.8
    """
    lines = [list(rows[0]), *(list(row.values()) for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )


# --- Training -------------------------------------------------------------------------------------


def train(argv: list[str]) -> None:
    """Train the tasks and print the scoreboard; see the module.

    Raises:
      InputError: `--jobs` is not positive.
      TrainingError: tasks failed; the message names them and the command that resumes them.
    """
    flags = cli.parse(Train, argv, doc=__doc__)
    if flags.jobs is not None and flags.jobs < 1:
        raise InputError(f"--jobs must be 1 or more, got {flags.jobs}")
    tasks = tuple(dict.fromkeys(flags.tasks)) or TASKS
    start = time.monotonic()
    rows = train_side_by_side(tasks, flags)
    print(aligned([_on_scoreboard(row) for row in rows]))
    if asked := next((row["task"] for row in rows if "error" not in row), None):
        print(f"\nto call one: {calling_command(asked, flags.folder)}\n")
    failed = [row["task"] for row in rows if "error" in row]
    seconds = round(time.monotonic() - start, 1)
    cli.print_result({"tasks": rows, "failed": failed, "seconds": seconds})
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(tasks)} tasks failed: {', '.join(failed)}. When that is fixed:"
            f"\n  {flags.resuming_command(failed)}"
        )


def calling_command(task: str, models: Path) -> str:
    """Return the command that calls the newest export of a task.

    Example:
      >>> calling_command("ner", Path("quick_models"))
      'python -m tasks.ner.predict --model quick_models/ner "Ada lives in Rome."'
    """
    model = [] if models == MODELS else ["--model", str(models / task)]
    words = shlex.join(["python", "-m", f"tasks.{task}.predict", *model])
    return f"{words} {INPUTS[task]}"


def train_side_by_side(tasks: Sequence[str], flags: Train) -> list[dict[str, Any]]:
    """Train tasks, `flags.jobs` at a time; return their results in the order of `tasks`.

    Each job has its own cores. With several jobs the longest tasks start first, so that no core
    waits long at the end.

    Raises:
      KeyboardInterrupt: Ctrl-C was pressed. All tasks were stopped; the message names those that
        ran, and the command that resumes the rest.
    """
    own = cores()
    jobs = min(flags.jobs or default_jobs(len(own)), len(tasks))
    clock, running = Clock(tasks), Running()
    shares = queue.SimpleQueue[Sequence[int]]()
    for job in range(jobs):
        shares.put(own[job::jobs] or own)
    pool = concurrent.futures.ThreadPoolExecutor(jobs, initializer=lambda: _use(shares.get()))
    order = sorted(tasks, key=LONGEST_FIRST.index) if jobs > 1 else tasks
    futures = {
        task: pool.submit(train_one, task, flags.words(task), clock, running) for task in order
    }
    try:
        rows = [futures[task].result() for task in tasks]
    except BaseException as error:
        pool.shutdown(wait=False, cancel_futures=True)
        stopped = running.interrupt()
        if not isinstance(error, KeyboardInterrupt):
            raise
        again = flags.resuming_command([task for task in tasks if not _is_trained(futures[task])])
        where = f" in {', '.join(stopped)}" if stopped else ""
        raise type(error)(
            f"stopped{where}. Finished epochs are kept; to resume:\n  {again}"
        ) from None
    pool.shutdown()
    return rows


def _is_trained(future: concurrent.futures.Future[dict[str, Any]]) -> bool:
    """Return whether a task has ended without an error."""
    if not future.done() or future.cancelled() or future.exception() is not None:
        return False
    return "error" not in future.result()


def default_jobs(count: int) -> int:
    """Return how many tasks to train at a time: one per 4 GiB of memory, `count` at most."""
    if Path("/dev/nvidiactl").exists():  # TensorFlow takes the whole memory of a GPU
        return 1
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError):  # not on Windows
        return 1
    return max(1, min(count, memory // 2**32))


def _use(share: Sequence[int]) -> None:
    """Restrict this thread, and the processes that it starts, to some cores."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, share)


class Running:
    """The processes of the tasks that train now."""

    def __init__(self) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.is_stopped = False

    @contextlib.contextmanager
    def process(self, task: str, command: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
        """Start the process of a task; interrupt it if the block raises."""
        with subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONUNBUFFERED": "1"},
            start_new_session=True,  # this process receives Ctrl-C alone, and passes it on once
        ) as process:
            self.processes[task] = process
            if self.is_stopped:  # Ctrl-C came while it started
                process.kill()
            try:
                yield process
            except BaseException:
                _interrupt([process])
                raise
            finally:
                process.wait()
                del self.processes[task]

    def interrupt(self) -> list[str]:
        """Stop all processes; return the names of their tasks."""
        self.is_stopped = True
        running = dict(self.processes)
        _interrupt(list(running.values()))
        return list(running)


def _interrupt(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """Stop processes as Ctrl-C does; kill those that have not ended after half a minute."""
    for process in processes:
        process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 30.0
    for process in processes:
        try:
            process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()


def train_one(task: str, words: Sequence[str], clock: Clock, running: Running) -> dict[str, Any]:
    """Run the command of one task to its end, and print its output as it comes.

    Returns:
      The JSON object of its last line with `size`, the bytes of the export, and `wall_seconds`; or
      `task`, `error` and `wall_seconds`.
    """
    clock.print_line(task, f"python -m tasks.{task}.train {shlex.join(words)}")
    start = time.monotonic()
    with running.process(task, [sys.executable, "-m", f"tasks.{task}.train", *words]) as process:
        assert process.stdout is not None
        lines = [*print_output(task, process.stdout, clock)]
    seconds = round(time.monotonic() - start, 1)
    if code := process.returncode:
        error = next((line for line in reversed(lines) if line.startswith("error: ")), None)
        reason = (error or (lines or ["no message"])[-1]).removeprefix("error: ")
        if code < 0:
            reason = f"killed by signal {-code}; last line: {reason}"
        return {"task": task, "error": reason, "wall_seconds": seconds}
    result = json.loads(lines[-1])
    size = sum(path.stat().st_size for path in Path(result["model"]).rglob("*") if path.is_file())
    return {**result, "size": size, "wall_seconds": seconds}


def print_output(task: str, stream: IO[bytes], clock: Clock) -> Iterator[str]:
    """Print the output of a task's process as it comes; yield its complete lines."""
    for line, is_complete in read_output(stream):
        if not is_complete:
            clock.tick(task, line)
        elif line and not LINES.match(line.encode()):
            if not line.startswith("{"):  # the result, which the scoreboard shows
                clock.print_line(task, line)
            yield line


def read_output(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Yield the output of a process without colours: complete lines, and progress bars.

    A progress bar ends in a carriage return and is yielded with False. If the process prints
    nothing for a second, ("", False) is yielded.
    """
    chunks: queue.Queue[bytes] = queue.Queue()

    def read() -> None:
        while chunk := os.read(stream.fileno(), 65_536):
            chunks.put(chunk)
        chunks.put(b"")

    threading.Thread(target=read, daemon=True).start()
    rest = b""
    while True:
        try:
            chunk = chunks.get(timeout=1.0)
        except queue.Empty:
            yield "", False
            continue
        *parts, rest = re.split(rb"(?<=[\r\n])", rest + chunk)
        for part in [*parts, rest] if not chunk else parts:
            line = re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", part.decode("utf-8", "replace")).strip()
            yield line, not part.endswith(b"\r")
        if not chunk:
            return


class Clock:
    """The progress of all tasks on standard error; on a terminal with a running clock."""

    def __init__(self, tasks: Sequence[str]):
        self.tasks, self.start = tasks, time.monotonic()
        self.on_terminal = sys.stderr.isatty()
        self.bars: dict[str, str] = {}
        self.lock = threading.Lock()  # one thread per job prints

    def _time(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        return f"{minutes:02}:{seconds:02}"

    def print_line(self, task: str, line: str) -> None:
        """Print a line of a task after its number and the time since the start of the run."""
        with self.lock:
            self.bars[task] = ""
            back = "\r\x1b[K" if self.on_terminal else ""
            place = f"{self.tasks.index(task) + 1}/{len(self.tasks)} {task}"
            cli.say(f"{back}[{place} {self._time()}] {line}")

    def tick(self, task: str, bar: str) -> None:
        """Redraw the clock, with the progress bars of the tasks that have one."""
        with self.lock:
            self.bars[task] = bar or self.bars.get(task, "")
            if self.on_terminal:
                bars = " | ".join(f"{name} {bar}" for name, bar in self.bars.items() if bar)
                shown = f"[{self._time()}] {bars}"[: shutil.get_terminal_size().columns - 1]
                print(f"\r\x1b[K{shown}", end="", file=sys.stderr, flush=True)


def _on_scoreboard(row: Mapping[str, Any]) -> dict[str, str]:
    task, seconds = row["task"], row["wall_seconds"]
    shown = dict.fromkeys(("task", "data", "metric", "score", "published", "time", "size"), "-")
    shown |= {"task": task, "time": f"{int(seconds) // 60} min {int(seconds) % 60:02} s"}
    if "error" in row:
        return {**shown, "score": "failed", "size": row["error"].splitlines()[0]}
    metric = METRICS[task]
    return {
        **shown,
        "data": f"{row['dataset']}, {row['split']}",
        "metric": metric,
        "score": f"{row[metric]:.3f}" if metric in row else "-",
        "published": PUBLISHED.get(task, "none"),
        "size": f"{row['size'] / 1e6:.1f} MB",
    }


COMMANDS = ("train", "tune", "evaluate", "predict")  # of each task
FRONT = ("examples", "train", "demo", "completion")  # of all tasks together


def run_task(task: str, words: Sequence[str]) -> None:
    """Run a command of a task: `ner predict ...`.

    Raises:
      InputError: the task has no such command.
    """
    if words and words[0] == "push":
        from common.commands import push

        main = functools.partial(push.main, task)
        cli.run_subcommand([task, "push"], main, words[1:])
        return
    if not words or words[0] not in COMMANDS:
        problem = (
            f"{task} has no command {words[0]!r}; use" if words else f"{task} needs a command:"
        )
        raise InputError(f"{problem} {', '.join(COMMANDS)} or push")
    module = importlib.import_module(f"tasks.{task}.{words[0]}")
    cli.run_subcommand([task, words[0]], module.main, words[1:])


def run_front(command: str, words: Sequence[str]) -> None:
    """Run a command of all tasks."""
    if command == "train":
        run = train
    elif command == "demo":
        from tasks.demo import page  # needs the extra [demo]

        run = page.main
    elif command == "examples":
        from tasks import examples

        run = examples.main
    else:
        from tasks import completion

        run = completion.main
    cli.run_subcommand([command], run, words)


def main(argv: list[str]) -> None:
    """List, or run the command that the first words name; see the module."""
    first = argv[0] if argv else ""
    if first == "--version":
        print(f"{cli.SCRIPT} {common.__version__}")
    elif first in FRONT:
        run_front(first, argv[1:])
    elif first in TASKS:
        run_task(first, argv[1:])
    elif first and not first.startswith("-"):
        known = ", ".join((*FRONT, *TASKS))
        raise InputError(f"no command {first!r}; use {known}, or none for the list")
    else:
        print_list(argv)


def run() -> None:
    """Run the console script."""
    cli.run(main)


if __name__ == "__main__":
    run()
