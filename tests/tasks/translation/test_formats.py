"""Readers of the user's own files, and their messages."""

import sys

from common.commands import cli
from tasks.translation import formats, train

import pytest


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"my.tsv": "a\tb\nc\n"}, "my.tsv, line 2: expected a source, a tab and a target, got 1"),
        ({"my.tsv": "a\tb\tc\n"}, "my.tsv, line 1: expected a source, a tab and a target, got 3"),
        ({"my.tsv": "a\tb\n\t c\n"}, "my.tsv, line 2: empty source"),
        ({"my.tsv": "a\t \n"}, "my.tsv, line 1: empty target"),
        ({"my.tsv": ""}, "my.tsv: no sentence pairs in this file"),
        ({"my.tsv": "a\tb\n" * 5}, "1 examples are too few to split; at least 10 are needed"),
        ({"my.fr": "a\nb\n", "my.en": "x\n"}, "my.fr: 2 lines, but"),
        ({"my.fr": "a\n\nb\n", "my.en": "x\ny\nz\n"}, "my.fr, line 2: empty line"),
        ({"my.fr": "a\n"}, "my.en: cannot read: No such file"),
        ({"my.csv": "a,b\n"}, "my.csv: expected a .tsv file, or two parallel files that end in"),
    ],
)
def test_bad_files_end_in_a_message_of_one_line(files, message, tmp_path, capsys, monkeypatch):
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    path = tmp_path / next(iter(files))
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(path), "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.run(train.main)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("error: ") and "\n" not in error
    assert not list(tmp_path.glob("translation/[0-9]*"))


def test_fields_and_lines_are_stripped(tmp_path):
    (tmp_path / "my.tsv").write_bytes("\ufeffVa !\t Go. \r\n".encode())
    (tmp_path / "my.fr").write_text(" Va !\n")
    (tmp_path / "my.en").write_text("Go. \n")
    for name in ("my.tsv", "my.fr", "my.en"):
        assert formats.read_pairs(tmp_path / name, ("fr", "en")) == [("Va !", "Go.")]
