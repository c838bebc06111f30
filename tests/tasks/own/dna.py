"""Records whose genes are rich in G and C, and a tiny model that learns them."""

import itertools
import re

from tasks.dna import outputs
from tasks.dna.genes import Gene, Record

import numpy as np


def complement(sequence):
    return sequence[::-1].translate(str.maketrans("ACGT", "TGCA"))


def letters(random, count, weights=(0.25, 0.25, 0.25, 0.25)):
    return "".join(random.choice(list("ACGT"), size=count, p=weights))


def spliced_record(random, name="r", start=None, genes_wanted=1, stop="TAA"):
    """Return a record with genes of two exons, on either strand, with codons rich in G and C."""
    codons = [c for c in map("".join, itertools.product("GCGCA", repeat=3)) if c != "AAA"]
    sequence, genes = "", []
    for _ in range(genes_wanted):
        coding = "ATG" + "".join(random.choice(codons, size=random.integers(50, 80))) + stop
        cut = int(random.integers(40, len(coding) - 40))
        intron = "GT" + letters(random, random.integers(40, 60), (0.4, 0.05, 0.05, 0.5)) + "AG"
        gene, size = coding[:cut] + intron + coding[cut:], len(coding) + len(intron)
        flank = letters(random, random.integers(80, 160), (0.4, 0.1, 0.1, 0.4))
        exons = ((0, cut), (cut + len(intron), size))
        placed = Gene(exons, 1)
        if random.integers(2):
            gene, placed = complement(gene), placed.mirrored(size)
        sequence += flank
        genes.append(placed.shifted(len(sequence)))
        sequence += gene
    sequence += letters(random, 100, (0.4, 0.1, 0.1, 0.4))
    return Record(name, sequence, tuple(genes))


# The codons that a fruit fly prefers, one for each amino acid, and some others.
PREFERRED = re.findall("...", "CTGATCGTGAAGCAGGAGAACCACGACTTCTACTGCGGCCCCACCTCCAGCCGCGCCATGTGG")
OTHERS = re.findall("...", "CTCATTGTCAAACAAGAAAATCATGATTTTTATTGTGGACCGACGTCGGCTCGT")
FLY_CODONS = PREFERRED * 4 + OTHERS


def fly_record(random, name="r", genes_wanted=1):
    """Return a record like those of a fruit fly: genes of three exons, on either strand."""
    weights = (0.3, 0.2, 0.2, 0.3)
    sequence, genes = letters(random, 400, weights), []
    for _ in range(genes_wanted):
        gene, exons = "", []
        for exon in range(3):
            coding = "".join(random.choice(FLY_CODONS, size=random.integers(90, 160)))
            coding = "ATG" * (exon == 0) + coding + "TAA" * (exon == 2)
            exons.append((len(gene), len(gene) + len(coding)))
            gene += coding
            if exon < 2:
                inside = letters(random, random.integers(20, 40), (0.38, 0.12, 0.12, 0.38))
                gene += (
                    "GTAAGT" + inside + "CTAATTTG" + letters(random, 8, weights) + "TTTTCTTTTCAG"
                )
        placed = Gene(tuple(exons), 1)
        if random.integers(2):
            gene, placed = complement(gene), placed.mirrored(len(gene))
            gene += "GTTG"  # before the start codon, on the other strand
        else:
            gene, placed = "CAAC" + gene, placed.shifted(4)
        genes.append(placed.shifted(len(sequence)))
        sequence += gene + letters(random, 500, weights)
    return Record(name, sequence, tuple(genes))


def write_fasta(path, records):
    with open(path, "w", encoding="utf-8") as file:
        for record in records:
            wrapped = re.findall(".{1,60}", record.sequence)
            file.write(f">{record.name} something\n" + "\n".join(wrapped) + "\n")
    lines = ["##gff-version 3"]
    for record in records:
        lines += outputs.gff_lines(record, record.genes, 1)
    path.with_suffix(".gff3").write_text("\n".join(lines) + "\n")
    return path


TINY = ["--filters", "12", "--units", "12", "--layers", "1", "--convolutions", "1", "--dropout"]
TINY += ["0", "--average", "0", "--learning_rate", "0.01", "--window", "1350", "--verbose", "0"]
TINY += ["--max_length", "20000", "--spliced", "--start_codons", "ATG"]
TRAIN = ("--data", "my.fa", "--epochs", 4, "--score", "test", *TINY)


def write_data(folder):
    random = np.random.default_rng(0)
    rows = [spliced_record(random, f"r{n}", genes_wanted=3) for n in range(60)]
    write_fasta(folder / "my.fa", rows)
