"""CoNLL files, their errors, and IOB tags."""

import sys

from common.commands import cli
from tasks.ner import formats, train
from tasks.ner.formats import Sentence

import pytest


def test_all_common_forms_of_conll_files_are_read_alike(tmp_path):
    expected = [
        Sentence(["Ada", "Byron", "saw", "Rome"], ["B-PER", "I-PER", "O", "B-LOC"]),
        Sentence(["Mary", "Omar"], ["B-PER", "B-PER"]),
    ]
    path = tmp_path / "a.conll"
    for text in (
        "Ada\tB-PER\nByron\tI-PER\nsaw\tO\nRome\tB-LOC\n\nMary\tB-PER\nOmar\tB-PER\n",
        # IOB1, four columns, spaces, -DOCSTART-, blank lines at both ends
        "\n-DOCSTART- -X- -X- O\n\nAda NNP I-NP I-PER\nByron NNP I-NP I-PER\nsaw VB I-VP O\n"
        "Rome NNP I-NP I-LOC\n\nMary NNP I-NP I-PER\nOmar NNP B-NP B-PER\n\n\n",
        # byte-order mark, CRLF, several spaces, no newline at the end
        "\ufeffAda  B-PER\r\nByron   I-PER\r\nsaw O\r\nRome B-LOC\r\n \t \r\n"
        "Mary B-PER\r\nOmar B-PER",
    ):
        path.write_bytes(text.encode())
        assert formats.read_conll(path) == expected


def test_iob1_is_converted_to_iob2():
    assert formats.to_iob2([]) == []
    assert formats.to_iob2(["I-A", "I-A", "B-A", "I-A", "O", "I-B", "I-A"]) == (
        ["B-A", "I-A", "B-A", "I-A", "O", "B-B", "B-A"]
    )


GOOD = b"Ada\tB-PER\nsaw\tO\n\n" * 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "my.conll: no sentences in this file"),
        (b"\n\n-DOCSTART- O\n\n", "my.conll: no sentences in this file"),
        (b"Ada\n", "line 1: expected 2 or 4 columns, the token first and its tag last, got 1"),
        (b"a b O\n", "line 1: expected 2 or 4 columns, the token first and its tag last, got 3"),
        (b"Ada B-PER\nx NN NP O\n", "line 2: expected 2 columns as on the previous lines, got 4"),
        (b"Ada PER\n", "line 1: expected a tag O, B-TYPE or I-TYPE, got 'PER'"),
        (b"Ada S-PER\n", "line 1: expected a tag O, B-TYPE or I-TYPE, got 'S-PER'"),
        (b"x O\n\n\tO\n", "line 3: expected a token in the first column"),
        (b"x O\n\xff O\n", "my.conll, line 2: not UTF-8"),
        (
            b"Ada B-PER\nsaw O\n\nRome I-LOC\n",
            "line 4: I-LOC starts an entity here, but B-PER starts one in line 1: expected IOB2",
        ),
        (b"Rome I-LOC\nAda B-PER\n", "line 2: B-PER starts an entity here, but I-LOC starts one"),
        (b"saw O\n\n" * 12, "my.conll: every tag is O"),
        (GOOD[:60], "examples are too few to split"),
    ],
)
def test_a_malformed_file_gives_a_one_line_error(tmp_path, content, message, capsys, monkeypatch):
    path = tmp_path / "my.conll"
    path.write_bytes(content)
    monkeypatch.setattr(sys, "argv", ["train", "--data", str(path), "--output", str(tmp_path)])
    with pytest.raises(SystemExit) as stop:
        cli.run(train.main)
    assert stop.value.code == 2
    error = capsys.readouterr().err.strip()
    assert message in error and error.startswith("error: ") and "\n" not in error
    assert not list(tmp_path.glob("ner/[0-9]*"))


def test_lines_without_a_token_are_dropped_on_request(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("Ada\tB-PER\n\tO\nsaw\tO\n\n\tO\n\nRome\tB-LOC\n")
    assert formats.read_conll(path, drop_empty=True) == [
        Sentence(["Ada", "saw"], ["B-PER", "O"]),
        Sentence(["Rome"], ["B-LOC"]),
    ]


def test_read_splits_returns_the_types_of_the_whole_file(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("Ada\tB-PER\n\n" * 19 + "Rome\tB-LOC\n")
    splits, types = formats.read_splits(path, seed=1)
    assert types == ("LOC", "PER")
    assert {split: len(rows) for split, rows in splits.items()} == {
        "train": 16,
        "validation": 2,
        "test": 2,
    }
    assert splits == formats.read_splits(path, seed=1)[0]
