"""Settings shared by all commands: their checks, and the data that they name."""

import dataclasses
import importlib
import io
import json
import os
import sys
from pathlib import Path

from common.commands.config import (
    Count,
    EvaluateConfig,
    Fraction,
    Picture,
    Positive,
    PredictConfig,
    RunConfig,
    TextPredictConfig,
    jsonable,
)
from common.errors import InputError
from tests.tasks.exports import TASKS

import numpy as np
import pytest


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing(PredictConfig):
    plot: Picture | None = None


def trained_on(dataset=None, data=None):
    """Return the settings of an export as far as they name its training data."""
    own = None if data is None else str(data)
    return {"training_data": {"dataset": dataset, "data": own}}


def test_the_data_of_the_model_is_scored_by_default(tmp_path):
    mine = tmp_path / "mine.csv"
    assert EvaluateConfig().or_trained_on(trained_on(dataset="small")).dataset == "small"
    assert EvaluateConfig().or_trained_on(trained_on(data=mine)).data == mine
    named = EvaluateConfig(dataset="large")
    assert named.or_trained_on(trained_on(data=mine)) == named


@pytest.mark.parametrize("method", ["new_data", "new_file"])
def test_new_data_is_distinguished_from_the_training_data(method, tmp_path, monkeypatch):
    mine, other = tmp_path / "mine.csv", tmp_path / "other.csv"
    for path in (mine, other):
        path.touch()

    def new(data, settings):
        return getattr(EvaluateConfig(data=data), method)(settings)

    assert new(None, trained_on(data=mine)) is None
    assert new(mine, trained_on(data=mine)) is None
    assert new(other, trained_on(data=mine)) == other
    assert new(mine, trained_on(dataset="small")) == mine
    monkeypatch.chdir(tmp_path)
    assert new(Path("mine.csv"), trained_on(data=mine)) is None


def test_a_folder_is_new_data_but_no_new_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    here = EvaluateConfig(data=Path("."))
    for settings in (trained_on(dataset="small"), trained_on(data=tmp_path / "mine.csv")):
        assert here.new_data(settings) == Path(".")
        assert here.new_file(settings) is None
    assert here.new_data(trained_on(data=tmp_path)) is None


@pytest.mark.parametrize("config", [RunConfig, EvaluateConfig, TextPredictConfig])
def test_a_batch_has_at_least_one_row(config):
    texts = {"texts": ("a",)} if config is TextPredictConfig else {}
    assert config(batch_size=1, **texts).batch_size == 1
    with pytest.raises(InputError, match="--batch_size must be 1 or more, got 0"):
        config(batch_size=0, **texts)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("plot.mp3", r"--plot .*plot.mp3: no picture format ends in '.mp3'; use .png"),
        ("plot", "no picture format ends in ''"),
        ("gone/plot.png", "cannot be written; is .*gone a folder"),
        ("folder.png", "cannot be written"),
    ],
)
def test_a_picture_that_cannot_be_written_is_refused_at_once(path, message, tmp_path):
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match=message):
        Drawing(plot=tmp_path / path)


def test_a_picture_in_a_folder_is_accepted(tmp_path):
    assert Drawing().plot is None
    for name in ("plot.png", "plot.PDF"):
        assert Drawing(plot=tmp_path / name).plot == tmp_path / name


def test_a_hyphen_reads_standard_input_and_replaces_invalid_bytes(monkeypatch, tmp_path):
    (tmp_path / "lines.txt").write_text("c\nd\n")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("é\r\n\xff".encode("latin-1"))))
    words = ("a", "-", os.fsdecode(b"b\xff"))
    flags = TextPredictConfig(texts=words, file=(tmp_path / "lines.txt",))
    assert list(flags.read_texts()) == ["a", "\ufffd", "\ufffd", "b\ufffd", "c", "d"]


def test_missing_text_is_reported():
    with pytest.raises(InputError, match=r"no text given: write it .* or pass --file PATH"):
        TextPredictConfig()


def test_settings_of_a_published_model_replace_those_of_the_flags():
    config = RunConfig(batch_size=3).with_architecture({"seed": 5, "batch_size": 9}, ["seed"])
    assert (config.seed, config.batch_size) == (5, 3)
    older = RunConfig(batch_size=3).with_architecture({}, ["batch_size"])  # published before it was
    assert older.batch_size == RunConfig.batch_size


def test_published_settings_name_no_place_of_this_machine(tmp_path):
    own = tmp_path / "my.csv"
    config = RunConfig(data=own, manual_dir=tmp_path, data_dir=tmp_path, output=tmp_path, epochs=7)
    published = config.published_settings()
    assert str(tmp_path) not in json.dumps(published)
    assert published["data"] == f"{tmp_path.name}/my.csv" and published["epochs"] == 7
    assert config.checkpoint_settings()["data"] == str(own)  # a resumed run needs the same data


def test_values_become_plain_json(tmp_path):
    value = {"path": tmp_path, 1: (np.float32(0.5), [np.int64(3)])}
    assert jsonable(value) == {"path": str(tmp_path), "1": [0.5, [3]]}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checked(PredictConfig):
    count: Count = 1
    fraction: Fraction = 0.0
    positive: Positive | None = None
    rate: float = 0.5
    rates: tuple[float, ...] = (1, 2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"count": 0}, "--count must be 1 or more, got 0"),
        ({"fraction": 1.0}, r"--fraction must be in \[0, 1\), got 1.0"),
        ({"fraction": -0.1}, r"--fraction must be in \[0, 1\), got -0.1"),
        ({"positive": 0.0}, "--positive must be positive, got 0.0"),
        ({"positive": float("nan")}, "--positive must be positive, got nan"),
    ],
)
def test_the_type_of_a_field_says_which_values_are_valid(values, message):
    with pytest.raises(InputError, match=message):
        Checked(**values)


def test_whole_numbers_become_floats_where_the_field_is_one():
    checked = Checked(fraction=0, positive=2, rate=3)
    kinds = [type(value) for value in (checked.fraction, checked.positive, checked.rate)]
    assert kinds == [float, float, float]
    assert type(checked.count) is int and checked.rates == (1, 2)


@pytest.mark.parametrize("task", TASKS)
def test_the_presets_of_a_task_refuse_what_all_tasks_refuse(task):
    presets = importlib.import_module(f"tasks.{task}.config").PRESETS
    wrong = {"epochs": 0, "patience": 0, "batch_size": 0, "average": 1.0}
    wrong |= {"learning_rate": 0.0, "clip_norm": -1.0}
    for preset in presets.values():
        for name, value in wrong.items():
            with pytest.raises(InputError, match=f"--{name} must be"):
                dataclasses.replace(preset, **{name: value})


def test_callbacks_are_made_by_the_users_functions(tmp_path, monkeypatch):
    (tmp_path / "my_hooks.py").write_text(
        "import keras\n"
        "def watch():\n    return keras.callbacks.CSVLogger('log.csv')\n"
        "def wrong():\n    return 3\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path])
    config = RunConfig(callbacks=("my_hooks:watch",))
    (callback,) = config.fit_arguments()["callbacks"]
    assert type(callback).__name__ == "CSVLogger"
    assert "callbacks" not in config.checkpoint_settings()
    for name, message in (
        ("my_hooks:nothing", "has no attribute 'nothing'"),
        ("no_such_module:f", "No module named 'no_such_module'"),
        ("my_hooks:wrong", "it returns no keras.callbacks.Callback but 3"),
    ):
        with pytest.raises(InputError, match=f"--callbacks {name}: .*{message}"):
            RunConfig(callbacks=(name,)).fit_arguments()
    with pytest.raises(InputError, match="expected MODULE:FUNCTION"):
        RunConfig(callbacks=("my_hooks",))
