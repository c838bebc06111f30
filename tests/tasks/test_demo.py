"""The page of `python -m tasks demo`, used in a headless browser as a person uses it."""

import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

from common.commands import cli
from common.serving.models_config import write_models_config
from tests.ports import free_ports
from tests.serving.server import Server
from tests.tasks import commands
from tests.tasks.exports import TASKS
from tests.tasks.own import dna as own_dna

import numpy as np
import pytest

pytestmark = pytest.mark.demo

DRIVER = shutil.which("chromedriver")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MISSING = [
    name
    for name, path in {
        "gradio": importlib.util.find_spec("gradio"),
        "selenium": importlib.util.find_spec("selenium"),
        "chromium": CHROMIUM,
        "chromedriver": DRIVER,
    }.items()
    if not path
]
needs_browser = pytest.mark.skipif(
    bool(MISSING),
    reason=f"THE DEMO IS NOT TESTED: no {', '.join(MISSING)} (apt-get install chromium "
    "chromium-driver; pip install -e '.[test]')",
)


@pytest.fixture(scope="module")
def models(exports, tmp_path_factory):
    """A folder like `saved_models/` with an export of each task."""
    root = tmp_path_factory.mktemp("demo") / "saved_models"
    for task in TASKS:
        (root / task).mkdir(parents=True)
        (root / task / "1").symlink_to(exports.version(task))
    return root


class Page:
    """The running command `python -m tasks demo`."""

    def __init__(self, *words, environment):
        (port,) = free_ports(1)
        line = [sys.executable, "-m", "tasks", "demo", "--port", str(port), *map(str, words)]
        self.process = subprocess.Popen(
            line,
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            text=True,
            env=environment,
            preexec_fn=commands.heed_ctrl_c,
        )
        lines = []
        for line in self.process.stderr:
            lines.append(line)
            if "The page is open at " in line:
                break
        else:
            raise AssertionError("".join(lines))
        self.address = re.search(r"http://\S+", lines[-1])[0]
        # Later output must not fill the pipe.
        self.reader = threading.Thread(target=self.process.stderr.read, daemon=True)
        self.reader.start()

    def end(self, kind):
        """Send a signal; return the exit code."""
        self.process.send_signal(kind)
        code = self.process.wait(timeout=60)
        self.reader.join()
        self.process.stderr.close()
        return code


class Browser:
    """The actions of a person on the page, and the parts of the page that they see."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def until(self, condition, awaited, seconds=90):
        from selenium.common.exceptions import WebDriverException

        deadline = time.time() + seconds
        while time.time() < deadline:
            try:
                if value := condition():
                    return value
            except WebDriverException:  # not yet there, or replaced meanwhile
                pass
            time.sleep(0.1)
        self.driver.save_screenshot(str(self.folder / "failed.png"))
        raise AssertionError(f"{awaited} did not appear; toasts: {self.toasts()}")

    def open(self, task):
        for tab in self.driver.find_elements("css selector", "button[role=tab]"):
            if tab.text.lower() == task and tab.is_displayed():
                tab.click()
        self.until(lambda: self.find(f"#{task}_button").is_displayed(), f"tab {task}")

    def type(self, task, text):
        field = self.find(f"#{task}_input textarea")
        field.clear()
        field.send_keys(text)

    def upload(self, task, path):
        self.find(f"#{task}_input input[type=file]").send_keys(str(path))
        shown = f"#{task}_input audio, #{task}_input .file-preview, #{task}_input #waveform"
        self.until(lambda: self.find(shown), "the upload")

    def press(self, task):
        button = self.find(f"#{task}_button")
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def value(self, element):
        field = f"#{element} textarea, #{element} input"
        return self.until(lambda: self.find(field).get_attribute("value"), element)

    def text(self, element, *, holds=""):
        def complete_text():
            text = self.find(f"#{element}").text
            return holds in text and text

        return self.until(complete_text, f"{element} with {holds!r}")

    def image(self, element):
        """Return the size of a picture that the browser has drawn."""
        script = "const i = arguments[0]; return i.complete && [i.naturalWidth, i.naturalHeight]"

        def size():
            size = self.driver.execute_script(script, self.find(f"#{element} img"))
            return size and size[0] and size

        return self.until(size, element)

    def toasts(self):
        toasts = self.driver.find_elements("css selector", "[data-testid=toast-body]")
        return " | ".join(toast.text for toast in toasts)

    def toast(self, words):
        self.until(lambda: words in self.toasts(), f"a message with {words!r}")
        self.driver.execute_script(
            "document.querySelectorAll('[data-testid=toast-close]').forEach(x => x.click())"
        )

    def screenshot(self, name):
        self.driver.save_screenshot(str(self.folder / f"{name}.png"))


@pytest.fixture(scope="module")
def environment(command_environment):
    return {**command_environment, "PYTHONPATH": os.getcwd()}


@pytest.fixture(scope="module")
def driver(tmp_path_factory):
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", "window-size=1280,1500"):
        options.add_argument(f"--{flag}")
    options.add_argument(f"--user-data-dir={tmp_path_factory.mktemp('profile')}")
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def page(models, environment):
    page = Page("--models", models, environment=environment)
    yield page
    if page.process.poll() is None:
        page.end(signal.SIGKILL)


def opened(page, driver, tmp_path_factory):
    # DEMO_SCREENSHOTS names a folder that keeps the screenshots.
    folder = os.environ.get("DEMO_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots")
    browser = Browser(driver, type(tmp_path_factory.getbasetemp())(folder))
    driver.get(page.address)
    browser.until(lambda: browser.find("#sentiment_button").is_displayed(), "the page")
    return browser


@pytest.fixture(scope="module")
def browser(page, driver, tmp_path_factory):
    """The page, opened."""
    return opened(page, driver, tmp_path_factory)


@needs_browser
def test_there_is_a_tab_for_each_task_and_nothing_is_loaded_from_other_hosts(browser, page):
    tabs = [tab.text for tab in browser.driver.find_elements("css selector", "button[role=tab]")]
    assert sorted({tab.lower() for tab in tabs if tab}) == sorted(TASKS)
    loaded = browser.driver.execute_script(
        "return performance.getEntriesByType('resource').map(entry => entry.name)"
    )
    assert len(loaded) > 5
    assert [name for name in loaded if not name.startswith((page.address, "data:", "blob:"))] == []


@needs_browser
def test_a_review_gets_stars_and_attention_on_its_words(browser):
    browser.open("sentiment")
    browser.press("sentiment")
    browser.toast("Type a review first.")
    browser.type("sentiment", "the film its plot splendid")
    browser.press("sentiment")
    assert browser.value("stars") == "★★★★★"
    assert "good" in browser.text("sentiment_probabilities", holds="%")
    assert browser.text("looked_at", holds="splendid").split()[-5:] == [
        *("the", "film", "its", "plot", "splendid")
    ]
    browser.screenshot("sentiment")


@needs_browser
def test_names_in_a_sentence_are_marked(browser):
    browser.open("ner")
    browser.press("ner")
    browser.toast("Type a sentence first.")
    browser.type("ner", "Ada Byron lives in New Delhi .")
    browser.press("ner")
    shown = browser.text("names", holds="New Delhi")
    assert "PER" in shown and "LOC" in shown and "Ada Byron" in shown
    assert min(browser.image("ner_picture")) > 100
    browser.screenshot("ner")


@needs_browser
def test_a_sentence_is_translated_and_its_attention_is_drawn(browser):
    browser.open("translation")
    browser.press("translation")
    browser.toast("Type a sentence first.")
    browser.type("translation", "Mon chien noir dort.")
    browser.press("translation")
    assert browser.value("translation") == "My black dog sleeps."
    assert "My black dog sleeps." in browser.text("n_best", holds="-")
    assert min(browser.image("attention")) > 100
    browser.screenshot("translation")


@needs_browser
def test_genes_of_a_sequence_are_drawn(browser):
    browser.open("dna")
    browser.type("dna", "ACGTQ")
    browser.press("dna")
    browser.toast("'Q' at base 5 is no IUPAC letter")
    sequence = own_dna.spliced_record(np.random.default_rng(5), genes_wanted=2).sequence
    browser.type("dna", f"{sequence[:300]}\n{sequence[300:]}")
    browser.press("dna")
    labels = browser.value("labels")
    assert len(labels) == len(sequence) and re.search("C|c", labels)
    assert browser.value("gff").startswith("##gff-version 3\n##sequence-region sequence 1 ")
    assert browser.image("tracks")[0] > 1000
    browser.screenshot("dna")


@needs_browser
def test_sound_is_transcribed_and_its_log_mel_drawn(browser, exports, tmp_path):
    browser.open("speech")
    browser.press("speech")
    browser.toast("Record or upload some sound first.")
    browser.upload("speech", exports.folder("speech")[0] / "mine" / "wavs" / "r0.wav")
    browser.press("speech")
    assert re.fullmatch("[a-z ]+", browser.value("transcript"))
    assert min(browser.image("heard")) > 100
    browser.screenshot("speech")


@needs_browser
def test_a_clip_is_recognised_and_drawn_over_time(browser, exports, tmp_path):
    browser.open("video")
    browser.press("video")
    browser.toast("Upload a clip first.")
    clips = exports.folder("video")[0] / "clips"
    browser.upload("video", sorted(clips.glob("*/*.mp4"))[0])
    browser.press("video")
    names = {folder.name for folder in clips.iterdir() if folder.is_dir()}
    assert any(name in browser.text("activity", holds="%") for name in names)
    assert min(browser.image("over_time")) > 100
    browser.screenshot("video")


@needs_browser
def test_music_is_played_drawn_and_downloaded(browser):
    browser.open("music")
    browser.press("music")
    assert min(browser.image("roll")) > 100
    # The player hides its <audio>, but it shows the duration of the loaded sound.
    duration = r"\b(0:0[1-9]|0:[1-5]\d|[1-9]\d*:\d\d)\b"
    browser.until(lambda: re.search(duration, browser.find("#played").text), "the sound")
    link = browser.until(
        lambda: browser.find("#midi a[href*='music.mid']").get_attribute("href"), "a MIDI file"
    )
    content = browser.driver.execute_async_script(
        "const done = arguments[1];"
        "fetch(arguments[0]).then(r => r.arrayBuffer())"
        ".then(b => done(Array.from(new Uint8Array(b).slice(0, 4))))",
        link,
    )
    assert bytes(content) == b"MThd"
    browser.screenshot("music")


@needs_browser
def test_ctrl_c_closes_the_page(models, page):
    assert page.end(signal.SIGINT) == 130


@needs_browser
def test_a_server_predicts_and_its_end_is_reported(
    models, environment, driver, tmp_path_factory, request
):
    write_models_config(models)
    with Server(models) as server:
        page = Page("--models", models, "--server", server.rest, environment=environment)
        request.addfinalizer(lambda: page.end(signal.SIGKILL))
        browser = opened(page, driver, tmp_path_factory)
        browser.open("sentiment")
        browser.type("sentiment", "the film its plot splendid")
        browser.press("sentiment")
        assert browser.value("stars") == "★★★★★"
        browser.open("music")
        browser.press("music")
        assert min(browser.image("roll")) > 100
    browser.open("sentiment")
    browser.press("sentiment")
    browser.toast(server.rest)  # it no longer responds


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--models", "missing"], "missing holds no export"),
        (["--port", "0"], "--port must be 1 to 65535, got 0"),
        (["--server", "localhost:8501"], "--server must look like http://localhost:8501"),
    ],
)
def test_invalid_flags_are_reported_before_the_page_opens(words, message, capsys, monkeypatch):
    pytest.importorskip("gradio")
    from tasks import demo

    monkeypatch.setattr(sys, "argv", ["demo", *words])
    with pytest.raises(SystemExit) as stop:
        cli.run(demo.main)
    assert stop.value.code == 2 and message in capsys.readouterr().err
