"""Lists the seven tasks, trains all of them, or opens a page to try them.

    python -m tasks                                  # data, model, last score, versions
    python -m tasks train --quick                    # all seven, meant for 20 minutes on 2 cores
    python -m tasks train --score test speech video  # two of them, their whole defaults
    python -m tasks demo                             # a page in the browser, on the exports

`train` runs `python -m tasks.<task>.train` for one task after the other and prints a scoreboard; a
task that fails does not stop the others. Each command has `--help` of its own. The last line of
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

from common.commands import cli, report
from common.errors import InputError, TrainingError
from common.serving.served import SETTINGS, latest, versions

import tyro

Task = Literal["sentiment", "ner", "dna", "translation", "music", "speech", "video"]
TASKS: tuple[str, ...] = get_args(Task)
# What a task is named by on the scoreboard; of wer and nll less is better.
METRICS = {
    "sentiment": "accuracy",
    "ner": "f1",
    "dna": "stop_f1",
    "translation": "bleu",
    "music": "nll",
    "speech": "wer",
    "video": "accuracy",
}
# Published for the default data, on its test split. The others' default data is the project's own,
# or was never scored by others; tasks/<task>/README.md has the benchmarks.
PUBLISHED = {"dna": "0.976 on test (Prodigal)"}
# What TensorFlow says of itself, and of the GPU or the AVX-512 that is not there.
NOISE = re.compile(r"WARNING: All log messages before absl|[IW]\d{4} |E\d{4} .*(cuda|oneDNN)")


@dataclasses.dataclass(frozen=True, kw_only=True)
class List:
    """Flags of the list."""

    models: Path = Path("saved_models")
    """folder of the exports"""
    json: bool = False
    """print one JSON object a line"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Train:
    """Flags of `train`; each task's own command has many more."""

    tasks: tyro.conf.Positional[tuple[Task, ...]] = ()
    """which ones (default: all seven)"""
    quick: bool = False
    """smaller budgets, meant for 20 minutes in all on 2 cores, with lower scores"""
    output: Path = Path("saved_models")
    """exports land in OUTPUT/<task>/<n>/, checkpoints and logs in OUTPUT/<task>/run/"""
    data_dir: Path | None = None
    """where prepared data sets are kept (default: tensorflow-datasets' own folder)"""
    score: Literal["validation", "test", "none"] = "validation"
    """split on which the exports are scored; 'test' only for a final run"""
    resume: bool = False
    """go on from the last finished epoch of each task's interrupted run"""

    def words(self, task: str) -> list[str]:
        """What a task's own command is told."""
        words = ["--output", str(self.output), "--score", self.score, "--verbose", "2"]
        words += [] if self.data_dir is None else ["--data_dir", str(self.data_dir)]
        words += ["--resume"] if self.resume else []
        if self.quick:
            for name, value in importlib.import_module(f"tasks.{task}.config").QUICK.items():
                words += [f"--{name}", *map(str, value if isinstance(value, tuple) else (value,))]
        return words

    def to_resume(self, tasks: Sequence[str]) -> str:
        """The command that goes on with some tasks."""
        words = ["python", "-m", "tasks", "train", *["--quick"][: self.quick], "--resume"]
        words += ["--output", str(self.output), "--score", self.score]
        words += [] if self.data_dir is None else ["--data_dir", str(self.data_dir)]
        return shlex.join([*words, *tasks])


# --- the list -------------------------------------------------------------------------------------


def describe(task: str, models: Path) -> dict[str, Any]:
    """What is known of a task: its newest export's data and score, or its default data."""
    config = importlib.import_module(f"tasks.{task}.config")
    said: dict[str, Any] = {
        "task": task,
        "data": f"{config.DEFAULT} (default)",
        "model": config.Config.__doc__.splitlines()[0].rstrip("."),
        "scores": {},
        "versions": versions(models / task),
    }
    if said["versions"]:
        newest = latest(models / task)
        settings = json.loads((newest / SETTINGS).read_text(encoding="utf-8"))
        trained = settings["training_data"]
        said["data"] = trained["dataset"] or Path(trained["data"]).name
        with contextlib.suppress(FileNotFoundError):
            said["scores"] = report.card_scores(newest / "model_card.md")
    return said


def print_list(argv: list[str]) -> None:
    """Prints the tasks; see the module."""
    flags = cli.parse(List, argv, doc=__doc__)
    rows = [describe(task, flags.models) for task in TASKS]
    if flags.json:
        for row in rows:
            cli.print_result(row)
        return
    print(aligned([_for_person(row) for row in rows]))
    if not any(row["versions"] for row in rows):
        print(f"\nNothing is trained in {flags.models} yet: python -m tasks train --quick")


def _for_person(row: Mapping[str, Any]) -> dict[str, str]:
    metric, scores = METRICS[row["task"]], row["scores"]
    score = f"{metric} {scores[metric]} ({scores['split']})" if metric in scores else "-"
    numbers = ", ".join(map(str, row["versions"])) or "-"
    return {**{k: row[k] for k in ("task", "data", "model")}, "score": score, "versions": numbers}


def aligned(rows: Sequence[Mapping[str, str]]) -> str:
    """Rows below each other, headed by the first row's keys.

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


# --- training -------------------------------------------------------------------------------------


def train(argv: list[str]) -> None:
    """Trains, prints the scoreboard, and fails if a task did; see the module.

    Raises:
      TrainingError: tasks failed; the message says which, and how to go on.
    """
    flags = cli.parse(Train, argv, doc=__doc__, command="train")
    tasks = tuple(dict.fromkeys(flags.tasks)) or TASKS
    start, rows = time.monotonic(), []
    for number, task in enumerate(tasks, start=1):
        clock = Clock(f"[{number}/{len(tasks)} {task}", start)
        try:
            rows.append(train_one(task, flags.words(task), clock))
        except KeyboardInterrupt:
            again = flags.to_resume(tasks[number - 1 :])
            raise KeyboardInterrupt(
                f"stopped in {task}. Finished epochs are kept; to go on:\n  {again}"
            ) from None
    print(aligned([_on_scoreboard(row) for row in rows]))
    failed = [row["task"] for row in rows if "error" in row]
    seconds = round(time.monotonic() - start, 1)
    cli.print_result({"tasks": rows, "failed": failed, "seconds": seconds})
    if failed:
        raise TrainingError(
            f"{len(failed)} of {len(tasks)} tasks failed: {', '.join(failed)}. When that is mended:"
            f"\n  {flags.to_resume(failed)}"
        )


def train_one(task: str, words: Sequence[str], clock: Clock) -> dict[str, Any]:
    """Runs one task's own command to its end.

    Returns:
      The JSON object of its last line with `size`, the export's bytes, and `wall_seconds`; or
      `task`, `error` and `wall_seconds`.
    """
    command = [sys.executable, "-m", f"tasks.{task}.train", *words]
    clock.tell(f"python -m tasks.{task}.train {shlex.join(words)}")
    start, lines = time.monotonic(), []
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        # TensorFlow tells of every device that it does not find.
        env={"TF_CPP_MIN_LOG_LEVEL": "2", **os.environ, "PYTHONUNBUFFERED": "1"},
        # Ctrl-C comes to this process alone, which passes it on once.
        start_new_session=True,
    ) as process:
        try:
            for line, is_whole in printed(process.stdout):
                if not is_whole:
                    clock.tick(line)
                elif line and not NOISE.match(line):
                    lines.append(line)
                    if not line.startswith("{"):  # the result, which is on the scoreboard
                        clock.tell(line)
        except BaseException:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    seconds = round(time.monotonic() - start, 1)
    if process.returncode:
        said = next((line for line in reversed(lines) if line.startswith("error: ")), None)
        reason = (said or (lines or ["no message"])[-1]).removeprefix("error: ")
        if process.returncode < 0:
            reason = f"killed by signal {-process.returncode}; last line: {reason}"
        return {"task": task, "error": reason, "wall_seconds": seconds}
    result = json.loads(lines[-1])
    size = sum(path.stat().st_size for path in Path(result["model"]).rglob("*") if path.is_file())
    return {**result, "size": size, "wall_seconds": seconds}


def printed(stream: IO[bytes]) -> Iterator[tuple[str, bool]]:
    """Yields what a process prints, without colours: lines, and what it will print over.

    A progress bar ends in a carriage return, and stands for False. Where nothing comes for a
    second, ("", False) does.
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
    """Shows, on standard error, where the whole run is; on a terminal a clock ticks below."""

    def __init__(self, place: str, start: float):
        self.place, self.start = place, start
        self.on_terminal = sys.stderr.isatty()
        self.bar = ""

    def _prefix(self) -> str:
        minutes, seconds = divmod(int(time.monotonic() - self.start), 60)
        return f"{self.place} {minutes:02}:{seconds:02}]"

    def tell(self, line: str) -> None:
        """Prints a line behind the task's place and the time since the beginning of the run."""
        self.bar = ""
        back = "\r\x1b[K" if self.on_terminal else ""
        cli.say(f"{back}{self._prefix()} {line}")

    def tick(self, bar: str) -> None:
        """Redraws the clock, with the task's own progress bar if there is one."""
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
    """Lists, trains, or opens the page; see the module."""
    if argv[:1] == ["train"]:
        train(argv[1:])
    elif argv[:1] == ["demo"]:
        from tasks import demo  # which needs what only the extra brings

        demo.main(argv[1:])
    elif argv and not argv[0].startswith("-"):
        raise InputError(f"no command {argv[0]!r}; there are train and demo, and the list without")
    else:
        print_list(argv)


if __name__ == "__main__":
    cli.run(main)
