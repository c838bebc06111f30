"""The user's own tables that are larger than memory: read once, then kept on disk.

A file is read once into a folder that is named after a hash of its content: the bytes of all texts
in one file, their ends, classes and keys in NumPy's files (the layout of Arrow's string columns).
Texts are then read by row numbers. So memory holds a few numbers for each row, every epoch has an
order of its own over all rows, and each worker reads only its own rows of a batch.
"""

from __future__ import annotations

import array
import dataclasses
import functools
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import hash_files, locked, remove_abandoned, unique_path
from common.messages import Skipped, report_skipped, say
from common.progress import progress
from tasks.sentiment.formats import Layout, read_valid, row_key, unknown_label

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

LARGE = 32 * 2**20  # bytes of all files of a corpus; smaller ones are read into memory
FORMAT = 1  # of the folder
BLOCK = 1024  # rows that are read at a time, where they are read in order
POOL = 100  # batches among which rows of similar size are grouped
MANY = 1000  # different labels after which a column is no column of classes
Own = Callable[[int], slice]  # number of rows of a batch -> those that this worker needs


@dataclasses.dataclass(frozen=True)
class Table:
    """A file of the user on disk.

    Attributes:
      folder: its files.
      labels: the classes.
      classes: `<int>[rows]`, an index of `labels` for each row.
      bounds: `<int64>[rows + 1]`; text `k` lies between bytes `bounds[k]` and `bounds[k + 1]`.
    """

    folder: Path
    labels: tuple[str, ...]
    classes: np.ndarray
    bounds: np.ndarray

    @property
    def keys(self) -> np.ndarray:
        """`<uint64>[rows]`, the `row_key` of each row."""
        return np.load(self.folder / "keys.npy")

    @functools.cached_property
    def _file(self) -> int:
        return os.open(self.folder / "texts.bin", os.O_RDONLY)

    def with_labels(self, labels: Sequence[str]) -> Table:
        """Return the table with the same classes in another order."""
        index = np.array([labels.index(label) for label in self.labels], np.int8)
        return dataclasses.replace(self, labels=tuple(labels), classes=index[self.classes])

    def texts(self, rows: np.ndarray) -> list[bytes]:
        """Read the texts of some rows."""
        places = zip(self.bounds[rows].tolist(), self.bounds[rows + 1].tolist(), strict=True)
        # Not a memory map: its pages would count as memory of this process.
        return [os.pread(self._file, end - start, start) for start, end in places]


def open_table(path: Path, layout: Layout, labels: Sequence[str], root: Path) -> Table:
    """Open a file of the user; if it was never opened before, it is read into a folder of `root`.

    Args:
      path: the file.
      layout: how it is read.
      labels: the classes; (): those that the file has.
      root: the folder of all tables.

    Raises:
      InputError: the file is malformed, or has another label than `labels`.
    """
    settings = [FORMAT, path.suffix.lower(), list(labels), dataclasses.asdict(layout)]
    content = hash_files([path], path)
    name = hashlib.sha256(f"{content} {json.dumps(settings)}".encode()).hexdigest()[:32]
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    with locked(root / f".{name}.lock"):
        if not folder.exists():
            _read_once(path, layout, labels, folder)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    classes = np.load(folder / "classes.npy")
    skipped = [(place, reason) for place, reason in facts["skipped"]]
    report_skipped(path, skipped, total=len(classes) + len(skipped), unit="rows", limit=1.0)
    return Table(folder, tuple(facts["labels"]), classes, np.load(folder / "bounds.npy"))


def _read_once(path: Path, layout: Layout, labels: Sequence[str], folder: Path) -> None:
    """Read a file into a folder, which appears whole or not at all."""
    remove_abandoned(folder.parent, f".{folder.name}.partial")
    partial = unique_path(folder.parent, f".{folder.name}.partial")
    partial.mkdir()
    say(f"{path}: reading it once, into {folder}")
    try:
        _write(path, layout, labels, partial)
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _write(path: Path, layout: Layout, labels: Sequence[str], folder: Path) -> None:
    skipped: Skipped = []
    index = {label: number for number, label in enumerate(labels)}
    bounds, classes, keys = array.array("q", [0]), array.array("h"), array.array("Q")
    with open(folder / "texts.bin", "wb") as file:
        rows = read_valid(path, layout, skipped, labelled=True)
        for row in progress(rows, total=0, unit="rows read"):
            if row.label not in index:
                if labels:
                    raise unknown_label(row, labels, path)
                if len(index) == MANY:
                    raise InputError(f"{MANY} labels differ; expected 2 to 10", path, row.line)
                index[row.label] = len(index)
            text = row.text.encode("utf-8", "replace")
            file.write(text)
            bounds.append(bounds[-1] + len(text))
            classes.append(index[row.label])
            keys.append(row_key(row.text))
    if not classes:
        raise InputError("no texts in this file", path)
    np.save(folder / "bounds.npy", np.frombuffer(bounds, np.int64))
    np.save(folder / "classes.npy", np.frombuffer(classes, np.int16))
    np.save(folder / "keys.npy", np.frombuffer(keys, np.uint64))
    facts = json.dumps({"labels": list(index), "skipped": skipped})
    (folder / "facts.json").write_text(facts, encoding="utf-8")


# --- Rows -----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Rows:
    """Some rows of a table, such as those of a split.

    Attributes:
      table: the table.
      numbers: `<int>[rows]`, their numbers in the table.
    """

    table: Table
    numbers: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """The classes of these rows."""
        return self.table.classes[self.numbers]

    def sample(self, count: int) -> Rows:
        """Return `count` random rows in the order of the table; all of them if there are fewer."""
        if count >= len(self.numbers):
            return self
        chosen = np.random.default_rng(0).choice(len(self.numbers), count, replace=False)
        return Rows(self.table, self.numbers[np.sort(chosen)])

    def as_dataset(self) -> tf.data.Dataset:
        """Return the rows in order, as elements `{text: <string>[], label: <int64>[]}`."""

        def read(block: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = self.numbers[block * BLOCK : (block + 1) * BLOCK]
            texts = np.array(self.table.texts(rows), object)
            return texts, self.table.classes[rows].astype(np.int64)

        count = len(self.numbers)
        blocks = _read_each(read, -(-count // BLOCK)).unbatch()
        return blocks.apply(tf.data.experimental.assert_cardinality(count))

    def batches(self, batch_size: int, *, seed: int | None, own: Own) -> tf.data.Dataset:
        """Return batches of texts of similar size; every row is in one of them.

        With a seed, each batch has rows from the whole table, and the batches are in random order.

        Args:
          batch_size: rows per batch; one batch may be smaller.
          seed: of the random order. None: the order of the table.
          own: number of rows of a batch -> those that are read; the others have the text "".

        Returns:
          A data set of `text` `<string>[batch]` and `label` `<int64>[batch]`.
        """
        order, starts = self._order(batch_size, seed)

        def read(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            rows = order[starts[number] : starts[number] + batch_size]
            texts = np.full(len(rows), b"", object)
            texts[own(len(rows))] = self.table.texts(rows[own(len(rows))])
            return texts, self.table.classes[rows].astype(np.int64)

        return _read_each(read, len(starts))

    def _order(self, batch_size: int, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the rows in the order of the batches, and where each one starts."""
        random = np.random.default_rng(seed)
        rows = self.numbers if seed is None else random.permutation(self.numbers)
        sizes = (self.table.bounds[rows + 1] - self.table.bounds[rows]).astype(np.int32)
        pools = (np.arange(len(rows)) // (POOL * batch_size)).astype(np.int32)
        starts = np.arange(0, len(rows), batch_size)
        if seed is not None:
            random.shuffle(starts)
        return rows[np.lexsort((sizes, pools))], starts


def _read_each(read: Callable[[np.ndarray], Any], count: int) -> tf.data.Dataset:
    """Return the texts and labels that `read` returns for the numbers from 0 to `count - 1`."""

    def to_tensors(number: tf.Tensor) -> dict[str, tf.Tensor]:
        text, label = tf.numpy_function(read, [number], [tf.string, tf.int64])
        return {"text": tf.ensure_shape(text, [None]), "label": tf.ensure_shape(label, [None])}

    return tf.data.Dataset.range(count).map(to_tensors, num_parallel_calls=2)
