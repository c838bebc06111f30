"""Which reading frames are candidates, and by which score."""

import itertools

from tasks.dna import candidates, frame_data, gene_tables
from tasks.dna.gene_tables import Tables
from tasks.dna.nucleotides import encode
from tasks.dna.sequence_statistics import WORDS
from tests.tasks.own.dna import letters

import numpy as np
import pytest

KINDS = ("ATG", "GTG", "TTG")


@pytest.mark.parametrize(("code", "stops"), [(11, ("TAA", "TAG", "TGA")), (4, ("TAA", "TAG"))])
def test_an_open_codon_scores_by_the_stop_codons_of_independent_bases(code, stops):
    content = np.array([0.3, 0.66], np.float32)
    is_stop = np.repeat(frame_data.is_stop(code)[None], 2, axis=0)
    scores = candidates.open_codon_score(content, is_stop).numpy()
    for fraction, score in zip(content, scores, strict=True):
        of = {
            "A": (1 - fraction) / 2,
            "C": fraction / 2,
            "G": fraction / 2,
            "T": (1 - fraction) / 2,
        }
        chance = sum(np.prod([of[base] for base in stop]) for stop in stops)
        assert score == pytest.approx(-np.log(1 - chance), rel=1e-5)


@pytest.mark.parametrize(("codons", "is_candidate"), [(400, True), (120, False)])
def test_a_long_gene_is_a_candidate_even_if_no_table_knows_its_codons(codons, is_candidate):
    random = np.random.default_rng(3)
    stops = ("TAA", "TAG", "TGA")
    sense = [c for c in map("".join, itertools.product("ACGT", repeat=3)) if c not in stops]
    gene = "ATG" + "".join(random.choice(sense, size=codons)) + "TAA"
    sequence = letters(random, 200) + gene + letters(random, 200)
    end = 200 + len(gene)
    tables = Tables(
        np.full((1, WORDS + 1, 3), -0.2, np.float32),
        np.zeros((1, gene_tables.BEFORE + gene_tables.AFTER, 5), np.float32),
        np.zeros((1, gene_tables.BINDING), np.float32),
        np.zeros((1, len(KINDS) + 1), np.float32),
        np.zeros(1, np.float32),
    )
    function = frame_data.make_function(KINDS)
    length = np.array([len(sequence)], np.int32)
    stop_table = frame_data.is_stop(11)[None]
    strands, found = function(encode(sequence)[None], length, tables, tables, stop_table)
    right = found.spans.right[:, 0].numpy() - int(strands.offsets[0])
    assert (end in right[found.strand.numpy() == 1]) == is_candidate
