"""The READMEs of all tasks have the same sections."""

import re
from pathlib import Path

import tasks

import pytest

FOLDER = Path(tasks.__file__).parent
READMES = sorted(FOLDER.glob("*/README.md"))
SECTIONS = ["Install", "Use", "Input and output", "Your own data", "Results", "Limits"]


def test_there_are_seven_readmes():
    assert len(READMES) == 7


@pytest.mark.parametrize("path", READMES, ids=lambda path: path.parent.name)
def test_a_readme_has_the_sections_in_their_order(path):
    text, task = path.read_text(encoding="utf-8"), path.parent.name
    head, *_ = text.partition("\n## ")
    assert re.search(r"!\[.+\]\(\w+\.png\)", head)  # the picture
    assert "model.py" in head  # the explanation of the network
    assert re.findall("^## (.*)$", text, re.M) == SECTIONS
    section = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", text, re.M | re.S))
    assert "pip install -e '.[" in section["Install"]
    assert f"python -m tasks.{task}.train" in section["Use"]
    assert f"python -m tasks.{task}.predict" in section["Use"]
    signature = section["Input and output"]
    assert re.search(r"^\| in \|.*\n(\|.*\n)*\| out \|", signature, re.M)
    assert f"http://localhost:8501/v1/models/{task}:predict" in signature
    assert "--data" in section["Your own data"] and "--init" in section["Your own data"]
    assert "BENCHMARKS.md#" in section["Results"] and "published" in section["Results"]
