"""The pages of the repository: their length and language, links, and figures."""

import re

import common
from tasks.__main__ import TASKS
from tests.pages import (
    FENCE,
    PAGES,
    ROOT,
    headings,
    name,
    paragraphs,
    read,
    sections,
    sentences,
    tables,
    without_code,
    words,
)

import pytest
import yaml

READMES = [page for page in PAGES if page.name == "README.md"]
each_page = pytest.mark.parametrize("page", PAGES, ids=name)
# The words that style avoids, and what to write instead.
AVOIDED = {
    "walks?|walked|way back": "scan, backward pass",
    "asks?|asked|answers?|answered|answering": "call, request, response, result, prediction",
    "gives?|gave|(?:is|are) told|takes `": "returns, accepts, receives",
    "behind": "after, trailing",
    "beside": "next to, in addition to",
    "one upon the other": "stacked",
    "so many": "at most N",
    "rows? that counts?|without a word": "valid row, empty text",
    "legal|allowed paths?": "valid",
    "lengths that vary": "variable lengths",
    "shares": "fractions, proportions",
    "(?<!ensemble )members": "ensemble members",
    "dealt": "split, sharded",
    "picked up": "resumed",
    "whatever": "any",
}
# The section of BENCHMARKS.md that holds the figures of a page; other pages: any.
MEASURED = {
    "dna": "DNA",
    "music": "Music",
    "ner": "Named entities",
    "sentiment": "Sentiment",
    "speech": "Speech",
    "translation": "Translation",
    "video": "Video",
}


def test_there_are_pages():
    assert {"README.md", "DATA.md", "BENCHMARKS.md", "CHANGELOG.md", "CONTRIBUTING.md"} <= {
        page.name for page in PAGES
    }
    assert len(READMES) > len(TASKS)


# --- Length and language --------------------------------------------------------------------------


def test_the_readmes_are_short():
    lines = {name(page): len(read(page).splitlines()) for page in READMES}
    assert lines["README.md"] < 150
    assert all(lines[f"tasks/{task}/README.md"] < 120 for task in TASKS), lines
    assert sum(len(words(read(page))) for page in READMES) < 9000


@each_page
def test_sentences_are_short(page):
    long = [sentence for sentence in sentences(page) if len(words(sentence)) > 30]
    assert not long, "\n".join(long)


@each_page
def test_tables_have_at_most_six_columns(page):
    assert all(len(row) <= 6 for row in tables(page))


@each_page
def test_lines_are_wrapped(page):
    text = FENCE.sub("", read(page))
    lines = [line for line in text.splitlines() if len(line) > 100 and not line.startswith("|")]
    whole = r"`[^`]{60,}`|\S{60}|\[[^]]{60,}\]\("  # code and links are not wrapped
    assert all(re.search(whole, line) for line in lines), "\n".join(lines)


@each_page
def test_words_are_those_of_the_field(page):
    for text in paragraphs(page):
        for avoided, better in AVOIDED.items():
            match = re.search(rf"(?<![\w-])(?:{avoided})(?![\w-])", text, re.I)
            assert not match, f"{match[0]!r} in {text!r}; better: {better}"
    for sentence in sentences(page):
        assert sentence.endswith("?") or not sentence.startswith("What "), sentence


def test_the_checks_of_language_find_what_they_search():
    page = ROOT / "README.md"
    assert len(sentences(page)) > 50 and max(len(row) for row in tables(page)) == 4
    assert any("Train, serve" in text for text in paragraphs(page))
    assert not any("pip install" in text for text in paragraphs(page))
    assert len(words("a `code` of 30 words - or, so")) == 7


# --- Figures --------------------------------------------------------------------------------------

VERSIONS = r"(?:Python|TensorFlow|capability|OpenVINO|server) [\d.]+(?: (?:to|and) [\d.]+)?"
FIGURE = re.compile(
    r"(?<![\w.,-])(?:\d*\.\d+(?![\w.]*\.?\d)|\d[\d,]*(?=(?: to \d+)? (?:s|min|minutes|MB)\b))"
)


def figures(text):
    return FIGURE.findall(re.sub(VERSIONS, "", text))


def test_figures_are_decimals_and_times():
    text = "WER 0.05, 4 min 57 s, 61 to 95 s, .894, NLL (5.7), `0.5`, 10 words, 2.20.0"
    text += " in Python 3.11 to 3.13"
    assert figures(without_code(text)) == ["0.05", "4", "57", "61", "95", ".894", "5.7"]


# Without the pages of our two data sets, which hold their own counts.
REPORTS = [page for page in READMES if len(page.relative_to(ROOT).parts) < 4]


@pytest.mark.parametrize("page", REPORTS, ids=name)
def test_every_figure_of_a_readme_is_a_measurement(page):
    measured, task = sections(ROOT / "BENCHMARKS.md"), page.parent.name
    source = read(ROOT / "BENCHMARKS.md")
    if task in MEASURED:
        rows = [line for line in measured["Scores"].splitlines() if line.startswith(f"| {task} |")]
        source = measured[MEASURED[task]] + "\n".join(rows)
    known = set(re.findall(r"[\d,]*\.?\d+", source))
    text = without_code(read(page))
    assert not {figure for figure in figures(text) if figure not in known}


def test_the_scores_of_the_front_page_are_those_of_the_benchmarks():
    scores = sections(ROOT / "BENCHMARKS.md")["Scores"]
    table = [row for row in tables(ROOT / "README.md") if row[0] in TASKS]
    assert sorted(row[0] for row in table) == sorted(TASKS)
    for task, _, score, _ in table:
        rows = [line for line in scores.splitlines() if line.startswith(f"| {task} |")]
        assert any(all(f in row for f in figures(score)) for row in rows), (task, score)


def test_the_scoreboard_of_the_front_page_is_in_the_benchmarks():
    (board,) = [code for _, code in FENCE.findall(read(ROOT / "README.md")) if "metric" in code]
    assert board in read(ROOT / "BENCHMARKS.md")


# --- Links, and facts that stand in two places ----------------------------------------------------


@each_page
def test_links_lead_to_files_and_headings(page):
    anchors = headings(page)
    assert len(set(anchors)) == len(anchors)
    for target in re.findall(r"\]\(([^)\s]+)\)", without_code(read(page))):
        if re.match(r"https?:|mailto:", target):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.is_file(), target
        if anchor and linked.suffix == ".md":
            assert anchor in headings(linked), target


@each_page
def test_pictures_have_a_text(page):
    assert all(re.findall(r"!\[(.*?)\]\(", read(page)))


def test_every_page_is_linked():
    """From the front page all pages can be reached."""
    reached, new = set(), {ROOT / "README.md"}
    while new:
        page = new.pop()
        reached.add(page)
        for target in re.findall(r"\]\(([^)\s#]+\.md)", read(page)):
            if not target.startswith("http"):
                new |= {(page.parent / target).resolve()} - reached
    assert set(PAGES) == reached


def test_the_command_of_ci_is_marked():
    script = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    (mark,) = re.findall(r"sed -n '/\^(<!-- \w+:)/,\$p' README\.md", script)
    after = read(ROOT / "README.md").split(mark)
    assert len(after) == 2 and "pip install" in after[1].split("```")[1]
    assert "python -m pytest tests" in after[1].split("```")[1]


def test_the_extras_of_the_front_page_exist():
    text = read(ROOT / "setup.cfg").partition("[options.extras_require]")[2].partition("\n[")[0]
    extras = set(re.findall(r"^(\w+) =$", text, re.M))
    for page in PAGES:
        named = re.findall(r"`\.\[([\w,]+)\]`|'\.\[([\w,]+)\]'", read(page))
        used = {extra for pair in named for part in pair for extra in part.split(",") if extra}
        assert used <= extras, (name(page), used - extras)
    table = set(re.findall(r"`\.\[(\w+)\]`", sections(ROOT / "README.md")["Requirements"]))
    assert extras - {"tensorboard"} <= table


def test_the_version_stands_in_the_citation():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == common.__version__
    assert citation["license"] == "Apache-2.0"
    assert read(ROOT / "CHANGELOG.md").count(f"## {common.__version__}") == 1


def test_files_for_other_tools_are_yaml():
    for file in (".pre-commit-config.yaml", ".github/workflows/ci.yml", "mkdocs.yml"):
        assert yaml.safe_load((ROOT / file).read_text(encoding="utf-8"))
