"""Training data of the gene finder without introns: windows of labelled candidates.

A record is read three times: with tables adapted to its organism, cut into short contigs with the
same tables, and cut into short contigs with the tables of other organisms, since the network must
know how far to trust each.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from tasks.dna import candidates, gene_tables, reading_frames
from tasks.dna.candidates import Candidates
from tasks.dna.config import Config
from tasks.dna.frame_model import CONTEXT, CORE, WINDOW
from tasks.dna.gene_tables import Tables
from tasks.dna.genes import Gene, Record
from tasks.dna.nucleotides import GAP, encode, stop_codons
from tasks.dna.reading_frames import Span, Strands

import numpy as np
import tensorflow as tf

PIECE = 1 << 18  # bases that are read at a time
MOST = 1 << 21  # bases of an organism from which its tables are counted
SHORTEST, LONGEST = 400, 12_000  # bases of contigs in training


class Windows(NamedTuple):
    """Windows of candidates; see `frame_model.build`. `gene` and `start` are the labels.

    `frames` and `starts` are `float16`, since there are many; `widen` makes them `float32`.
    `gene` is 1, 0, or -1 if unknown; `start` the index among the starts of a candidate, or -1.
    """

    frames: np.ndarray
    starts: np.ndarray
    strand: np.ndarray
    length: np.ndarray
    content: np.ndarray
    gene: np.ndarray
    start: np.ndarray


def widen(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
    """Return a batch of windows with `frames` and `starts` as `<float32>`."""
    wide = {name: tf.cast(batch[name], tf.float32) for name in ("frames", "starts")}
    return {**batch, **wide}


def organism_of(record: Record) -> str:
    """Return the organism of a record: its name up to a `|`, or "" without one.

    Example:
      >>> organism_of(Record("S_aureus|contig_1", "ACGT")), organism_of(Record("chr", "ACGT"))
      ('S_aureus', '')
    """
    return record.name.partition("|")[0] if "|" in record.name else ""


def by_organism(records: Iterable[Record]) -> dict[str, list[Record]]:
    """Return the records of each organism, in ascending order of their fraction of G and C."""
    groups: dict[str, list[Record]] = {}
    for record in records:
        groups.setdefault(organism_of(record), []).append(record)
    return dict(sorted(groups.items(), key=lambda item: gc_content(item[1])))


def gc_content(records: Sequence[Record]) -> float:
    """Return the fraction of G and C among the bases A, C, G and T of records."""
    counts = {b: sum(record.sequence.count(b) for record in records) for b in "ACGT"}
    return (counts["G"] + counts["C"]) / max(1, sum(counts.values()))


def joined(records: Sequence[Record], most: int | None = None) -> tuple[np.ndarray, list[int]]:
    """Return records as one row with gaps, `<int32>[bases]`, and the offset of each.

    Args:
      records: the records.
      most: stop after this many bases.
    """
    parts, offsets, size = [], [], 0
    gap = np.zeros(GAP, np.int32)
    for record in records:
        bases = encode(record.sequence)[: None if most is None else max(0, most - size)]
        offsets.append(size)
        parts += [bases, gap]
        size += len(bases) + len(gap)
        if most is not None and size >= most:
            break
    return np.concatenate(parts), offsets


def is_stop(table: int) -> np.ndarray:
    """Return which codons are stop codons, `<bool>[65]`, in a genetic code (NCBI's number)."""
    return reading_frames.codon_table(stop_codons(table)) >= 0


# --- Tables ---------------------------------------------------------------------------------------


def known_tables(records: Sequence[Record], config: Config) -> Tables:
    """Count the tables of an organism in its known genes.

    Returns:
      The tables with a batch of one; `counted` is 0, since they are for other organisms.
    """
    bases, offsets = joined(records, MOST)
    strands = reading_frames.lay_out(bases[None], tf.constant([len(bases)]))
    stops = tf.constant(is_stop(config.genetic_code)[None])
    _, starts = reading_frames.find(strands, config.start_codons, stops)
    sites = gene_tables.start_sites(strands, starts)
    begin, end, occupied = _known_ranges(records, offsets, strands)
    kinds = len(config.start_codons)
    every = tf.ones_like(starts.kind, tf.bool)
    chosen = tf.constant(np.isin(starts.codon.numpy(), begin))
    tables = gene_tables.count(
        strands,
        (tf.constant(begin), tf.constant(end)),
        occupied,
        gene_tables.count_starts(sites, starts.kind, chosen, kinds),
        gene_tables.count_starts(sites, starts.kind, every, kinds),
    )
    return tables._replace(counted=tf.zeros([1]))


def _known_ranges(
    records: Sequence[Record], offsets: Sequence[int], strands: Strands
) -> tuple[np.ndarray, np.ndarray, Span]:
    """Return the codons of complete genes, and the bases of all of them."""
    begin, end, left, right = [], [], [], []
    first, limit = int(strands.offsets[0]), int(strands.size)
    for record, offset in zip(records, offsets, strict=False):
        for gene in record.genes:
            low, high = gene.start + offset + first, gene.end + offset + first
            if high > limit:
                continue
            left.append(low)
            right.append(high)
            if gene.has_start and gene.has_stop and not gene.pseudo and len(gene.exons) == 1:
                place = (low, high) if gene.strand == 1 else (2 * limit - high, 2 * limit - low)
                begin.append(place[0])
                end.append(place[1] - 3)
    codons = (strands.codon(np.array(place, np.int32)) for place in (begin, end))
    first_codon, stop_codon = (np.asarray(codon, np.int32) for codon in codons)
    ones = tf.ones([len(left)], tf.int32)
    occupied = Span(tf.constant(left, tf.int32), tf.constant(right, tf.int32), ones, ones)
    return first_codon, stop_codon, occupied


class Organisms(NamedTuple):
    """Organisms of training data: fractions of G and C `<float32>[n]`, ascending, and tables."""

    contents: np.ndarray
    tables: Tables


def stacked(tables: Sequence[Tables]) -> Tables:
    """Return the tables of several organisms as one."""
    return Tables(*(tf.concat(rows, axis=0) for rows in zip(*tables, strict=True)))


# --- Labels ---------------------------------------------------------------------------------------


def label(
    found: Candidates, strands: Strands, rows: Sequence[Record], kinds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels `gene` and `start` of candidates; see `Windows`.

    A candidate is a gene if its last codon belongs to a gene in its frame. It is unknown if it lies
    in a gene that is not one range: a pseudogene, a spliced gene, or one with a shift of its frame.
    """
    limit, offsets = int(strands.size), strands.offsets.numpy()
    owner = np.zeros(2 * limit, np.int32)  # number of the gene of each codon, in codon order
    first = [-1]  # first codon of each gene, by number
    unclear = np.zeros(limit, bool)
    for record, offset in zip(rows, offsets, strict=True):
        for gene in record.genes:
            low, high = gene.start + offset, gene.end + offset
            if gene.pseudo or len(gene.exons) != 1:
                unclear[low:high] = True
                continue
            begin, end = (low, high) if gene.strand == 1 else (2 * limit - high, 2 * limit - low)
            begin += gene.phase
            codon = begin // 3 + begin % 3 * (2 * limit // 3)
            owner[codon : codon + (end - begin) // 3] = len(first)
            first.append(codon if gene.has_start else -2)
    last = found.stop.numpy() - 1
    gene = owner[last]
    starts = np.array(first, np.int32)[gene]
    position = strands.position(found.stop).numpy() - 3
    base = np.where(position < limit, position, 2 * limit - 1 - position)
    known = np.where(unclear[base], -1, (gene > 0).astype(np.int32))
    exists = found.starts[..., 0].numpy() > 0
    off = exists & (found.kind.numpy() == kinds) & (starts == -2)[:, None]
    match = (found.codon.numpy() == starts[:, None]) & exists | off
    start = np.where(match.any(axis=1) & (known == 1), match.argmax(axis=1), -1)
    return known.astype(np.int32), start.astype(np.int32)


# --- Windows --------------------------------------------------------------------------------------


@functools.lru_cache(maxsize=8)
def make_function(
    start_codons: tuple[str, ...],
) -> tf.types.experimental.PolymorphicFunction:
    """Return `candidates.make` as a graph."""

    def run(
        bases: tf.Tensor, length: tf.Tensor, tables: Tables, similar: Tables, stops: tf.Tensor
    ) -> tuple:
        return candidates.make(bases, length, tables, similar, start_codons, stops)

    return tf.function(run, autograph=False, reduce_retracing=True)


def read(
    rows: Sequence[Record], tables: Tables | None, others: Organisms, config: Config
) -> Windows:
    """Return the labelled windows of some records that are read together.

    Args:
      rows: the records.
      tables: of their organism, with a batch of one; `None`: only those of other organisms.
      others: the other organisms.
      config: the settings.
    """
    length = np.array([len(record.sequence) for record in rows], np.int32)
    bases = np.zeros((len(rows), length.max()), np.int32)
    for row, record in zip(bases, rows, strict=True):
        row[: len(record.sequence)] = encode(record.sequence)
    content = gene_tables.gc_content(bases, length)
    similar = gene_tables.interpolate(content, others.contents, others.tables)
    own = similar
    if tables is not None:
        own = Tables(*(tf.repeat(table, len(rows), axis=0) for table in tables))
    stops = tf.repeat(is_stop(config.genetic_code)[None], len(rows), axis=0)
    strands, found = make_function(config.start_codons)(bases, length, own, similar, stops)
    gene, start = label(found, strands, rows, len(config.start_codons))
    first, size, _ = candidates.pad_windows(found.row, tf.constant(len(rows)), CORE, CONTEXT)

    def windows(values: tf.Tensor | np.ndarray) -> np.ndarray:
        return candidates.to_windows(tf.constant(values), first, size, WINDOW).numpy()

    place = np.arange(WINDOW)[None, :] < size.numpy()[:, None]
    return Windows(
        windows(found.frames).astype(np.float16),
        windows(found.starts).astype(np.float16),
        windows(found.strand),
        size.numpy(),
        content.numpy()[found.row.numpy()[first.numpy()]],
        np.where(place, windows(gene), -1),
        np.where(place, windows(start), -1),
    )


def clipped(record: Record, low: int, high: int) -> Record:
    """Return a part of a record, as a contig: genes run off its ends."""
    genes = []
    for gene in record.genes:
        if gene.end <= low or gene.start >= high:
            continue
        if gene.start >= low and gene.end <= high:
            genes.append(gene.shifted(-low))
        elif len(gene.exons) == 1:
            genes.append(_clip(gene, low, high))
    return Record(record.name, record.sequence[low:high], tuple(genes))


def _clip(gene: Gene, low: int, high: int) -> Gene:
    """Return the part of a gene of one exon in a range, which begins at 0."""
    start, end = max(gene.start, low), min(gene.end, high)
    cut_left, cut_right = gene.start < low, gene.end > high
    removed = start - gene.start if gene.strand == 1 else gene.end - end
    cut_start, cut_stop = (cut_left, cut_right) if gene.strand == 1 else (cut_right, cut_left)
    return dataclasses.replace(
        gene,
        exons=((start - low, end - low),),
        has_start=gene.has_start and not cut_start,
        has_stop=gene.has_stop and not cut_stop,
        phase=(gene.phase - removed) % 3 if cut_start else gene.phase,
    )


def contigs(records: Iterable[Record], seed: int) -> Iterator[Record]:
    """Yield the records in pieces of random lengths."""
    random = np.random.default_rng(seed)
    for record in records:
        low = 0
        while low < len(record.sequence):
            size = int(np.exp(random.uniform(np.log(SHORTEST), np.log(LONGEST))))
            yield clipped(record, low, min(low + size, len(record.sequence)))
            low += size


def batched(rows: Iterable[Record], most: int = PIECE) -> Iterator[list[Record]]:
    """Yield the records in lists of about `most` bases."""
    batch: list[Record] = []
    for row in rows:
        batch.append(row)
        if sum(len(record.sequence) for record in batch) >= most or len(batch) == 64:
            yield batch
            batch = []
    if batch:
        yield batch


def pieces(records: Iterable[Record]) -> Iterator[Record]:
    """Yield long records in pieces of at most `PIECE` bases."""
    for record in records:
        for low in range(0, len(record.sequence), PIECE):
            yield clipped(record, low, min(low + PIECE, len(record.sequence)))


def concatenated(parts: Sequence[Windows]) -> Windows:
    """Return all windows as one."""
    return Windows(*(np.concatenate(values) for values in zip(*parts, strict=True)))
