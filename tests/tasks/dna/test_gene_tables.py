"""The tables of an organism: scores, counts, and counting without annotation."""

from tasks.dna import frame_data, gene_tables, reading_frames
from tasks.dna.config import Config
from tasks.dna.gene_tables import Tables
from tasks.dna.nucleotides import encode
from tasks.dna.sequence_statistics import WORDS
from tests.tasks.own.bacteria import bacterium

import numpy as np
import pytest
import tensorflow as tf

CONFIG = Config(spliced=False, start_codons=("ATG", "GTG", "TTG"))
STOPS = frame_data.is_stop(11)[None]


def random_tables(seed, batch):
    random = np.random.default_rng(seed)
    shapes = {"words": (WORDS + 1, 3), "motif": (40, 5), "binding": (gene_tables.BINDING,)}
    shapes |= {"kinds": (4,), "counted": ()}
    tables = [random.normal(size=(batch, *shape)).astype(np.float32) for shape in shapes.values()]
    return Tables(*map(tf.constant, tables))


def test_the_score_of_a_range_is_the_sum_of_its_words():
    random = np.random.default_rng(0)
    bases = (1 << random.integers(0, 4, (2, 120))).astype(np.int32)
    tables = random_tables(1, 2)
    strands = reading_frames.lay_out(bases, tf.constant([120, 100]))
    sums = gene_tables.cumulative_scores(tables, strands)
    first = int(strands.offsets[1]) + 10
    begin, end = strands.codon(tf.constant([first, first + 60]))
    score = gene_tables.coding_score(sums, begin, end)
    words = strands.words.numpy()
    expected = sum(tables.words[1, words[first + n], n % 3].numpy() for n in range(60))
    np.testing.assert_allclose(score, expected, rtol=1e-4)


def test_the_longest_binding_motif_at_the_best_distance_is_read():
    names = gene_tables.binding_names()
    for before, expected in (
        ("TTTTTTTTTTTTTAGGAGGTTTTTTT", "6 bases of AAGGAGGTGA, 7 before"),
        ("TTTTTTTTTGGATTTTTTTTTTTTTT", "3 bases of AAGGAGGTGA, 14 before"),
        ("TTTTTTTTTTTTTTTTTTTTTTTTTT", "none"),
    ):
        text = "C" * 40 + before + "ATG" + "GCC" * 40 + "TAA" + "C" * 20
        bases = encode(text)[None]
        strands = reading_frames.lay_out(bases, tf.constant([len(text)]))
        _, starts = reading_frames.find(strands, ("ATG",), STOPS)
        sites = gene_tables.start_sites(strands, starts)
        place = np.flatnonzero(starts.kind.numpy() == 0)[0]
        assert names[sites.binding.numpy()[place]] == expected


def test_counted_tables_are_log_odds_of_genes():
    records = [bacterium(np.random.default_rng(n), f"r{n}", 30) for n in range(3)]
    tables = frame_data.known_tables(records, CONFIG)
    assert all(np.isfinite(table).all() for table in tables)
    kinds = tables.kinds.numpy()[0]
    assert kinds[0] > kinds[2] and kinds[3] == 0  # ATG is a start, TTG is none
    best = gene_tables.binding_names()[int(tables.binding.numpy()[0].argmax())]
    assert best.startswith("6 bases")
    words = tables.words.numpy()[0]
    stop = sum("ACGT".index(b) * 4**n for n, b in enumerate(reversed("GCCTAA")))
    assert words[stop, 2] < -1 and not words[WORDS].any()


@pytest.mark.parametrize("content", [0.1, 0.4, 0.45, 0.5, 0.9])
def test_tables_are_interpolated_by_the_fraction_of_g_and_c(content):
    tables = random_tables(2, 3)
    contents = np.array([0.3, 0.4, 0.5], np.float32)
    mixed = gene_tables.interpolate(tf.constant([content, 0.3]), tf.constant(contents), tables)
    for table, value in zip(tables, mixed, strict=True):
        flat = table.numpy().reshape(3, -1)
        expected = [np.interp(content, contents, column) for column in flat.T[:20]]
        np.testing.assert_allclose(value.numpy()[0].reshape(-1)[:20], expected, atol=1e-5)
        np.testing.assert_allclose(value[1], table[0], atol=1e-6)


@pytest.mark.thorough
def test_tables_are_learned_without_annotation():
    record = bacterium(np.random.default_rng(5), genes_wanted=250)
    bases = encode(record.sequence)[None]
    zeros = Tables(*(tf.zeros_like(table) for table in random_tables(0, 1)))
    known = frame_data.known_tables([record], CONFIG)
    start = gene_tables.mix(known, zeros, tf.constant(0.3))
    adapt = tf.function(gene_tables.adapt, autograph=False)
    length = tf.constant([bases.shape[1]])
    tables = adapt(bases, length, start, CONFIG.start_codons, STOPS)
    assert 0.3 < float(tables.counted[0]) < 1
    one, other = (t.words.numpy()[0, :WORDS].ravel() for t in (tables, known))
    assert np.corrcoef(one, other)[0, 1] > 0.8
