"""Predict many files in parallel: `predict --file 'reviews/*.csv' --workers 4 --output DIR`.

Each file has its own part in the output folder, written whole by the `predict` command itself in
one of several processes, which load the export once. Ray Data hands the files out. A part that
exists is not made again, so a run that was stopped goes on where it was.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.commands import cluster
from common.commands.config import BatchPredictConfig
from common.errors import ExportError, InputError, require
from common.files import expand
from common.messages import say
from common.progress import progress

TYPED = ("texts", "sequences")  # inputs on the command line, which are no files
OWN = ("output", "workers", "cluster", "json", *TYPED)  # what no file gets from the command


def parts(files: Sequence[Path], folder: Path, ending: str) -> dict[Path, Path]:
    """Return the output of each file: its path below the common folder of all files.

    Example:
      >>> files = [Path("in/a.csv"), Path("in/more/a.csv")]
      >>> parts(files, Path("out"), ".jsonl")[Path("in/more/a.csv")]
      PosixPath('out/more/a.csv.jsonl')
    """
    root = Path(os.path.commonpath([path.absolute().parent for path in files]))
    relative = {path: path.absolute().relative_to(root) for path in files}
    return {path: folder / name.with_name(name.name + ending) for path, name in relative.items()}


def words_of(flags: BatchPredictConfig) -> list[str]:
    """Return the words of a command line that give these flags, but for inputs and outputs."""
    words = []
    for field in dataclasses.fields(flags):
        value = getattr(flags, field.name)
        if field.name in (*OWN, flags.INPUTS) or value == field.default:
            continue
        if isinstance(value, bool):
            words.append(f"--{field.name}" if value else f"--no-{field.name}")
        else:
            several = value if isinstance(value, tuple) else (value,)
            words += [f"--{field.name}", *map(str, several)]
    return words


class Predictor:
    """The process that predicts files, one after the other, and loads the export once."""

    def __init__(self, module: str, words: Sequence[str], place: Sequence[str], folder: str):
        """Import the command.

        Args:
          module: the `predict` module of a task.
          words: the flags that all files share.
          place: the words before a file's name, such as `--file`.
          folder: the working folder of the command.
        """
        from common.serving import served

        os.chdir(folder)
        served.keep_loaded()
        self.main = importlib.import_module(module).main
        self.words, self.place = [*words], [*place]

    def __call__(self, row: Mapping[str, Any]) -> dict[str, Any]:
        """Predict a file; return the number of its rows, and what was said or went wrong."""
        part, messages, error = Path(row["part"]), io.StringIO(), ""
        part.parent.mkdir(parents=True, exist_ok=True)
        words = [*self.words, *self.place, row["file"], "--output", str(part)]
        with contextlib.redirect_stderr(messages):
            try:
                self.main(words)
            except (InputError, ExportError, OSError) as problem:
                error = str(problem)
        rows = 0
        if part.exists():
            with open(part, "rb") as lines:
                rows = sum(1 for _ in lines)
        return {"file": row["file"], "rows": rows, "said": messages.getvalue(), "error": error}


def predict_files(module: str, flags: BatchPredictConfig) -> None:
    """Predict all files of a command; see the module.

    Args:
      module: the `predict` module of the task.
      flags: the flags of the command, with `workers`, `cluster` and `output`.

    Raises:
      InputError: the flags fit no folder of outputs, or files could not be predicted, which are
        named at the end. The parts of all others are complete.
    """
    files = _files(flags)
    assert flags.output is not None
    wanted = parts(files, flags.output, flags.PART)
    left = [file for file in files if not wanted[file].exists()]
    if len(left) < len(files):
        say(f"{len(files) - len(left)} of {len(files)} files have a part in {flags.output}")
    if not left:
        return
    failed, rows, start = [], 0, time.monotonic()
    items = [{"file": str(file), "part": str(wanted[file])} for file in left]
    results = _predict(module, flags, items)
    for result in progress(results, total=len(left), unit="files", seconds=10.0):
        rows += result["rows"]
        for line in result["said"].splitlines():
            say(f"{result['file']}: {line}")
        if result["error"]:
            failed.append(f"  {result['error']}")
    rate = rows / (time.monotonic() - start)
    say(f"{len(left)} files, {rows:,} rows, {rate:.0f} rows a second")
    if failed:
        listed = "\n".join(failed)
        raise InputError(f"{len(failed)} of {len(files)} files were not predicted:\n{listed}")


def _files(flags: BatchPredictConfig) -> list[Path]:
    """Return the input files; refuse other input, and an output that is no folder."""
    if flags.output is None or flags.output.is_file():
        raise InputError("--workers writes a part for each file: give --output a folder")
    if any(getattr(flags, name, ()) for name in TYPED):
        raise InputError("--workers predicts files; leave out the input on the command line")
    files = expand(getattr(flags, flags.INPUTS))
    if not files:
        raise InputError("--workers predicts files, and none is given")
    return files


def _predict(
    module: str, flags: BatchPredictConfig, items: Sequence[dict[str, str]]
) -> Iterator[dict[str, Any]]:
    """Yield the result of each file as it is done."""
    ray = require("ray", "cluster")
    data = require("ray.data", "cluster")
    workers = min(flags.workers, len(items))
    with cluster.connected(ray, workers, flags.cluster) as cores:
        data.DataContext.get_current().enable_progress_bars = False
        # A block of its own for each file, so that a free process takes the next one.
        rows = data.from_items(list(items), override_num_blocks=len(items)).map(
            Predictor,
            fn_constructor_args=(module, words_of(flags), flags.place(), os.getcwd()),
            concurrency=workers,
            num_cpus=cores,
        )
        yield from rows.iter_rows()
