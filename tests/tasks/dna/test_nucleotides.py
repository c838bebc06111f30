from tasks.dna.nucleotides import (
    COMPLEMENT,
    FRACTIONS,
    LETTERS,
    encode,
    reverse_complement,
    reverse_complement_letters,
)

import numpy as np


def test_letters_are_bits():
    assert encode("ACGTUNacgtun-J").tolist() == [1, 2, 4, 8, 8, 15] * 2 + [-1, -1]
    assert encode(b"ACGT").tolist() == encode("ACGT").tolist()
    assert encode(LETTERS[1:]).tolist() == list(range(1, 16))


def test_reverse_complements():
    np.testing.assert_array_equal(reverse_complement(encode("ACGTRYKMN")), encode("NKMRYACGT"))
    letters = LETTERS[1:] + "U"
    np.testing.assert_array_equal(
        encode(reverse_complement_letters(letters)), reverse_complement(encode(letters))
    )
    np.testing.assert_array_equal(COMPLEMENT[COMPLEMENT], range(16))


def test_ambiguous_letters_have_equal_fractions():
    assert FRACTIONS[encode("R")[0]].tolist() == [0.5, 0.0, 0.5, 0.0]
    assert FRACTIONS[encode("N")[0]].tolist() == [0.25] * 4
    assert FRACTIONS.sum(axis=1).tolist() == [0.0] + [1.0] * 15
