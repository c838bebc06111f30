"""Notebooks: each runs from top to bottom, and its results support its text."""

import re
from pathlib import Path

import common
from tests.common import notebook_results

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.notebooks

FOLDER = Path(common.__file__).with_name("notebooks")
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
LONGEST_CELL = 20  # lines of code


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook):
    return "\n\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def printed(notebook):
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def solutions(notebook):
    """Return the code of the hidden solutions."""
    hidden = re.findall(r"<details>.*?</details>", text(notebook), re.S)
    return [part for block in hidden for part in re.findall(r"```python\n(.*?)```", block, re.S)]


def test_the_index_lists_all_notebooks_in_an_order_that_respects_what_each_needs():
    order = re.findall(r"\]\((\w+)\.ipynb\)", (FOLDER / "README.md").read_text(encoding="utf-8"))
    assert sorted(order) == NOTEBOOKS == sorted(notebook_results.CHECKS)
    for name in order:
        needed = re.search(r"Needed before: (.*)", text(read(name)))
        for other in re.findall(r"\]\((\w+)\.ipynb\)", needed[1] if needed else ""):
            assert order.index(other) < order.index(name), f"{name} needs {other}"


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_supports_its_text(name, command_environment, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", command_environment["CUDA_VISIBLE_DEVICES"])
    notebook = read(name)
    for cell in code(notebook):
        cell.outputs = []
    hidden = [nbformat.v4.new_code_cell(source) for source in solutions(notebook)]
    notebook.cells += hidden
    place = {"metadata": {"path": str(FOLDER)}}  # where Jupyter starts it
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources=place).execute()
    assert all(cell.outputs for cell in hidden)
    notebook_results.CHECKS[name](printed(notebook))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_outputs_are_complete_and_small(name):
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    results = printed(notebook)
    assert "WARNING" not in results and "Warning" not in results
    # The solutions' outputs stand in the text.
    hidden = re.findall(r"<details>.*?</details>", text(notebook), re.S)
    notebook_results.CHECKS[name](results + "\n".join(hidden))
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 400_000
    for output in outputs:  # no paths of the machine that ran it
        assert not re.search(r"/(?:home|root|tmp|usr|var|work|Users)/", output.get("text", ""))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_has_the_parts_of_a_lesson(name):
    notebook = read(name)
    words = text(notebook)
    assert re.search(
        r"^Expected time: \d+ minutes of reading, \d+ seconds of computing", words, re.M
    )
    for cell in code(notebook):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= LONGEST_CELL, lines[0]
        assert not re.search(r"^\s*assert ", cell.source, re.M)
    exercises = words.partition("\n## Exercises\n")[2].partition("\n## Sources\n")[0]
    assert re.findall(r"^\*\*(\d)\.\*\*", exercises, re.M) == ["1", "2"]
    assert exercises.count("<details><summary>Solution</summary>") == 2 == words.count("<details>")
    assert "{{" not in words
    sources = re.findall(r"^\* (.*)$", words.partition("\n## Sources\n")[2], re.M)
    assert len(sources) >= 2 and all(re.search(r", (19|20)\d\d, \*", line) for line in sources)
