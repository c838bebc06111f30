"""The page of `python -m tasks demo`, used in a headless browser as a person uses it."""

import os
import re
import signal
from pathlib import Path

from common.serving.models_config import write_models_config
from common.serving.versions import SHIPPED
from tests.serving.server import Server
from tests.tasks.demo import browser as browsers
from tests.tasks.demo.browser import CONTRAST, MISSING, WITHOUT_TEXT, Browser, Page
from tests.tasks.exports import TASKS

import pytest

pytestmark = [
    pytest.mark.demo,
    pytest.mark.skipif(
        bool(MISSING),
        reason=f"THE DEMO IS NOT TESTED: no {', '.join(MISSING)} (apt-get install chromium "
        "chromium-driver; pip install -e '.[test]')",
    ),
]


@pytest.fixture(scope="module")
def environment(command_environment):
    return {**command_environment, "PYTHONPATH": os.getcwd()}


@pytest.fixture(scope="module")
def page(environment):
    page = Page("--models", SHIPPED, environment=environment)
    yield page
    if page.process.poll() is None:
        page.end(signal.SIGKILL)


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    with browsers.chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def browser(page, driver, tmp_path_factory):
    """The page, opened. DEMO_SCREENSHOTS names a folder that keeps the screenshots."""
    folder = os.environ.get("DEMO_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots")
    browser = Browser(driver, Path(folder))
    browser.visit(page.address)
    return browser


def test_loading_shows_its_progress(page):
    assert re.match(r"Loading \d models, with an example each", page.lines[0])
    assert re.match(r"1 of \d models, about \d+ s left", page.lines[1])
    assert len(page.lines) == int(page.lines[0].split()[1]) + 1  # no model lacks its example


def test_there_is_a_tab_for_each_task_and_nothing_is_loaded_from_other_hosts(browser, page):
    tabs = {tab.text.lower() for tab in browser.all("button[role=tab]") if tab.text}
    assert {"start", *TASKS} <= tabs
    loaded = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert len(loaded) > 5
    assert [name for name in loaded if not name.startswith((page.address, "data:", "blob:"))] == []


def test_the_cards_of_the_start_page_hold_the_answers_of_the_models(browser):
    browser.start()
    expected = {
        "sentiment": "There is nothing to like in this movie.\n1 star (",
        "ner": "Harry Potter (PER), Hermione Granger (PER)",
        "translation": "Voulez-vous chanter avec moi?\nDo you want to sing with me? (",
        "dna": "AGCCCCTGTGAGGAACTAG\n................... no gene",
        "speech": "fox.wav\nthe quick brown fox jumped over the lazy dog (",
        "video": "running.mp4\nrunning (",
        "music": "eight bars from nothing\n",
    }
    for task in TASKS:
        assert expected[task] in browser.find(f"#{task}_card").text
    for selector in ("#speech_card audio", "#music_card audio", "#video_card video"):
        player = browser.find(selector)
        duration = browser.until(
            lambda p=player: browser.run("return arguments[0].duration", p), selector
        )
        assert 2 < duration < 40


@pytest.mark.parametrize("task", TASKS)
def test_a_tab_opens_with_an_answer_and_says_where_its_model_fails(browser, task):
    browser.open(task)
    about = browser.find(f"#{task}_about").text
    assert "What it knows, and where it fails." in about and "Version 1, trained on " in about
    assert browser.all(f"#{task}_examples button") and browser.answer(task)
    assert browser.run(WITHOUT_TEXT) == []
    assert not browser.driver.get_log("browser")
    browser.screenshot(task)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
def test_pages_are_legible(browser, page, width, theme):
    browser.visit(page.address, width=width, height=1000, theme=theme)
    for task in ("start", *TASKS):
        if task == "start":
            assert len(contrasts := browser.run(CONTRAST)) > 20
        else:
            browser.open(task)
            contrasts = browser.run(CONTRAST)
            given, answer, button = (
                browser.find(f"#{task}_{part}").rect for part in ("input", "answer", "button")
            )
            if width > 1000:  # side by side
                assert given["x"] + given["width"] <= answer["x"]
                assert abs(given["y"] - answer["y"]) < 60
            else:
                assert given["y"] + given["height"] <= answer["y"]
            assert button["width"] < 200
        browser.screenshot(f"{task}-{width}-{theme}")
        assert contrasts and [row for row in contrasts if row[1] < row[2]] == []
        assert browser.width() <= width, task


def test_a_review_gets_stars_bars_in_order_and_signed_words(browser, page):
    browser.visit(page.address)
    browser.open("sentiment")
    before = browser.answer("sentiment")
    browser.type("sentiment", "  ")
    browser.press("sentiment")
    browser.toast("Type a review first.")
    assert browser.answer("sentiment") == before  # and no output says "Error"
    browser.type("sentiment", "A warm and funny film <b>!</b>")
    browser.press("sentiment")
    shown = browser.answer("sentiment", holds="warm\n+")
    assert "★★★★" in shown and "<b>!</b>" in shown
    assert [row.text for row in browser.all("#sentiment_answer .bars th")] == list("12345")
    assert browser.find("#sentiment_answer .stars").get_attribute("aria-label")[1:] == " of 5 stars"


def test_names_are_marked_and_an_example_runs_when_clicked(browser):
    browser.open("ner")
    browser.type("ner", "")
    browser.press("ner")
    browser.toast("Type a sentence first.")
    browser.example("ner", "Ada Lovelace lived in London.")
    browser.answer("ner", holds="London LOC")
    marked = [mark.text for mark in browser.all("#ner_answer mark")]
    assert [name.rsplit(" ", 2)[0] for name in marked] == ["Ada Lovelace PER", "London LOC"]
    assert len(browser.all("#ner_answer .matrix tbody tr")) == 6


def test_a_sentence_is_translated(browser):
    browser.open("translation")
    browser.type("translation", "?")
    browser.press("translation")
    browser.answer("translation")
    browser.type("translation", "Où est la gare ?")
    browser.press("translation")
    assert browser.answer("translation", holds="station").startswith("Where")
    assert len(browser.all("#translation_answer .matrix thead th")) > 4


def test_genes_of_pasted_fasta_are_arrows(browser):
    from tasks.demo.samples import three_genes

    browser.open("dna")
    browser.type("dna", "ACGTQ")
    browser.press("dna")
    browser.toast("'Q' at base 5 is no IUPAC letter")
    browser.example("dna", "FASTA of three genes")
    browser.answer("dna", holds="3 genes found")
    heads = browser.all("#dna_answer .exon.head")
    assert [head.text for head in heads] == ["gene1", "gene3", "gene2"]  # + strand first
    browser.screenshot("dna-genes")
    browser.type("dna", f"{three_genes()}\n>second\n{'ACGT' * 20}\r\n")
    browser.press("dna")
    browser.answer("dna", holds="3 genes in 2 records found")
    assert [p.get_attribute("aria-label") for p in browser.all("#dna_answer .tracks")][1:] == [
        "Genes of second, 80 bases: none"
    ]


def test_sound_is_transcribed(browser, tmp_path):
    browser.open("speech")
    browser.remove("speech")
    browser.press("speech")
    browser.toast("Record or upload some sound first.")
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"RIFF of nothing")
    browser.upload("speech", bad)
    browser.press("speech")
    browser.toast("bad.wav: ")
    browser.example("speech", "light.wav")
    browser.answer("speech", holds="turn on the")
    assert len(browser.all("#speech_answer .words span")) > 3
    assert "turn on the" in browser.find("#speech_answer img").get_attribute("alt")


def test_a_clip_is_recognised_and_its_curve_is_below_its_player(browser, tmp_path):
    browser.open("video")
    browser.remove("video")
    browser.press("video")
    browser.toast("Upload a clip first.")
    bad = tmp_path / "notes.txt"
    bad.write_text("no clip")
    browser.upload("video", bad)
    browser.press("video")
    browser.toast("notes.txt")
    browser.example("video", "waving.mp4")
    browser.answer("video", holds="waving\n")
    player, curves = (browser.find(f"#video_answer {part}") for part in ("video", ".curves"))
    assert player.rect["y"] + player.rect["height"] <= curves.rect["y"]
    assert "waving" in curves.get_attribute("aria-label")


def test_music_is_played_and_the_cursor_follows(browser):
    browser.open("music")
    before = browser.find("#music_answer audio").get_attribute("src")
    browser.example("music", "calmer")
    browser.until(
        lambda: browser.find("#music_answer audio").get_attribute("src") != before, "new music"
    )
    player = browser.find("#music_answer audio")
    browser.run("arguments[0].muted = true; arguments[0].play()", player)
    cursor = "return parseFloat(document.querySelector('#music_answer .cursor').style.left)"
    first = browser.until(lambda: browser.run(cursor), "a cursor that moves")
    browser.until(lambda: browser.run(cursor) > first, "a cursor that moves on")
    link = browser.find("#music_answer a[download='music.mid']").get_attribute("href")
    content = browser.driver.execute_async_script(
        "const done = arguments[1];"
        "fetch(arguments[0]).then(r => r.arrayBuffer())"
        ".then(b => done(Array.from(new Uint8Array(b).slice(0, 4))))",
        link,
    )
    assert bytes(content) == b"MThd"
    browser.set("#seed input", "-1")
    browser.press("music")
    browser.toast("The seed must be a whole number")


def test_ctrl_c_closes_the_page(page):
    assert page.end(signal.SIGINT) == 130


def test_a_server_predicts_and_its_end_is_reported(
    environment, driver, tmp_path_factory, tmp_path, request
):
    for task in ("sentiment", "music"):
        (tmp_path / task).mkdir()
        (tmp_path / task / "1").symlink_to(SHIPPED / task / "1")
    write_models_config(tmp_path)
    with Server(tmp_path) as server:
        page = Page("--models", tmp_path, "--server", server.rest, environment=environment)
        request.addfinalizer(lambda: page.end(signal.SIGKILL))
        browser = Browser(driver, tmp_path_factory.mktemp("screenshots"))
        browser.visit(page.address)
        browser.open("sentiment")
        browser.example("sentiment", "A warm and funny film.")
        browser.answer("sentiment", holds="warm\n+")
        browser.open("music")
        assert browser.find("#music_answer .roll").is_displayed()
    browser.open("sentiment")
    browser.press("sentiment")
    browser.toast(server.rest)  # it no longer responds
    assert "★★★★" in browser.answer("sentiment")
