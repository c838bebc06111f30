"""The user's own tables that are larger than memory: texts and their classes on disk.

See `common.tables`. The numbers of a row are its class and the hash of its words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common.errors import InputError
from common.files import count_lines
from common.messages import Skipped, report_skipped
from common.progress import progress
from common.tables import Own, Rows, Writer, open_table, read_each
from tasks.sentiment.formats import Layout, read_valid, row_key, unknown_label

import numpy as np
from etils import epy

with epy.lazy_imports():
    import tensorflow as tf

POOL = 100  # batches among which rows of similar size are grouped
MANY = 1000  # different labels after which a column is no column of classes


@dataclasses.dataclass(frozen=True)
class Texts(Rows):
    """Some rows of a file of the user.

    Attributes:
      labels: the classes.
      table_classes: `<int>[rows of the table]`, indices of `labels`.
    """

    labels: tuple[str, ...]
    table_classes: np.ndarray

    @property
    def classes(self) -> np.ndarray:
        """The classes of these rows."""
        return self.table_classes[self.numbers]

    @property
    def keys(self) -> np.ndarray:
        """`<uint64>[rows]`, the `row_key` of each row."""
        return self.table.column("keys")[self.numbers]

    def with_labels(self, labels: Sequence[str]) -> Texts:
        """Return the rows with the same classes in another order."""
        index = np.array([labels.index(label) for label in self.labels], np.int8)
        return dataclasses.replace(
            self, labels=tuple(labels), table_classes=index[self.table_classes]
        )

    def as_dataset(self) -> tf.data.Dataset:
        """Return the rows in order, as elements `{text: <string>[], label: <int64>[]}`."""

        def read(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
            texts = np.array(self.table.read(rows), object)
            return texts, self.table_classes[rows].astype(np.int64)

        count = tf.data.experimental.assert_cardinality(len(self))
        return self.blocks(read, _signature()).unbatch().apply(count)

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
            texts[own(len(rows))] = self.table.read(rows[own(len(rows))])
            return texts, self.table_classes[rows].astype(np.int64)

        return read_each(read, tf.data.Dataset.range(len(starts)), _signature())

    def _order(self, batch_size: int, seed: int | None) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the rows in the order of the batches, and where each one starts."""
        random = np.random.default_rng(seed)
        rows = self.numbers if seed is None else random.permutation(self.numbers)
        pools = (np.arange(len(rows)) // (POOL * batch_size)).astype(np.int32)
        starts = np.arange(0, len(rows), batch_size)
        if seed is not None:
            random.shuffle(starts)
        return rows[np.lexsort((self.table.sizes(rows), pools))], starts


def _signature() -> dict[str, tf.TensorSpec]:
    return {"text": tf.TensorSpec([None], tf.string), "label": tf.TensorSpec([None], tf.int64)}


def open_texts(path: Path, layout: Layout, labels: Sequence[str], root: Path | None) -> Texts:
    """Open a file of the user; if it was never opened before, a folder of `root` is made of it.

    Args:
      path: the file.
      layout: how it is read.
      labels: the classes; (): those that the file has.
      root: the folder of all tables on disk; None: the rows stay in memory.

    Raises:
      InputError: the file is malformed, or has another label than `labels`.
    """

    def write(writer: Writer) -> Mapping[str, Any]:
        return _write(writer, path, layout, labels)

    table = open_table([path], [list(labels), dataclasses.asdict(layout)], write, root)
    skipped = [(place, reason) for place, reason in table.facts["skipped"]]
    report_skipped(path, skipped, total=len(table) + len(skipped), unit="rows", limit=1.0)
    classes = table.column("classes")
    return Texts(table, np.arange(len(table)), tuple(table.facts["labels"]), classes)


def _write(writer: Writer, path: Path, layout: Layout, labels: Sequence[str]) -> Mapping[str, Any]:
    skipped: Skipped = []
    index = {label: number for number, label in enumerate(labels)}
    classes, keys = writer.column("classes", "h"), writer.column("keys", "Q")
    rows = read_valid(path, layout, skipped, labelled=True)
    for row in progress(rows, total=count_lines(path), unit="lines", place=lambda row: row.line):
        if row.label not in index:
            if labels:
                raise unknown_label(row, labels, path)
            if len(index) == MANY:
                raise InputError(f"{MANY} labels differ; expected 2 to 10", path, row.line)
            index[row.label] = len(index)
        writer.append(row.text.encode("utf-8", "replace"))
        classes.append(index[row.label])
        keys.append(row_key(row.text))
    if not classes:
        raise InputError("no texts in this file", path)
    return {"labels": list(index), "skipped": skipped}
