"""Search the settings of a training: the start of every `tune`.

Each trial is a run of the task's own `train` command with other values of the fields whose types
carry a `Range` or a `Choice`; see `common.commands.config`. A field that is given as a flag keeps
its value. Ray Tune runs the trials and stops those that are worse early (ASHA, Li et al. 2020), by
the validation metric that selects the best epoch of a training. The first trial has the settings
of the preset and is never stopped early, so the best trial is at least as good. The test split is
never read.

The search is kept in OUTPUT/<task>/tune/: a file of each trial that has ended, a table
(`trials.csv`) and a plot (`trials.png`). No file there is a pickle.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import random
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from common.commands import cli, report
from common.commands.config import Choice, Count, Range, RunConfig, Settings, ranges
from common.errors import InputError, TrainingError, require
from common.files import make_public_folder, write_atomically
from common.messages import say
from common.plots import picture
from common.training import checkpoint

SEARCH, TABLE, PLOT = "search.json", "trials.csv", "trials.png"
Flags = Mapping[str, int | float | str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TuneConfig(Settings):
    """Flags of every `tune` command; all flags of `train` are accepted, too."""

    trials: Count = 30
    """number of trainings; the first one has the settings of the preset"""
    workers: Count = 1
    """trainings at a time, each on its part of the cores"""
    cluster: str | None = None
    """address of a Ray cluster, or auto (default: this machine alone)"""
    output: Path = Path("saved_models")
    """the search is kept in OUTPUT/<task>/tune/"""
    resume: bool = False
    """continue an interrupted search; trials that have ended are kept"""


class Trained(NamedTuple):
    """The `train` command of a task.

    Attributes:
      task: name of the task.
      module: of the command.
      read_settings: the words of its command line -> the settings.
      monitor: the validation metric that selects the best epoch.
      mode: whether a larger or a smaller value is better.
      architecture: settings that `--init` takes from the published model.
    """

    task: str
    module: str
    read_settings: Callable[[list[str]], RunConfig]
    monitor: str
    mode: Literal["max", "min"]
    architecture: Sequence[str]


@dataclasses.dataclass(frozen=True)
class Ended:
    """A trial that has ended, as its file in the folder of the search.

    Attributes:
      number: from 0; trial 0 has the settings of the preset.
      flags: the values of the searched fields; empty for the preset.
      state: `finished`, `stopped` by the scheduler, or `failed`.
      log: the rows of the run's log, one per epoch.
      error: why the trial failed.
    """

    number: int
    flags: Flags
    state: str
    log: Sequence[Mapping[str, float]]
    error: str = ""

    def best(self, column: str, mode: Literal["max", "min"]) -> tuple[float, int]:
        """Return the best value of a column of the log, and its epoch, counted from 1."""
        values = [row[column] for row in self.log]
        value = max(values) if mode == "max" else min(values)
        return value, values.index(value) + 1


def trial_file(folder: Path, number: int) -> Path:
    """Return the file of a trial, which exists when the trial has ended."""
    return folder / f"{number}.json"


def read_ended(folder: Path, number: int) -> Ended | None:
    """Return a trial that has ended; None before its end."""
    path = trial_file(folder, number)
    return Ended(**json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None


def write_ended(folder: Path, trial: Ended) -> None:
    """Write the file of a trial that has ended."""
    text = json.dumps(dataclasses.asdict(trial), indent=1)
    write_atomically(trial_file(folder, trial.number), text.encode())


def read_log(path: Path) -> list[dict[str, float]]:
    """Return the rows of the log of a run; none before its first epoch."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return [{k: float(v) for k, v in row.items()} for row in csv.DictReader(io.StringIO(text))]


# --- The trials -----------------------------------------------------------------------------------


def is_given(words: Sequence[str], name: str) -> bool:
    """Return whether a command line sets a field.

    Example:
      >>> [is_given(["--batch-size=8", "--no-flip"], n) for n in ("batch_size", "flip", "size")]
      [True, True, False]
    """
    flags = {word.partition("=")[0].replace("-", "_") for word in words}
    return bool(flags & {f"__{name}", f"__no_{name}"})


def draw(searched: Mapping[str, Range | Choice], trials: int, seed: int) -> list[Flags]:
    """Return the values of each trial; the first one has none, as it keeps the preset.

    More trials with the same seed begin with the same values.

    Example:
      >>> draw({"units": Choice((64, 128)), "dropout": Range(0.0, 0.5)}, trials=3, seed=1)
      [{}, {'units': 64, 'dropout': 0.285}, {'units': 64, 'dropout': 0.128}]
    """
    generator = random.Random(seed)
    drawn: list[Flags] = [{}]
    while len(drawn) < trials:
        drawn.append({name: values.draw(generator) for name, values in searched.items()})
    return drawn


def to_words(flags: Flags) -> list[str]:
    """Return values as words of a command line."""
    return [word for name, value in flags.items() for word in (f"--{name}", str(value))]


def prepare(folder: Path, words: Sequence[str], trials: Sequence[Flags], *, resume: bool) -> None:
    """Make the folder of a search; with `resume`, keep that of the same search.

    Raises:
      InputError: another process searches there, or the interrupted search had other flags.
    """
    make_public_folder(folder)
    checkpoint.lock(folder)
    path = folder / SEARCH
    if resume and path.exists():
        before = json.loads(path.read_text(encoding="utf-8"))
        count = min(len(before["trials"]), len(trials))
        same = before["trials"][:count] == list(trials[:count])
        if before["words"] != list(words) or not same:
            given = shlex.join(before["words"]) or "no flags of train"
            raise InputError(
                f"this search was made with {given}: give the same to resume, or leave out "
                "--resume to start anew",
                path,
            )
    else:
        for entry in folder.iterdir():
            if entry.name != checkpoint.LOCK:
                shutil.rmtree(entry) if entry.is_dir() else entry.unlink()
    text = json.dumps({"words": list(words), "trials": list(trials)}, indent=1)
    write_atomically(path, text.encode())


# --- The result -----------------------------------------------------------------------------------


def ranked(trials: Sequence[Ended], column: str, mode: Literal["max", "min"]) -> list[Ended]:
    """Return trials from best to worst; failed ones, which no training can repeat, at the end."""
    valid = [trial for trial in trials if trial.state != "failed"]
    valid.sort(key=lambda trial: trial.best(column, mode)[0], reverse=mode == "max")
    return [*valid, *(trial for trial in trials if trial.state == "failed")]


def rows_of(
    trials: Sequence[Ended], column: str, mode: Literal["max", "min"]
) -> list[dict[str, Any]]:
    """Return the rows of the table of trials."""
    fields = dict.fromkeys(name for trial in trials for name in trial.flags)
    rows = []
    for trial in trials:
        failed = trial.state == "failed"
        value, epoch = ("", "") if failed else trial.best(column, mode)
        row = {"trial": trial.number, column.removeprefix("val_"): value, "epoch": epoch}
        row |= {"epochs": len(trial.log), "state": trial.error if failed else trial.state}
        rows.append(row | {name: str(trial.flags.get(name, "preset")) for name in fields})
    return rows


def draw_trials(
    trials: Sequence[Ended], column: str, mode: Literal["max", "min"], path: Path
) -> None:
    """Draw the metric of each trial over the epochs, and its best value against each field.

    Args:
      trials: from best to worst, without failed ones.
      column: of the log.
      mode: see `Trained`.
      path: the picture.
    """
    fields = list(dict.fromkeys(name for trial in trials for name in trial.flags))
    columns = min(3, 1 + len(fields))
    lines = -(-(1 + len(fields)) // columns)
    with picture(path, (4 * columns, 3 * lines)) as figure:
        panels = figure.subplots(lines, columns, squeeze=False).flat
        curves = next(panels)
        for trial in reversed(trials):
            colour = "C0" if trial is trials[0] else "C1" if not trial.number else "0.7"
            label = {"C0": f"best (trial {trial.number})", "C1": "preset"}.get(colour)
            values = [row[column] for row in trial.log]
            curves.plot(range(1, len(values) + 1), values, color=colour, marker=".", label=label)
        curves.set(xlabel="epoch", ylabel=column.removeprefix("val_"))
        curves.xaxis.get_major_locator().set_params(integer=True)
        curves.legend()
        for name, axes in zip(fields, panels, strict=False):
            for trial in trials:
                if name in trial.flags:
                    colour = "C0" if trial is trials[0] else "0.6"
                    axes.plot(trial.flags[name], trial.best(column, mode)[0], "o", color=colour)
            axes.set(xlabel=name)
        for axes in panels:  # those without a field
            axes.axis("off")


def report_trials(trained: Trained, words: Sequence[str], folder: Path, count: int) -> None:
    """Print the table and the best settings, and write table and plot.

    Raises:
      TrainingError: all trials failed.
    """
    column, mode = f"val_{trained.monitor}", trained.mode
    ended = [read_ended(folder, number) for number in range(count)]
    trials = ranked([trial for trial in ended if trial is not None], column, mode)
    rows = rows_of(trials, column, mode)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(folder / TABLE, text.getvalue().encode())
    valid = [trial for trial in trials if trial.state != "failed"]
    if not valid:
        raise TrainingError(f"all {count} trials failed; the first one: {trials[0].error}")
    draw_trials(valid, column, mode, folder / PLOT)
    best, preset = valid[0], next((trial for trial in valid if not trial.number), None)
    flags = [*words, *to_words(best.flags)]
    print(report.table(rows))
    note = "" if best.flags else "  # no trial is better than the preset"
    print(f"\npython -m {trained.module} {shlex.join(flags)}".rstrip() + note)
    cli.print_result(
        {
            "task": trained.task,
            "trials": len(trials),
            "failed": len(trials) - len(valid),
            "metric": trained.monitor,
            "best": best.best(column, mode)[0],
            "preset": None if preset is None else preset.best(column, mode)[0],
            "flags": best.flags,
            "folder": folder,
        }
    )


# --- The command ----------------------------------------------------------------------------------


def search(trained: Trained, argv: list[str], *, doc: str | None) -> None:
    """Search the settings of a training, and print the best ones; see the module.

    Args:
      trained: the `train` command.
      argv: the words of the command line.
      doc: printed at the top of `--help`.

    Raises:
      InputError: wrong flags, or Ray is not installed.
      TrainingError: all trials failed.
      KeyboardInterrupt: Ctrl-C was pressed; all trainings were stopped.
    """
    flags, words = cli.parse_first(TuneConfig, argv, doc)
    settings = trained.read_settings(words)
    if settings.score == "test":
        raise InputError("tune never reads the test split: give --score test to the final train")
    fixed = trained.architecture if settings.init is not None else ()
    searched = {
        name: values
        for name, values in ranges(type(settings)).items()
        if name not in fixed and not is_given(words, name)
    }
    if not searched:
        raise InputError("every field that could be searched is given as a flag")
    require("ray", "cluster")
    from common.commands import trials  # needs Ray

    folder = flags.output / trained.task / "tune"
    drawn = draw(searched, flags.trials, settings.seed)
    prepare(folder, words, drawn, resume=flags.resume)
    say(f"{flags.trials} trials of {', '.join(searched)} in {folder}")
    trials.run(
        trials.Plan(
            folder=str(folder.absolute()),
            command=["-m", trained.module, *words, "--score", "none", "--verbose", "2"],
            task=trained.task,
            flags=drawn,
            column=f"val_{trained.monitor}",
            mode=trained.mode,
            epochs=settings.epochs,
        ),
        workers=flags.workers,
        address=flags.cluster,
    )
    report_trials(trained, words, folder, flags.trials)
