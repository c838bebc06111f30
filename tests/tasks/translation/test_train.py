"""The `train` command: its export, fine-tuning, resuming, and invalid flags."""

import dataclasses
import json
import random
import re

from common.commands.run import Run
from common.errors import InputError
from common.serving.served import load_export
from tasks.translation import train
from tasks.translation.config import PRESETS
from tests.tasks import commands
from tests.tasks.own.translation import TINY, own_pairs, write_tsv

import pytest
import requests


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "my.tsv" and result["split"] == "test" and result["examples"] == 40
    assert result["bleu"] >= 90 and result["chrf"] >= 90
    assert "bleu: nrefs:1|case:mixed|eff:no|tok:13a" in done.stdout
    lines = done.stderr.splitlines()
    assert "320 training pairs, fr to en: learning subwords" in lines
    assert "no words are copied: 0 words of the training pairs can teach it" in lines
    (sizes,) = [line for line in lines if " weights; " in line]
    assert re.match(
        r"320 training pairs of [\d,]+ and [\d,]+ subwords; [\d,]+ weights; "
        r"320 steps, epochs: 16, about \d+ min on this machine",
        sizes,
    )
    version = folder / result["model"]
    assert version == folder / "saved_models" / "translation" / "1"
    commands.check_version(version, f"{result['bleu']:.4f}", "| units | 24 |", "fr to en")


@pytest.mark.thorough
def test_words_that_the_vocabulary_lacks_are_copied(tmp_path, command_environment):
    """A tiny model learns it from numbers and names that stand on both sides."""
    generator, names = random.Random(1), ["Tom", "Marie", "Anna", "Paul", "Lena", "Igor", "Rosa"]
    pairs = own_pairs()
    for source, target in own_pairs(seed=1)[:300]:
        name, number = generator.choice(names), generator.randint(10, 99)
        pairs.append((f"{source[:-1]} avec {name}.", f"{target[:-1]} with {name}."))
        pairs.append(
            (f"{source[:-1]} depuis {number} ans.", f"{target[:-1]} since {number} years.")
        )
    write_tsv(tmp_path / "my.tsv", pairs)
    words = ("translation.train", "--data", "my.tsv", "--epochs", 16, "--score", "none", *TINY)
    done = commands.run(*words, folder=tmp_path, environment=command_environment)
    assert done.returncode == 0, done.stderr
    assert "links and numbers and names are copied: " in done.stderr
    served = load_export(tmp_path / "saved_models" / "translation")
    assert served.settings["copies"] == ["links", "numbers", "names"]
    copied = {
        "Le chat noir dort avec Kowalczyk.": "The black cat sleeps with Kowalczyk.",
        "Un chien blanc mange depuis 1789 ans.": "A white dog eats since 1789 years.",
        "Mon chat noir dort avec www.a.org/x?y=1.": "My black cat sleeps with www.a.org/x?y=1.",
        "LE CHAT NOIR DORT AVEC 12,50.": "THE BLACK CAT SLEEPS WITH 12,50.",
    }
    translations = served.call("serving_default", text=list(copied))["translation"]
    right = [text.decode() for text in translations if text.decode() in copied.values()]
    assert len(right) >= 3, translations


def test_the_settings_of_own_data_follow_from_their_size(tmp_path):
    rows = [(f"Phrase {k}.", f"Sentence {k}.") for k in range(13_000)]
    small, large = (write_tsv(tmp_path / f"{n}.tsv", rows[:n]) for n in (50, 13_000))

    def units(*words):
        return train.read_settings(list(map(str, words)))

    assert units("--data", small).units == PRESETS["phrase_book"].units
    assert units("--data", small).max_length == 64
    fitting = units("--data", large, "--beam", 2)
    assert (fitting.units, fitting.beam, fitting.dataset) == (PRESETS["multi30k"].units, 2, None)
    assert fitting.members == 1 and units("--preset", "multi30k", "--data", large).members == 3
    chosen = units("--data", small, "--preset", "tatoeba")
    assert (chosen.units, chosen.epochs) == (PRESETS["tatoeba"].units, PRESETS["tatoeba"].epochs)
    other = units("--dataset", "multi30k", "--preset", "phrase_book")
    assert (other.dataset, other.units) == ("multi30k", PRESETS["phrase_book"].units)
    assert units() == PRESETS["tatoeba+phrase_book"]
    mixture = units("--dataset", "multi30k+homeassistant")
    assert mixture == dataclasses.replace(units(), dataset="multi30k+homeassistant")
    with pytest.raises(InputError, match="'wmt14' cannot be mixed; known: tatoeba, phrase_book"):
        units("--dataset", "tatoeba+wmt14")


def test_the_phrase_book_takes_the_place_of_what_cannot_be_downloaded(
    monkeypatch, capsys, tmp_path
):
    def refuse(*_, **__):
        raise requests.ConnectionError("no network")

    monkeypatch.setattr("requests.head", refuse)
    words = ["--data_dir", str(tmp_path), "--source", "en", "--target_language", "fr"]
    run = Run("translation", train.read_settings(words), strategy=None, target=None)
    config = train.with_obtainable_data(run, train.read_offline_settings(words)).config
    assert (config.dataset, config.units, config.source) == ("phrase_book", 128, "en")
    said = "training on phrase_book alone instead of tatoeba+phrase_book: data set 'tatoeba' needs"
    assert said in capsys.readouterr().err
    named = [*words, "--dataset", "tatoeba"]
    run = Run("translation", train.read_settings(named), strategy=None, target=None)
    assert train.with_obtainable_data(run, train.read_offline_settings(named)) is run


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
        (["--candidates", "-1"], "--candidates must be 0 or more, got -1"),
        (["--source", "en"], "--source and --target_language must differ"),
        (["--preset", "wmt99"], "no preset 'wmt99'; known: phrase_book, tatoeba"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(words, message, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    commands.check_refused(train.main, words, message, capsys, monkeypatch)
