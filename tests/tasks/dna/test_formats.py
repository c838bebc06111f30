import gzip

from common.errors import InputError
from tasks.dna import formats
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
    with pytest.raises(InputError, match=r"x\.gb: record 'one' has no sequence"):
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
