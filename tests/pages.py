"""The pages of the repository: their prose, tables, headings, links and code."""

import dataclasses
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGES = sorted(
    page
    for pattern in ("*.md", "*/*.md", "*/*/*.md", "tasks/*/*/*.md")
    for page in ROOT.glob(pattern)
    if not page.relative_to(ROOT).parts[0].startswith(".") and "env" not in page.parts
)
FENCE = re.compile(r"^```([^\n]*)\n(.*?)^```$", re.M | re.S)


def name(page):
    return page.relative_to(ROOT).as_posix()


def read(page):
    return (ROOT / page).read_text(encoding="utf-8")


@dataclasses.dataclass(frozen=True)
class Block:
    """A fenced block of code; its place is the page and the line of the fence."""

    page: str
    line: int
    language: str
    code: str

    @property
    def place(self):
        return f"{self.page}:{self.line}"


def blocks(page):
    text = read(page)
    return [
        Block(name(page), text.count("\n", 0, match.start()) + 1, match[1], match[2])
        for match in FENCE.finditer(text)
    ]


def without_code(text):
    """Return a page without fenced blocks and comments; code in a line becomes one word."""
    text = re.sub(r"<!--.*?-->", "", FENCE.sub("", text), flags=re.S)
    return re.sub(r"`[^`]+`", "`code`", text)


def tables(page):
    """Return the tables of a page, as lists of rows, as lists of cells."""
    lines = [line for line in without_code(read(page)).splitlines() if line.startswith("|")]
    lines = [line.replace(r"\|", "") for line in lines]
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in lines]


def paragraphs(page):
    """Return the texts of a page: paragraphs, items of lists, headings, cells of tables."""
    text = without_code(read(page))
    texts = [cell for row in tables(page) for cell in row]
    rest = "\n".join("" if line.startswith("|") else line for line in text.splitlines())
    rest = re.sub(r"^( *(?:[-*]|\d+\.) |#+ )", r"\n\n\1", rest, flags=re.M)
    texts += re.split(r"\n\s*\n", rest)
    texts = [re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", text) for text in texts]
    return [" ".join(text.split()) for text in texts if text.strip()]


def sentences(page):
    return [part for text in paragraphs(page) for part in re.split(r"(?<=[.!?]) +(?=\S)", text)]


def words(text):
    return re.findall(r"\S*[^\W_]\S*", text)


def headings(page):
    """Return the anchors of a page's headings, as forges make them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", read(page)), re.M)
    titles = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
    return [title.replace(" ", "-") for title in titles]


def sections(page, level=2):
    """Return the sections of a page by their titles."""
    parts = re.split(rf"^{'#' * level} (.*)$", FENCE.sub("", read(page)), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))
