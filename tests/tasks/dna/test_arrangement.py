"""The best arrangement of genes, against all subsets of the candidates."""

import itertools

from tasks.dna.arrangement import arrange
from tasks.dna.gene_tables import OVERLAP
from tasks.dna.reading_frames import Span

import numpy as np
import pytest
import tensorflow as tf

FUNCTION = tf.function(arrange, autograph=False, reduce_retracing=True)


def spans_of(left, right):
    ones = tf.ones([len(left)], tf.int32)
    return Span(tf.constant(left, tf.int32), tf.constant(right, tf.int32), ones, ones)


def fits(one, other):
    """Return whether a range may come before another one."""
    return one[0] < other[0] and one[1] < other[1] and one[1] - other[0] <= OVERLAP


@pytest.mark.parametrize("seed", range(12))
def test_the_arrangement_is_the_best_of_all_subsets(seed):
    random = np.random.default_rng(seed)
    left = random.integers(0, 700, 9)
    right = left + random.integers(OVERLAP + 1, 260, 9)
    score = random.normal(2.0, 3.0, 9).astype(np.float32)
    ranges, best = list(zip(left, right, strict=True)), 0.0
    for size in range(1, 10):
        for subset in itertools.combinations(range(9), size):
            ordered = sorted(subset, key=lambda n: ranges[n][::-1])
            pairs = itertools.pairwise([ranges[n] for n in ordered])
            if all(fits(*pair) for pair in pairs):
                best = max(best, float(score[list(subset)].sum()))
    chosen = FUNCTION(spans_of(left, right), tf.constant(score)).numpy()
    assert all(fits(ranges[a], ranges[b]) for a, b in itertools.pairwise(chosen))
    np.testing.assert_allclose(score[chosen].sum(), best, atol=1e-4)


@pytest.mark.parametrize("overlap", [1, 4, 11, 44, OVERLAP])
def test_neighbours_may_overlap_by_any_number_of_bases_up_to_the_limit(overlap):
    left, right = [0, 300 - overlap], [300, 700]
    scores = tf.constant([2.0, 1.0])
    assert FUNCTION(spans_of(left, right), scores).numpy().tolist() == [0, 1]
    assert FUNCTION(spans_of([0, 299 - OVERLAP], right), scores).numpy().tolist() == [0]


def test_no_candidate_and_no_good_one_give_no_gene():
    none = np.zeros(0, np.int32)
    assert FUNCTION(spans_of(none, none), tf.zeros([0])).numpy().tolist() == []
    assert FUNCTION(spans_of([0], [90]), tf.constant([-1.0])).numpy().tolist() == []
