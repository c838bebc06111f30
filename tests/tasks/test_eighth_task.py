"""The page on how to add a task, done to the letter: its code is the code that runs here."""

import json
import re
import shlex
import shutil
from pathlib import Path

import tasks
from common.serving.served import load_export
from tests.tasks import commands

import numpy as np
import pytest

PAGE = Path(tasks.__file__).with_name("README.md")
ROOT = PAGE.parents[1]
FILES = dict(
    re.findall(r"^### `(tasks/\S+\.py)`\n.*?^```python\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
)
BLOCKS = re.findall(r"^```\n(.*?)^```$", PAGE.read_text().partition("### Try it")[2], re.M | re.S)


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory, command_environment):
    """What the page's commands print, in a tree to which its files were added."""
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "common", folder / "common", ignore=shutil.ignore_patterns("__pyc*"))
    (folder / "tasks" / "brackets").mkdir(parents=True)
    for package in ("tasks", "tasks/brackets"):
        (folder / package / "__init__.py").touch()
    for name, code in FILES.items():
        (folder / name).write_text(code)
    done = {}
    for line in BLOCKS[0].splitlines():
        python, m, module, *words = shlex.split(line)
        assert (python, m, module.split(".")[:2]) == ("python", "-m", ["tasks", "brackets"])
        command = module.removeprefix("tasks.")
        environment = command_environment | {"PYTHONPATH": str(folder)}
        done[command] = commands.run(command, *words, folder=folder, environment=environment)
        assert done[command].returncode == 0, done[command].stderr
    return folder, {command: run.stdout for command, run in done.items()}


def test_the_page_holds_the_files_of_every_task():
    names = {Path(name).name for name in FILES}
    for task in (path.parent for path in PAGE.parent.glob("*/config.py")):
        assert names <= {path.name for path in task.iterdir()}, task.name
    parts = ("config", "data", "model", "serving", "train", "evaluate", "predict")
    assert names == {f"{part}.py" for part in parts}


def test_it_learns_and_its_export_scores_the_same_again(outcomes):
    _, printed = outcomes
    trained = json.loads(printed["brackets.train"].splitlines()[-1])
    again = json.loads(printed["brackets.evaluate"].splitlines()[-1])
    assert trained["task"] == "brackets" and trained["split"] == "test"
    assert trained["accuracy"] >= 0.9 and trained["examples"] == 200
    assert again["accuracy"] == trained["accuracy"]


def test_the_answer_is_the_one_on_the_page(outcomes):
    assert outcomes[1]["brackets.predict"] == BLOCKS[1]


def test_the_export_answers_rows_of_any_kind(outcomes):
    served = load_export(outcomes[0] / "saved_models" / "brackets")
    texts = np.array(["()", b"\xff", "", "(" * 100, "((()))"], dtype=object)
    answer = served.call("serving_default", text=texts)
    assert answer["label"][2] == b"" and answer["probabilities"][2].tolist() == [0.0, 0.0]
    alone = served.call("serving_default", text=texts[:1])["probabilities"]
    np.testing.assert_allclose(answer["probabilities"][:1], alone, atol=1e-6)
    commands.check_version(served.path, "# Brackets", "made by this code")
