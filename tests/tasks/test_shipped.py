"""The models in `saved_models/`: their answers, their scores on rows of ours, their folders.

The golden files are written by `python -m tests.tasks.shipped`, together with new exports only.
"""

import json
import re
import subprocess

from common.serving.models_config import write_models_config
from common.serving.versions import SHIPPED, read_settings
from tasks.__main__ import TASKS
from tests.tasks import shipped
from tests.tasks.shipped import NAMES

import pytest

SLOW = ("music", "speech", "video")  # seconds each: voices, pictures, loops over notes
FILE, MODEL, ALL = 10_000_000, 10_000_000, 60_000_000  # bytes


def test_all_seven_tasks_and_their_variants_are_in_the_repository():
    assert {*TASKS} <= {*NAMES} <= {*shipped.ANSWERS}
    done = git("ls-files", "*/1/saved_model.pb")
    assert {*done.stdout.split()} == {f"{name}/1/saved_model.pb" for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_a_model_has_the_task_of_its_name(name):
    assert read_settings(SHIPPED / name / "1")["task"] == name.partition("-")[0]


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=[pytest.mark.commands] * (n in SLOW or n not in TASKS)) for n in NAMES],
)
def test_the_answers_are_those_of_the_golden_file(name):
    golden = json.loads((shipped.GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    answers = shipped.answers(name)
    assert len(answers) == len(golden) == 20
    for answer, expected in zip(answers, golden, strict=True):
        assert answer["input"] == expected["input"]
        assert answer["answer"] == expected["answer"]
        assert answer["probabilities"] == pytest.approx(expected["probabilities"], abs=1e-4)


def test_the_folders_are_small():
    sizes = {name: 0 for name in NAMES}
    for name in NAMES:
        for path in (SHIPPED / name / "1").rglob("*"):
            assert path.stat().st_size < FILE, path
            sizes[name] += path.stat().st_size * path.is_file()
    assert max(sizes.values()) < MODEL and sum(sizes.values()) < ALL


@pytest.mark.parametrize("name", NAMES)
def test_no_file_names_a_place_of_the_machine_that_trained_it(name):
    for path in (SHIPPED / name / "1").rglob("*"):
        if path.is_file():
            assert not re.search(rb"/(tmp|work|home|root|mnt|opt)/\w", path.read_bytes()), path


@pytest.mark.parametrize("name", NAMES)
def test_a_card_names_command_data_licence_and_limits(name):
    card = (SHIPPED / name / "1" / "model_card.md").read_text(encoding="utf-8")
    task = name.partition("-")[0]
    assert re.search(rf"^python -m tasks\.{task}\.train", card, re.M)
    assert f'model = load("saved_models/{name}")' in card
    for heading in ("Scores", "Data and licence", "Intended use and limits", "Usage"):
        assert f"\n## {heading}\n" in card
    assert re.search(r"^license_name: \"\w", card, re.M) and "licence: unclear" not in card


def test_servers_find_all_of_them_in_a_fresh_clone(tmp_path):
    listed = re.findall(r'base_path: "/models/(.*)"', (SHIPPED / "models.config").read_text())
    assert tuple(sorted(listed)) == NAMES
    for name in NAMES:  # `train` adds nothing to the list
        (tmp_path / name / "1").mkdir(parents=True)
    (tmp_path / "models.config").write_bytes((SHIPPED / "models.config").read_bytes())
    write_models_config(tmp_path)
    assert (tmp_path / "models.config").read_bytes() == (SHIPPED / "models.config").read_bytes()


def test_the_page_lists_all_of_them():
    page = (SHIPPED / "README.md").read_text(encoding="utf-8")
    table = page.partition("\n## Pretrained models\n")[2]
    rows = {row[0]: row for row in re.findall(r"(?m)^\| `([\w-]+)` \|.* ([\d.]+) \|$", table)}
    assert tuple(sorted(rows)) == NAMES
    sizes = {
        name: sum(
            path.stat().st_size for path in (SHIPPED / name / "1").rglob("*") if path.is_file()
        )
        / 1e6
        for name in NAMES
    }
    assert {name: float(row[1]) for name, row in rows.items()} == pytest.approx(sizes, abs=0.06)
    (total,) = re.findall(r"([\d.]+) MB in all", table)
    assert float(total) == pytest.approx(sum(sizes.values()), abs=0.06)


def git(*words):
    """Run git in `saved_models/`; skip the test where there is no clone."""
    done = subprocess.run(["git", *words], cwd=SHIPPED, capture_output=True, text=True, check=False)
    if done.returncode > 1:
        pytest.skip("this is no clone of git")
    return done


def test_git_ignores_what_a_user_trains():
    def ignored(*paths):
        return git("check-ignore", "--no-index", *paths).stdout.split()

    own = ["ner/2/saved_model.pb", "ner/run/log.csv", "ner-gpu/1/saved_model.pb", "chess/1/x"]
    own += ["dna-drosophila/2/saved_model.pb"]
    own += ["../quick_models/ner/1/saved_model.pb"]
    assert ignored(*own) == own
    assert ignored(*(f"{name}/1/assets.extra/config.json" for name in shipped.ANSWERS)) == []
    assert ignored("models.config", "README.md") == []
