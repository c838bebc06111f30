"""The `train` command: its export, fine-tuning, resuming, and invalid flags."""

import json

from common.serving.served import load_export
from tasks.translation import train
from tests.tasks import commands
from tests.tasks.own.translation import TINY, own_pairs, write_tsv

import pytest


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "my.tsv" and result["split"] == "test" and result["examples"] == 40
    assert result["bleu"] >= 90 and result["chrf"] >= 90
    assert "bleu: nrefs:1|case:mixed|eff:no|tok:13a" in done.stdout
    version = folder / result["model"]
    assert version == folder / "saved_models" / "translation" / "1"
    commands.check_version(version, f"{result['bleu']:.4f}", "| units | 24 |", "fr to en")


@pytest.mark.slow  # the same test of sentiment is not
def test_fine_tuning_keeps_subwords_and_weights(trained, command_environment, served):
    folder, _ = trained
    # Only one word changes its translation.
    pairs = [(s, t.replace("cat", "tiger")) for s, t in own_pairs(seed=7)]
    write_tsv(folder / "tuned.tsv", pairs[:120])
    done = commands.run(
        *("translation.train", "--data", "tuned.tsv", "--init", "saved_models/translation/1"),
        *("--epochs", 4, "--output", "tuned", "--batch_size", 16, "--learning_rate", 0.01),
        *("--average", 0, "--dropout", 0, "--subword_dropout", 0.05, "--verbose", 0),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(folder / "tuned" / "translation")
    assert tuned.settings["config"]["units"] == 24
    for name in (train.SOURCE, train.TARGET):
        one, other = (export.path / "assets" / name for export in (tuned, served))
        assert one.read_bytes() == other.read_bytes()
    assert json.loads(done.stdout.splitlines()[-1])["bleu"] >= 70
    outputs = tuned.call("serving_default", text=["Le chien noir dort."])
    assert outputs["translation"][0] == b"The black dog sleeps."


@pytest.mark.slow  # the same test of ner is not
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_tsv(tmp_path / "my.tsv", own_pairs(seed=1))
    words = ["--data", "my.tsv", "--epochs", "4", "--patience", "9", *TINY, "--deterministic"]
    words += ["--score", "none", "--subword_dropout", "0.1", "--shared_subwords"]
    words += ["--dropout", "0.1"]
    user = {"folder": tmp_path, "environment": command_environment}
    search = ("--beam", "2")  # settings of the search may change
    commands.check_resumed_training("translation", *words, resume=search, **user)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--dataset", "wmt99"], "no data set 'wmt99'; known: phrase_book, tatoeba"),
        (["--units", "9"], "--units must be even, got 9"),
        (["--dropout", "1"], "--dropout must be in [0, 1)"),
        (["--beam", "0"], "--beam must be 1 or more"),
        (["--source", "en"], "--source and --target_language must differ"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(train.main, words, message, capsys, monkeypatch)
