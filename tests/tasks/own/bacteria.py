"""A tiny bacterium whose genes can be told from the rest, on either strand."""

import itertools

from tasks.dna.genes import Gene, Record
from tests.tasks.own.dna import complement, letters

STOPS = ("TAA", "TAG", "TGA")
CODONS = [c for c in map("".join, itertools.product("ACGGCT", repeat=3)) if c not in STOPS]


def bacterium(random, name="r", genes_wanted=10, codons=CODONS, stops=STOPS):
    """Return a record of genes with a ribosome-binding motif before each."""
    sequence, genes = letters(random, 60, (0.4, 0.1, 0.1, 0.4)), []
    for number in range(genes_wanted):
        count = int(random.integers(60, 160))
        start = ("ATG", "GTG")[number % 4 == 3]
        body = "".join(random.choice(codons, size=count))
        gene = f"AGGAGG{letters(random, 6)}" + start + body + stops[number % len(stops)]
        placed = Gene(((12, len(gene)),), 1)
        if random.integers(2):
            placed, gene = placed.mirrored(len(gene)), complement(gene)
        genes.append(placed.shifted(len(sequence)))
        sequence += gene + letters(random, int(random.integers(20, 90)), (0.4, 0.1, 0.1, 0.4))
    return Record(name, sequence, tuple(genes))
