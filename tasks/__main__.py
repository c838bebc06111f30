"""List the seven tasks, train all of them, or open a page to try them.

    python -m tasks                                  # data, model, last score, versions
    python -m tasks train --quick                    # all seven, about 20 minutes on 2 cores
    python -m tasks train --score test speech video  # two of them, with their full defaults
    python -m tasks demo                             # a page in the browser, for the exports

`train` runs `python -m tasks.<task>.train` for one task after the other and prints a scoreboard; a
task that fails does not stop the others. Each command has its own `--help`. The last line of
`train`, and each line of `--json`, is a JSON object.
"""

from __future__ import annotations

import contextlib
import dataclasses
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

from common.commands import cli
from common.errors import InputError, TrainingError
from common.serving.versions import card_scores, latest, read_settings, versions

import tyro

Task = Literal["sentiment", "ner", "dna", "translation", "music", "speech", "video"]
TASKS: tuple[str, ...] = get_args(Task)
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
# Published scores on the test split of the default data. The other default data sets belong to this
# project or have no published score; tasks/<task>/README.md has the benchmarks.
PUBLISHED = {"dna": "0.976 on test (Prodigal)"}
# Start-up lines of TensorFlow, among them those about a missing GPU or AVX-512.
NOISE = re.compile(r"WARNING: All log messages before absl|[IW]\d{4} |E\d{4} .*(cuda|oneDNN)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """Flags of the list."""

    models: Path = Path("saved_models")
    """folder of the exports"""
    json: bool = False
    """print one JSON object per line"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Flags of `train`; the command of each task has many more."""

    tasks: tyro.conf.Positional[tuple[Task, ...]] = ()
    """tasks to train (default: all seven)"""
    quick: bool = False
    """smaller budgets, about 20 minutes in all on 2 cores, with lower scores"""
    output: Path = Path("saved_models")
    """exports are written to OUTPUT/<task>/<n>/, checkpoints and logs to OUTPUT/<task>/run/"""
    data_dir: Path | None = None
    """folder of prepared data sets (default: that of tensorflow-datasets)"""
    score: Literal["validation", "test", "none"] = "validation"
    """split on which the exports are scored; use 'test' only for the final run"""
    resume: bool = False
    """continue the interrupted run of each task after its last finished epoch"""

    def words(self, task: str) -> list[str]:
        """Return the flags for the command of a task."""
        words = ["--output", str(self.output), "--score", self.score, "--verbose", "2"]
        words += [] if self.data_dir is None else ["--data_dir", str(self.data_dir)]
        words += ["--resume"] if self.resume else []
        if self.quick:
            for name, value in importlib.import_module(f"tasks.{task}.config").QUICK.items():
                words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
        return words

    def resuming_command(self, tasks: Sequence[str]) -> str:
        """Return the command that resumes some tasks."""
        words = ["python", "-m", "tasks", "train", *["--quick"][: self.quick], "--resume"]
        words += ["--output", str(self.output), "--score", self.score]
        words += [] if self.data_dir is None else ["--data_dir", str(self.data_dir)]
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
        "versions": versions(models / task),
    }
    if row["versions"]:
        newest = latest(models / task)
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
      TrainingError: tasks failed; the message names them and the command that resumes them.
    """
    flags = cli.parse(Train, argv, doc=__doc__, command="train")
    tasks = tuple(dict.fromkeys(flags.tasks)) or TASKS
    start, rows = time.monotonic(), []
    for number, task in enumerate(tasks, start=1):
        clock = Clock(f"[{number}/{len(tasks)} {task}", start)
        try:
            rows.append(train_one(task, flags.words(task), clock))
        except KeyboardInterrupt:
            again = flags.resuming_command(tasks[number - 1 :])
            raise KeyboardInterrupt(
                f"stopped in {task}. Finished epochs are kept; to resume:\n  {again}"
            ) from None
    print(aligned([_on_scoreboard(row) for row in rows]))
    failed = [row["task"] for row in rows if "error" in row]
    seconds = round(time.monotonic() - start, 1)
    cli.print_result({"tasks": rows, "failed": failed, "seconds": seconds})
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(tasks)} tasks failed: {', '.join(failed)}. When that is fixed:"
            f"\n  {flags.resuming_command(failed)}"
        )


def train_one(task: str, words: Sequence[str], clock: Clock) -> dict[str, Any]:
    """Run the command of one task to its end.

    Returns:
      The JSON object of its last line with `size`, the bytes of the export, and `wall_seconds`; or
      `task`, `error` and `wall_seconds`.
    """
    clock.print_line(f"python -m tasks.{task}.train {shlex.join(words)}")
    start = time.monotonic()
    code, lines = run_command([sys.executable, "-m", f"tasks.{task}.train", *words], clock)
    seconds = round(time.monotonic() - start, 1)
    if code:
        error = next((line for line in reversed(lines) if line.startswith("error: ")), None)
        reason = (error or (lines or ["no message"])[-1]).removeprefix("error: ")
        if code < 0:
            reason = f"killed by signal {-code}; last line: {reason}"
        return {"task": task, "error": reason, "wall_seconds": seconds}
    result = json.loads(lines[-1])
    size = sum(path.stat().st_size for path in Path(result["model"]).rglob("*") if path.is_file())
    return {**result, "size": size, "wall_seconds": seconds}


def run_command(command: Sequence[str], clock: Clock) -> tuple[int, list[str]]:
    """Run a command, and print its output as it comes; return its exit code and its lines."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONUNBUFFERED": "1"},
        start_new_session=True,  # this process receives Ctrl-C alone, and passes it on once
    ) as process:
        assert process.stdout is not None
        try:
            lines = [*print_output(process.stdout, clock)]
        except BaseException:
            _interrupt(process)
            raise
    return process.returncode, lines


def print_output(stream: IO[bytes], clock: Clock) -> Iterator[str]:
    """Print the output of a process as it comes; yield its complete lines."""
    for line, is_complete in read_output(stream):
        if not is_complete:
            clock.tick(line)
        elif line and not NOISE.match(line):
            if not line.startswith("{"):  # the result, which the scoreboard shows
                clock.print_line(line)
            yield line


def _interrupt(process: subprocess.Popen[bytes]) -> None:
    """Stop a process as Ctrl-C does; kill it if it has not ended after half a minute."""
    process.send_signal(signal.SIGINT)
    try:
        process.wait(timeout=30)
    except subprocess.TimeoutExpired:
        process.kill()


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
    """The progress of the whole run on standard error; on a terminal with a running clock."""

    def __init__(self, place: str, start: float):
        self.place, self.start = place, start
        self.on_terminal = sys.stderr.isatty()
        self.bar = ""

    def _prefix(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        return f"{self.place} {minutes:02}:{seconds:02}]"

    def print_line(self, line: str) -> None:
        """Print a line after the number of the task and the time since the start of the run."""
        self.bar = ""
        back = "\r\x1b[K" if self.on_terminal else ""
        cli.say(f"{back}{self._prefix()} {line}")

    def tick(self, bar: str) -> None:
        """Redraw the clock, with the task's own progress bar if there is one."""
        self.bar = bar or self.bar
        if self.on_terminal:
            shown = f"{self._prefix()} {self.bar}"[: shutil.get_terminal_size().columns - 1]
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


def main(argv: list[str]) -> None:
    """List, train, or open the page; see the module."""
    if argv[:1] == ["train"]:
        train(argv[1:])
    elif argv[:1] == ["demo"]:
        from tasks import demo  # needs the extra [demo]

        demo.main(argv[1:])
    elif argv and not argv[0].startswith("-"):
        raise InputError(f"no command {argv[0]!r}; use train, demo, or none for the list")
    else:
        print_list(argv)


if __name__ == "__main__":
    cli.run(main)
