"""The `evaluate` command and its metrics."""

import json
from pathlib import Path

from tasks.dna import evaluate
from tasks.dna.genes import Gene, Record
from tests.tasks.own.dna import spliced_record, write_fasta

import numpy as np
import pytest
import sklearn.metrics

# --- the command ----------------------------------------------------------------------------------


def test_evaluate_scores_the_export_as_train_did(trained, capsys, monkeypatch):
    folder, done = trained
    expected = json.loads(done.stdout.splitlines()[-1])
    monkeypatch.chdir(folder)
    evaluate.main(["--plot", "confusion.png"])
    printed = capsys.readouterr().out
    result = json.loads(printed.splitlines()[-1])
    for name in expected:
        if name not in ("seconds", "model"):
            assert result[name] == expected[name]
    assert "| exon | reverse |" in printed and (folder / "confusion.png").stat().st_size > 5000


def test_a_new_file_is_scored_whole_and_that_of_the_training_on_its_test_split(served, tmp_path):
    random = np.random.default_rng(7)
    rows = [spliced_record(random, f"n{n}") for n in range(4)]
    flags = evaluate.Evaluate(data=write_fasta(tmp_path / "new.fa", rows))
    name, split, records = evaluate.load_split(served, flags)
    assert (name, split, records) == ("new.fa", "all", rows)
    flags = evaluate.Evaluate(data=Path(served.settings["training_data"]["data"]))
    name, split, records = evaluate.load_split(served, flags)
    assert (name, split, len(records)) == ("my.fa", "test", 6)


# --- metrics --------------------------------------------------------------------------------------


def test_scores_equal_counts_by_hand():
    truth = [Gene(((10, 19), (30, 42)), 1), Gene(((60, 72),), -1)]
    predicted = [
        Gene(((10, 19), (33, 42)), 1),  # an exon begins late; the other and the stop are correct
        Gene(((60, 72),), -1),  # correct
        Gene(((80, 89),), -1),  # false
    ]
    tally = evaluate.Tally()
    tally.add(truth, predicted, 100)
    # Without stop codons: true 10-19, 30-39, 63-72; predicted 10-19, 33-39, 63-72, 83-89.
    base = tally.of("base")
    assert base == {"f1": 2 * 24 / (27 + 30), "sensitivity": 24 / 27, "precision": 24 / 30}
    assert tally.of("exon") == {"f1": 4 / 7, "sensitivity": 2 / 3, "precision": 2 / 4}
    assert tally.of("gene") == {"f1": 2 / 5, "sensitivity": 1 / 2, "precision": 1 / 3}
    assert tally.of("stop") == {"f1": 4 / 5, "sensitivity": 1.0, "precision": 2 / 3}
    assert tally.of("gene", (1,))["f1"] == 0 and tally.of("gene", (-1,))["f1"] == 2 / 3
    assert tally.metrics()["exon_sensitivity"] == 2 / 3 and len(tally.metrics()) == 12
    row = next(r for r in tally.rows() if (r["level"], r["strand"]) == ("exon", "reverse"))
    assert (row["true"], row["predicted"]) == (1, 2)


def test_the_right_place_on_the_wrong_strand_is_wrong():
    tally = evaluate.Tally()
    tally.add([Gene(((0, 12),), 1)], [Gene(((0, 12),), -1)], 12)
    assert not any(tally.metrics().values())


def test_base_scores_equal_those_of_scikit_learn():
    random = np.random.default_rng(0)
    sides = [
        [Gene(((a, a + 3 * n),), int(s)) for a, n, s in zip(
            random.choice(900, 12) , random.integers(2, 30, 12), random.choice([1, -1], 12),
            strict=True)]
        for _ in range(2)
    ]  # fmt: skip
    tally = evaluate.Tally()
    tally.add(*sides, 1000)
    marks = []
    for side in sides:
        mark = np.zeros((2, 1000), bool)
        for gene in side:
            for start, end in gene.without_stop():
                mark[int(gene.strand == 1), start:end] = True
        marks.append(mark.ravel())
    scores = tally.metrics()
    assert scores["base_f1"] == pytest.approx(sklearn.metrics.f1_score(*marks))
    assert scores["base_precision"] == pytest.approx(sklearn.metrics.precision_score(*marks))


SPLICED = {"spliced": True, "start_codons": ["ATG"]}


def test_perfect_labels_lack_the_genes_that_break_the_grammar():
    record = Record(
        "r", "CC" + "GTGGCCTAA" + "CC" + "ATGGCCTAA", (Gene(((2, 11),), 1), Gene(((13, 22),), 1))
    )
    best = evaluate.ceiling([record], SPLICED)
    assert best["gene_f1"] == 2 / 3 and best["gene_precision"] == 1.0
    pseudo = Record("r", record.sequence, (Gene(((2, 11),), 1, pseudo=True), record.genes[1]))
    assert evaluate.ceiling([pseudo], SPLICED)["gene_f1"] == 1.0
