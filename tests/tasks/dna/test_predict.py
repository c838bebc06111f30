"""The `predict` command: its inputs and outputs."""

import gzip
import io
import json
import re
import sys

from common.errors import InputError
from tasks.dna import formats, predict, streaming
from tasks.dna.genes import LABELS, Gene, Record
from tasks.dna.paths import genes_of
from tasks.dna.predict import load
from tests.tasks import commands
from tests.tasks.own.dna import fly_record, spliced_record, write_fasta

import numpy as np
import pytest
from matplotlib.figure import Figure


def set_standard_input(monkeypatch, content):
    class Input:
        buffer = io.BytesIO(content)

    monkeypatch.setattr(sys, "stdin", Input)


def test_predict_labels_the_sequences_on_the_command_line(shipped, capsys):
    words = ["--model", str(shipped.path)]
    predict.main([*words, "AGCCCCTGTGAGGAACTAG", "acgtnryACGU"])
    first, second = capsys.readouterr().out.splitlines()
    assert len(first) == 19 and len(second) == 11 and set(first + second) <= set(LABELS)
    with pytest.raises(InputError, match=r"sequence 2: 'J' at base 3 is no IUPAC letter"):
        predict.main([*words, "ACGT", "ACJT"])
    with pytest.raises(InputError, match="sequence 1 is empty"):
        predict.main([*words, ""])


def test_load_answers_one_sequence_and_several_with_genes_and_labels(spliced):
    random = np.random.default_rng(9)
    sequence = fly_record(random, "chr", genes_wanted=2).sequence
    model = load(spliced.path)
    found = model(sequence.lower())
    assert found.sequence == sequence and len(found.labels) == len(sequence)
    assert found.genes and set(found.labels) <= set(LABELS)
    for gene in found.genes:
        inside = found.labels[gene.start : gene.end]
        assert set(inside) <= set("CI" if gene.strand == 1 else "ci")
    assert len(found.proteins) == len(found.genes) and all(found.proteins)
    other, again = model(["ACGT", sequence])
    assert other.labels == "...." and other.genes == () and again == found
    with pytest.raises(InputError, match=r"sequence 2: 'J' at base 3 is no IUPAC letter"):
        model(["ACGT", "ACJT"])


def test_predict_writes_gff3_that_reads_back_as_the_same_genes(tmp_path, spliced):
    random = np.random.default_rng(9)
    rows = [fly_record(random, f"chr {n}", genes_wanted=2) for n in range(3)]
    path = tmp_path / "new.fa"
    with gzip.open(tmp_path / "new.fa.gz", "wt") as file:
        for record in rows:
            file.write(f">{record.name.replace(' ', '_')}\n{record.sequence.lower()}\n")
    words = ["--model", str(spliced.path), str(tmp_path / "new.fa.gz")]
    predict.main([*words, "--output", str(tmp_path / "new.gff3")])
    text = (tmp_path / "new.gff3").read_text()
    assert text.startswith("##gff-version 3\n##sequence-region chr_0 1 ")
    identifiers = re.findall(r"\tgene\t.*?ID=(\w+)", text)
    assert len(identifiers) == len(set(identifiers)) >= 4
    write_fasta(path, [Record(f"chr_{n}", r.sequence) for n, r in enumerate(rows)])
    path.with_suffix(".gff3").write_text(text)
    read_back = formats.read_records(path)
    grammar = streaming.grammar_of(spliced)
    paths = streaming.predict_paths(spliced, [record.sequence for record in rows], batch_size=2)
    for record, (_, states) in zip(read_back, paths, strict=True):
        assert list(record.genes) == genes_of(grammar, states)


def test_predict_reads_standard_input_and_draws(capsys, monkeypatch, tmp_path, shipped):
    set_standard_input(monkeypatch, b">one\nACGTNNACGT\n\n>two\nacgtry\nACGT\n")
    picture = tmp_path / "tracks.png"
    predict.main(["--model", str(shipped.path), "--json", "-", "--plot", str(picture)])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(r["name"], len(r["labels"])) for r in rows] == [("one", 10), ("two", 10)]
    assert picture.stat().st_size > 5000
    picture = tmp_path / "known.png"
    random = np.random.default_rng(9)
    path = write_fasta(tmp_path / "my.fa", [spliced_record(random, genes_wanted=2)])
    words = ["--model", str(shipped.path), "--file", str(path)]
    words += ["--plot", str(picture), "--region", "1-900", "--output", str(tmp_path / "out.gff3")]
    predict.main(words)
    assert picture.stat().st_size > 10000


def test_drawn_genes_point_in_their_direction():
    forward = Gene(((100, 400), (600, 900)), 1)
    reverse = Gene(((200, 500), (700, 800)), -1)
    axes = Figure().subplots()
    predict.draw_tracks(axes, [("known", [forward, reverse])], 0, 1000)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["known +", "known -"]
    exons = [np.array(patch.get_xy()) for patch in axes.patches]
    tips = [(exon[:, 0].max(), exon[:, 0].min()) for exon in exons]
    assert tips == [(400, 100), (900, 600), (500, 200), (800, 700)]
    # The head is at the last exon: its corners lie within the ends.
    pointed = [len(set(exon[:, 0])) == 3 for exon in exons]
    assert pointed == [False, True, True, False]
    arrows = [(line.get_marker(), float(line.get_ydata()[0])) for line in axes.lines]
    arrows = [pair for pair in arrows if pair[0] != "None"]
    assert set(arrows) == {("$>$", 0.0), ("$<$", -1.0)} and len(arrows) > 20


def test_empty_standard_input_is_refused_and_leaves_the_output_file_alone(
    shipped, tmp_path, monkeypatch
):
    set_standard_input(monkeypatch, b"\n")
    output = tmp_path / "genes.gff3"
    output.write_text("old")
    with pytest.raises(InputError, match="the input is empty"):
        predict.main(["--model", str(shipped.path), "-", "--output", str(output)])
    assert output.read_text() == "old"


# The model `gone` does not exist: these flags are refused before a model is loaded.
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--model", "gone"], "no sequence given: write it on the command line"),
        (["a.fa", "--workers", "2", "--genes", "x"], "--proteins, --genes and --genbank need"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(predict.main, words, message, capsys, monkeypatch)


def test_a_region_is_counted_from_1_and_lies_in_the_record():
    assert predict.parse_region("11-30", 20) == (10, 20)
    assert predict.parse_region(None, 10**6) == (0, predict.SHOWN)
    for wrong in ("5", "9-3", "0-4"):
        with pytest.raises(InputError, match="--region must look like"):
            predict.parse_region(wrong, 100)
    with pytest.raises(InputError, match="lies beyond the record's 100 bases"):
        predict.parse_region("200-300", 100)
