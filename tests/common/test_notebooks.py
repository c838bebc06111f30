"""Notebooks: each runs from top to bottom, and its results support its text."""

import re
from pathlib import Path

import common

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.notebooks

FOLDER = Path(common.__file__).with_name("notebooks")
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def printed(notebook):
    outputs = [output for cell in code(notebook) for output in cell.outputs]
    return "".join(output.text for output in outputs if output.get("name") == "stdout")


def check(name, text):
    """Check the results that the text of the notebook states."""
    if name == "vanishing_gradient":
        solved = dict(re.findall(r"^(plain RNN|GRU|LSTM) +(solved|not solved) after", text, re.M))
        assert solved == {"plain RNN": "not solved", "GRU": "solved", "LSTM": "solved"}
        norms = re.findall(r"(\S+) at the last step, (\S+) at the first", text)
        assert len(norms) == 3
        assert all(float(first) < 1e-4 * float(last) for last, first in norms)
    elif name == "sequence_types":
        percentages = dict(
            re.findall(r"^(one to many|many to one|of another length): (\S+)%", text, re.M)
        )
        assert len(percentages) == 3 and min(map(float, percentages.values())) > 80
        assert float(re.search(r"^as long: F1 of the ends of words (\S+)$", text, re.M)[1]) > 0.75
    elif name == "bidirectional_and_deep":
        row = r"^(forwards|backwards|both ways) +(\S+)% of the \( right, +(\S+)% of the \)"
        right = {way: (float(a), float(b)) for way, a, b in re.findall(row, text, re.M)}
        assert right["forwards"][0] < 93 < 95 < right["forwards"][1]
        assert right["backwards"][1] < 93 < 95 < right["backwards"][0]
        assert min(right["both ways"]) > 95
        depth = dict(re.findall(r"^((?:one|two) layers?, \S+).*? (\S+)% of the blanks", text, re.M))
        assert float(depth["one layer, 24"]) < 90 and float(depth["two layers, forwards"]) < 90
        assert float(depth["two layers, 12"]) > 95
    elif name == "attention":
        accuracies = re.findall(r"^(additive|dot) +attention: +(\S+)% of 500", text, re.M)
        assert len(accuracies) == 2 and all(float(percent) > 90 for _, percent in accuracies)
        changes = re.findall(r"(?:changes the answer by|shares changed by) (\S+)", text)
        assert len(changes) == 4 and all(float(change) < 1e-5 for change in changes)
    elif name == "transfer":
        row = r"^(transfer|shuffled|words), (\d+) letters: (\S+)% right"
        right = {(kind, int(n)): float(percent) for kind, n, percent in re.findall(row, text, re.M)}
        assert len(right) == 12 and right["transfer", 16] > 90
        assert max(right["shuffled", 256], right["words", 256]) < 75
    else:
        groups = re.findall(r"^(.+?) +(\d+)% valid, (\d+) copies of \d+$", text, re.M)
        valid = {group: int(percent) for group, percent, _ in groups}
        assert valid["held-out tunes"] >= 90
        assert valid["shuffled characters"] < 10
        assert valid["written, temperature 0.5"] > 25
        assert valid["written, temperature 0.5"] > valid["written, temperature 1.0"]
        assert not any(int(copies) for _, _, copies in groups)


def test_all_notebooks_are_listed():
    assert set(NOTEBOOKS) == {
        *("sequence_types", "vanishing_gradient", "bidirectional_and_deep"),
        *("sampling", "attention", "transfer"),
    }


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs_and_supports_its_text(name, command_environment, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", command_environment["CUDA_VISIBLE_DEVICES"])
    notebook = read(name)
    for cell in code(notebook):
        cell.outputs = []
    place = {"metadata": {"path": str(FOLDER)}}  # where Jupyter starts it
    NotebookClient(notebook, timeout=500, kernel_name="python3", resources=place).execute()
    check(name, printed(notebook))


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_stored_outputs_are_complete_and_small(name):
    notebook = read(name)
    nbformat.validate(notebook)
    cells = code(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not any(o.output_type == "error" or o.get("name") == "stderr" for o in outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 2
    check(name, printed(notebook))
    assert (FOLDER / f"{name}.ipynb").stat().st_size < 400_000
    for output in outputs:  # no paths of the machine that ran it
        assert not re.search(r"/(?:home|root|tmp|usr|var|work|Users)/", output.get("text", ""))
