"""Version folders: the newest is found; other tasks and incomplete folders are errors."""

import json
from pathlib import Path

from common.errors import ExportError, InputError
from common.serving import versions as folders
from common.serving.versions import GRAPH, LITERT, SETTINGS, find, latest, task_folder, versions

import pytest


def make_version(folder, task="ner", graph=GRAPH):
    (folder / SETTINGS).parent.mkdir(parents=True)
    (folder / SETTINGS).write_text(json.dumps({"task": task, "labels": ["é"]}), encoding="utf-8")
    (folder / graph).touch()
    return folder


def test_the_newest_version_of_a_folder_is_found(tmp_path, monkeypatch):
    for number in (2, 10, 9):
        make_version(tmp_path / "saved_models" / "ner" / str(number))
    (tmp_path / "saved_models" / "ner" / "run").mkdir()
    directory = tmp_path / "saved_models" / "ner"
    assert versions(directory) == [2, 9, 10] and latest(directory) == directory / "10"
    assert find(directory).path == directory / "10"
    assert find(str(directory / "9"), "ner").path == directory / "9"  # accepts `str`, too
    assert find(directory / "9").settings["labels"] == ["é"]
    assert find(directory).asset("words.txt") == directory / "10" / "assets" / "words.txt"
    monkeypatch.chdir(tmp_path)
    assert find(None, "ner").path == Path("saved_models/ner/10")


def test_a_task_without_own_version_is_found_among_those_of_the_clone(tmp_path, monkeypatch):
    monkeypatch.setattr(folders, "SHIPPED", tmp_path / "clone" / "saved_models")
    own, shipped = tmp_path / "own" / "saved_models", tmp_path / "clone" / "saved_models"
    for version in (shipped / "ner" / "1", shipped / "dna" / "1", own / "ner" / "2"):
        make_version(version, task=version.parent.name)
    monkeypatch.chdir(own.parent)
    assert find(None, "dna").path == shipped / "dna" / "1"
    assert find(None, "ner").path == Path("saved_models/ner/2")
    assert task_folder("dna", Path("other")) == Path("other/dna")  # a named folder is the user's
    monkeypatch.chdir(tmp_path)
    assert find(None, "ner").path == shipped / "ner" / "1"


@pytest.mark.parametrize(("is_wheel", "shown"), [(True, True), (False, False)])
def test_without_a_model_the_message_says_where_the_pretrained_ones_are(
    is_wheel, shown, tmp_path, monkeypatch
):
    monkeypatch.setattr(folders, "SHIPPED", tmp_path / "none")
    if is_wheel:
        monkeypatch.setattr(folders, "CLONE", tmp_path / "setup.cfg")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError) as missing:
        find(None, "ner")
    assert str(missing.value).startswith(
        f"saved_models/ner holds no published model (in {tmp_path})."
    )
    assert ("pretrained ones are in saved_models/ of a clone" in str(missing.value)) is shown


def test_a_version_folder_may_have_any_name(tmp_path):
    assert find(make_version(tmp_path / "downloaded"), "ner").path == tmp_path / "downloaded"
    assert find(make_version(tmp_path / "small", graph=LITERT)).path == tmp_path / "small"


def test_a_model_of_another_task_is_refused(tmp_path):
    folder = make_version(tmp_path / "ner" / "1")
    message = r"ner/1 is a ner model; this command needs sentiment"
    for path in (folder, folder.parent):
        with pytest.raises(InputError, match=message):
            find(path, "sentiment")


@pytest.mark.parametrize(
    ("path", "task", "command"),
    [
        ("saved_models/ner", "ner", r"python -m tasks\.ner\.train --output .*saved_models`"),
        ("saved_models/ner-tpu", "ner", r"tasks\.ner\.train --output .*saved_models --target tpu`"),
        ("saved_models/dna-drosophila", None, r"drosophila holds .*`python -m tasks\.dna\.train`"),
        ("nowhere", "ner", r"nowhere holds no published model.*`python -m tasks\.ner\.train`"),
        ("saved_models/ner/7", "ner", r"ner/7 holds no published model.*tasks\.ner\.train`"),
    ],
)
def test_no_model_says_how_to_train_one(path, task, command, tmp_path):
    with pytest.raises(FileNotFoundError, match=command):
        find(tmp_path / path, task)


@pytest.mark.parametrize("missing", [GRAPH, SETTINGS])
def test_the_missing_file_of_an_incomplete_export_is_named(tmp_path, missing):
    folder = make_version(tmp_path / "1")
    (folder / missing).unlink()
    with pytest.raises(ExportError, match=f"is no export .* lacks {missing}"):
        find(folder)
