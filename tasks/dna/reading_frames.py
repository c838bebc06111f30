"""Open reading frames: where genes without introns can lie, on both strands of many records.

The rows of a batch are laid end to end with `GAP` empty bases between them, and their reverse
complement follows, so one vector holds both strands: position `p` of the reverse strand is base
`size - 1 - (p - size)`. *Codon order* lists the codons of this vector frame by frame: all codons
that begin at 0, 3, 6, ..., then those at 1, 4, ..., then those at 2, 5, .... In this order a
reading frame is a range, and sums over it are differences of cumulative sums.

A reading frame ends at a stop codon, or where the record does (or a masked run): there a gene may
run off.
"""

from __future__ import annotations

from typing import NamedTuple

from tasks.dna.nucleotides import COMPLEMENT, DIGITS, GAP
from tasks.dna.sequence_statistics import words_of

import numpy as np
import tensorflow as tf

LEAST = 29  # codons of a gene, without its stop codon
LEAST_OPEN = 19  # of a gene that runs off the record
_UNCERTAIN = 64  # the number of a codon with an ambiguous base


class Strands(NamedTuple):
    """The rows of a batch on both strands.

    Attributes:
      bases: `<int32>[2 * size]`, codes of `nucleotides.encode`; 0 between rows.
      words: `<int32>[2 * size]`, see `sequence_statistics.words_of`.
      rows: `<int32>[2 * size]`, the row of each base.
      size: `<int32>[]`, a multiple of three.
      offsets: `<int32>[batch]`, position of the first base of each row on the forward strand.
    """

    bases: tf.Tensor
    words: tf.Tensor
    rows: tf.Tensor
    size: tf.Tensor
    offsets: tf.Tensor

    def position(self, codon: tf.Tensor) -> tf.Tensor:
        """Return the first base of a codon, given in codon order."""
        third = 2 * self.size // 3
        return 3 * (codon % third) + codon // third

    def codon(self, position: tf.Tensor) -> tf.Tensor:
        """Return the place in codon order of the codon that begins at a position."""
        third = 2 * self.size // 3
        return position // 3 + position % 3 * third

    def in_codon_order(self, values: tf.Tensor) -> tf.Tensor:
        """Reorder one value for each position, `[2 * size]`."""
        return tf.reshape(tf.transpose(tf.reshape(values, [-1, 3])), [-1])

    def by_position(self, values: tf.Tensor) -> tf.Tensor:
        """Reorder one value for each codon, `[2 * size]`; the inverse of `in_codon_order`."""
        return tf.reshape(tf.transpose(tf.reshape(values, [3, -1])), [-1])

    def digits_around(self, position: tf.Tensor, before: int, after: int) -> tf.Tensor:
        """Return the bases around positions as 0..3, 4 if ambiguous."""
        places = position[:, None] + tf.range(-before, after)
        digits = tf.gather(tf.constant(DIGITS), tf.gather(self.bases, places))
        return tf.where(digits < 0, 4, digits)


def lay_out(bases: tf.Tensor, length: tf.Tensor) -> Strands:
    """Lay the rows of a batch end to end, on both strands.

    Args:
      bases: `<int32>[batch, time]`, codes of `nucleotides.encode`; 0 is a masked base.
      length: `<int32>[batch]`.
    """
    time = tf.shape(bases)[1]
    length = tf.clip_by_value(tf.cast(length, tf.int32), 0, time)
    mask = tf.sequence_mask(length + GAP, time + GAP)
    flat = tf.boolean_mask(tf.pad(bases, [[0, 0], [GAP, 0]]), mask)
    added = GAP + -(tf.size(flat) + GAP) % 3
    flat = tf.pad(flat, [[0, added]])
    both = tf.concat([flat, tf.gather(tf.constant(COMPLEMENT), tf.reverse(flat, [0]))], axis=0)
    offsets = tf.cumsum(length + GAP, exclusive=True) + GAP
    batch = tf.shape(bases)[0]
    rows = tf.repeat(tf.range(batch), length + GAP)
    rows = tf.concat([rows, tf.fill([added], tf.maximum(batch - 1, 0))], axis=0)
    rows = tf.concat([rows, tf.reverse(rows, [0])], axis=0)
    return Strands(both, words_of(both[None])[0], rows, tf.size(flat), offsets)


class Frames(NamedTuple):
    """Open reading frames that are long enough for a gene, in codon order.

    Attributes:
      begin: `<int32>[frames]`, the first codon.
      stop: `<int32>[frames]`, the stop codon, or the codon that is not inside the record.
      open_begin: `<bool>[frames]`, whether the record begins there, so that a gene may run off.
      open_end: `<bool>[frames]`, whether the record ends there.
    """

    begin: tf.Tensor
    stop: tf.Tensor
    open_begin: tf.Tensor
    open_end: tf.Tensor


class Starts(NamedTuple):
    """Places where a gene may begin.

    Attributes:
      frame: `<int32>[starts]`, index of the reading frame.
      codon: `<int32>[starts]`, the first codon, in codon order.
      kind: `<int32>[starts]`, index of the start codon; their number for a gene that runs off.
    """

    frame: tf.Tensor
    codon: tf.Tensor
    kind: tf.Tensor


def codon_table(codons: tuple[str, ...]) -> np.ndarray:
    """Return the index of each codon in a list, -1 for other ones, `<int32>[65]`.

    Example:
      >>> table = codon_table(("ATG", "GTG"))
      >>> table[[14, 46]].tolist(), int((table >= 0).sum())
      ([0, 1], 2)
    """
    table = np.full(_UNCERTAIN + 1, -1, np.int32)
    for index, codon in enumerate(codons):
        first, second, third = ("ACGT".index(letter) for letter in codon)
        table[16 * first + 4 * second + third] = index
    return table


def find(strands: Strands, starts: tuple[str, ...], is_stop: tf.Tensor) -> tuple[Frames, Starts]:
    """Find all open reading frames of `LEAST` codons and more, and the starts in them.

    Args:
      strands: the rows.
      starts: the start codons.
      is_stop: `<bool>[batch, 65]`, which codons are stop codons in each row.
    """
    bases = tf.pad(strands.bases, [[0, 2]])
    digits = tf.gather(tf.constant(DIGITS), bases)
    first, second, third = digits[:-2], digits[1:-1], digits[2:]
    certain = tf.reduce_min(tf.stack([first, second, third]), axis=0) >= 0
    codons = tf.where(certain, 16 * first + 4 * second + third, _UNCERTAIN)
    stops = tf.gather(tf.reshape(is_stop, [-1]), codons + (_UNCERTAIN + 1) * strands.rows)
    is_break = (bases[:-2] == 0) | (bases[1:-1] == 0) | (bases[2:] == 0)
    is_end = strands.in_codon_order(is_break | stops)
    codons, is_break = strands.in_codon_order(codons), strands.in_codon_order(is_break)
    ends = tf.cast(tf.reshape(tf.where(is_end), [-1]), tf.int32)
    begin, stop = ends[:-1] + 1, ends[1:]
    open_begin, open_end = tf.gather(is_break, ends[:-1]), tf.gather(is_break, ends[1:])
    kept = stop - begin >= tf.where(open_begin | open_end, LEAST_OPEN, LEAST)
    frames = Frames(*(tf.boolean_mask(v, kept) for v in (begin, stop, open_begin, open_end)))
    # The place among the frames that are kept.
    place = tf.where(kept, tf.cumsum(tf.cast(kept, tf.int32)) - 1, -1)
    kinds = tf.gather(tf.constant(codon_table(starts)), codons)
    codon = tf.cast(tf.reshape(tf.where((kinds >= 0) & ~is_end), [-1]), tf.int32)
    frame = tf.gather(place, tf.searchsorted(ends, codon) - 1)
    codon, frame = (tf.boolean_mask(value, frame >= 0) for value in (codon, frame))
    least = tf.where(tf.gather(frames.open_end, frame), LEAST_OPEN, LEAST)
    long = tf.gather(frames.stop, frame) - codon >= least
    codon, frame = (tf.boolean_mask(value, long) for value in (codon, frame))
    off = tf.cast(tf.reshape(tf.where(frames.open_begin), [-1]), tf.int32)
    return frames, Starts(
        tf.concat([frame, off], axis=0),
        tf.concat([codon, tf.gather(frames.begin, off)], axis=0),
        tf.concat([tf.gather(kinds, codon), tf.fill(tf.shape(off), len(starts))], axis=0),
    )


class Span(NamedTuple):
    """Genes as ranges of the forward strand.

    Attributes:
      left: `<int32>[...]`, first base in the layout of the forward strand.
      right: `<int32>[...]`, base after the last one.
      strand: `<int32>[...]`, 1 or -1.
      phase: `<int32>[...]`, bases before the first whole codon, at the end of the record.
    """

    left: tf.Tensor
    right: tf.Tensor
    strand: tf.Tensor
    phase: tf.Tensor


def span(
    strands: Strands, codon: tf.Tensor, stop: tf.Tensor, off_begin: tf.Tensor, off_end: tf.Tensor
) -> Span:
    """Return the bases of genes from a first codon to a stop codon, which is included.

    A gene that runs off its record includes the incomplete codon there.

    Args:
      strands: the rows.
      codon: `<int32>[...]`, the first codon.
      stop: `<int32>[...]`, the stop codon or break.
      off_begin: `<bool>[...]`, whether the gene begins before the record.
      off_end: `<bool>[...]`, whether the gene ends after the record.
    """
    begin, end = strands.position(codon), strands.position(stop)
    bases = tf.pad(strands.bases, [[3, 3]])  # base `p` is at `p + 3`

    def real(position: tf.Tensor) -> tf.Tensor:
        return tf.cast(tf.gather(bases, position + 3) > 0, tf.int32)

    rest = real(begin - 1) * (1 + real(begin - 2))
    phase = tf.where(off_begin, tf.minimum(rest, 2), 0)
    added = tf.where(off_end, real(end) * (1 + real(end + 1)), 3)
    begin, end = begin - phase, end + added
    forward = begin < strands.size
    return Span(
        tf.where(forward, begin, 2 * strands.size - end),
        tf.where(forward, end, 2 * strands.size - begin),
        tf.where(forward, 1, -1),
        phase,
    )
