from tasks.dna import genes
from tasks.dna.genes import Gene, Record
from tasks.dna.grammar import make_grammar
from tasks.dna.paths import path_of
from tests.tasks.own.dna import spliced_record

import numpy as np


def test_the_stop_codon_is_removed_across_an_intron_too():
    assert Gene(((0, 9), (20, 22)), 1).without_stop() == ((0, 8),)
    assert Gene(((0, 2), (20, 29)), -1).without_stop() == ((21, 29),)
    assert Gene(((0, 9),), 1, has_stop=False).without_stop() == ((0, 9),)


def test_a_long_record_is_cut_between_genes():
    record = spliced_record(np.random.default_rng(5), "g", genes_wanted=40)
    pieces = genes.cut(record, 3000)
    assert len(pieces) > 3 and "".join(piece.sequence for piece in pieces) == record.sequence
    assert sum(len(piece.genes) for piece in pieces) == 40
    grammar = make_grammar(("ATG",))
    assert all(path_of(grammar, piece).valid == piece.genes for piece in pieces)
    bare = genes.cut(Record("n", "A" * 10_000), 3000)
    assert [len(piece.sequence) for piece in bare] == [3000, 3000, 4000]


def test_the_longer_gene_labels_an_overlap():
    labels = genes.labels_of([Gene(((0, 4),), -1), Gene(((2, 9),), 1)], 10)
    assert genes.to_text(labels) == "ccCCCCCCC."
