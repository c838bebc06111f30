"""Records of any length through the signatures of the gene finder without introns.

The tables of the organism are counted first, in a sample of the records. Short records are then
sent whole, in batches, long ones in pieces that overlap by far more than a gene.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from common.messages import say
from common.serving.served import Served
from tasks.dna import predictions
from tasks.dna.nucleotides import GAP

import numpy as np

if TYPE_CHECKING:
    from tasks.dna.predictions import Prediction, Reading

PIECE = 1 << 19  # bases of a piece of a long record
CONTEXT = 1 << 15  # bases that the pieces also read on each side
SAMPLE = 1 << 21  # bases in which the tables are counted
LEAST_SAMPLE = 20_000  # bases in which counting is worth while
MASKED = 50  # N in a row that `Reading.mask` masks
CHECKED = 100_000  # bases in which the genetic code is checked
OTHER_CODE = 4  # in which TGA is tryptophan
USUAL, LONG_GENE = 0.7, 600  # fraction in genes, and their mean length, above which it is right
MORE, LONGER = 1.03, 1.3  # bases in genes, and their mean length, by a code that fits better
COLUMNS = (
    "start", "end", "strand", "phase", "partial", "kind", "binding",
    "score", "confidence", "start_confidence",
)  # fmt: skip
Table = dict[str, np.ndarray]
Row = tuple[str, np.ndarray]  # a sequence, and its codes


def predict(
    served: Served, sequences: Iterable[str], batch_size: int, reading: Reading
) -> Iterator[tuple[str, Prediction]]:
    """Yield each sequence with its prediction; see `predictions.predict`."""
    config = served.settings["config"]
    names = config["start_codons"], served.settings["motifs"]
    code = reading.genetic_code
    if code is None or code == "auto":
        code = config["genetic_code"]
    rows: Iterator[Row] = ((text, _encode(text, mask=reading.mask)) for text in sequences)
    tables = None
    if reading.adapt:
        sample, rows = _read_sample(rows)
        tables = count_tables(served, sample, code)
        if tables is not None and reading.genetic_code in (None, "auto"):
            code, tables = _check_code(served, sample, code, tables, reading.genetic_code)
    for group in _grouped(rows, batch_size):
        for (text, _), table in zip(
            group, _find(served, group, tables, code, batch_size), strict=True
        ):
            yield text, predictions.from_table(table, *names, len(text), code)


def _encode(sequence: str, *, mask: bool) -> np.ndarray:
    bases = predictions.encode_checked(sequence)
    if mask:
        for run in re.finditer(f"[Nn]{{{MASKED},}}", sequence):
            bases[run.start() : run.end()] = 0
    return bases


def _read_sample(rows: Iterator[Row]) -> tuple[list[np.ndarray], Iterator[Row]]:
    """Read up to `SAMPLE` bases; return what was read, and all rows."""
    read: list[Row] = []
    size = 0
    for row in rows:
        read.append(row)
        size += len(row[1])
        if size >= SAMPLE:
            break
    return [bases for _, bases in read], itertools.chain(read, rows)


def count_tables(served: Served, records: Sequence[np.ndarray], code: int) -> Table | None:
    """Return the tables of the organism of some records, `None` if they are too short."""
    size = sum(map(len, records))
    if size < LEAST_SAMPLE:
        return None
    gap = np.zeros(GAP, np.int32)
    joined = np.concatenate([part for bases in records for part in (bases, gap)])
    if len(joined) > SAMPLE:  # pieces at equal distances
        starts = np.linspace(0, len(joined) - SAMPLE // 16, 16).astype(int)
        parts = [joined[start : start + SAMPLE // 16 - GAP] for start in starts]
        joined = np.concatenate([part for piece in parts for part in (piece, gap)])
    return served.call("adapt", bases=joined[None], length=[len(joined)], code=[code])


def _check_code(
    served: Served, sample: Sequence[np.ndarray], code: int, tables: Table, wanted: str | None
) -> tuple[int, Table]:
    """Return the genetic code and its tables: another code is said, or used if `wanted` is "auto".

    Where TGA is no stop codon but is read as one, genes fall into pieces. So the other code is
    tried only if genes are short or few, and fits better if they then cover more bases.
    """
    first = max(sample, key=len)[:CHECKED]
    count, covered = _coverage(served, first, code, tables)
    other = 11 if code == OTHER_CODE else OTHER_CODE
    if covered > max(USUAL * len(first), LONG_GENE * count):
        return code, tables
    others = count_tables(served, sample, other)
    assert others is not None  # since `tables` is not
    fewer, more = _coverage(served, first, other, others)
    if more < MORE * covered or more * count < LONGER * covered * fewer:
        return code, tables
    if wanted == "auto":
        say(f"read with genetic code {other}, which fits better than {code}")
        return other, others
    say(f"genetic code {other} fits better than {code}: pass --genetic_code {other}, or auto")
    return code, tables


def _coverage(served: Served, bases: np.ndarray, code: int, tables: Table) -> tuple[int, int]:
    """Return the number of genes in some bases, and their length."""
    found = served.call("genes", bases=bases[None], length=[len(bases)], code=[code], **tables)
    return int(found["count"][0]), int((found["end"] - found["start"]).sum())


def _grouped(rows: Iterable[Row], batch_size: int) -> Iterator[list[Row]]:
    """Yield the rows in lists of bounded size."""
    group: list[Row] = []
    for row in rows:
        group.append(row)
        if len(group) == 64 * batch_size or sum(len(bases) for _, bases in group) > 1 << 22:
            yield group
            group = []
    if group:
        yield group


def _find(
    served: Served, rows: Sequence[Row], tables: Table | None, code: int, batch_size: int
) -> Iterator[Table]:
    """Yield the table of genes of each row."""
    limit = min(PIECE + 2 * CONTEXT, served.settings["max_bases"])
    pieces: list[tuple[np.ndarray, int, int, int]] = []  # bases, offset, and the row's number
    for number, (_, bases) in enumerate(rows):
        for low, high in _bounds(len(bases), limit):
            pieces.append((bases[low:high], low, high, number))

    def request(batch: Sequence[tuple[np.ndarray, int, int, int]]) -> dict[str, np.ndarray]:
        length = np.array([len(piece[0]) for piece in batch], np.int32)
        padded = np.zeros((len(batch), max(1, length.max())), np.int32)
        for row, piece in zip(padded, batch, strict=True):
            row[: len(piece[0])] = piece[0]
        if tables is None:
            own = served.call("similar", bases=padded, length=length)
        else:
            own = {name: np.repeat(table, len(batch), axis=0) for name, table in tables.items()}
        return {
            "bases": padded,
            "length": length,
            "code": np.full(len(batch), code, np.int32),
            **own,
        }

    found: list[list[tuple[int, int, Table]]] = [[] for _ in rows]
    outputs = served.predict(
        "genes",
        pieces,
        request,
        batch_size=batch_size,
        length_of=lambda piece: len(piece[0]),
        budget=served.settings.get("max_batch_bases"),
    )
    for (_, low, high, number), output in outputs:
        count = int(output["count"])
        table = {name: output[name][:count] for name in COLUMNS}
        table["start"], table["end"] = table["start"] + low, table["end"] + low
        found[number].append((low, high, table))
    for parts in found:
        yield _joined(parts)


def _bounds(size: int, limit: int) -> list[tuple[int, int]]:
    """Return the pieces of a record of `size` bases, of at most `limit` bases."""
    if size <= limit:
        return [(0, size)]
    context = min(CONTEXT, limit // 4)
    step = limit - 2 * context
    count = -(-(size - 2 * context) // step)
    return [(n * step, min(size, n * step + limit)) for n in range(count)]


def _joined(parts: Sequence[tuple[int, int, Table]]) -> Table:
    """Join the genes of overlapping pieces.

    A joint is at a gene that both pieces have, the nearest to the middle of what they share: genes
    up to it are from the left piece. Without one, the middle itself divides them.
    """
    if not parts:
        return {name: np.zeros(0, np.int32) for name in COLUMNS}
    _, end, table = parts[0]
    for low, high, following in parts[1:]:
        middle = (low + end) / 2
        left, right = _keys(table), _keys(following)
        common = [key for key in set(left) & set(right) if low <= key[0] and key[1] <= end]
        joint = min(common, key=lambda key: abs(sum(key[:2]) / 2 - middle), default=None)
        if joint is None:
            kept = np.array([(key[0] + key[1]) / 2 <= middle for key in left], bool)
            added = np.array([(key[0] + key[1]) / 2 > middle for key in right], bool)
        else:
            kept = np.array([key[1] <= joint[1] for key in left], bool)
            added = np.array([key[1] > joint[1] for key in right], bool)
        table = {
            name: np.concatenate([table[name][kept], following[name][added]]) for name in COLUMNS
        }
        end = high
    return table


def _keys(table: Table) -> list[tuple[int, int, int]]:
    columns = (table[name].tolist() for name in ("start", "end", "strand"))
    return list(zip(*columns, strict=True))
