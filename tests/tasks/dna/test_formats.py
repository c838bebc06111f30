import gzip
import importlib

from common.errors import InputError
from tasks.dna import annotations, formats
from tasks.dna.genes import Gene, Record
from tests.tasks.own.dna import complement, spliced_record, write_fasta

import numpy as np
import pytest


def genbank(name, sequence, features):
    rows = [
        f"LOCUS       {name} {len(sequence)} bp DNA",
        "FEATURES             Location/Qualifiers",
    ]
    for location, *more in features:
        rows.append(f"     CDS             {location}")
        rows += [f"                     /{one}" for one in more]
    rows.append("ORIGIN")
    for start in range(0, len(sequence), 60):
        rows.append(f"{start + 1:>9} {sequence[start : start + 60].lower()}")
    return "\n".join([*rows, "//\n"])


def test_genes_of_genbank_are_in_one_form(tmp_path):
    sequence = "CCATGGCCGCCTAACCCC" + complement("ATGGCCTAG") + "CCATGGCC"
    text = genbank(
        "one",
        sequence,
        [
            ("3..11",),  # without its stop codon
            ("complement(19..27)",),  # with it
            ("join(30..32,33..>35)", "codon_start=1"),  # runs off; adjacent exons
            ("3..8", "pseudo"),
        ],
    )
    path = tmp_path / "x.gb.gz"
    path.write_bytes(gzip.compress(text.encode()))
    (record,) = formats.read_records(path)
    assert record.name == "one" and record.sequence == sequence
    assert record.genes == (
        Gene(((2, 8),), 1, pseudo=True),
        Gene(((2, 14),), 1),
        Gene(((18, 27),), -1),
        Gene(((29, 35),), 1, has_stop=False),
    )


def test_genbank_records_must_have_a_sequence_of_iupac_letters(tmp_path):
    path = tmp_path / "x.gb"
    path.write_text("LOCUS       one 4 bp DNA\nFEATURES\nORIGIN\n//\n")
    with pytest.raises(
        InputError, match="1 of 1 records cannot be used \\(one: has no sequence\\)"
    ):
        formats.read_records(path)
    path.write_text(genbank("one", "ACGJ", []))
    with pytest.raises(InputError, match=r"x\.gb: record 'one' has letters that are not IUPAC"):
        formats.read_records(path)


def test_fasta_with_gff3_next_to_it_or_inside(tmp_path):
    record = spliced_record(np.random.default_rng(4), "chr1", genes_wanted=3)
    path = write_fasta(tmp_path / "x.fa", [record])
    assert formats.read_records(path) == [record]
    packed = tmp_path / "y.fna.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    (tmp_path / "y.gff.gz").write_bytes(gzip.compress((tmp_path / "x.gff3").read_bytes()))
    assert formats.read_records(packed) == [record]
    one = tmp_path / "z.gff3"
    one.write_text((tmp_path / "x.gff3").read_text() + "##FASTA\n" + path.read_text())
    assert formats.read_records(one) == [record]
    path.with_suffix(".gff3").unlink()
    assert formats.read_records(path) == [Record("chr1", record.sequence)]


def test_the_lines_of_fasta_inside_gff3_are_counted_from_the_start_of_the_file(tmp_path):
    path = tmp_path / "x.gff3"
    for end in ("\n", "\r\n"):
        lines = ["##gff-version 3", "##FASTA", ">a", "ACGT", "ACGJ", ""]
        path.write_bytes(end.join(lines).encode())
        with pytest.raises(InputError, match=r"x\.gff3, line 5: 'J' is not an IUPAC letter"):
            formats.read_records(path)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a\tx\tCDS\t1\t4\t.\t+\t0", "line 1: expected 9 fields between tabs, got 8"),
        ("b\tx\tCDS\t1\t4\t.\t+\t0\tID=1", "line 1: no sequence is named 'b'"),
        ("a\tx\tCDS\t1\t9\t.\t+\t0\tID=1", r"line 1: 1\.\.9 is outside record 'a' \(1\.\.6\)"),
        ("a\tx\tCDS\t1\t4\t.\t?\t0\tID=1", "line 1: expected a start, an end, a strand"),
    ],
)
def test_a_malformed_gff3_names_its_line(tmp_path, row, message):
    path = tmp_path / "x.fa"
    path.write_text(">a\nACGTAC\n")
    path.with_suffix(".gff3").write_text(row + "\n")
    with pytest.raises(InputError, match=message):
        formats.read_records(path)


def test_the_kinds_of_annotation_that_no_linear_join_describes(tmp_path, capsys):
    sequence = "GCCTAACC" + "A" * 80 + "CCATGGCC"  # ATGGCC|GCCTAA across the origin
    size = len(sequence)
    text = genbank(
        "one",
        sequence,
        [
            (f"join({size - 5}..{size},1..6)",),
            ("join(10..20,complement(30..40))",),
        ],
    )
    text = text.replace("bp DNA", "bp DNA circular UNK 01-JAN-1980")
    (record,) = annotations.parse_genbank(text, tmp_path / "x.gb")
    first, trans, last = sorted(record.genes)
    assert (first.exons, first.has_start, first.has_stop, first.phase) == (
        ((0, 6),),
        False,
        True,
        0,
    )
    assert trans.pseudo
    assert (last.exons, last.has_start, last.has_stop) == (((size - 6, size),), True, False)
    said = capsys.readouterr().err
    assert "1 genes across the origin of a circular record" in said
    assert "1 genes whose parts are on both strands or out of order" in said


def test_a_gene_beyond_the_end_of_a_circular_record_of_gff3_goes_on_at_its_start(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(">a\n" + "GCCTAACC" + "A" * 80 + "CCATGGCC\n")
    rows = ["a\tx\tregion\t1\t96\t.\t+\t.\tID=a;Is_circular=true"]
    rows.append("a\tx\tCDS\t91\t102\t.\t+\t0\tID=c")
    path.with_suffix(".gff3").write_text("\n".join(rows) + "\n")
    (record,) = formats.read_records(path)
    assert [gene.exons for gene in record.genes] == [((0, 6),), ((90, 96),)]
    path.with_suffix(".gff3").write_text(rows[1] + "\n")
    with pytest.raises(InputError, match=r"91\.\.102 is outside record 'a'"):
        formats.read_records(path)


@pytest.mark.parametrize("mark", ["##FASTA\n", "##FASTA a comment\n", ""])
def test_sequences_inside_a_gff3_next_to_its_fasta_are_left_alone(tmp_path, mark):
    """Prokka writes `x.gff` with the sequences, and `x.fna`."""
    path = tmp_path / "x.fna"
    path.write_text(">a\nCCATGGCCTAAC\n")
    row = "a\tx\tCDS\t3\t11\t.\t+\t0\tID=c\n"
    path.with_suffix(".gff").write_text(f"##gff-version 3\n{row}{mark}>a\nCCATGGCCTAAC\n")
    (record,) = formats.read_records(path)
    assert record.genes == (Gene(((2, 11),), 1),)
    assert formats.read_records(path.with_suffix(".gff")) == [record]


def test_names_are_unescaped_phases_inferred_and_the_longest_transcript_is_kept(tmp_path, capsys):
    path = tmp_path / "x.fa"
    path.write_text(">a|1\nCCATGGCCGCCTAACCCC\n")
    rows = [
        "a%7C1\tx\tmRNA\t3\t14\t.\t+\t.\tID=t1;Parent=g",
        "a%7C1\tx\tmRNA\t3\t14\t.\t+\t.\tID=t2;Parent=g",
        "a%7C1\tx\tCDS\t3\t5\t.\t+\t.\tID=c;Parent=t1,t2",
        "a%7C1\tx\tCDS\t9\t14\t.\t+\t.\tID=c;Parent=t2",
    ]
    path.with_suffix(".gff3").write_text("\n".join(rows) + "\n")
    (record,) = formats.read_records(path)
    assert record.genes == (Gene(((2, 5), (8, 14)), 1),)
    assert "1 further transcripts of a gene (the longest is used)" in capsys.readouterr().err


def test_stop_codons_are_those_of_the_genetic_code(tmp_path, capsys):
    sequence = "CCATGGCCTGACCC"
    text = genbank("one", sequence, [("3..8", "transl_table=4")])
    (record,) = annotations.parse_genbank(text, tmp_path / "x.gb")
    assert record.genes[0].exons == ((2, 8),)  # TGA does not end it
    assert "1 genes of genetic code 4 (train with --genetic_code 4)" in capsys.readouterr().err
    text = genbank("one", sequence, [("3..8", "transl_table=11")])
    (record,) = annotations.parse_genbank(text, tmp_path / "x.gb")
    assert record.genes[0].exons == ((2, 11),)


def test_records_without_bases_are_skipped_and_counted(tmp_path, capsys):
    path = tmp_path / "x.fa"
    path.write_text(">a\n>b\nACGT\n>c\n")
    assert formats.read_records(path) == [Record("b", "ACGT")]
    assert "skipped 2 of 3 records" in capsys.readouterr().err
    path.write_text(">a\n")
    with pytest.raises(InputError, match="1 of 1 records cannot be used"):
        formats.read_records(path)


@pytest.mark.parametrize("module", ["bz2", "gzip", "lzma"])
def test_compressed_files_are_read_whatever_their_name(tmp_path, module):
    path = tmp_path / "x.fa"
    path.write_bytes(importlib.import_module(module).compress(b">a\nACGT\n"))
    assert formats.read_records(path) == [Record("a", "ACGT")]
    assert list(formats.read_sequences(path)) == [Record("a", "ACGT")]
    path.write_bytes(path.read_bytes()[:-9])
    for read in (formats.read_records, lambda path: list(formats.read_sequences(path))):
        with pytest.raises(InputError, match=r"x\.fa: cannot read"):
            read(path)


def test_sequences_are_read_without_their_annotation(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(">a\nACGT\n")
    path.with_suffix(".gff3").write_text("this is no GFF3\n")
    assert list(formats.read_sequences(path)) == [Record("a", "ACGT")]
    inside = tmp_path / "y.gff3"
    inside.write_text("##gff-version 3\nthis is no feature\n##FASTA\n>a\nACGT\n")
    assert list(formats.read_sequences(inside)) == [Record("a", "ACGT")]
    entry = tmp_path / "z.gb"
    entry.write_text(genbank("one", "ACGT", [("1..99",)]))
    assert [record.sequence for record in formats.read_sequences(entry)] == ["ACGT"]
