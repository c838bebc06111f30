from tasks.dna.grammar import allowed_states, make_grammar
from tasks.dna.nucleotides import encode
from tests.tasks.own.dna import letters

import numpy as np
import pytest

GRAMMAR = make_grammar(("ATG",))


def test_tables_are_consistent():
    table = GRAMMAR.constraints.transitions
    one, count = slice(1, 1 + GRAMMAR.forward), GRAMMAR.forward
    np.testing.assert_array_equal(table[one, one], table[1 + count :, 1 + count :].T)
    assert (GRAMMAR.mixing.sum(axis=0) >= 1).all()
    assert GRAMMAR.swap[GRAMMAR.swap].tolist() == list(range(len(GRAMMAR.channels)))
    states = np.random.default_rng(0).integers(0, GRAMMAR.states, 50)
    np.testing.assert_array_equal(GRAMMAR.mirror(GRAMMAR.mirror(states)), states)


def test_saved_models_depend_on_the_order_of_states_and_channels():
    introns = " ".join(f"D{c} B{c} A{c}" for c in ("0", "1T", "1x", "2TA", "2TG", "2x"))
    names = f"S1 S2 S3 C0 C1 C2 T1 T2 T3 {introns} X1T X1x X2T P2 Y2TA Y2TG"
    mirrored = [f"{name}'" for name in names.split()]
    assert GRAMMAR.names == (".", *names.split(), *mirrored) and GRAMMAR.states == 67
    channels = ["C0", "start", "C1", "C2", "stop", "I0", "donor", "acceptor", "I1", "I2"]
    assert GRAMMAR.strand_channels == tuple(channels)
    assert GRAMMAR.channels == (".", *channels, *(f"{name}'" for name in channels))


@pytest.mark.parametrize("starts", [("ATG",), ("ATG", "GTG", "TTG")])
def test_only_start_codons_are_allowed_to_begin_a_gene(starts):
    grammar = make_grammar(starts)
    for first in "ACGT":
        allowed = allowed_states(grammar, encode(f"C{first}TGGCC"))
        is_start = allowed[[1, 2, 3], [grammar.index[name] for name in ("S1", "S2", "S3")]].all()
        assert is_start == (f"{first}TG" in starts)


def test_allowed_states_do_not_depend_on_the_blocks():
    bases = encode(letters(np.random.default_rng(0), 500))
    whole = allowed_states(GRAMMAR, bases)
    np.testing.assert_array_equal(allowed_states(GRAMMAR, bases, block=37), whole)


def test_the_reverse_strand_is_read_on_the_complement():
    allowed = allowed_states(GRAMMAR, encode("TTAGGCCAT"))  # reverse complement: ATGGCCTAA
    start = GRAMMAR.index["S1'"]
    assert allowed[8, start] and not allowed[4, start]  # A; C
