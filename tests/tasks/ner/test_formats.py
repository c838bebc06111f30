"""CoNLL files, their errors, and IOB tags."""

import sys

from common.commands import cli
from common.errors import InputError
from tasks.ner import formats, train
from tasks.ner.formats import Sentence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st


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


def test_columns_blanks_comments_and_document_lines_are_read(tmp_path):
    expected = [Sentence(["Ada", "saw", "#Rome"], ["B-PER", "O", "B-LOC"]), Sentence(["Hi"], ["O"])]
    path = tmp_path / "a.conll"
    for text in (
        # three columns; blanks and tabs at the ends of lines
        "Ada NN B-PER \nsaw VB O  \n#Rome NN B-LOC\t\n\nHi UH O\n",
        "Ada\tNN\tB-PER\t\t\nsaw\tVB\tO\t \n#Rome\tNN\tB-LOC\n\nHi\tUH\tO\n",
        # comments, also with as many columns as the tokens
        "# sent_id = 1\n# text here B\nAda 1 B-PER\nsaw 2 O\n#Rome 3 B-LOC\n\n# a b\nHi 4 O\n",
        # documents, and lines that are blank in Unicode
        "-DOCSTART- -X- O\n\u00a0\nAda x B-PER\nsaw x O\n#Rome x B-LOC\n\u3000\nHi x O\n",
        "Ada\tx\tB-PER\nsaw\tx\tO\n#Rome\tx\tB-LOC\n-DOCSTART-\tx\tO\nHi\tx\tO\n",
    ):
        path.write_text(text, encoding="utf-8")
        assert formats.read_conll(path) == expected, text


def test_flags_name_other_columns(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("1 Ada B-PER x\n2 saw O y z\n")
    columns = formats.Columns(token=2, tag=3)  # both count from the start, so lines may differ
    expected = [Sentence(["Ada", "saw"], ["B-PER", "O"])]
    assert formats.read_conll(path, columns=columns) == expected
    path.write_text("1 Ada B-PER x\n2 saw O y\n")
    assert formats.read_conll(path, columns=formats.Columns(-3, -2)) == expected
    with pytest.raises(InputError, match="line 1: --tag_column 7: there are 4 columns"):
        formats.read_conll(path, columns=formats.Columns(1, 7))


def test_tokens_that_are_blank_in_unicode_are_dropped_and_counted(tmp_path, capsys):
    path = tmp_path / "a.conll"
    path.write_text(
        "Ada\tB-PER\n\u00a0\tI-PER\n\u200b\tI-PER\nByron\tI-PER\n\tO\n\n\tO\n\nRome\tB-LOC\n",
        encoding="utf-8",
    )
    assert formats.read_conll(path) == [
        Sentence(["Ada", "Byron"], ["B-PER", "I-PER"]),
        Sentence(["Rome"], ["B-LOC"]),
    ]
    assert "a.conll: lines without a token were dropped: 4" in capsys.readouterr().err


SCHEMES = {
    "IOB1": ("I-A I-A O I-A B-A", 1),
    "IO": ("I-A I-A O I-A O", 0),
    "BIOES": ("B-A E-A O S-A S-A", 1),
    "BILOU": ("B-A L-A O U-A U-A", 1),
    "bare types": ("A A O A O", 0),
}


@pytest.mark.parametrize("scheme", SCHEMES)
def test_all_schemes_are_converted_to_iob2(tmp_path, capsys, scheme):
    tags, separated = SCHEMES[scheme]
    path = tmp_path / "a.conll"
    path.write_text("".join(f"w {tag}\n" for tag in tags.split()))
    ((_, converted),) = formats.read_conll(path)
    assert converted == ["B-A", "I-A", "O", "B-A", "B-A" if separated else "O"]
    assert capsys.readouterr().err == f"a.conll: its tags ({scheme}) were converted to IOB2\n"


@pytest.mark.parametrize(
    ("tags", "scheme", "line"),
    [
        (["B-A"] * 5 + ["I-A"], "IOB2", 12),  # as in the published CoNLL-2003 file
        (["I-A"] * 5 + ["B-A"], "IOB1", 12),
        (["S-A"] * 5 + ["B-A"], "BIOES", 12),  # never ends
        (["S-A"] * 5 + ["I-A"], "BIOES", 12),
    ],
)
def test_a_tag_that_breaks_the_scheme_is_read_counted_and_said_once(
    tmp_path, capsys, tags, scheme, line
):
    path = tmp_path / "a.conll"
    path.write_text("".join(f"w O\nw {tag}\nw O\n\n"[4:] for tag in tags).replace("\n\n", "\n"))
    ((_, converted),) = formats.read_conll(path)
    assert converted == ["B-A", "O"] * 6
    error = capsys.readouterr().err
    assert f"tags that break the scheme {scheme}: 1 (first: line {line - 1})" in error
    assert error.count("\n") == 1


@settings(max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["O", "B-A", "I-A", "B-B", "I-B"]), max_size=8))
def test_the_same_entities_are_read_from_iob2_bioes_and_bilou(tags):
    tags = formats.to_iob2(tags)
    spans = formats.entities(tags)
    for begin, end, single in (("B", "E", "S"), ("B", "L", "U"), ("B", "E", "W")):
        other = list(tags)
        for kind, start, stop in spans:
            other[start] = f"{begin}-{kind}"
            other[stop - 1] = f"{end if stop - start > 1 else single}-{kind}"
        assert formats.to_iob2(other) == tags


def test_tags_without_a_type_have_one_type():
    assert formats.to_iob2(["B", "I", "O"]) == ["B-ENTITY", "I-ENTITY", "O"]


def test_iob1_is_converted_to_iob2():
    assert formats.to_iob2([]) == []
    assert formats.to_iob2(["I-A", "I-A", "B-A", "I-A", "O", "I-B", "I-A"]) == (
        ["B-A", "I-A", "B-A", "I-A", "O", "B-B", "B-A"]
    )


def test_few_malformed_sentences_are_skipped_counted_and_listed(tmp_path, capsys):
    path = tmp_path / "a.conll"
    path.write_text("Ada B-PER\n\n" * 300 + "New York B-LOC\n\nRome 7\n\n")
    assert len(formats.read_conll(path)) == 300
    assert (
        "a.conll: 2 of 302 sentences were skipped (line 601: expected 2 columns as on most lines, "
        "got 3; line 603: expected a tag such as O, B-TYPE, I-TYPE or TYPE, got '7')"
    ) in capsys.readouterr().err


def test_training_sentences_are_counted_without_reading_them_all(tmp_path):
    path = tmp_path / "a.conll"
    path.write_text("-DOCSTART- O\n\n\nAda B-PER\nsaw O\n\n" * 10)
    assert formats.count_training_sentences(path, 100) == 8
    assert formats.count_training_sentences(path, 4) == 4
    for name in ("train", "dev", "test"):
        (tmp_path / f"{name}.conll").write_bytes(path.read_bytes())
    assert formats.count_training_sentences(tmp_path, 100) == 10
    assert formats.count_training_sentences(tmp_path, 3) == 3


GOOD = b"Ada\tB-PER\nsaw\tO\n\n" * 12


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "my.conll: no sentences in this file"),
        (b"\n\n-DOCSTART- O\n\n", "my.conll: no sentences in this file"),
        (b"Ada\n", "line 1: expected two or more columns, a token and its tag, got 1"),
        (b"Ada B-PER\nx NN NP O\n", "line 2: expected 2 columns as on most lines, got 4"),
        (b"Ada 7\n", "line 1: expected a tag such as O, B-TYPE, I-TYPE or TYPE, got '7'"),
        (b"x O\ny\t\n", "line 2: expected 2 columns as on most lines, got 1"),
        (b"\tO\n", "no sentences in this file"),
        (b"x O\n\xff O\n", "my.conll, line 2: not UTF-8"),
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
