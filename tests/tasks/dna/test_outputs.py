"""The output formats of `predict`, read back by other code."""

import io

from tasks.dna import annotations, outputs
from tasks.dna.genes import Gene, Record, labels_of
from tasks.dna.predictions import PredictedGene, Prediction
from tests.tasks.own.dna import complement

import numpy as np
import pytest

SEQUENCE = "CCATGGCCGCCTAACCCC" + complement("GTGGCCAAGTAG") + "CCATGGCCAA"
GENES = (
    Gene(((2, 14),), 1),
    Gene(((18, 30),), -1),
    Gene(((32, 40),), 1, has_stop=False),
)


def prediction():
    found = [PredictedGene(GENES[0], 3.5, 0.97, 0.8, "ATG", "5 bases of AAGGAGGTGA, 7 before")]
    found += [PredictedGene(gene) for gene in GENES[1:]]
    return Prediction(tuple(found), labels_of(GENES, len(SEQUENCE)))


def test_genbank_is_read_back_by_biopython(tmp_path):
    from Bio import SeqIO

    record = Record("one", SEQUENCE)
    text = "\n".join(outputs.genbank_lines(record, prediction(), 1, 11)) + "\n"
    (read,) = annotations.parse_genbank(text, tmp_path / "x.gb")
    assert read.sequence == SEQUENCE and read.genes == GENES
    (entry,) = SeqIO.parse(io.StringIO(text), "genbank")
    features = [feature for feature in entry.features if feature.type == "CDS"]
    for feature, protein in zip(features, ["MAA", "MAK", "MA"], strict=True):
        assert feature.qualifiers["translation"] == [protein]
    assert "start_type ATG" in features[0].qualifiers["note"][0]


def test_gff3_has_scores_types_and_partial_ends():
    lines = list(outputs.gff_lines(Record("one", SEQUENCE), prediction().genes, 7))
    first = lines[3].split("\t")
    assert first[2] == "CDS" and first[5] == "3.50"
    assert "ID=cds7;Parent=mrna7;confidence=0.97;start_confidence=0.8;start_type=ATG" in first[8]
    assert "rbs_motif=5 bases of AAGGAGGTGA%2C 7 before" in first[8]
    assert lines[-1].endswith(";partial=01") and "\t.\t+\t0\t" in lines[-1]


def test_proteins_and_genes_are_fasta():
    record = Record("one", SEQUENCE)
    options = {"first": 1, "code": 11}
    proteins = list(outputs.fasta_lines(record, prediction(), protein=True, **options))
    assert proteins[::2] == [
        ">gene1 one:3-14(+) partial=00",
        ">gene2 one:19-30(-) partial=00",
        ">gene3 one:33-40(+) partial=01",
    ]
    assert proteins[1::2] == ["MAA", "MAK", "MA"]
    genes = list(outputs.fasta_lines(record, prediction(), protein=False, **options))
    assert genes[1::2] == ["ATGGCCGCCTAA", "GTGGCCAAGTAG", "ATGGCCAA"]


@pytest.mark.parametrize("code", [1, 4, 11, 25])
def test_proteins_are_those_of_biopython(code):
    from Bio.Data.CodonTable import unambiguous_dna_by_id

    table = unambiguous_dna_by_id[code]
    codons = [*table.forward_table]
    np.random.default_rng(0).shuffle(codons)
    gene = Gene(((0, 3 * len(codons) + 6),), 1)
    protein = outputs.translate(gene, "TTG" + "".join(codons) + "TAA", code)
    assert protein == "M" + "".join(table.forward_table[codon] for codon in codons)


def test_ambiguous_codons_are_x_unless_all_readings_agree():
    assert outputs.translate(Gene(((0, 15),), 1), "ATGGCNAANYTGTAA") == "MAXX"
    phased = Gene(((0, 8),), 1, has_start=False, has_stop=False, phase=2)
    assert outputs.translate(phased, "CCGCCAAA") == "AK"
