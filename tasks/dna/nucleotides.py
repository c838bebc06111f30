"""Nucleotides: IUPAC letters as bits, and the complementary strand.

A base is a number of four bits: bit 0 is A, bit 1 C, bit 2 G and bit 3 T. An ambiguous letter has
several bits, N has all four, and 0 is padding.
"""

from __future__ import annotations

import numpy as np

LETTERS = "-ACMGRSVTWYHKDBN"  # the letter of each code
GAP = 48  # masked bases between records that are read as one: more than any motif reaches
STOP_CODONS = ("TAA", "TAG", "TGA")
# Stop codons of genetic codes by their NCBI numbers: standard, Mycoplasma, bacteria, SR1.
GENETIC_CODES = {1: STOP_CODONS, 4: ("TAA", "TAG"), 11: STOP_CODONS, 25: ("TAA", "TAG")}

_CODE = np.full(256, -1, np.int32)  # the code of each byte
for _bits, _letter in enumerate(LETTERS[1:], start=1):
    _CODE[[ord(_letter), ord(_letter.lower())]] = _bits
_CODE[[ord("U"), ord("u")]] = 8

_BITS = np.array([[bits >> base & 1 for base in range(4)] for bits in range(16)])
# `<float32>[16, 4]`: the fractions of A, C, G and T in each code.
FRACTIONS = _BITS.astype(np.float32)
FRACTIONS /= np.maximum(FRACTIONS.sum(axis=1, keepdims=True), 1.0)
# `<int32>[16]`: the code of each code's complement.
COMPLEMENT = (_BITS << np.arange(3, -1, -1)).sum(axis=1).astype(np.int32)

# `<int32>[16]`: A, C, G, T as 0..3; -1 for other codes.
DIGITS = np.full(16, -1, np.int32)
DIGITS[[1, 2, 4, 8]] = range(4)

_COMPLEMENT_LETTERS = str.maketrans("ACGTUMRWSYKVHDBN", "TGCAAKYWSRMBDHVN")


def stop_codons(code: int) -> tuple[str, ...]:
    """Return the stop codons of a genetic code.

    Example:
      >>> stop_codons(4)      # TGA is tryptophan
      ('TAA', 'TAG')
    """
    return GENETIC_CODES[code]


def encode(sequence: str | bytes) -> np.ndarray:
    """Return the codes of a sequence, `<int32>[bases]`; -1 for anything but an IUPAC letter.

    Example:
      >>> encode("ACGTN-acgu")
      array([ 1,  2,  4,  8, 15, -1,  1,  2,  4,  8], dtype=int32)
    """
    raw = sequence.encode("latin-1", "replace") if isinstance(sequence, str) else sequence
    return _CODE[np.frombuffer(raw, np.uint8)]


def reverse_complement(bases: np.ndarray) -> np.ndarray:
    """Return the codes of the other strand, in its own reading direction.

    Example:
      >>> reverse_complement(encode("AACG"))    # CGTT
      array([2, 4, 8, 8], dtype=int32)
    """
    return COMPLEMENT[bases[::-1]]


def reverse_complement_letters(sequence: str) -> str:
    """Return the other strand of a sequence in capital letters, in its own reading direction.

    Example:
      >>> reverse_complement_letters("AACG")
      'CGTT'
    """
    return sequence.translate(_COMPLEMENT_LETTERS)[::-1]
