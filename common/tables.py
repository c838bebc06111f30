"""Rows of the user's own files: read once, then kept in memory, or on disk if they are large.

A row is a string of bytes, which the task encodes, with some numbers. On disk, the bytes of all
rows are in one file, their ends and the numbers in NumPy's files (the layout of Arrow's string
columns), in a folder that is named after a hash of the user's files. Rows are then read by their
numbers. So memory holds a few numbers for each row, every epoch has an order of its own over all
rows, and each worker reads only its own rows of a batch.
"""

from __future__ import annotations

import array
import dataclasses
import hashlib
import io
import json
import os
import shutil
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Self

from common.files import hash_files, locked, remove_abandoned, unique_path
from common.messages import say

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf
    import tensorflow_datasets as tfds

LARGE = 32 * 2**20  # bytes of all files of a corpus; smaller ones stay in memory
SAMPLED = 200_000  # training rows of large files from which vocabularies are made
FORMAT = 2  # of the folders
BLOCK = 1024  # rows that are read at a time, where they are read in order
Own = Callable[[int], slice]  # number of rows of a batch -> those that this worker needs


class Writer:
    """Collects the rows of a table.

    Args:
      file: receives their bytes.

    Attributes:
      bounds: `<int64>[rows + 1]`, the ends of the rows in the file, after a 0.
      columns: name -> numbers, most often one per row.
    """

    def __init__(self, file: BinaryIO):
        self._file = file
        self.bounds = array.array("q", [0])
        self.columns: dict[str, array.array[int]] = {}

    def column(self, name: str, code: str) -> array.array[int]:
        """Add a column, to which the caller appends numbers of a type code of `array`."""
        return self.columns.setdefault(name, array.array(code))

    def append(self, row: bytes) -> None:
        """Add a row."""
        self._file.write(row)
        self.bounds.append(self.bounds[-1] + len(row))

    def extend(self, rows: bytes, sizes: np.ndarray) -> None:
        """Add rows of which the bytes are joined; `sizes` are their numbers of bytes."""
        self._file.write(rows)
        self.bounds.frombytes((self.bounds[-1] + np.cumsum(sizes, dtype=np.int64)).tobytes())

    def __len__(self) -> int:
        return len(self.bounds) - 1


# Writes all rows, and returns facts about them that JSON can hold.
Write = Callable[[Writer], Mapping[str, Any]]


class Table:
    """Rows of bytes, with columns of numbers.

    Args:
      bounds: `<int64>[rows + 1]`; row `k` lies between bytes `bounds[k]` and `bounds[k + 1]`.
      columns: the numbers; None: those of the folder.
      facts: what is known of all rows.
      content: the bytes of all rows, or the path of their file.
      folder: the files of a table that was kept; else None.
    """

    def __init__(
        self,
        bounds: np.ndarray,
        columns: Mapping[str, np.ndarray] | None,
        facts: Mapping[str, Any],
        content: memoryview | Path,
        *,
        folder: Path | None = None,
    ):
        self.bounds, self.facts, self.folder = bounds, facts, folder
        self._columns = columns
        self._content = None if isinstance(content, Path) else content
        if isinstance(content, Path):
            self._file = os.open(content, os.O_RDONLY)
            weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return len(self.bounds) - 1

    def column(self, name: str) -> np.ndarray:
        """Return a column of numbers; that of a folder is read anew each time."""
        if self._columns is not None:
            return self._columns[name]
        assert self.folder is not None
        return np.load(self.folder / f"{name}.npy")

    def read(self, rows: np.ndarray) -> list[bytes]:
        """Read some rows by their numbers."""
        places = zip(self.bounds[rows].tolist(), self.bounds[rows + 1].tolist(), strict=True)
        if self._content is not None:
            return [bytes(self._content[start:end]) for start, end in places]
        # Not a memory map: its pages would count as memory of this process.
        return [os.pread(self._file, end - start, start) for start, end in places]

    def sizes(self, rows: np.ndarray) -> np.ndarray:
        """Return the numbers of bytes of some rows `<int32>[rows]`."""
        return (self.bounds[rows + 1] - self.bounds[rows]).astype(np.int32)


def in_memory(write: Write) -> Table:
    """Return a table that stays in memory.

    Example:
      >>> table = in_memory(lambda writer: writer.append(b"a") or writer.append(b"bc") or {})
      >>> table.read(np.array([1, 0]))
      [b'bc', b'a']
    """
    file = io.BytesIO()
    writer = Writer(file)
    facts = write(writer)
    return Table(*_arrays(writer), facts, file.getbuffer())


def on_scratch(root: Path, write: Write) -> Table:
    """Return a table whose bytes are in a file that disappears with it, or with the process."""
    root.mkdir(parents=True, exist_ok=True)
    remove_abandoned(root, ".scratch")
    path = unique_path(root, ".scratch")
    try:
        with open(path, "wb") as file:
            writer = Writer(file)
            facts = write(writer)
        return Table(*_arrays(writer), facts, path)
    finally:
        path.unlink(missing_ok=True)  # the table still reads it


def _arrays(writer: Writer) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Return the bounds and the columns; the arrays share their memory with those of the writer."""
    columns = {name: np.frombuffer(x, x.typecode) for name, x in writer.columns.items() if x}
    columns |= {name: np.zeros(0, x.typecode) for name, x in writer.columns.items() if not x}
    return np.frombuffer(writer.bounds, np.int64), columns


def hash_text(text: str) -> int:
    """Return a hash of 64 bits, for a column that finds equal texts."""
    digest = hashlib.blake2b(text.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "little")


def own_folder(task: str, data_dir: Path | None) -> Path:
    """Return the folder for the tables of a task.

    Args:
      task: its name.
      data_dir: the folder of prepared data; None: that of tensorflow-datasets.
    """
    return Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / f"own_{task}"


def is_large(files: Sequence[Path]) -> bool:
    """Return whether tables of these files are kept on disk; missing files count as empty."""
    return sum(file.stat().st_size for file in files if file.exists()) > LARGE


def open_table(
    files: Sequence[Path], settings: Sequence[Any], write: Write, root: Path | None
) -> Table:
    """Return the table of a file of the user; if it is on disk, the file is read only once.

    Args:
      files: the file, or the two parallel ones.
      settings: how they are read, as JSON can hold it.
      write: reads them.
      root: the folder of all tables on disk; None: the table stays in memory.

    Raises:
      InputError: a file is malformed.
    """
    if root is None:
        return in_memory(write)
    content = [hash_files([file], file) for file in files]
    suffixes = [file.suffix.lower() for file in files]
    return on_disk(root, [content, suffixes, settings], write, f"{files[0]}: reading it once")


def on_disk(root: Path, key: Sequence[Any], write: Write, message: str) -> Table:
    """Return a table on disk, which is written if it was not written before.

    It is whole or not there, also after a kill. Of several processes one writes it.

    Args:
      root: the folder of all tables.
      key: what the rows depend on, as JSON can hold it.
      write: writes the rows.
      message: said before.
    """
    name = hashlib.sha256(json.dumps([FORMAT, *key]).encode()).hexdigest()[:32]
    root.mkdir(parents=True, exist_ok=True)
    folder = root / name
    with locked(root / f".{name}.lock"):
        if not folder.exists():
            say(f"{message}, into {folder}")
            _write_folder(folder, write)
    facts = json.loads((folder / "facts.json").read_text(encoding="utf-8"))
    bounds = np.load(folder / "bounds.npy")
    return Table(bounds, None, facts, folder / "rows.bin", folder=folder)


def _write_folder(folder: Path, write: Write) -> None:
    """Write a folder, which appears whole or not at all."""
    remove_abandoned(folder.parent, f".{folder.name}.partial")
    partial = unique_path(folder.parent, f".{folder.name}.partial")
    partial.mkdir()
    try:
        with open(partial / "rows.bin", "wb") as file:
            writer = Writer(file)
            facts = write(writer)
        bounds, columns = _arrays(writer)
        for name, values in (("bounds", bounds), *columns.items()):
            np.save(partial / f"{name}.npy", values)
        (partial / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
        os.replace(partial, folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def identity(opened: Mapping[str, Rows], seed: int) -> str:
    """Return what the examples of tables on disk depend on; "" for tables in memory.

    Args:
      opened: the rows of each file.
      seed: of the split of a single file.
    """
    folders = [opened[split].table.folder for split in sorted(opened)]
    names = [folder.name for folder in folders if folder is not None]
    return " ".join([*names, str(seed)]) if names else ""


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

    def __len__(self) -> int:
        return len(self.numbers)

    def sample(self, count: int) -> Self:
        """Return `count` random rows in the same order; all of them if there are fewer."""
        if count >= len(self.numbers):
            return self
        chosen = np.random.default_rng(0).choice(len(self.numbers), count, replace=False)
        return self.select(np.sort(chosen))

    def select(self, places: np.ndarray) -> Self:
        """Return the rows at some places of these rows."""
        return dataclasses.replace(self, numbers=self.numbers[places])

    def read(self) -> Iterator[bytes]:
        """Yield the rows in order."""
        for start in range(0, len(self), BLOCK):
            yield from self.table.read(self.numbers[start : start + BLOCK])

    def blocks(
        self, read: Callable[[np.ndarray], Any], signature: Mapping[str, tf.TensorSpec]
    ) -> tf.data.Dataset:
        """Return the rows in order, `BLOCK` at a time.

        Args:
          read: numbers of rows -> an array for each name of the signature.
          signature: names, types and shapes of the elements.
        """

        def read_block(block: np.ndarray) -> Any:
            return read(self.numbers[block * BLOCK : (block + 1) * BLOCK])

        return read_each(read_block, tf.data.Dataset.range(-(-len(self) // BLOCK)), signature)


def read_each(
    read: Callable[..., Any], elements: tf.data.Dataset, signature: Mapping[str, tf.TensorSpec]
) -> tf.data.Dataset:
    """Return a data set of what `read` returns for the elements of another one.

    Args:
      read: the arrays of an element -> an array for each name of the signature.
      elements: such as the numbers of batches.
      signature: names, types and shapes of the result.
    """
    # TensorFlow keeps the function of a `numpy_function` until the process ends. So that the rows
    # of an epoch do not stay as long, it has a weak reference, and the data set the other one.
    reference = weakref.ref(read)

    def call(*arrays: np.ndarray) -> Any:
        function = reference()
        assert function is not None
        return function(*arrays)

    def to_tensors(*element: tf.Tensor) -> dict[str, tf.Tensor]:
        tensors = tf.numpy_function(call, element, [spec.dtype for spec in signature.values()])
        return {
            name: tf.ensure_shape(tensor, spec.shape)
            for tensor, (name, spec) in zip(tensors, signature.items(), strict=True)
        }

    dataset = elements.map(to_tensors, num_parallel_calls=2)
    dataset.read = read
    return dataset
