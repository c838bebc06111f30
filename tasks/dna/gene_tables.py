"""Tables of one organism: how its genes use codons, and how they begin; counted and looked up.

Scores are log-odds: the logarithm of a probability in genes divided by that elsewhere. They are
counted in the known genes of training records, or, by `adapt`, in a genome without annotation:
score its reading frames with the tables of similar organisms, count anew in those that certainly
are genes, and repeat (as GeneMarkS and Prodigal do; Besemer et al. 2001, Hyatt et al. 2010).
"""

from __future__ import annotations

from typing import NamedTuple

from tasks.dna.nucleotides import DIGITS
from tasks.dna.reading_frames import Frames, Span, Starts, Strands, find, lay_out, span
from tasks.dna.sequence_statistics import ORDER, WORDS

import numpy as np
import tensorflow as tf

BEFORE, AFTER = 32, 8  # bases of the start motif; AFTER counts the start codon
SPACERS = range(3, 16)  # bases between a ribosome-binding motif and the start codon
ANTI_SD = "AAGGAGGTGA"  # what the end of the 16S ribosomal RNA binds
MOTIFS = ("none", "3 bases", "4 bases", "5 bases", "6 bases")
BINDING = 1 + (len(MOTIFS) - 1) * len(SPACERS)  # entries of the table `binding`
ROUNDS = 5
ENOUGH = 60_000  # coding bases at which counts weigh as much as the tables of similar organisms
SURE = 12.0  # score of a reading frame that is counted as a gene
DOUBTFUL = -8.0  # score of a reading frame that is not counted as intergenic
CONSTANT = -9.0  # of a gene: the probability that one begins and ends, relative to none
OVERLAP = 60  # bases that neighbouring genes may have in common
_SMOOTHING = 24.0  # weight of the next shorter word, in occurrences


class Tables(NamedTuple):
    """The scores of the organism of each row of a batch.

    Attributes:
      words: `<float32>[batch, WORDS + 1, 3]`, of the word that ends at each position of a codon.
      motif: `<float32>[batch, BEFORE + AFTER, 5]`, of bases around a start; 0 for an ambiguous one.
      binding: `<float32>[batch, BINDING]`, of the best ribosome-binding motif and its spacer.
      kinds: `<float32>[batch, start codons + 1]`, of the start codon; 0 for a gene that runs off.
      counted: `<float32>[batch]`, weight of what was counted in the organism itself, 0 to 1.
    """

    words: tf.Tensor
    motif: tf.Tensor
    binding: tf.Tensor
    kinds: tf.Tensor
    counted: tf.Tensor


def _motif_classes() -> np.ndarray:
    """Return the class in `MOTIFS` of each word's longest end that binds, `<int32>[WORDS + 1]`."""
    classes = np.zeros(WORDS + 1, np.int32)
    for size in range(3, ORDER + 2):
        for begin in range(len(ANTI_SD) - size + 1):
            motif = ANTI_SD[begin : begin + size]
            if any(core in motif for core in ("AGG", "GGA", "GAG")):
                number = sum("ACGT".index(b) * 4**n for n, b in enumerate(reversed(motif)))
                classes[:WORDS][np.arange(WORDS) % 4**size == number] = size - 2
    return classes


def _binding_entries() -> tuple[np.ndarray, np.ndarray]:
    """Return the entry of `Tables.binding` of each class and spacer, and which to prefer."""
    entry = np.zeros((len(MOTIFS), len(SPACERS)), np.int32)
    entry[1:] = 1 + np.arange(BINDING - 1).reshape(len(MOTIFS) - 1, -1)
    distance = np.abs(np.array(SPACERS) - 7.0)
    preference = np.arange(len(MOTIFS))[:, None] - 0.2 * distance
    preference[0] = -9.0
    return entry.reshape(-1), preference.astype(np.float32).reshape(-1)


def binding_names() -> list[str]:
    """Return the name of each entry of `Tables.binding`: the motif and its spacer."""
    pairs = [f"{motif} of {ANTI_SD}, {gap} before" for motif in MOTIFS[1:] for gap in SPACERS]
    return ["none", *pairs]


class StartSites(NamedTuple):
    """The surroundings of each start.

    Attributes:
      digits: `<int32>[starts, BEFORE + AFTER]`, bases; 4 if ambiguous.
      binding: `<int32>[starts]`, entry of `Tables.binding`.
    """

    digits: tf.Tensor
    binding: tf.Tensor


def start_sites(strands: Strands, starts: Starts) -> StartSites:
    """Read the surroundings of starts."""
    position = strands.position(starts.codon)
    ends = position[:, None] - 1 - tf.constant(list(SPACERS))
    classes = tf.gather(tf.constant(_motif_classes()), tf.gather(strands.words, ends))
    entry, preference = _binding_entries()
    choices = classes * len(SPACERS) + tf.range(len(SPACERS))
    best = tf.argmax(tf.gather(preference, choices), axis=1, output_type=tf.int32)
    binding = tf.gather(entry, tf.gather(choices, best, batch_dims=1))
    return StartSites(strands.digits_around(position, BEFORE, AFTER), binding)


def start_scores(tables: Tables, sites: StartSites, kind: tf.Tensor, row: tf.Tensor) -> tf.Tensor:
    """Return the parts of the score of each start, `<float32>[starts, 3]`: motif, binding, kind.

    All are 0 for a gene that runs off.
    """
    width = BEFORE + AFTER
    places = sites.digits + 5 * tf.range(width) + 5 * width * row[:, None]
    motif = tf.reduce_sum(tf.gather(tf.reshape(tables.motif, [-1]), places), axis=1)
    binding = tf.gather_nd(tables.binding, tf.stack([row, sites.binding], axis=1))
    parts = [motif, binding, tf.gather_nd(tables.kinds, tf.stack([row, kind], axis=1))]
    begins = kind < tf.shape(tables.kinds)[1] - 1
    return tf.where(begins[:, None], tf.stack(parts, axis=1), 0.0)


def codon_scores(tables: Tables, strands: Strands) -> tf.Tensor:
    """Return the score of the codon that begins at each position, `<float32>[2 * size]`."""
    words = strands.words + (WORDS + 1) * strands.rows
    table = tf.reshape(tables.words, [-1, 3])
    score = tf.gather(table[:, 0], words)
    for place in (1, 2):
        score += tf.pad(tf.gather(table[:, place], words[place:]), [[0, place]])
    return score


def cumulative_scores(tables: Tables, strands: Strands) -> tf.Tensor:
    """Return the sum of the scores of all codons before each one, `<float64>[1 + codons]`.

    Codons are in codon order; a gene scores the difference of the sums at its stop codon and start.
    """
    score = codon_scores(tables, strands)
    sums = tf.cumsum(tf.cast(strands.in_codon_order(score), tf.float64))
    return tf.pad(sums, [[1, 0]])


def coding_score(sums: tf.Tensor, begin: tf.Tensor, stop: tf.Tensor) -> tf.Tensor:
    """Return the sum of the scores of the codons of ranges, `<float32>[...]`."""
    return tf.cast(tf.gather(sums, stop) - tf.gather(sums, begin), tf.float32)


# --- Counting -------------------------------------------------------------------------------------


def _covered(size: tf.Tensor, begin: tf.Tensor, end: tf.Tensor) -> tf.Tensor:
    """Return which places lie in one of some ranges, `<bool>[size]`."""
    ones = tf.ones_like(begin)
    at = tf.concat([begin, end], axis=0)[:, None]
    steps = tf.scatter_nd(at, tf.concat([ones, -ones], axis=0), [size + 1])
    return tf.cumsum(steps)[:-1] > 0


def _word_scores(counts: tf.Tensor) -> tf.Tensor:
    """Return log-odds from the counts of words in codon positions and elsewhere.

    The probability of a base after a word is smoothed with that after its shorter ends.

    Args:
      counts: `<float32>[4, WORDS]`: three codon positions, then elsewhere.

    Returns:
      `<float32>[WORDS + 1, 3]`, 0 for the last word.
    """
    probabilities = tf.fill([4, 1, 4], 0.25)
    for order in range(ORDER + 1):
        observed = tf.reduce_sum(tf.reshape(counts, [4, -1, 4 ** (order + 1)]), axis=1)
        observed = tf.reshape(observed, [4, -1, 4])
        shorter = tf.tile(probabilities, [1, 4 if order else 1, 1])
        total = tf.reduce_sum(observed, axis=2, keepdims=True) + _SMOOTHING
        probabilities = (observed + _SMOOTHING * shorter) / total
    logs = tf.math.log(tf.reshape(probabilities, [4, -1]))
    return tf.pad(tf.transpose(logs[:3] - logs[3:]), [[0, 1], [0, 0]])


def _log_odds(counts: tf.Tensor, background: tf.Tensor, weight: float) -> tf.Tensor:
    """Return the log-odds of counts along the last axis; `weight` background items are added."""
    total = tf.reduce_sum(background, axis=-1, keepdims=True)
    expected = (background + 1.0) / (total + tf.cast(tf.shape(background)[-1], tf.float32))
    observed = counts + weight * expected
    return tf.math.log(observed / tf.reduce_sum(observed, axis=-1, keepdims=True) / expected)


class Background(NamedTuple):
    """Counts over all starts, real ones and others.

    Attributes:
      motif: `<float32>[BEFORE + AFTER, 4]`.
      binding: `<float32>[BINDING]`.
      kinds: `<float32>[start codons]`.
    """

    motif: tf.Tensor
    binding: tf.Tensor
    kinds: tf.Tensor


def count_starts(sites: StartSites, kind: tf.Tensor, chosen: tf.Tensor, kinds: int) -> Background:
    """Count around the chosen starts that are start codons."""
    chosen &= kind < kinds
    digits = tf.boolean_mask(sites.digits, chosen)
    width = BEFORE + AFTER
    motif = tf.math.bincount(
        tf.reshape(digits + 5 * tf.range(width), [-1]), minlength=5 * width, maxlength=5 * width
    )
    binding = tf.math.bincount(
        tf.boolean_mask(sites.binding, chosen), minlength=BINDING, maxlength=BINDING
    )
    codons = tf.math.bincount(tf.boolean_mask(kind, chosen), minlength=kinds, maxlength=kinds)
    return Background(
        tf.cast(tf.reshape(motif, [width, 5])[:, :4], tf.float32),
        tf.cast(binding, tf.float32),
        tf.cast(codons, tf.float32),
    )


def count(
    strands: Strands,
    coding: tuple[tf.Tensor, tf.Tensor],
    occupied: Span,
    real: Background,
    background: Background,
) -> Tables:
    """Count the tables of some genes, of one organism.

    Args:
      strands: the rows.
      coding: the first codon and the stop codon of each gene, in codon order.
      occupied: ranges that are not intergenic.
      real: counts at the starts of the genes.
      background: counts at all starts.
    """
    sums = []
    in_gene = strands.by_position(_covered(2 * strands.size, *coding))
    words = tf.pad(strands.words, [[0, 2]], constant_values=WORDS)
    for place in range(3):
        chosen = tf.boolean_mask(words[place : place + 2 * strands.size], in_gene)
        sums.append(tf.math.bincount(chosen, minlength=WORDS + 1, maxlength=WORDS + 1))
    covered = _covered(strands.size, occupied.left, occupied.right)
    outside = ~tf.concat([covered, tf.reverse(covered, [0])], axis=0)
    chosen = tf.boolean_mask(strands.words, outside)
    sums.append(tf.math.bincount(chosen, minlength=WORDS + 1, maxlength=WORDS + 1))
    counts = tf.cast(tf.stack(sums), tf.float32)[:, :WORDS]
    motif = _log_odds(real.motif, background.motif, 20.0)
    return Tables(
        _word_scores(counts)[None],
        tf.pad(motif, [[0, 0], [0, 1]])[None],
        _log_odds(real.binding, background.binding, 20.0)[None],
        tf.pad(_log_odds(real.kinds, background.kinds, 20.0), [[0, 1]])[None],
        tf.ones([1]),
    )


def mix(one: Tables, other: Tables, weight: tf.Tensor) -> Tables:
    """Return the average of two tables of one row, `weight` of the first one."""
    return Tables(*(weight * a + (1.0 - weight) * b for a, b in zip(one, other, strict=True)))


def interpolate(content: tf.Tensor, contents: tf.Tensor, tables: Tables) -> Tables:
    """Return the tables for fractions of G and C, from those of several organisms.

    Args:
      content: `<float32>[batch]`.
      contents: `<float32>[organisms]`, ascending.
      tables: of the organisms.
    """
    last = tf.size(contents) - 1
    upper = tf.minimum(tf.searchsorted(contents, content), last)
    lower = tf.maximum(upper - 1, 0)
    low, high = tf.gather(contents, lower), tf.gather(contents, upper)
    weight = tf.where(high > low, (content - low) / tf.maximum(high - low, 1e-6), 1.0)
    weight = tf.clip_by_value(weight, 0.0, 1.0)

    def mixed(table: tf.Tensor) -> tf.Tensor:
        own = tf.reshape(weight, [-1] + [1] * (len(table.shape) - 1))
        return own * tf.gather(table, upper) + (1.0 - own) * tf.gather(table, lower)

    return Tables(*map(mixed, tables))


def gc_content(bases: tf.Tensor, length: tf.Tensor) -> tf.Tensor:
    """Return the fraction of G and C among the certain bases of rows, `<float32>[batch]`.

    It is 0.5 for a row without any.
    """
    digits = tf.gather(tf.constant(DIGITS), bases)
    inside = tf.sequence_mask(length, tf.shape(bases)[1])
    is_strong = inside & ((digits == 1) | (digits == 2))
    strong = tf.math.count_nonzero(is_strong, axis=1, dtype=tf.float32)
    certain = tf.math.count_nonzero(inside & (digits >= 0), axis=1, dtype=tf.float32)
    return tf.where(certain > 0, strong / tf.maximum(certain, 1.0), 0.5)


# --- Adapting -------------------------------------------------------------------------------------


class Best(NamedTuple):
    """The best start of each reading frame.

    Attributes:
      start: `<int32>[frames]`, index of the start; -1 if the frame has none.
      score: `<float32>[frames]`, of the gene from there; very low if there is none.
    """

    start: tf.Tensor
    score: tf.Tensor


def best_starts(frames: Frames, starts: Starts, scores: tf.Tensor) -> Best:
    """Return the best start of each frame, given the score of the gene from each start."""
    count = tf.size(frames.begin)
    best = tf.math.unsorted_segment_max(scores, starts.frame, count)
    is_best = scores >= tf.gather(best, starts.frame)
    index = tf.where(is_best, tf.range(tf.size(scores)), -1)
    start = tf.math.unsorted_segment_max(index, starts.frame, count)
    return Best(tf.maximum(start, -1), tf.maximum(best, -1e6))


def is_dominated(spans: Span, score: tf.Tensor, reach: int = 24) -> tf.Tensor:
    """Return which genes overlap one of a higher score by more than `OVERLAP`, `<bool>[genes]`.

    Args:
      spans: the genes, sorted by their middle.
      score: `<float32>[genes]`.
      reach: neighbours on each side that are compared.
    """
    return strongest_rival(spans, score, reach) > score


def strongest_rival(spans: Span, score: tf.Tensor, reach: int = 24) -> tf.Tensor:
    """Return the highest score of the genes that overlap each by more than `OVERLAP` bases.

    -1e6 if there is none. See `is_dominated`.
    """
    count = tf.size(score)
    left = tf.pad(spans.left, [[reach, reach]], constant_values=-(2**30))
    right = tf.pad(spans.right, [[reach, reach]], constant_values=-(2**30))
    padded = tf.pad(score, [[reach, reach]], constant_values=-1e6)
    rival = tf.fill(tf.shape(score), -1e6)
    for offset in [*range(reach), *range(reach + 1, 2 * reach + 1)]:
        part = slice(offset, offset + count)
        common = tf.minimum(spans.right, right[part]) - tf.maximum(spans.left, left[part])
        rival = tf.where(common > OVERLAP, tf.maximum(rival, padded[part]), rival)
    return rival


def adapt(
    bases: tf.Tensor,
    length: tf.Tensor,
    similar: Tables,
    starts: tuple[str, ...],
    is_stop: tf.Tensor,
    rounds: int = ROUNDS,
) -> Tables:
    """Count the tables of the organism of one row, without annotation.

    Args:
      bases: `<int32>[1, time]`; 0 is a masked base, as between the contigs of a genome.
      length: `<int32>[1]`.
      similar: tables of one row to start from; they keep their weight where little can be counted.
      starts: the start codons.
      is_stop: `<bool>[batch, 65]`, which codons are stop codons in each row.
      rounds: how often to count.
    """
    strands = lay_out(bases, length)
    frames, candidates = find(strands, starts, is_stop)
    sites = start_sites(strands, candidates)
    is_codon = tf.ones_like(candidates.kind, tf.bool)
    background = count_starts(sites, candidates.kind, is_codon, len(starts))
    off = candidates.kind == len(starts)
    row = tf.zeros_like(candidates.kind)

    def body(number: tf.Tensor, *tables: tf.Tensor) -> tuple[tf.Tensor, ...]:
        current = Tables(*tables)
        sums = cumulative_scores(current, strands)
        stop = tf.gather(frames.stop, candidates.frame)
        score = coding_score(sums, candidates.codon, stop) + CONSTANT
        score += tf.reduce_sum(start_scores(current, sites, candidates.kind, row), axis=1)
        best = best_starts(frames, candidates, score)
        likely = tf.reshape(tf.where((best.start >= 0) & (best.score > DOUBTFUL)), [-1])
        start = tf.gather(best.start, likely)
        begin, end = tf.gather(candidates.codon, start), tf.gather(frames.stop, likely)
        spans = span(strands, begin, end, tf.gather(off, start), tf.gather(frames.open_end, likely))
        order = tf.argsort(spans.left + spans.right)
        spans = Span(*(tf.gather(value, order) for value in spans))
        score = tf.gather(tf.gather(best.score, likely), order)
        begin, end, start = (tf.gather(value, order) for value in (begin, end, start))
        free = ~is_dominated(spans, score)
        sure = free & (score > SURE)
        occupied = Span(*(tf.boolean_mask(value, free) for value in spans))
        genes = tf.boolean_mask(begin, sure), tf.boolean_mask(end, sure)
        chosen = tf.scatter_nd(
            tf.boolean_mask(start, sure)[:, None],
            tf.ones_like(genes[0]),
            tf.shape(candidates.codon),
        )
        real = count_starts(sites, candidates.kind, chosen > 0, len(starts))
        counted = count(strands, genes, occupied, real, background)
        size = tf.cast(3 * tf.reduce_sum(genes[1] - genes[0]), tf.float32)
        return (number + 1, *mix(counted, similar, size / (size + ENOUGH)))

    loop = (tf.constant(0), *similar)
    _, *tables = tf.while_loop(lambda number, *_: number < rounds, body, loop)
    return Tables(*tables)
