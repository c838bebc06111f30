"""The READMEs of all tasks have the same sections."""

import re
from pathlib import Path

import tasks

import pytest

FOLDER = Path(tasks.__file__).parent
READMES = sorted(FOLDER.glob("*/README.md"))
SECTIONS = ["Data", "Model", "Scores", "Time", "Input and output", "Request", "Your own data"]
SECTIONS += ["Limits"]


def test_there_are_seven_readmes():
    assert len(READMES) == 7


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_a_readme_has_the_sections_in_their_order(path):
    text, task = path.read_text(), path.parent.name
    head, *_ = text.partition("\n## ")
    assert f"python -m tasks.{task}.train" in head and f"python -m tasks.{task}.predict" in head
    assert re.findall("^## (.*)$", text, re.M) == SECTIONS
    section = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert "```" in section["Model"]  # the diagram
    assert re.search(r"^\| in \|.*\n(\|.*\n)*\| out \|", section["Input and output"], re.M)
    assert f"http://localhost:8501/v1/models/{task}:predict" in section["Request"]
    for target in re.findall(r"\]\(([^)#:]+)\)", text):  # links to files
        assert (path.parent / target).exists(), target
