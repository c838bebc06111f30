"""Training without introns: labels, contigs, and the whole command."""

import json

from common.serving.served import load_export
from tasks.dna import candidates, frame_data, predict, train
from tasks.dna.config import Config
from tasks.dna.gene_tables import Tables
from tasks.dna.genes import Gene, Record
from tests.tasks import commands
from tests.tasks.dna.test_gene_tables import CONFIG, STOPS
from tests.tasks.own.bacteria import bacterium
from tests.tasks.own.dna import write_fasta

import numpy as np
import pytest
import tensorflow as tf


def test_candidates_are_labelled_by_the_genes_of_their_records():
    rows = [bacterium(np.random.default_rng(n), f"r{n}", 8) for n in range(3)]
    odd = rows[2].genes[3]
    changed = [Gene(odd.exons, odd.strand, pseudo=True) if g == odd else g for g in rows[2].genes]
    rows[2] = Record("r2", rows[2].sequence, tuple(changed))
    tables = frame_data.known_tables(rows, CONFIG)
    others = frame_data.Organisms(np.array([0.5], np.float32), tables)
    windows = frame_data.read(rows, tables, others, CONFIG)
    assert (windows.gene == 1).sum() >= 20 and (windows.gene == 0).sum() > 10
    assert (windows.start >= 0).sum() >= 18  # of most of them the start is a candidate
    assert windows.length.max() <= windows.frames.shape[1]
    kinds = len(CONFIG.start_codons)
    assert windows.frames.shape[2] == candidates.FRAME_FEATURES + kinds
    assert windows.starts.shape[2:] == (candidates.STARTS, candidates.START_FEATURES + kinds)


@pytest.mark.parametrize("strand", [1, -1])
def test_genes_run_off_the_ends_of_contigs(strand):
    gene = Gene(((10, 40),), strand)
    record = Record("r", "A" * 60, (gene,))
    left, right = frame_data.clipped(record, 0, 20), frame_data.clipped(record, 20, 60)
    one, other = left.genes[0], right.genes[0]
    assert (one.exons, other.exons) == (((10, 20),), ((0, 20),))
    begins, ends = (one, other) if strand == 1 else (other, one)
    assert (begins.has_start, begins.has_stop, begins.phase) == (True, False, 0)
    removed = begins.coding_length
    assert (ends.has_start, ends.has_stop, ends.phase) == (False, True, -removed % 3)
    assert frame_data.clipped(record, 0, 50).genes == (gene,)
    assert frame_data.clipped(record, 45, 60).genes == ()


def test_windows_hold_each_candidate_once_in_a_core():
    row = tf.constant([0] * 5 + [2] * 3)
    first, length, window = candidates.pad_windows(row, tf.constant(3), core=2, context=1)
    assert first.numpy().tolist() == [0, 1, 3, 5, 6]
    assert length.numpy().tolist() == [3, 4, 2, 3, 2]
    assert window.numpy().tolist() == [0, 0, 1, 1, 2, 3, 3, 4]
    values = candidates.to_windows(tf.range(8), first, length, 4).numpy()
    assert values[1].tolist() == [1, 2, 3, 4] and values[4].tolist() == [6, 7, 0, 0]


def test_the_genetic_code_needs_genes_without_introns():
    with pytest.raises(Exception, match="--genetic_code is for genes without introns"):
        Config(spliced=True, genetic_code=4)


@pytest.mark.commands
def test_a_model_is_trained_exported_and_asked(tmp_path, capsys, pytestconfig):
    rows = [bacterium(np.random.default_rng(n), f"r{n}", 25) for n in range(12)]
    write_fasta(tmp_path / "my.fa", rows)
    words = ["--data", str(tmp_path / "my.fa"), "--output", str(tmp_path), "--no-spliced"]
    words += ["--epochs", "8", "--units", "12", "--learning_rate", "0.01", "--verbose", "0"]
    words += ["--start_codons", "ATG", "GTG", "TTG", "--batch_size", "4", "--average", "0"]
    train.main([*words, "--score", "test"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["stop_f1"] > 0.8 and result["base_f1"] > 0.8
    golden = pytestconfig.rootpath / "tests/golden/dna_frames.json"
    commands.check_signatures(load_export(tmp_path / "dna"), golden)
    new = tmp_path / "new.fa"
    new.write_text(f">a\n{rows[0].sequence}\n")
    model = ["--model", str(tmp_path / "dna")]
    files = {name: tmp_path / f"new.{name}" for name in ("proteins", "genes", "genbank")}
    flags = [part for name, path in files.items() for part in (f"--{name}", str(path))]
    predict.main([*model, str(new), "--output", str(tmp_path / "new.gff3"), *flags])
    assert "rbs_motif=" in (tmp_path / "new.gff3").read_text()
    assert files["proteins"].read_text().startswith(">gene1 a:")
    assert files["genbank"].read_text().startswith("LOCUS ")


def test_tables_of_organisms_are_stacked():
    tables = frame_data.known_tables([bacterium(np.random.default_rng(0))], CONFIG)
    both = frame_data.stacked([tables, tables])
    assert isinstance(both, Tables) and both.words.shape[0] == 2
    assert STOPS.shape == (1, 65)
