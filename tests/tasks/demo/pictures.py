"""Make the pictures of the demo in README.md, of the models in `saved_models/`, in Chromium.

    python -m tests.tasks.demo.pictures     # writes tasks/demo/start.png and tasks/demo/genes.png

Pictures of all tabs, wide and narrow, light and dark, are kept by the tests:
`DEMO_SCREENSHOTS=folder python -m pytest -m demo tests/tasks/demo`.
"""

import os
import signal
import tempfile
from pathlib import Path

from common.serving.versions import SHIPPED
from tests.tasks.demo.browser import Browser, Page, chromium

FOLDER = Path(__file__).parents[3] / "tasks" / "demo"


def main():
    """Open the page, and take two pictures."""
    page = Page("--models", SHIPPED, environment=dict(os.environ))
    try:
        with tempfile.TemporaryDirectory() as profile, chromium(profile) as driver:
            browser = Browser(driver, FOLDER)
            browser.visit(page.address, width=1280, height=700)
            browser.until(lambda: browser.run(READY), "the players")
            browser.screenshot("start", height=730)
            browser.open("dna")
            browser.example("dna", "FASTA of three genes")
            browser.answer("dna", holds="3 genes found")
            browser.run("window.scrollTo(0, 0)")
            browser.screenshot("genes", height=765)
    finally:
        page.end(signal.SIGTERM)


# Whether all players of the start page have loaded their first frame.
READY = (
    "return [...document.querySelectorAll('.card audio, .card video')].every(p => p.readyState > 1)"
)

if __name__ == "__main__":
    main()
