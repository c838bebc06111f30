"""The layout of the page: tabs, examples, limits, messages; without a browser and a model."""

import asyncio
import re
import sys
import types
from pathlib import Path

from common.commands import cli
from common.errors import ExportError, InputError
from common.serving.versions import SHIPPED, read_settings
from tests.tasks.exports import TASKS

import pytest

gr = pytest.importorskip("gradio")

from tasks.demo import page, samples  # noqa: E402
from tasks.demo.answers import ANSWER, Answer  # noqa: E402

MADE = {
    "speech": [samples.Sample("fox.wav", (None,))],  # files are made by synthesizers
    "video": [samples.Sample("running.mp4", (None,))],
}


def entry(name, *, with_sample=True):
    """A model of the repository that is not loaded."""
    task = name.partition("-")[0]
    path = SHIPPED / task / "1"
    model = types.SimpleNamespace(path=path, settings=read_settings(path))
    made = (MADE.get(task) or samples.SAMPLES[task](model, Path())) if with_sample else []
    first = Answer(f"answer of {name}", f"<p>view of {name}</p>") if with_sample else None
    return page.Entry(name, model, made, first)


def build(entries, folder):
    """Lay the page out in an event loop; outside one Gradio opens two and closes neither."""

    async def inside():
        return page.build(entries, folder)

    return asyncio.run(inside())


def parts(blocks, kind):
    """Return the properties of the parts of a kind, by their identifier in the page."""
    config = blocks.get_config_file()
    found = [part["props"] for part in config["components"] if part["type"] == kind]
    return {props.get("elem_id") or props.get("id"): props for props in found}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("page")
    return build([entry(task) for task in ANSWER], folder)


def test_every_task_has_an_answer_samples_and_inputs():
    assert set(ANSWER) == set(samples.SAMPLES) == set(page.INPUTS) == set(TASKS)


def test_there_is_a_start_tab_and_one_for_each_task(built):
    assert [*parts(built, "tabitem")] == ["start", *ANSWER]


def test_each_tab_has_one_output_with_an_answer_in_it(built):
    answers = parts(built, "html")
    for task in TASKS:
        assert answers[f"{task}_answer"]["value"] == f"<p>view of {task}</p>"
        assert f"answer of {task}" in answers[f"{task}_card"]["value"]
    config = built.get_config_file()
    outputs = [len(d["outputs"]) for d in config["dependencies"] if d["api_name"] in TASKS]
    assert outputs == [1] * 7  # so that a failure is one label, not one for each output


def test_each_tab_has_examples_and_a_button_of_its_own_size(built):
    examples, buttons = parts(built, "dataset"), parts(built, "button")
    for task in TASKS:
        assert examples[f"{task}_examples"]["samples"]
        assert "run" in buttons[f"{task}_button"]["elem_classes"]
        assert f"{task}_try" in buttons
    style = page.style()
    assert re.search(r"button\.run \{ width: fit-content", style)
    assert "--c0: #0072b2" in style and ".dark { --c0: #56b4e9" in style


def test_each_tab_says_what_its_model_knows_and_where_it_fails(built):
    about = parts(built, "markdown")
    for task in TASKS:
        text = about[f"{task}_about"]["value"]
        limits = read_settings(SHIPPED / task / "1")["limits"]
        assert f"**What it knows, and where it fails.** {limits}" in text
        assert "Version 1, trained on " in text and " examples)" in text


def test_a_model_without_an_example_has_an_empty_tab(tmp_path):
    built = build([entry("speech", with_sample=False)], tmp_path)
    assert parts(built, "html")["speech_answer"]["value"] == ""
    assert not parts(built, "dataset")


def test_further_models_of_a_task_are_a_choice_in_its_tab(tmp_path):
    further = entry("translation-en-fr")
    further.model.settings["languages"] = ["en", "fr"]
    built = build([entry("translation"), further], tmp_path)
    tabs = parts(built, "tabitem")
    assert [*tabs] == ["start", "translation", "translation-en-fr"]
    labels = [
        p["props"]["label"] for p in built.get_config_file()["components"] if p["type"] == "tabitem"
    ]
    assert labels == ["Start", "Translation", "fr to en", "en to fr"]
    assert {"translation_answer", "translation-en-fr_answer"} <= set(parts(built, "html"))
    assert parts(built, "textbox")["translation-en-fr_input"]["label"] == "Text (en)"


def make_versions(root, *names):
    for name in names:
        (root / name / "1").mkdir(parents=True)


def test_models_are_found_with_their_variants_but_not_other_targets(tmp_path):
    make_versions(tmp_path, "dna", "dna-drosophila", "translation-en-fr", "ner-tpu", "chess")
    (tmp_path / "music").mkdir()
    names = [name for name, _ in page.find_models(tmp_path)]
    assert names == ["translation-en-fr", "dna", "dna-drosophila"]


def test_the_models_of_the_clone_are_found_from_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = dict(page.find_models(page.MODELS))
    assert set(TASKS) <= set(found) and found["ner"] == SHIPPED / "ner"


# --- Loading and messages -------------------------------------------------------------------------


def test_models_are_called_once_and_a_missing_example_is_told(tmp_path, monkeypatch, capsys):
    make_versions(tmp_path, "sentiment", "speech")
    called = []

    def make(model, folder):
        raise InputError("eSpeak NG is not installed")

    def rate(model, folder, text):
        called.append(text)
        return Answer("5 stars", "")

    monkeypatch.setattr(page, "load_export", lambda folder: folder.name)
    monkeypatch.setattr(page, "SAMPLES", {**samples.SAMPLES, "speech": make})
    monkeypatch.setattr(page, "ANSWER", {**ANSWER, "sentiment": rate})
    sentiment, speech = page.load(page.Demo(models=tmp_path), tmp_path)
    assert called == ["There is nothing to like in this movie."]
    assert sentiment.first.summary == "5 stars" and sentiment.model == "sentiment"
    assert speech.first is None and speech.samples == []
    told = capsys.readouterr().err
    assert "Loading 2 models, with an example each" in told
    assert "1 of 2 models, about " in told
    assert "speech: no example: eSpeak NG is not installed" in told


@pytest.mark.parametrize(
    ("error", "title"), [(InputError, "Please change the input"), (ExportError, "No answer")]
)
def test_a_slip_and_a_dead_server_are_messages_and_the_answer_stays(monkeypatch, error, title):
    shown = []
    monkeypatch.setattr(gr, "Warning", lambda message, title: shown.append((title, message)))

    def fail(path):
        raise error(f"{path}: no video in this file")

    assert page.readable(fail)("/tmp/gradio/3f/clip.avi") == gr.skip()
    assert shown == [(title, "clip.avi: no video in this file")]


def test_a_good_input_gets_its_view():
    assert page.readable(lambda text: Answer("short", f"<p>{text}</p>"))("x") == "<p>x</p>"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "missing"], "missing holds no export"),
        (["--port", "0"], "--port must be 1 to 65535, got 0"),
        (["--server", "localhost:8501"], "--server must look like http://localhost:8501"),
    ],
)
def test_invalid_flags_are_reported_before_the_page_opens(words, message, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["demo", *words])
    with pytest.raises(SystemExit) as stop:
        cli.run(page.main)
    assert stop.value.code == 2 and message in capsys.readouterr().err
