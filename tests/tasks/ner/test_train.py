"""The `train` command: its export, fine-tuning, resuming, and invalid flags."""

import dataclasses
import json
import subprocess
import sys
import types

from common.commands.run import Run
from common.serving.served import load_export
from tasks.ner import data, model, train
from tasks.ner.config import DEFAULT, OFFLINE, PRESETS, preset_for_size
from tasks.ner.formats import Sentence, tag_names
from tests.tasks import commands
from tests.tasks.own.ner import TINY, own_sentences, write_conll

import numpy as np
import pytest


def test_train_learns_exports_and_prints_one_json_line(trained):
    folder, done = trained
    result = json.loads(done.stdout.splitlines()[-1])
    assert list(result)[:6] == ["task", "dataset", "split", "examples", "seconds", "model"]
    assert result["dataset"] == "my.conll" and result["split"] == "test"
    assert result["examples"] == 40
    assert min(result[name] for name in ("precision", "recall", "f1")) >= 0.95
    version = folder / result["model"]
    assert version == folder / "saved_models" / "ner" / "1"
    commands.check_version(version, f"{result['f1']:.4f}", "| units | 8 |")


@pytest.fixture
def without(monkeypatch):
    """Return the run that follows from a command line if some data sets cannot be had."""

    def start(words, missing, published=None):
        monkeypatch.setattr(
            data, "not_obtainable", lambda names, _: {n: f"no {n}" for n in names if n in missing}
        )
        run = Run("ner", train.read_settings(words), None, None, published)
        return train.with_obtainable_data(run, train.read_offline_settings(words)).config

    return start


def test_the_default_data_follow_from_what_can_be_had(without, capsys):
    assert without([], missing=[]) == PRESETS[DEFAULT]
    assert not capsys.readouterr().err
    config = without(["--epochs", "2"], missing=["btc", "wikigold"])
    assert config == dataclasses.replace(PRESETS[OFFLINE], epochs=2)
    message = f"training on {OFFLINE} alone, since wikigold and btc cannot be had:"
    assert f"{message}\n  no wikigold\n  no btc" in capsys.readouterr().err
    # A data set that is named is never replaced.
    for name in (DEFAULT, "btc", "btc+wikigold"):
        assert without(["--dataset", name], missing=["btc"]).dataset == name


def test_the_architecture_of_a_published_model_is_kept_on_other_data(without):
    settings = {"config": {**dataclasses.asdict(PRESETS[DEFAULT]), "units": 7}}
    published = types.SimpleNamespace(settings=settings)
    config = without([], missing=["btc"], published=published)
    assert config.dataset == OFFLINE and config.units == 7 and config.members == 3


def test_the_preset_of_own_files_follows_from_their_size(tmp_path, without):
    path = write_conll(tmp_path / "my.conll", own_sentences(100, seed=1))
    config = without(["--data", str(path), "--units", "7"], missing=["btc"])
    assert config == dataclasses.replace(preset_for_size(80), data=path, units=7)


def test_the_weight_of_o_with_the_best_validation_score_is_chosen():
    labels = tag_names(["X"])
    ensemble = model.Committee(labels)
    ensemble.build((None, 1, None, 3))
    # At two of four tokens the entity has less probability than O, as after training on few names.
    probabilities = np.array([[[0.8, 0.2, 0], [0.75, 0.25, 0], [0.99, 0.01, 0], [0.1, 0.9, 0]]])
    batch = {"tags": np.array([[1, 1, 0, 1]]), "length": np.array([4], np.int32)}
    outputs = {"probabilities": probabilities.astype(np.float32)}
    found = train.OutsideWeight(ensemble, None).score([(batch, outputs)])
    assert found["f1"] == 1.0 and 0.01 / 0.99 < found["outside_weight"] < 0.2 / 0.8
    fixed = train.OutsideWeight(ensemble, 1.0).score([(batch, outputs)])
    assert fixed["outside_weight"] == 1.0 and fixed["recall"] == pytest.approx(1 / 3)


def test_the_weight_is_exported(served):
    assert served.settings["outside_weight"] == 1.0  # a flag of the test


@pytest.mark.slow  # the same test of sentiment is not
def test_fine_tuning_keeps_the_vocabulary_and_replaces_the_head(
    trained, command_environment, served
):
    folder, _ = trained
    rows = [
        Sentence(row.tokens, [tag.replace("PER", "HERO") for tag in row.tags])
        for row in own_sentences(200, seed=3)
    ]
    write_conll(folder / "heroes.conll", rows)
    done = commands.run(
        *("ner.train", "--data", "heroes.conll", "--init", "saved_models/ner/1", "--epochs", 4),
        *("--output", "tuned", *TINY),
        folder=folder,
        environment=command_environment,
    )
    assert done.returncode == 0, done.stderr
    tuned = load_export(folder / "tuned" / "ner")
    assert tuned.settings["labels"] == ["O", "B-HERO", "I-HERO", "B-LOC", "I-LOC"]
    for name in (train.WORDS, train.CHARACTERS):
        one, other = (export.path / "assets" / name for export in (tuned, served))
        assert one.read_bytes() == other.read_bytes()
    assert tuned.settings["config"]["members"] == 2
    assert json.loads(done.stdout.splitlines()[-1])["f1"] >= 0.9


# Resumes a killed run, trains another one without interruption, and compares all weights.
RESUMED_AND_WHOLE = """
import dataclasses, pathlib, sys
from common.commands.run import start_run
from tasks.ner import data, train
from tasks.ner.config import TASK
import numpy as np
config = train.read_settings(sys.argv[1:])
assert config.deterministic
corpus = data.load(config, seed=config.seed)
weights = []
for output, resume in ((config.output, True), (pathlib.Path("whole"), False)):
    settings = dataclasses.replace(config, output=output, resume=resume)
    run = start_run(TASK, settings, architecture=train.ARCHITECTURE)
    built, _, fitted = train.train_model(corpus, run)
    assert len(fitted.history) == 4
    weights.append(built.get_weights())
for a, b in zip(*weights, strict=True):
    np.testing.assert_array_equal(a, b)
print("equal")
"""


@pytest.mark.commands
def test_training_killed_in_an_epoch_resumes_to_the_same_weights(tmp_path, command_environment):
    write_conll(tmp_path / "my.conll", own_sentences(900, seed=1))
    words = ["--data", "my.conll", "--epochs", "4", "--patience", "9", *TINY, "--deterministic"]
    # With everything that is random, the exchange of entities included.
    words += ["--score", "none", "--batch_size", "8", "--exchange", "0.5", "--dropout", "0.2"]
    words += ["--word_dropout", "0.1", "--average", "0.9"]
    commands.train_and_kill("ner", *words, folder=tmp_path, environment=command_environment)
    done = subprocess.run(
        [sys.executable, "-c", RESUMED_AND_WHOLE, *words],
        **{"cwd": tmp_path, "env": command_environment, "capture_output": True},
        **{"text": True, "check": False},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "equal"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--dataset", "wnut18"],
            "no data set 'wnut18'; known: everyday_entities+wikigold+btc, everyday",
        ),
        (["--dataset", "btc+nero"], "'btc+nero': 'nero' cannot be mixed; known: everyday_"),
        (["--dataset=btc+btc"], "'btc+btc': btc is given twice"),
        (["--units", "0"], "--units must be 1 or more, got 0"),
        (["--exchange", "1"], "--exchange must be in [0, 1)"),
        (["--outside_weight", "0"], "--outside_weight must be positive"),
        (["--data", "gone.conll"], "gone.conll: no such file or folder"),
    ],
)
def test_an_invalid_flag_gives_a_one_line_error(
    words, message, capsys, monkeypatch, in_user_folder
):
    commands.check_refused(train.main, words, message, capsys, monkeypatch)
