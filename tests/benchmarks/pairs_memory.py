"""Memory of the numbers that training keeps for many sentence pairs.

    python -m tests.benchmarks.pairs_memory --rows 1000000
    python -m tests.benchmarks.pairs_memory --rows 10000000

The pairs have no text, and no model is built, so it takes seconds: hashes and lengths are random,
as those of a file of `--data` without repeated sentences. After each step of `train`, the memory of
the process and its peak until then are printed. Run one size per process. The last line is one JSON
object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

from common import tables
from common.commands import report
from tasks.translation import data, splits

import numpy as np

BLOCK = 100_000


def blocks(count: int) -> Iterator[int]:
    """Yield the numbers of rows that are written at a time."""
    for start in range(0, count, BLOCK):
        yield min(BLOCK, count - start)


def write_pairs(writer: tables.Writer, count: int) -> dict[str, list[str]]:
    """Write the columns of a table of pairs."""
    random = np.random.default_rng(0)
    keys = [writer.column(f"{side}_keys", "Q") for side in ("source", "target", "pair")]
    sizes, unequal = writer.column("source_bytes", "i"), writer.column("unequal", "b")
    for size in blocks(count):
        writer.extend(b"ab" * size, np.full(size, 2))
        for column in keys:
            column.frombytes(random.integers(1, 2**62, size).tobytes())
        sizes.frombytes(np.ones(size, np.int32).tobytes())
        unequal.frombytes(bytes(size))
    return {"skipped": []}


def write_ids(writer: tables.Writer, count: int) -> dict[str, list[str]]:
    """Write the columns of a table of ids."""
    random = np.random.default_rng(1)
    columns = [writer.column(side, "i") for side in ("source", "target")]
    for size in blocks(count):
        lengths = random.integers(3, 64, (2, size)).astype(np.int32)
        writer.extend(bytes(4 * int(lengths.sum())), 4 * lengths.sum(axis=0))
        for column, side in zip(columns, lengths, strict=True):
            column.frombytes(side.tobytes())
    return {}


def memory(step: str) -> dict[str, object]:
    """Return the memory of this process after a step, and its peak until then, in MB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"after": step, "MB": pages * os.sysconf("SC_PAGE_SIZE") >> 20, "peak_MB": round(peak)}


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks.pairs_memory", description=__doc__.splitlines()[0]
    )
    parser.add_argument("--rows", type=int, default=1_000_000, help="pairs of the file")
    count = parser.parse_args().rows
    rows = [memory("imports")]
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        table = tables.on_disk(root, [0], lambda writer: write_pairs(writer, count), "pairs")
        rows.append(memory("reading the file"))
        whole = data.Pairs(table, np.arange(count), table.column("source_bytes"))
        keys = [table.column(name) for name in ("source_keys", "target_keys")]
        parts = {name: whole.select(part) for name, part in splits.split_groups(keys, 1).items()}
        del keys
        rows.append(memory("splitting it"))
        parts["train"] = data._select(parts["train"])
        rows.append(memory("dropping repeated pairs"))
        size = len(parts["train"])
        ids = tables.on_disk(root, [1], lambda writer: write_ids(writer, size), "ids")
        encoded = data.Encoded(ids, (ids.column("source"), ids.column("target")))
        rows.append(memory("encoding"))
        batches = [data.to_batches(encoded, batch_size=64, shuffle_seed=1)]
        next(iter(batches[0]))
        rows.append(memory("an order of the epoch"))
    print(report.table(rows))
    print(json.dumps({"rows": count, "memory": rows}))


if __name__ == "__main__":
    main()
