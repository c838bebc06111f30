"""`predict` between the pipes of a shell, `cat x | sequence-suite ner predict - --json | jq`."""

import json
import subprocess
import sys

from common.serving.versions import SHIPPED

import pytest

pytestmark = pytest.mark.commands

# Standard input, the JSON key that repeats it, and its values.
LINES = {
    "sentiment": ("A fine film.\r\n\nDull, dull.", "text", ["A fine film.", "", "Dull, dull."]),
    "ner": ('Ada met Omar.\n\n東京 "x"\n', "text", ["Ada met Omar.", "", '東京 "x"']),
    "translation": ("Où est la gare ?\n\nOui.\n", "text", ["Où est la gare ?", "", "Oui."]),
    "dna": (">one x\nACGTAC\n\nGTAC\n>two\nacgt\n", "name", ["one", "two"]),
}


def command(task):
    words = ["-m", "tasks", task, "predict", "-", "--json", "--model", SHIPPED / task / "1"]
    return [sys.executable, *map(str, words)]


@pytest.mark.parametrize("task", LINES)
def test_each_input_has_a_line_of_json(task, tmp_path, command_environment):
    given, key, expected = LINES[task]
    done = subprocess.run(
        command(task),
        **{"input": given, "cwd": tmp_path, "env": command_environment},
        **{"capture_output": True, "encoding": "utf-8", "check": False},
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row[key] for row in rows] == expected
    assert all(("message" in row) == (not row[key]) for row in rows)  # of an empty line


@pytest.mark.parametrize("task", ["sentiment", "dna"])  # dna prints by itself
def test_a_reader_that_has_gone_is_no_error(task, tmp_path, command_environment):
    process = subprocess.Popen(
        command(task),
        **{"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE},
        **{"cwd": tmp_path, "encoding": "utf-8"},
        env={k: v for k, v in command_environment.items() if k != "PYTHONUNBUFFERED"},
    )
    process.stdout.close()  # as `head` does when it has its lines
    _, error = process.communicate(LINES[task][0])
    assert (process.returncode, error) == (1, "")
