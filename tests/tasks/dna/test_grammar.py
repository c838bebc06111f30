from tasks.dna.grammar import allowed_states, make_grammar
from tasks.dna.nucleotides import encode
from tests.tasks.own.dna import letters

import numpy as np
import pytest

SPLICED = make_grammar(True, ("ATG",))
PLAIN = make_grammar(False, ("ATG", "GTG", "TTG"))


@pytest.mark.parametrize("grammar", [SPLICED, PLAIN], ids=["spliced", "plain"])
def test_tables_are_consistent(grammar):
    table = grammar.constraints.transitions
    one, count = slice(1, 1 + grammar.forward), grammar.forward
    np.testing.assert_array_equal(table[one, one], table[1 + count :, 1 + count :].T)
    assert (grammar.mixing.sum(axis=0) >= 1).all()
    assert grammar.swap[grammar.swap].tolist() == list(range(len(grammar.channels)))
    states = np.random.default_rng(0).integers(0, grammar.states, 50)
    np.testing.assert_array_equal(grammar.mirror(grammar.mirror(states)), states)


def test_saved_models_depend_on_the_order_of_states_and_channels():
    assert (SPLICED.states, PLAIN.states) == (67, 23)
    assert " ".join(PLAIN.names[:12]) == ". S1 S2 S3 C0 C1 C2 T1 T2 T3 V3 O3"
    assert " ".join(PLAIN.channels) == ". C0 start C1 C2 stop C0' start' C1' C2' stop'"
    expected = "C0 start C1 C2 stop I0 donor acceptor I1 I2"
    assert " ".join(SPLICED.strand_channels) == expected


def test_allowed_states_do_not_depend_on_the_blocks():
    bases = encode(letters(np.random.default_rng(0), 500))
    whole = allowed_states(SPLICED, bases)
    np.testing.assert_array_equal(allowed_states(SPLICED, bases, block=37), whole)


def test_the_reverse_strand_is_read_on_the_complement():
    allowed = allowed_states(PLAIN, encode("TTAGGCCAT"))  # reverse complement: ATGGCCTAA
    start = PLAIN.index["S1'"]
    assert allowed[8, start] and not allowed[4, start]  # A; C
