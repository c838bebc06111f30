"""The start of a training run: its folder, its optimizer, and the model of `--init`."""

import dataclasses
import json
import os
import subprocess
import sys

from common.commands.config import Count, RunConfig
from common.commands.run import same_labels, start_run, warm_start
from common.datasets import Corpus
from common.errors import InputError
from common.serving.publish import architecture
from common.serving.versions import ARCHITECTURE, GRAPH, LITERT, SETTINGS

import keras
import numpy as np
import pytest
import tensorflow as tf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    units: Count = 4


def make_version(folder, *, task="toy", units=3, graph=GRAPH):
    """Write a version folder as far as `--init` reads it; return its model."""
    (folder / SETTINGS).parent.mkdir(parents=True)
    settings = {"task": task, "labels": ["a", "b"], "config": {"units": units, "seed": 9}}
    (folder / SETTINGS).write_text(json.dumps(settings))
    (folder / graph).touch()
    model = make_model(units)
    if graph == GRAPH:
        (folder / ARCHITECTURE).write_text(architecture(model))
        weights = tf.train.Checkpoint(weights=[variable.value for variable in model.variables])
        weights.write(str(folder / "variables" / "variables"))
    return model


def make_model(units):
    x = keras.Input((2,), name="x")
    hidden = keras.layers.Dense(units, name="hidden")(x)
    return keras.Model(x, keras.layers.Dense(2, name="head_0")(hidden))


def test_the_run_folder_is_made_and_settings_reach_fit(tmp_path):
    run = start_run("toy", Config(output=tmp_path, epochs=7, clip_norm=2.0), architecture=())
    assert run.folder == tmp_path / "toy" / "run" and run.folder.is_dir()
    words = run.folder / "vocabulary.txt"
    words.write_text("a\n")
    options = run.fit_options(21, make_corpus("a film"), [words])
    assert (options.directory, options.epochs, options.clip_norm) == (run.folder, 7, 2.0)
    assert options.steps == 21
    assert options.strategy is run.strategy and options.settings["epochs"] == 7
    assert run.published is None and run.target.name == "portable"


def make_corpus(*texts, labels=("bad", "good"), validation="so so"):
    def rows(texts):
        examples = {"text": list(texts), "label": [0] * len(texts)}
        return tf.data.Dataset.from_tensor_slices(examples)

    splits = {"train": rows(texts), "validation": rows([validation]), "test": rows(["x"])}
    return Corpus(name="mine", splits=splits, citation="", licence="", labels=labels)


def test_the_fingerprints_name_what_has_changed(tmp_path):
    run = start_run("toy", Config(output=tmp_path), architecture=())
    words = run.folder / "vocabulary.txt"

    def changed(corpus, vocabulary="a\nfilm\n"):
        words.write_text(vocabulary)
        found = run.fit_options(1, corpus, [words]).fingerprints
        return {name for name in found if found[name] != expected[name]}

    words.write_text("a\nfilm\n")
    texts = ("a film", "b")
    expected = run.fit_options(1, make_corpus(*texts), [words]).fingerprints
    assert changed(make_corpus(*texts)) == set()
    assert changed(make_corpus("a film", "c")) == {"training data"}
    assert changed(make_corpus(*texts, "b")) == {"training data"}
    assert changed(make_corpus("a film"), "a\nfilm\n") == {"training data"}
    assert changed(make_corpus(*texts, validation="b")) == {"training data"}
    assert changed(make_corpus(*texts, labels=("good", "bad"))) == {"labels"}
    assert changed(make_corpus(*texts), "a\nb\n") == {"vocabulary"}


def test_a_second_process_cannot_train_in_the_folder_of_a_run(tmp_path, pytestconfig):
    run = start_run("toy", Config(output=tmp_path), architecture=())
    code = "import pathlib, sys; from common.training import checkpoint; "
    code += "checkpoint.lock(pathlib.Path(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, run.folder],
        cwd=pytestconfig.rootpath,
        capture_output=True,
        text=True,
        check=False,
    )
    assert f"another training run uses this folder (process {os.getpid()})" in done.stderr


def test_the_learning_rate_decays_over_the_whole_run(tmp_path):
    config = Config(output=tmp_path, learning_rate=0.5, batch_size=8, epochs=4)
    run = start_run("toy", config, architecture=())
    steps = run.steps(17)
    assert steps == 3 * 4  # 17 examples are three batches
    optimizer = run.make_adam(steps, beta_2=0.9)
    optimizer.iterations.assign(steps)
    assert float(optimizer.learning_rate) == pytest.approx(0.0, abs=1e-7)
    optimizer.iterations.assign(steps - 1)
    assert float(optimizer.learning_rate) > 0.001 and optimizer.beta_2 == 0.9


def test_init_takes_the_architecture_and_the_weights(tmp_path):
    published = make_version(tmp_path / "toy" / "1")
    config = Config(init=tmp_path / "toy", output=tmp_path, seed=5)
    run = start_run("toy", config, architecture=("units",))
    assert (run.config.units, run.config.seed) == (3, 5)
    assert same_labels(run.published, ("a", "b")) and not same_labels(run.published, ["b", "a"])
    model = make_model(run.config.units)
    own_head = model.get_layer("head_0").get_weights()[0].copy()
    warm_start(model, run.published, head="head")
    hidden = [m.get_layer("hidden").get_weights()[0] for m in (model, published)]
    np.testing.assert_array_equal(*hidden)
    np.testing.assert_array_equal(model.get_layer("head_0").get_weights()[0], own_head)
    warm_start(model, run.published)
    heads = [m.get_layer("head_0").get_weights()[0] for m in (model, published)]
    np.testing.assert_array_equal(*heads)


@pytest.mark.parametrize(
    ("version", "message"),
    [
        ({"task": "ner"}, "1 is a ner model; this command needs toy"),
        ({"graph": LITERT}, r"--init .*1: this version holds no assets.extra/architecture.json"),
    ],
)
def test_init_refuses_a_model_that_cannot_be_fine_tuned(version, message, tmp_path):
    make_version(tmp_path / "1", **version)
    with pytest.raises(InputError, match=message):
        start_run("toy", Config(init=tmp_path / "1"), architecture=("units",))


def test_a_task_without_a_litert_export_refuses_the_target():
    with pytest.raises(InputError, match="--target litert is not for toy: it has no LiteRT"):
        start_run("toy", Config(target="litert"), architecture=())
