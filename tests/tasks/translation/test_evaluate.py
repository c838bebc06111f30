"""The `evaluate` command and its metrics."""

import json

from common.errors import InputError
from tasks.translation import evaluate
from tests.tasks import commands
from tests.tasks.own.translation import own_pairs

import pytest
import sacrebleu

# --- the command ----------------------------------------------------------------------------------


def test_evaluate_scores_the_export_as_train_did(trained, command_environment):
    folder, done = trained
    expected = json.loads(done.stdout.splitlines()[-1])
    again = commands.run("translation.evaluate", folder=folder, environment=command_environment)
    assert again.returncode == 0, again.stderr
    result = json.loads(again.stdout.splitlines()[-1])
    for name in ("task", "dataset", "split", "examples", "bleu", "bleu_lowercase", "chrf"):
        assert result[name] == expected[name]


def test_own_files_are_scored_whole_with_all_references(trained, capsys, served):
    folder, _ = trained
    pairs = own_pairs(seed=3)[:12]
    (folder / "two.fr").write_text("".join(f"{s}\n{s}\n" for s, _ in pairs))
    (folder / "two.en").write_text("".join(f"Nothing of it.\n{t}\n" for _, t in pairs))
    evaluate.main(["--model", str(served.path), "--data", str(folder / "two.fr")])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["examples"] == 12 and result["split"] == "all"
    translations = served.call("serving_default", text=[s for s, _ in pairs])["translation"]
    references = [["Nothing of it."] * 12, [t for _, t in pairs]]
    expected = sacrebleu.corpus_bleu([text.decode() for text in translations], references).score
    assert result["bleu"] == pytest.approx(expected) and expected > 80


def test_a_split_that_the_data_lacks_is_refused(trained, served, monkeypatch):
    monkeypatch.chdir(trained[0])
    with pytest.raises(InputError, match=r"my\.tsv has no split 'test_2017'"):
        evaluate.main(["--model", str(served.path), "--split", "test_2017"])


# --- metrics --------------------------------------------------------------------------------------


def test_metrics_equal_sacrebleu_with_a_variable_number_of_references():
    translations = ["The cat sat on the mat.", "a dog ran away quickly today"]
    references = [
        ["The cat sat on a mat.", "The cat sat on the mat."],
        ["A dog ran away quickly today"],
    ]
    scores, signatures = evaluate.metrics(translations, references)
    columns = [[references[0][0], references[1][0]], [references[0][1], None]]
    assert scores["bleu"] == sacrebleu.corpus_bleu(translations, columns).score < 100
    assert scores["bleu_lowercase"] == pytest.approx(100.0)
    assert scores["chrf"] == sacrebleu.corpus_chrf(translations, columns).score
    assert "case:mixed" in signatures[0] and "tok:13a" in signatures[0]
