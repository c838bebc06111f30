"""The pages of the repository: their links, and facts that stand in two places."""

import re
from pathlib import Path

import common
from tasks.__main__ import TASKS

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "*/*.md", "*/*/*.md", "tasks/*/*/*.md")
    for page in ROOT.glob(pattern)
    if not page.relative_to(ROOT).parts[0].startswith(".") and "env" not in page.parts
)


def headings(page):
    """Return the anchors of a page's headings, as forges make them."""
    titles = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.M)
    kept = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return {title.replace(" ", "-") for title in kept}


def test_there_are_pages():
    assert {"README.md", "DATA.md", "BENCHMARKS.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= {
        page.name for page in PAGES
    }
    assert len(PAGES) > len(TASKS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page):
    text = re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.S)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?:|mailto:", target):
            continue
        name, _, anchor = target.partition("#")
        linked = (page.parent / name) if name else page
        assert linked.exists(), target
        if anchor and linked.suffix == ".md":
            assert anchor in headings(linked), target


def test_the_version_stands_in_the_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == common.__version__
    assert citation["license"] == "Apache-2.0"
    assert (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").count(
        f"## {common.__version__}"
    ) == 1


def test_files_for_other_tools_are_yaml():
    for name in (".pre-commit-config.yaml", ".github/workflows/ci.yml"):
        assert yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))
