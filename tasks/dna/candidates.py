"""Candidates for genes without introns, as the network reads them.

A candidate is a reading frame that may be a gene, by its codons or by its length alone, with the
best of its starts. All numbers are relative to its strand, so a sequence and its reverse complement
have the same candidates.
"""

from __future__ import annotations

from typing import NamedTuple

from tasks.dna import gene_tables
from tasks.dna.gene_tables import CONSTANT, SURE, Best, Tables
from tasks.dna.reading_frames import Frames, Span, Starts, Strands, find, lay_out, span

import tensorflow as tf

FOREIGN = 8.0  # log-odds against a gene that is not the organism's own, as of a phage
LENGTH = 0.5  # weight of the length of a reading frame whose codons no table knows
STARTS = 8  # of a reading frame that are compared
FLOOR = -12.0  # score of a reading frame that is a candidate
NEAREST = (-4, -1, 0, 10, 30, 100, 300)  # bounds of distances from the gene before, in bases
FRAME_FEATURES = 26  # and one for each kind of start
START_FEATURES = 8 + len(NEAREST) + 1


class Candidates(NamedTuple):
    """Candidates of a batch, in the order of their middles.

    Attributes:
      row: `<int32>[n]`, the row of the batch.
      frames: `<float32>[n, features]`, features of the reading frame.
      starts: `<float32>[n, STARTS, features]`, of its starts; the first is 1, or 0 for none.
      strand: `<float32>[n]`, 1 or -1.
      stop: `<int32>[n]`, the stop codon, in codon order.
      codon: `<int32>[n, STARTS]`, the first codons, in codon order.
      kind: `<int32>[n, STARTS]`, index of the start codon; their number for a gene that runs off.
      binding: `<int32>[n, STARTS]`, entry of `Tables.binding`.
      open_end: `<bool>[n]`, whether the gene runs off the end of the record.
      spans: `[n, STARTS]`, the bases of the gene from each start.
    """

    row: tf.Tensor
    frames: tf.Tensor
    starts: tf.Tensor
    strand: tf.Tensor
    stop: tf.Tensor
    codon: tf.Tensor
    kind: tf.Tensor
    binding: tf.Tensor
    open_end: tf.Tensor
    spans: Span


def make(
    bases: tf.Tensor,
    length: tf.Tensor,
    tables: Tables,
    similar: Tables,
    start_codons: tuple[str, ...],
    is_stop: tf.Tensor,
) -> tuple[Strands, Candidates]:
    """Return the candidates of the rows of a batch.

    Args:
      bases: `<int32>[batch, time]`, codes of `nucleotides.encode`; 0 is a masked base.
      length: `<int32>[batch]`.
      tables: of the organism.
      similar: of organisms with the same fraction of G and C, for genes that are not its own.
      start_codons: the start codons.
      is_stop: `<bool>[batch, 65]`, which codons are stop codons in each row.
    """
    strands = lay_out(bases, length)
    frames, starts = find(strands, start_codons, is_stop)
    sites = gene_tables.start_sites(strands, starts)
    content = gene_tables.gc_content(bases, length)
    open_codon = open_codon_score(content, is_stop)
    scored = _score(strands, frames, starts, sites, (tables, similar), open_codon)
    best = gene_tables.best_starts(frames, starts, scored.total)
    off = starts.kind == len(start_codons)
    likely, spans = _in_order(strands, frames, starts, best, off)
    row = tf.gather(strands.rows, spans.left)
    described = _Described(
        strands,
        tables,
        tf.gather(content, row),
        Frames(*(tf.gather(value, likely) for value in frames)),
        starts,
        Best(*(tf.gather(value, likely) for value in best)),
        spans,
        row,
        *scored,
    )
    ranked = tf.gather(_rank(starts.frame, scored.total, tf.size(frames.begin)), likely)
    exists, index = ranked >= 0, tf.maximum(ranked, 0)
    is_sure = described.best.score > SURE
    is_sure &= ~gene_tables.is_dominated(spans, described.best.score)
    stop, open_end = described.frames.stop, described.frames.open_end
    codon, shape = tf.gather(starts.codon, index), tf.shape(index)
    return strands, Candidates(
        row=row,
        frames=_frame_features(described, is_sure, len(start_codons)),
        starts=_start_features(described, is_sure, index, exists, len(start_codons)),
        strand=tf.cast(spans.strand, tf.float32),
        stop=stop,
        codon=codon,
        kind=tf.gather(starts.kind, index),
        binding=tf.gather(sites.binding, index),
        open_end=open_end,
        spans=span(
            strands,
            codon,
            tf.broadcast_to(stop[:, None], shape),
            tf.gather(off, index),
            tf.broadcast_to(open_end[:, None], shape),
        ),
    )


def open_codon_score(content: tf.Tensor, is_stop: tf.Tensor) -> tf.Tensor:
    """Return the log-odds of a codon that is no stop codon, relative to independent bases.

    Args:
      content: `<float32>[batch]`, fraction of G and C.
      is_stop: `<bool>[batch, 65]`, which codons are stop codons.

    Returns:
      `<float32>[batch]`.

    Example:
      >>> stops = tf.constant([[codon in (48, 50, 56) for codon in range(65)]])  # TAA, TAG, TGA
      >>> float(open_codon_score(tf.constant([0.5]), stops)[0])  # log(64 / 61)
      0.048009...
    """
    weak, strong = (1.0 - content) / 2.0, content / 2.0
    single = tf.stack([weak, strong, strong, weak], axis=1)
    codons = tf.einsum("ba,bc,bd->bacd", single, single, single)
    probability = tf.reshape(codons, [-1, 64])
    return -tf.math.log1p(-tf.reduce_sum(tf.where(is_stop[:, :64], probability, 0.0), axis=1))


class _Scored(NamedTuple):
    """The score of the gene from each start, and its parts."""

    parts: tf.Tensor  # of the start, `gene_tables.start_scores`
    coding: tf.Tensor  # of the codons, by the better table, or by their number
    foreign: tf.Tensor  # of the codons, by the tables of similar organisms
    total: tf.Tensor


def _score(
    strands: Strands,
    frames: Frames,
    starts: Starts,
    sites: gene_tables.StartSites,
    tables: tuple[Tables, Tables],
    open_codon: tf.Tensor,
) -> _Scored:
    """Return the scores of all starts, by the tables of the organism and of similar ones.

    A gene may be unlike both, as one of a phage or a mobile element. Its length still counts: few
    reading frames are as long by chance. As in Prodigal, half of these log-odds are a lower bound.
    """
    row = tf.gather(strands.rows, strands.position(starts.codon))
    parts = gene_tables.start_scores(tables[0], sites, starts.kind, row)
    stop = tf.gather(frames.stop, starts.frame)

    def coding_by(own: Tables) -> tf.Tensor:
        sums = gene_tables.cumulative_scores(own, strands)
        return gene_tables.coding_score(sums, starts.codon, stop)

    native, foreign = map(coding_by, tables)
    by_length = tf.cast(stop - starts.codon, tf.float32) * tf.gather(open_codon, row)
    coding = tf.maximum(native, tf.maximum(foreign, LENGTH * by_length) - FOREIGN)
    return _Scored(parts, coding, foreign, coding + tf.reduce_sum(parts, axis=1) + CONSTANT)


def _in_order(
    strands: Strands, frames: Frames, starts: Starts, best: Best, off: tf.Tensor
) -> tuple[tf.Tensor, Span]:
    """Return the frames that may be genes in the order of their middles, and their best genes."""
    likely = tf.reshape(tf.where((best.start >= 0) & (best.score > FLOOR)), [-1])
    start = tf.gather(best.start, likely)
    spans = span(
        strands,
        tf.gather(starts.codon, start),
        tf.gather(frames.stop, likely),
        tf.gather(off, start),
        tf.gather(frames.open_end, likely),
    )
    order = tf.argsort(spans.left + spans.right)
    spans = Span(*(tf.gather(value, order) for value in spans))
    return tf.cast(tf.gather(likely, order), tf.int32), spans


def _rank(frame: tf.Tensor, score: tf.Tensor, count: tf.Tensor) -> tf.Tensor:
    """Return the best starts of each frame, `<int32>[frames, STARTS]`; -1 where there are fewer."""
    order = tf.argsort(score, direction="DESCENDING", stable=True)
    order = tf.gather(order, tf.argsort(tf.gather(frame, order), stable=True))
    owner = tf.gather(frame, order)
    first = tf.searchsorted(owner, tf.range(count))
    rank = tf.range(tf.size(order)) - tf.gather(first, owner)
    kept = rank < STARTS
    places = tf.boolean_mask(tf.stack([owner, rank], axis=1), kept)
    values = tf.boolean_mask(order, kept) + 1
    return tf.scatter_nd(places, values, [count, STARTS]) - 1


class _Described(NamedTuple):
    """The values from which features are computed, in the order of the candidates."""

    strands: Strands
    tables: Tables
    content: tf.Tensor  # fraction of G and C in the row
    frames: Frames
    starts: Starts
    best: Best
    spans: Span  # from the best start
    row: tf.Tensor
    parts: tf.Tensor  # of the score of each start
    coding: tf.Tensor  # see `_Scored`, for each start
    foreign: tf.Tensor
    score: tf.Tensor


def _squash(value: tf.Tensor, scale: float) -> tf.Tensor:
    """Return a value in units of `scale`, bounded by 5."""
    return tf.clip_by_value(tf.cast(value, tf.float32) / scale, -5.0, 5.0)


def _log(value: tf.Tensor, unit: float) -> tf.Tensor:
    return tf.math.log(tf.maximum(tf.cast(value, tf.float32), 0.5) / unit)


def _frame_features(d: _Described, is_sure: tf.Tensor, kinds: int) -> tf.Tensor:
    """Return the features of reading frames, `<float32>[n, FRAME_FEATURES + kinds]`."""
    start, score = d.best.start, d.best.score
    codon = tf.gather(d.starts.codon, start)
    codons = tf.cast(d.frames.stop - codon, tf.float32)
    coding = tf.gather(d.coding, start)
    rival = gene_tables.strongest_rival(d.spans, score)
    parts = tf.gather(d.parts, start)
    kind = tf.gather(d.starts.kind, start)
    off = tf.cast(kind == kinds, tf.float32)
    features = [
        _squash(score, 30.0),
        _squash(score, 8.0),
        _squash(coding, 200.0),
        _squash(10.0 * coding / codons, 3.0),
        _squash(coding - tf.gather(d.foreign, start), 50.0),
        _log(codons, 150.0),
        _log(d.frames.stop - d.frames.begin, 150.0) - _log(codons, 150.0),
        *tf.unstack(parts / 3.0, axis=1),
        _squash(rival - score, 30.0),
        _squash(rival - score, 8.0),
        _squash(rival, 30.0),
        off,
        tf.cast(d.frames.open_end, tf.float32),
        10.0 * (d.content - 0.5),
        tf.gather(tf.reduce_max(d.tables.binding, axis=1) / 3.0, d.row),
        tf.gather(d.tables.counted, d.row),
        *_neighbours(d, is_sure),
    ]
    one_hot = tf.one_hot(kind, kinds)
    return tf.concat([tf.stack(features, axis=1), one_hot], axis=1)


def _neighbours(d: _Described, is_sure: tf.Tensor) -> list[tf.Tensor]:
    """Return features of the nearest certain genes before and after each candidate, on its strand.

    For each of both: whether there is one, whether it is on the same strand, and its distance on a
    fine and a coarse scale.
    """
    count = tf.size(is_sure)
    sure = tf.cast(tf.reshape(tf.where(is_sure), [-1]), tf.int32)
    sure = tf.concat([[-1], sure, [count]], axis=0)  # none on the left, none on the right
    index = tf.range(count)
    left = tf.gather(sure, tf.searchsorted(sure, index, side="left") - 1)
    right = tf.gather(sure, tf.searchsorted(sure, index, side="right"))

    def described(other: tf.Tensor, *, before: bool) -> list[tf.Tensor]:
        exists = (other >= 0) & (other < count)
        other = tf.clip_by_value(other, 0, tf.maximum(count - 1, 0))
        exists &= tf.gather(d.row, other) == d.row
        if before:
            distance = d.spans.left - tf.gather(d.spans.right, other)
        else:
            distance = tf.gather(d.spans.left, other) - d.spans.right
        same = tf.gather(d.spans.strand, other) == d.spans.strand
        values = [
            tf.ones_like(d.best.score),
            tf.cast(same, tf.float32),
            tf.tanh(tf.cast(distance, tf.float32) / 50.0),
            tf.tanh(tf.cast(distance, tf.float32) / 500.0),
        ]
        return [tf.where(exists, value, 0.0) for value in values]

    forward = d.spans.strand == 1
    pairs = zip(described(left, before=True), described(right, before=False), strict=True)
    features = []
    for one, other in pairs:
        features += [tf.where(forward, one, other), tf.where(forward, other, one)]
    return features


def _start_features(
    d: _Described,
    is_sure: tf.Tensor,
    index: tf.Tensor,
    exists: tf.Tensor,
    kinds: int,
) -> tf.Tensor:
    """Return the features of starts, `<float32>[n, STARTS, START_FEATURES + kinds]`."""
    codon, kind = tf.gather(d.starts.codon, index), tf.gather(d.starts.kind, index)
    parts = tf.gather(d.parts, index)
    best = tf.gather(d.coding, d.best.start)[:, None]
    strength = tf.gather(tf.reduce_max(d.tables.binding, axis=1) / 3.0, d.row)
    features = [
        tf.ones_like(parts[..., 0]),
        *tf.unstack(parts / 3.0, axis=2),
        _squash(tf.gather(d.coding, index) - best, 10.0),
        _squash(tf.gather(d.score, index) - d.best.score[:, None], 10.0),
        _log(codon - d.frames.begin[:, None], 30.0),
        tf.broadcast_to(strength[:, None], tf.shape(codon)),
    ]
    distance = _distance_from_gene_before(d, is_sure, codon)
    bucket = tf.searchsorted(tf.constant(NEAREST), tf.reshape(distance, [-1]), side="right")
    one_hot = tf.one_hot(tf.reshape(bucket, tf.shape(distance)), len(NEAREST) + 1)
    described = tf.concat([tf.stack(features, axis=2), one_hot, tf.one_hot(kind, kinds)], axis=2)
    return tf.where(exists[..., None], described, 0.0)


def _distance_from_gene_before(d: _Described, is_sure: tf.Tensor, codon: tf.Tensor) -> tf.Tensor:
    """Return the bases between each start and the certain gene before it on its strand.

    Genes that overlap by up to `OVERLAP` bases have a negative distance; far more than a gene's
    length if there is none in the row.
    """
    ends = d.strands.position(tf.boolean_mask(d.frames.stop, is_sure)) + 3
    sides = tf.boolean_mask((d.row + 1) * d.spans.strand, is_sure)
    order = tf.argsort(ends)
    none = tf.constant([-(2**29)])
    ends = tf.concat([none, tf.gather(ends, order)], axis=0)
    sides = tf.concat([[0], tf.gather(sides, order)], axis=0)
    position = d.strands.position(codon)
    flat = tf.reshape(position, [-1]) + gene_tables.OVERLAP
    before = tf.reshape(tf.searchsorted(ends, flat, side="right") - 1, tf.shape(position))
    side = (d.row + 1) * d.spans.strand  # the row and the strand
    is_same = tf.gather(sides, before) == side[:, None]
    return tf.where(is_same, position - tf.gather(ends, before), 2**29)


def pad_windows(
    row: tf.Tensor, batch: tf.Tensor, core: int, context: int
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """Cut the candidates of each row into windows that overlap, for a network of bounded length.

    Args:
      row: `<int32>[n]`, ascending.
      batch: number of rows.
      core: candidates of a window without its context.
      context: further candidates on each side.

    Returns:
      `first` and `length` `<int32>[windows]`, the candidates of each window; and `window`
      `<int32>[n]`, in whose core each candidate is.

    Example:
      >>> first, length, window = pad_windows(tf.constant([0, 0, 0, 1]), 2, core=2, context=1)
      >>> first.numpy(), length.numpy(), window.numpy()
      (array([0, 1, 3], dtype=int32), array([3, 2, 1], dtype=int32),
       array([0, 0, 1, 2], dtype=int32))
    """
    begin = tf.searchsorted(row, tf.range(batch))
    end = tf.searchsorted(row, tf.range(batch), side="right")
    windows = -(-(end - begin) // core)
    owner = tf.repeat(tf.range(batch), windows)
    before = tf.cumsum(windows, exclusive=True)
    start = tf.gather(begin, owner) + core * (tf.range(tf.size(owner)) - tf.gather(before, owner))
    first = tf.maximum(start - context, tf.gather(begin, owner))
    last = tf.minimum(start + core + context, tf.gather(end, owner))
    place = (tf.range(tf.size(row)) - tf.gather(begin, row)) // core
    return first, last - first, tf.gather(before, row) + place


def to_windows(
    values: tf.Tensor, first: tf.Tensor, length: tf.Tensor, size: int | tf.Tensor
) -> tf.Tensor:
    """Return the values of each window, `[windows, size, ...]`, 0 in the padding."""
    places = first[:, None] + tf.range(size)
    inside = tf.sequence_mask(length, size)
    gathered = tf.gather(values, tf.where(inside, places, 0))
    shape = tf.concat([tf.shape(inside), tf.ones([tf.rank(values) - 1], tf.int32)], axis=0)
    return tf.where(tf.reshape(inside, shape), gathered, tf.zeros([], values.dtype))
