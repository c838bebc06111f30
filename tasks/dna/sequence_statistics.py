"""Statistics of annotated sequences: word and motif scores, state transitions, record ends.

Scores are log-odds, the logarithm of a probability divided by that of a background. Both strands
are counted. An axis `strand_channels` has the channels of `Grammar.strand_channels`.
"""

from __future__ import annotations

from tasks.dna.grammar import SIGNALS, UNKNOWN
from tasks.dna.nucleotides import DIGITS, FRACTIONS
from tasks.dna.paths import EncodedRecords

import numpy as np
import tensorflow as tf

# Bases before and after a signal that its motif has.
MOTIF_BASES = {"start": (12, 6), "stop": (6, 8), "donor": (4, 8), "acceptor": (25, 3)}
REACH = 25  # the largest of them
ORDER = 5  # preceding bases on which the probability of a base depends
WORDS = 4 ** (ORDER + 1)

_PSEUDOCOUNT = 16.0  # weight of the next shorter word, in occurrences


def words_of(bases: tf.Tensor | np.ndarray) -> tf.Tensor:
    """Return the number of the word of six bases that ends at each base.

    Args:
      bases: `<int32>[batch, time]`, codes of `nucleotides.encode`.

    Returns:
      `<int32>[batch, time]`; `WORDS` for a word with an ambiguous base or before the first base.

    Example:
      >>> from tasks.dna.nucleotides import encode
      >>> words_of(encode("AAAAACGN")[None]).numpy()
      array([[4096, 4096, 4096, 4096, 4096,    1,    6, 4096]], dtype=int32)
    """
    digits = tf.gather(tf.constant(DIGITS), bases)
    time = tf.shape(digits)[1]
    padded = tf.pad(digits, [[0, 0], [ORDER, 0]], constant_values=-1)
    word, is_certain = tf.zeros_like(digits), tf.ones_like(digits, tf.bool)
    for offset in range(ORDER + 1):
        digit = padded[:, offset : offset + time]
        word, is_certain = 4 * word + digit, is_certain & (digit >= 0)
    return tf.where(is_certain, word, WORDS)


def word_scores(records: EncodedRecords) -> np.ndarray:
    """Return the log-odds of each base given the five preceding bases, relative to intergenic DNA.

    The probabilities after a word are smoothed with those after its shorter suffixes.

    Returns:
      `<float32>[WORDS + 1, strand_channels]`; 0 for signals and for the last word.
    """
    grammar = records.grammar
    counts = _word_counts(records)
    probabilities = np.full((len(counts), 4), 0.25)
    for order in range(ORDER + 1):
        observed = counts.reshape(len(counts), -1, 4 ** (order + 1)).sum(axis=1)
        observed = observed.reshape(len(counts), -1, 4)
        shorter = np.tile(probabilities.reshape(len(counts), -1, 4), (1, 4 if order else 1, 1))
        total = observed.sum(axis=2, keepdims=True) + _PSEUDOCOUNT
        probabilities = (observed + _PSEUDOCOUNT * shorter) / total
    logs = np.log(probabilities.reshape(len(counts), -1))
    scores = np.zeros((WORDS + 1, len(counts) - 1), np.float32)
    scores[:WORDS] = (logs[1:] - logs[0]).T
    scores[:, grammar.is_signal[1 : len(counts)]] = 0.0
    return scores


def _word_counts(records: EncodedRecords) -> np.ndarray:
    """Count words in each context, `<float>[1 + channels of one strand, WORDS]`; introns pooled."""
    grammar = records.grammar
    count = len(grammar.strand_channels)
    # The channel of each state that is not a signal.
    contexts = np.argmax(np.where(grammar.is_signal[:, None], 0, grammar.mixing), axis=0)
    counts = np.zeros((1 + count, WORDS))
    for bases, states in records.strands():
        words = words_of(bases.astype(np.int32)[None])[0].numpy()
        usable = (states != UNKNOWN) & (words < WORDS)
        channels = contexts[states[usable]]
        forward = channels <= count
        np.add.at(counts, (channels[forward], words[usable][forward]), 1.0)
    introns = [n for n, name in enumerate(grammar.channels[: 1 + count]) if name.startswith("I")]
    counts[introns] = counts[introns].sum(axis=0)
    return counts


def motif_scores(records: EncodedRecords) -> np.ndarray:
    """Return the log-odds of each base at each place around a signal, relative to all bases.

    Returns:
      `<float32>[2 * REACH + 1, 4, strand_channels]`. Row `REACH` is the base with the
      signal. 0 for channels that are no signals, and outside `MOTIF_BASES`.
    """
    grammar, width = records.grammar, 2 * REACH + 1
    names = grammar.strand_channels
    counts = np.zeros((width, 4, len(names)))
    background = np.zeros(4)
    for bases, states in records.strands():
        around = np.pad(FRACTIONS[bases], ((REACH, REACH), (0, 0)))
        background += FRACTIONS[bases].sum(axis=0)
        for column, name in enumerate(names):
            if name in SIGNALS:
                has_signal = grammar.mixing[1 + column] > 0
                places = np.flatnonzero((states != UNKNOWN) & has_signal[states])
                for offset in range(width):
                    counts[offset, :, column] += around[places + offset].sum(axis=0)
    probabilities = (counts + 1.0) / (counts + 1.0).sum(axis=1, keepdims=True)
    scores = np.log(probabilities) - np.log(background / background.sum())[None, :, None]
    for column, name in enumerate(names):
        before, after = MOTIF_BASES.get(name, (-REACH - 1, -1))
        scores[: max(0, REACH - before), :, column] = 0.0
        scores[REACH + after + 1 :, :, column] = 0.0
    return scores.astype(np.float32)


def transition_counts(records: EncodedRecords) -> np.ndarray:
    """Count how often each state follows each other state, `<float>[states, states]`."""
    states_count = records.grammar.states
    counts = np.zeros((states_count, states_count))
    for _, states in records.strands():
        before, after = states[:-1].astype(int), states[1:].astype(int)
        labelled = (before != UNKNOWN) & (after != UNKNOWN)
        np.add.at(counts, (before[labelled], after[labelled]), 1.0)
    return counts


def edge_scores(records: EncodedRecords) -> np.ndarray:
    """Return log-probabilities of the states at the edges of a record, `<float32>[2, states]`.

    The first row is for the first base, the second row for the last base. One pseudocount is spread
    over all states, so a gene may run off a record, at a cost.
    """
    states_count = records.grammar.states
    counts = np.full((2, states_count), 1.0 / states_count)
    for _, states in records.strands():
        for row, state in zip(counts, (states[0], states[-1]), strict=True):
            if state != UNKNOWN:
                row[state] += 1.0
    return np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
