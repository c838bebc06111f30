"""Hooks of mkdocs: the site has the pages of the repository, in their places, and the reference.

Links to modules lead to their reference, links to other files to copies of these files.
"""

import ast
import os
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).parents[1]
LINK = re.compile(r"(\]\()([^)\s#:]+)")
FENCE = re.compile(r"^```.*?^```$", re.M | re.S)
FIRST = ("README.md", "tasks/README.md", "common/README.md", "saved_models/README.md")
TASKS = sorted(path.parent.name for path in ROOT.glob("tasks/*/train.py"))


def pages():
    """Return the paths of the pages."""
    patterns = ("*.md", "common/*.md", "docs/*.md", "saved_models/*.md", "tests/*.md")
    patterns += ("common/*/*.md", "tasks/*.md", "tasks/*/*.md", "tasks/*/*/*.md")
    return sorted(path for pattern in patterns for path in ROOT.glob(pattern))


def modules(linked):
    """Return the files of the reference: public modules of `common`, linked ones of tasks."""
    own = {path for path in (ROOT / "common").rglob("*.py") if not path.name.startswith("_")}
    own |= {path for path in linked if path.suffix == ".py" and ROOT / "tasks" in path.parents}
    return sorted(own)


def uri(path):
    """Return the place of a page or file in the site."""
    return path.relative_to(ROOT).as_posix()


def reference(path):
    """Return the place of the reference of a module in the site."""
    return f"reference/{uri(path).removesuffix('.py')}.md"


def linked_files(page):
    """Return the files of the repository to which a page links."""
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    targets = {(page.parent / target).resolve() for _, target in LINK.findall(text)}
    return {target for target in targets if target.is_file()}


def on_config(config):
    """Set the navigation."""
    others = [uri(page) for page in pages() if uri(page) not in FIRST]
    tasks = [f"tasks/{task}/README.md" for task in TASKS]
    linked = set().union(*map(linked_files, pages()))
    config.nav = [
        {"Start": "README.md"},
        {"Tasks": ["tasks/README.md", *tasks, "tasks/adding_a_task.md"]},
        {"Blocks": "common/README.md"},
        {"Serving": "saved_models/README.md"},
        {"More": [page for page in others if page not in tasks and "adding" not in page]},
        {"Reference": [reference(path) for path in modules(linked)]},
    ]
    return config


def on_files(files, config):
    """Replace the files of the folder `docs` by those of the site."""
    for file in [file for file in files if file.src_dir == config.docs_dir]:
        files.remove(file)
    linked = set().union(*map(linked_files, pages()))
    for path in modules(linked):
        name = uri(path).removesuffix(".py").replace("/", ".")
        files.append(File.generated(config, reference(path), content=f"# {name}\n\n::: {name}\n"))
    for path in {*pages(), *(linked - set(modules(linked)))}:
        files.append(File.generated(config, uri(path), abs_src_path=str(path)))
    return files


def on_page_markdown(markdown, page, config, files):
    """Let links to modules lead to their reference, and list the modules."""
    here = ROOT / page.file.src_uri
    if page.file.src_uri == "docs/reference.md":
        rows = [f"| [{uri(path)}](../{uri(path)}) | {summary(path)} |" for path in modules(set())]
        markdown += "\n".join(["\n| module | content |", "|---|---|", *rows, ""])

    def lead(match):
        target = (here.parent / match[2]).resolve()
        place = reference(target) if target.suffix == ".py" and target.is_file() else ""
        if files.get_file_from_path(place) is None:
            return match[0]
        start = Path(page.file.src_uri).parent.as_posix()
        return match[1] + os.path.relpath(place, start).replace(os.sep, "/")

    return LINK.sub(lead, markdown)


def summary(path):
    """Return the first line of the docstring of a module."""
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").split("\n")[0]
