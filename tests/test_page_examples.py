"""The code of all pages: executed, parsed by the command that it calls, or compared."""

import importlib
import importlib.util
import itertools
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

from common.commands import cli, cluster
from common.errors import InputError
from tests.pages import PAGES, ROOT, blocks, read

import pytest
import yaml

BLOCKS = [block for page in PAGES for block in blocks(page)]
LANGUAGES = ("sh", "python", "text", "json", "yaml", "pbtxt")
GUIDE = "tasks/adding_a_task.md"  # tests/tasks/test_eighth_task.py runs its code
SERVING = "saved_models/README.md"  # tests/serving/test_server.py parses its configuration
# Commands of other programs, which are not run here.
OTHERS = ("docker", "git", "mkdocs", "pip", "pre-commit", "printf", "ruff", "curl", "cd", ".ci/run")
place = lambda block: block.place  # noqa: E731


class ParsedError(Exception):
    """The flags of a command are valid."""


def of(*languages, without=()):
    chosen = [b for b in BLOCKS if b.language in languages and b.page not in without]
    return pytest.mark.parametrize("block", chosen, ids=place)


def test_every_block_names_a_language():
    assert not [block.place for block in BLOCKS if block.language not in LANGUAGES]
    assert {block.page for block in BLOCKS if block.language == "pbtxt"} == {SERVING}


# --- Commands -------------------------------------------------------------------------------------


def commands(code):
    """Return the commands of a block, without comments, as lists of words."""
    quoted = r"""('[^']*'|"(?:\\.|[^"\\])*")"""
    lines = re.sub(rf"{quoted}|(?<!\S)#[^\n]*", lambda match: match[1] or "", code)
    lines = re.sub(r"\\\n *", "", lines)
    words = shlex.shlex(lines, posix=True, punctuation_chars="|&<>\n")
    words.whitespace, words.whitespace_split, words.commenters = " \t", True, ""
    found, command = [], []
    for word in words:
        if set(word) <= set("|&\n"):
            found.append(command)
            command = []
        else:
            command.append(word)
    return [command for command in [*found, command] if command]


def without_redirection(words):
    return words[: words.index(">")] if ">" in words else words


def check(words, monkeypatch):
    """Check one command: its flags by its own parser, or that its module exists."""
    if words[0] == "sequence-suite":
        words = ["python", "-m", "tasks", *words[1:]]
    if words[:2] == ["python", "-m"]:
        name, *flags = words[2:]
        if not name.startswith("tasks"):
            assert importlib.util.find_spec(name), name
            if name == "pytest":
                assert all((ROOT / flag).exists() for flag in flags if flag.startswith("tests"))
            return
        with pytest.raises(ParsedError):
            parse(name, flags, monkeypatch)
    elif words[:2] == ["python", "client.py"]:
        with pytest.raises(ParsedError):
            parse_client(words[2:], monkeypatch)
    elif words[0] == "curl":
        check_request(words[1:])
    elif words[:2] == ["python", "-c"]:
        compile(words[2], "<page>", "exec")
    elif "=" not in words[0] and words[0] not in ("export", "zcat", ".", "python3", "python"):
        assert words[0] in OTHERS, words


def parse(name, flags, monkeypatch):
    """Run the `main` of a command up to its parsed flags."""
    original, of_training = cli.parse, cli.parse_train

    def raise_parsed(*_, **__):
        raise ParsedError

    def parse_flags(*arguments, **options):
        original(*arguments, **options)
        raise ParsedError

    def parse_training(*arguments, own=None, **options):
        try:
            of_training(*arguments, own=own, **options)
        except (InputError, FileNotFoundError):  # `own` may read the user's files
            of_training(*arguments, **options)
        raise ParsedError

    monkeypatch.setattr(cli, "parse", parse_flags)
    monkeypatch.setattr(cli, "parse_train", parse_training)
    monkeypatch.setattr(cluster, "run_workers", raise_parsed)
    module = importlib.import_module("tasks.__main__" if name == "tasks" else name)
    if "--help" in flags:
        with pytest.raises(SystemExit) as stop:
            module.main(flags)
        assert stop.value.code == 0
        raise ParsedError
    module.main(flags)


def parse_client(flags, monkeypatch):
    spec = importlib.util.spec_from_file_location("client", ROOT / "saved_models" / "client.py")
    client = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(client)
    original = client.argparse.ArgumentParser.parse_args

    def parse_args(self, *arguments):
        original(self, *arguments)
        raise ParsedError

    monkeypatch.setattr(client.argparse.ArgumentParser, "parse_args", parse_args)
    client.main(flags)


def check_request(words):
    """Check the inputs of a request to the server against the recorded signatures."""
    (url,) = [word for word in words if word.startswith("http")]
    task = re.search(r"/models/(\w+)", url)[1]
    signatures = json.loads(read(ROOT / "tests" / "golden" / f"{task}.json"))
    if "-d" not in words:
        return
    body = words[words.index("-d") + 1]
    if body.startswith("@") or "$" in body:  # a file, a variable of the shell
        return
    inputs = json.loads(body)["inputs"]
    names = set(signatures["serving_default"]["inputs"])
    assert set(inputs) == names if isinstance(inputs, dict) else len(names) == 1


@of("sh", without=[GUIDE])
def test_commands_are_valid(block, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for words in commands(block.code):
        with monkeypatch.context() as patch:
            check(without_redirection(words), patch)


def test_invalid_commands_are_found(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    for line in (
        "python -m tasks.ner.train --bogus 1",
        "python -m tasks.ner.train --dataset bogus",
        "python -m tasks.sentiment.predict",
        "python -m tasks.bogus.train",
        "python -m tests.benchmarks.bogus",
        "python client.py bogus x",
        """curl -d '{"inputs": {"bogus": []}}' http://localhost:8501/v1/models/ner:predict""",
        "bogus",
    ):
        with pytest.raises((Exception, SystemExit)), monkeypatch.context() as patch:
            check(commands(line)[0], patch)


def test_commands_are_separated_from_comments():
    code = "a 'b # c' d  # e\nf && g | h > i\n# j\nk \\\n  l\n"
    separated = [["a", "b # c", "d"], ["f"], ["g"], ["h", ">", "i"], ["k", "l"]]
    assert commands(code) == separated


# --- Python, JSON and YAML ------------------------------------------------------------------------


@of("python", without=[GUIDE])
def test_python_runs(block, monkeypatch):
    monkeypatch.chdir(ROOT)
    exec(compile(block.code, block.place, "exec"), {"__name__": "page"})


@of("json")
def test_responses_have_the_outputs_of_the_signature(block):
    task = Path(block.page).parent.name
    outputs = json.loads(block.code)["outputs"]
    signatures = json.loads(read(ROOT / "tests" / "golden" / f"{task}.json"))
    assert set(outputs) == set(signatures["serving_default"]["outputs"])


@of("yaml")
def test_yaml_is_valid(block):
    assert yaml.safe_load(block.code)


# --- Outputs --------------------------------------------------------------------------------------

# The outputs of `predict`; tests/test_pages.py and the test of the guide compare the others.
PREDICTED = [
    (commands_block, output)
    for commands_block, output in itertools.pairwise(BLOCKS)
    if (commands_block.language, output.language) == ("sh", "text")
    and commands_block.page == output.page != GUIDE
    and ".predict" in commands_block.code
    and "--quick" not in commands_block.code
]


def test_every_output_is_compared():
    rest = {b.place for b in BLOCKS if b.language == "text"} - {o.place for _, o in PREDICTED}
    compared = {"BENCHMARKS.md", "README.md", GUIDE}
    assert {rest_of.partition(":")[0] for rest_of in rest} <= compared


def assert_shown(printed, shown):
    """Compare an output with that of a page, without times.

    Confidences may differ by 4 %: the synthesizer speaks, and the encoder of clips packs, a little
    differently each time.
    """
    numbers = re.compile(r"([\d.]+) %(?:, \d+ ms)?")
    texts = [numbers.sub("", text.strip()) for text in (printed, shown)]
    assert texts[0] == texts[1]
    percents = [[float(number) for number in numbers.findall(text)] for text in (printed, shown)]
    assert percents[0] == pytest.approx(percents[1], abs=4.0)


@pytest.mark.commands
@pytest.mark.parametrize(("block", "output"), PREDICTED, ids=lambda block: block.place)
def test_predictions_are_those_of_the_published_models(
    block, output, tmp_path, command_environment
):
    lines = [words for words in commands(block.code) if words[:2] == ["python", "-m"]]
    lines = [words for words in lines if not words[2].endswith(".train")]
    task = lines[-1][2].split(".")[1]
    if not (ROOT / "saved_models" / task / "1").is_dir():
        pytest.skip(f"no published model of {task} in saved_models/")
    (tmp_path / "saved_models").symlink_to(ROOT / "saved_models")
    environment = command_environment | {"PYTHONPATH": str(ROOT)}
    for words in lines:
        done = subprocess.run(
            [sys.executable, *words[1:]],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr
    assert_shown(done.stdout, output.code)


@pytest.mark.commands
def test_the_examples_of_the_front_page_are_those_of_the_models(command_environment):
    (shown,) = [b.code for b in BLOCKS if b.page == "README.md" and " ms)" in b.code]
    done = subprocess.run(
        [sys.executable, "-m", "tasks", "examples"],
        cwd=ROOT,
        env=command_environment,
        capture_output=True,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    *lines, _ = done.stdout.splitlines()  # the last line is a JSON object
    assert_shown("\n".join(lines), shown)
