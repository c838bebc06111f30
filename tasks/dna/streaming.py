"""Paths of records of any length, predicted by an export in bounded memory.

Short records are sent whole, in batches. A long record is sent in pieces: the network reads each
with context on both sides, and one Viterbi runs over all of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from common.log_space import LOW
from common.serving.served import Served
from tasks.dna.grammar import CONTEXT as MARGIN
from tasks.dna.grammar import Grammar, make_grammar
from tasks.dna.predictions import encode_checked

import numpy as np

CONTEXT = 1_800  # bases on each side of a piece that the network also reads
PIECE = 14_400  # bases of a piece
SHORT = 65_536  # bases up to which a record is sent whole
IMPOSSIBLE = LOW / 2  # lower scores belong to states that no path reaches


def grammar_of(served: Served) -> Grammar:
    """Return the grammar of an export."""
    return make_grammar(tuple(served.settings["config"]["start_codons"]))


def predict_paths(
    served: Served, sequences: Iterable[str], *, batch_size: int
) -> Iterator[tuple[str, np.ndarray]]:
    """Yield each sequence with its path of states `<int32>[bases]`, in order.

    Args:
      served: the export.
      sequences: read lazily.
      batch_size: short records per request.

    Raises:
      InputError: a sequence has a letter outside IUPAC.
    """
    grammar = grammar_of(served)
    longest = min(SHORT, served.settings["max_bases"])
    short: list[tuple[str, np.ndarray]] = []
    for sequence in sequences:
        bases = encode_checked(sequence)
        if len(bases) > longest:
            yield from _predict_short(served, short, batch_size)
            short = []
            yield sequence, np.concatenate(list(stream_path(served, grammar, bases)))
            continue
        short.append((sequence, bases))
        if len(short) == 64 * batch_size or sum(len(row) for _, row in short) > 1 << 24:
            yield from _predict_short(served, short, batch_size)
            short = []
    yield from _predict_short(served, short, batch_size)


def _predict_short(
    served: Served, records: Sequence[tuple[str, np.ndarray]], batch_size: int
) -> Iterator[tuple[str, np.ndarray]]:
    predictions = served.predict(
        "tensors",
        records,
        _request,
        batch_size=batch_size,
        length_of=lambda record: len(record[1]),
        budget=served.settings.get("max_batch_bases"),
    )
    for (sequence, bases), outputs in predictions:
        yield sequence, outputs["states"][: len(bases)]


def _request(records: Sequence[tuple[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the inputs of signature `tensors` for encoded sequences."""
    length = np.array([len(bases) for _, bases in records], np.int32)
    rows = np.zeros((len(records), max(length)), np.int32)
    for row, (_, bases) in zip(rows, records, strict=True):
        row[: len(bases)] = bases
    return {"bases": rows, "length": length}


def stream_path(served: Served, grammar: Grammar, bases: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the best path of a record of any length, in pieces.

    Backpointers are kept until all paths that are still possible agree on the states before them,
    which mostly happens within a few genes. So memory is bounded, and the path is the same as that
    of one Viterbi over the whole record.

    Args:
      served: the export.
      grammar: its grammar.
      bases: `<int32>[bases]` of `nucleotides.encode`, at least one.

    Yields:
      Parts of the path, `<int32>[...]`, from the first base to the last.
    """
    size, index = len(bases), grammar.constraints.sources.index
    before = np.zeros(grammar.states, np.float32)
    pending: list[np.ndarray] = []  # backpointers of the pieces whose states are not settled
    ended = before
    for start in range(0, size, PIECE):
        end = min(size, start + PIECE)
        low, high = max(0, start - CONTEXT), min(size, end + CONTEXT)
        network = served.call("network", bases=bases[None, low:high], length=[high - low])
        beyond = max(0, MARGIN - start), max(0, end + MARGIN - size)
        around = bases[max(0, start - MARGIN) : min(size, end + MARGIN)]
        step = served.call(
            "walk",
            bases=np.pad(around, beyond)[None],
            channels=network["channels"][:, start - low : end - low],
            beyond=[beyond],
            before=before[None],
            first=[start == 0],
        )
        before, ended = step["after"][0], step["ended"][0]
        # For each state at each base, the state at the base before.
        pointers = index[step["pointers"][0], np.arange(grammar.states)].astype(np.int16)
        if pending:
            origin = _common_origin(pointers, np.flatnonzero(before > IMPOSSIBLE))
            if origin is not None:
                yield _trace_back(np.concatenate(pending), origin)[1:]
                pending = []
        pending.append(pointers)
    yield _trace_back(np.concatenate(pending), int(np.argmax(ended)))[1:]


def _common_origin(pointers: np.ndarray, states: np.ndarray) -> int | None:
    """Return the state before the first step, if the paths to all of `states` agree on it."""
    for number in range(len(pointers) - 1, -1, -1):
        states = np.unique(pointers[number, states])
        if len(states) == 1:
            return int(_trace_back(pointers[:number], int(states[0]))[0])
    return None


def _trace_back(pointers: np.ndarray, last: int) -> np.ndarray:
    """Return the path that ends in a state, `<int32>[1 + steps]`.

    Its first element is the state before the first step, which has no meaning at the start of a
    record.
    """
    path, item = np.empty(len(pointers) + 1, np.int32), pointers.item
    for number in range(len(pointers) - 1, -1, -1):
        path[number + 1] = last
        last = item(number, last)
    path[0] = last
    return path
