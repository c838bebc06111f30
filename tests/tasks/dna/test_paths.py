import functools
import itertools

from common import crf
from tasks.dna import genes
from tasks.dna.genes import Gene, Record
from tasks.dna.grammar import UNKNOWN, make_grammar
from tasks.dna.nucleotides import encode
from tasks.dna.paths import genes_of, path_of
from tests.tasks.own.dna import complement, letters, spliced_record

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

GRAMMAR = make_grammar(("ATG",))
SEVERAL = make_grammar(("ATG", "GTG", "TTG"))
LONGEST = 240


def coding_of(record, gene):
    joined = "".join(record.sequence[start:end] for start, end in gene.exons)
    return joined if gene.strand == 1 else complement(joined)


def introns_of(record, gene):
    for (_, start), (end, _) in itertools.pairwise(gene.exons):
        intron = record.sequence[start:end]
        yield intron if gene.strand == 1 else complement(intron)


def assert_valid(grammar, record, gene, labels):
    """Check a predicted gene against the rules of biology, without the grammar's own tables."""
    coding = coding_of(record, gene)
    if gene.has_start:
        assert coding[:3] in grammar.starts
    if gene.has_stop:
        assert coding[-3:] in ("TAA", "TAG", "TGA")
    phase = 0 if gene.has_start else gene.phase
    if gene.has_stop:
        assert (len(coding) - phase) % 3 == 0
    codons = [coding[at : at + 3] for at in range(phase, len(coding), 3)]
    inner = codons[:-1] if gene.has_stop else codons
    assert not {"TAA", "TAG", "TGA"} & set(inner)
    for intron in introns_of(record, gene):
        assert intron[:2] in ("GT", "GC") and intron[-2:] == "AG"
    # At an open end the gene runs off its record, perhaps in an intron.
    left, right = gene.has_start, gene.has_stop
    if gene.strand == -1:
        left, right = right, left
    assert left or not labels[: gene.start].strip("Ii")
    assert right or not labels[gene.end :].strip("Ii")


@functools.lru_cache
def decoder(grammar):
    """Return a Viterbi decoder of rows of one shape, so that it is traced once."""
    zero = crf.Scores(
        *(tf.zeros(n) for n in ((grammar.states,) * 2, grammar.states, grammar.states))
    )

    @tf.function(autograph=False)
    def decode(bases, length, emissions):
        inside = tf.range(LONGEST)[None] < length[:, None]
        scores = tf.where(grammar.allowed(bases, inside), emissions, crf.LOW)
        return crf.viterbi(scores, length, zero, grammar.constraints)

    return decode


def check_path(grammar, seed, size, scale):
    random = np.random.default_rng(seed)
    sequence = letters(random, size)
    bases = np.zeros((1, LONGEST), np.int32)
    bases[0, :size] = encode(sequence)
    emissions = random.normal(scale=scale, size=(1, LONGEST, grammar.states)).astype(np.float32)
    emissions[..., 0] -= 3 * scale
    states, best = decoder(grammar)(bases, np.array([size], np.int32), emissions)
    states = states.numpy()[0, :size]
    assert best[0] > crf.LOW / 2
    record = Record("r", sequence, tuple(genes_of(grammar, states)))
    for gene in record.genes:
        assert_valid(grammar, record, gene, genes.to_text(grammar.labels[states]))
    again = path_of(grammar, record)
    if not (again.invalid or again.overlapping or states[0] or states[-1]):
        np.testing.assert_array_equal(again.states, states)
    assert not again.overlapping


grammars = pytest.mark.parametrize("grammar", [GRAMMAR, SEVERAL], ids=["one start", "several"])
sequences = given(
    seed=st.integers(0, 10**6), size=st.integers(1, LONGEST), scale=st.sampled_from([1.0, 6.0])
)


@grammars
@settings(deadline=None, max_examples=20, derandomize=True)
@sequences
def test_every_path_has_valid_genes_and_is_the_path_of_these_genes(grammar, seed, size, scale):
    check_path(grammar, seed, size, scale)


@pytest.mark.slow  # the same test on more sequences
@grammars
@settings(deadline=None, max_examples=60, derandomize=True)
@sequences
def test_many_paths_have_valid_genes(grammar, seed, size, scale):
    check_path(grammar, seed, size, scale)


def test_spliced_genes_survive_the_path():
    for seed in range(30):
        random = np.random.default_rng(seed)
        record = spliced_record(random, genes_wanted=3, stop=("TAA", "TAG", "TGA")[seed % 3])
        path = path_of(GRAMMAR, record)
        assert path.valid == record.genes and not path.invalid and not path.overlapping
        assert genes_of(GRAMMAR, path.states) == list(record.genes)
        turned = Record(
            "r",
            complement(record.sequence),
            tuple(sorted(g.mirrored(len(record.sequence)) for g in record.genes)),
        )
        np.testing.assert_array_equal(path_of(GRAMMAR, turned).states, GRAMMAR.mirror(path.states))
        labels = GRAMMAR.labels[path.states]
        np.testing.assert_array_equal(labels, genes.labels_of(record.genes, len(labels)))


@pytest.mark.parametrize("cut", range(4, 16))
def test_a_stop_codon_split_by_an_intron_makes_a_gene_invalid(cut):
    """ATGGCC TAA GCCTAA has a stop codon in frame, wherever the intron is."""
    intron = "GTAAGTATTTTTTTCAG"
    for stop, is_valid in (("TAA", False), ("TGA", False), ("TAG", False), ("TAC", True)):
        coding = f"ATGGCC{stop}GCCGCCTAA"
        sequence = "CC" + coding[:cut] + intron + coding[cut:] + "CC"
        exons = ((2, 2 + cut), (2 + cut + len(intron), len(sequence) - 2))
        path = path_of(GRAMMAR, Record("r", sequence, (Gene(exons, 1),)))
        assert bool(path.valid) == is_valid, (stop, cut)
        inside = path.states[2:-2]
        assert (inside > 0).all() if is_valid else (inside == UNKNOWN).all()


@pytest.mark.parametrize(
    ("sequence", "exons", "problem"),
    [
        ("CCATGGCCTAACC", ((2, 11),), None),
        ("CCGTGGCCTAACC", ((2, 11),), "start"),
        ("CCATGGCCTACCC", ((2, 11),), "stop"),
        ("CCATGTAAGCCTAACC", ((2, 14),), "stop in frame"),
        ("CCATGGCCATAACC", ((2, 12),), "frame"),
        ("CCATGGCCGTTTTTAGGCCTAACC", ((2, 8), (16, 22)), None),
        ("CCATGGCCGCTTTTAGGCCTAACC", ((2, 8), (16, 22)), None),
        ("CCATGGCCATTTTTACGCCTAACC", ((2, 8), (16, 22)), "AT..AC"),
        ("CCATGGCCGTTTTTACGCCTAACC", ((2, 8), (16, 22)), "GT..AC"),
    ],
)
def test_genes_that_break_the_grammar_are_invalid(sequence, exons, problem):
    path = path_of(GRAMMAR, Record("r", sequence, (Gene(exons, 1),)))
    assert bool(path.invalid) == bool(problem) and bool(path.valid) != bool(problem)


@pytest.mark.parametrize(
    ("first", "second", "common"),
    [
        ("ATGGCCGCATGA", "ATGAGCGCCGCCTAA", 4),
        ("ATGGCCGCCTAA", "ATGGCCGCCGCCTAG", 1),
        ("ATGGCCGCCTAA", "ATGGCCGCCGCCTAG", 0),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_of_genes_that_overlap_the_longer_one_is_on_the_path(first, second, common, turned):
    coding = first + second[common:]
    size = len(coding) + 4
    left = Gene(((2, 2 + len(first)),), 1)
    right = Gene(((2 + len(first) - common, size - 2),), 1)
    sequence, both = "CC" + coding + "CC", (left, right)
    if turned:
        sequence = complement(sequence)
        both = tuple(sorted(gene.mirrored(size) for gene in both))
    path = path_of(GRAMMAR, Record("r", sequence, both))
    short, long = sorted(both, key=lambda gene: gene.coding_length)
    assert not path.invalid and (path.states[long.start : long.end] > 0).all()
    if common:
        assert path.valid == (long,) and path.overlapping == (short,)
        rest = set(range(short.start, short.end)) - set(range(long.start, long.end))
        assert rest and (path.states[list(rest)] == UNKNOWN).all()
    else:
        assert path.valid == both and not path.overlapping
        assert genes_of(GRAMMAR, path.states) == list(both)


def test_a_gene_may_run_off_either_end():
    cases = [
        ("CCGCCTAACC", Gene(((0, 8),), 1, has_start=False, phase=2), True),
        ("CCATGGCCGC", Gene(((2, 10),), 1, has_stop=False), True),
        ("CCTTAGGCCC", Gene(((2, 10),), -1, has_start=False, phase=2), True),
        ("CCGCCTAACC", Gene(((1, 8),), 1, has_start=False, phase=1), False),
    ]
    for sequence, gene, is_valid in cases:
        path = path_of(GRAMMAR, Record("r", sequence, (gene,)))
        if is_valid:
            assert genes_of(GRAMMAR, path.states) == [gene]
        else:
            assert (path.states[1:8] == UNKNOWN).all()


def test_ambiguous_letters_neither_make_nor_break_a_signal():
    ambiguous = Record("r", "CCATGTANGCCTAACC", (Gene(((2, 14),), 1),))  # TAN may be TAC
    assert path_of(GRAMMAR, ambiguous).valid
    certain = Record("r", "CCATGTARGCCTAACC", (Gene(((2, 14),), 1),))  # TAR is a stop codon
    assert path_of(GRAMMAR, certain).invalid
    no_start = Record("r", "CCNTGGCCTAACC", (Gene(((2, 11),), 1),))
    assert path_of(GRAMMAR, no_start).invalid
