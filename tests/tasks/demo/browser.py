"""The page of `python -m tasks demo` in a headless Chromium, as a person uses it."""

import contextlib
import importlib.util
import re
import shutil
import subprocess
import sys
import threading
import time

from tests.ports import free_ports
from tests.tasks import commands

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
# Every visible text of the answers and cards, its contrast to its background, and the least one.
CONTRAST = """
const canvas = document.createElement('canvas'); canvas.width = canvas.height = 1;
const pen = canvas.getContext('2d', {willReadFrequently: true});
function rgba(colour) {
  pen.clearRect(0, 0, 1, 1); pen.fillStyle = colour; pen.fillRect(0, 0, 1, 1);
  const [r, g, b, a] = pen.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
}
function over(top, below) { return [0, 1, 2].map(i => top[i] * top[3] + below[i] * (1 - top[3])); }
function light(colour) {
  const [r, g, b] = colour.map(v => v / 255).map(v => v <= .03928 ? v / 12.92
    : ((v + .055) / 1.055) ** 2.4);
  return .2126 * r + .7152 * g + .0722 * b;
}
const found = [];
for (const element of document.querySelectorAll('.answer *, .card *')) {
  const own = [...element.childNodes].filter(n => n.nodeType === 3 && n.textContent.trim());
  if (!own.length || !element.checkVisibility() || element.closest('audio, video')) continue;
  const backgrounds = [];
  for (let e = element; e; e = e.parentElement) {
    backgrounds.unshift(getComputedStyle(e).backgroundColor);
  }
  const paper = backgrounds.reduce((below, colour) => over(rgba(colour), below), [255, 255, 255]);
  const ink = over(rgba(getComputedStyle(element).color), paper);
  const [high, low] = [light(ink), light(paper)].sort((a, b) => b - a);
  const least = parseFloat(getComputedStyle(element).fontSize) >= 24 ? 3 : 4.5;  // of WCAG 2
  found.push([own[0].textContent.trim(), (high + .05) / (low + .05), least]);
}
return found;
"""
# Pictures that a person who cannot see them is not told of.
WITHOUT_TEXT = """
const told = e => e.parentElement.closest('[role=img], button, label, a, summary');
const bad = [];
for (const e of document.querySelectorAll('main img, main svg, main canvas, main [role=img]')) {
  if (!e.checkVisibility() || e.closest('[aria-hidden=true]')) continue;
  const text = e.getAttribute('alt') || e.getAttribute('aria-label');
  if (e.matches('[role=img]') ? !text : !text && !told(e)) bad.push(e.outerHTML.slice(0, 200));
}
return bad;
"""


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
        self.lines = []
        for line in self.process.stderr:
            self.lines.append(line)
            if "The page is open at " in line:
                break
        else:
            raise AssertionError("".join(self.lines))
        self.address = re.search(r"http://\S+", self.lines[-1])[0]
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


@contextlib.contextmanager
def chromium(profile):
    """A headless Chromium."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    flags = ["headless=new", "no-sandbox", "disable-dev-shm-usage", "hide-scrollbars"]
    flags += ["autoplay-policy=no-user-gesture-required", f"user-data-dir={profile}"]
    for flag in flags:
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "SEVERE"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(DRIVER))
    driver.set_page_load_timeout(120)
    yield driver
    driver.quit()


class Browser:
    """The actions of a person on the page, and the parts of the page that they see."""

    def __init__(self, driver, folder):
        self.driver, self.folder = driver, folder

    def visit(self, address, *, width=1280, height=1500, theme="light"):
        """Open the page at a size and in a theme."""
        self.resize(width, height)
        self.driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia",
            {"features": [{"name": "prefers-color-scheme", "value": theme}]},
        )
        self.driver.get(address)
        self.until(lambda: self.find("#sentiment_card").is_displayed(), "the page")

    def resize(self, width, height):
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def run(self, script, *arguments):
        return self.driver.execute_script(script, *arguments)

    def find(self, selector):
        return self.driver.find_element("css selector", selector)

    def all(self, selector):
        return self.driver.find_elements("css selector", selector)

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

    def start(self):
        """Show the start tab, which is never among those that a narrow page folds away."""
        (tab,) = [tab for tab in self.all("button[role=tab]") if tab.text == "Start"][:1]
        tab.click()
        self.until(lambda: self.find("#sentiment_try").is_displayed(), "the start tab")

    def open(self, task):
        """Show the tab of a task by the button of its card."""
        self.start()
        self.click(f"#{task}_try")
        self.until(lambda: self.find(f"#{task}_button").is_displayed(), f"tab {task}")

    def click(self, selector):
        element = self.find(selector)
        self.run("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def type(self, task, text):
        """Replace the text of a task's field."""
        self.set(f"#{task}_input textarea", text)

    def set(self, selector, value):
        """Replace the value of a field, as the clipboard does."""
        script = "arguments[0].value = arguments[1];"
        script += "arguments[0].dispatchEvent(new Event('input', {bubbles: true}))"
        self.run(script, self.find(selector), value)

    def upload(self, task, path):
        """Replace the file of a field."""
        self.remove(task)
        self.until(
            lambda: self.find(f"#{task}_input input[type=file]").send_keys(str(path)) is None,
            "a field for files",
        )
        shown = f"#{task}_input audio, #{task}_input .file-preview, #{task}_input #waveform"
        self.until(lambda: self.find(shown), "the upload")

    def remove(self, task):
        """Remove the file of a field, if there is one."""
        for button in self.all(f"#{task}_input button[aria-label=Clear]"):
            button.click()

    def press(self, task):
        self.click(f"#{task}_button")

    def example(self, task, label):
        """Click an example of a tab."""
        (button,) = [b for b in self.all(f"#{task}_examples button") if b.text == label]
        self.run("arguments[0].scrollIntoView({block: 'center'})", button)
        button.click()

    def answer(self, task, *, holds=""):
        """Return the text of the answer, as soon as it contains some words."""

        def complete_text():
            text = self.find(f"#{task}_answer").text
            return holds in text and text

        return self.until(complete_text, f"an answer of {task} with {holds!r}")

    def toasts(self):
        return " | ".join(toast.text for toast in self.all("[data-testid=toast-body]"))

    def toast(self, words):
        """Wait for a warning, and close it."""
        self.until(lambda: words in self.toasts(), f"a message with {words!r}")
        self.run("document.querySelectorAll('[data-testid=toast-close]').forEach(x => x.click())")
        self.until(lambda: not self.toasts(), "the end of the message", 10)

    def width(self):
        """Return the width of the whole page."""
        return self.run("return document.documentElement.scrollWidth")

    def screenshot(self, name, *, height=None):
        """Keep a picture of the whole page, or of its upper part; return the path."""
        width, own = self.run("return [window.innerWidth, window.innerHeight]")
        full = self.run("return document.querySelector('main').scrollHeight") + 40
        self.resize(width, height or full)
        time.sleep(0.5)
        path = self.folder / f"{name}.png"
        self.driver.save_screenshot(str(path))
        self.resize(width, own)
        return path
