"""Readers of the user's own files, and their messages."""

import gzip
import sys

from common.commands import cli
from common.errors import InputError
from tasks.translation import formats, train

import pytest

FRENCH = ("fr", "en")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"my.tsv": "a\tb\nc\n"}, "my.tsv, line 2: expected a source, a tab and a target, got 1"),
        ({"my.tsv": "a\tb\tc\n"}, "my.tsv, line 1: expected a source, a tab and a target, got 3"),
        ({"my.csv": "a,b\nc\n"}, "my.csv, line 2: expected a source, a comma and a target, got 1"),
        ({"my.csv": 'a,b\n"c,d\n'}, "my.csv, line 2: malformed: unexpected end of data"),
        ({"my.tsv": "a\t \n"}, "my.tsv: no sentence pairs in this file"),
        ({"my.tsv": ""}, "my.tsv: no sentence pairs in this file"),
        ({"my.tsv": "a\tb\n" * 5}, "1 examples are too few to split; at least 10 are needed"),
        ({"my.fr": "a\nb\n", "my.en": "x\n"}, "my.fr: 2 lines, but"),
        ({"my.fr": "a\n\n", "my.en": "\nx\n"}, "my.fr: no sentence pairs in this file"),
        ({"my.fr": "a\n"}, "my.en: cannot read: No such file"),
        ({"my.doc": "a,b\n"}, "my.doc: expected a .tsv, .txt, .csv or .tmx file, or two parallel"),
        ({"my.tsv.gz": "a\tb\n"}, "my.tsv.gz: cannot decompress: Not a gzipped file"),
        ({"my.tmx": "<tmx><body><tu>"}, "my.tmx: malformed: "),
        ({"my.tmx": "<tmx/>"}, "my.tmx: no unit has both 'fr' and 'en'"),
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


def read(tmp_path, name, content, languages=FRENCH, columns=(None, None)):
    data = content.encode() if isinstance(content, str) else content
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    return formats.read_pairs(tmp_path / name, languages, columns)


def test_fields_and_lines_are_stripped(tmp_path):
    (tmp_path / "my.en").write_text("Go. \n")
    for name, content in (("my.tsv", "\ufeffVa !\t Go. \r\n"), ("my.fr", " Va !\n")):
        assert read(tmp_path, name, content).pairs == [("Va !", "Go.")]


def test_rows_without_text_on_one_side_are_skipped_and_counted(tmp_path):
    expected = (
        [("a", "b"), ("c", "d")],
        [("line 2", "no source"), ("line 3", "no target")],
    )
    assert read(tmp_path, "my.tsv", "a\tb\n \tx\ny\t\nc\td\n") == expected
    (tmp_path / "my.en").write_text("b\nx\n\nd\n")
    assert read(tmp_path, "my.fr", "a\n\ny\nc\n") == expected


# The form of manythings.org, with sentences of our own.
MANY = (
    "Go.\tVa !\tCC-BY 2.0 (France) Attribution: ours #1 (us) & #2 (us)\n"
    "Hi.\tSalut.\tCC-BY 2.0 (France) Attribution: ours #3 (us) & #4 (us)\n"
)


@pytest.mark.parametrize(
    ("name", "content", "columns"),
    [
        ("fra.txt", MANY, ("2", "1")),
        ("fra.txt", MANY, ("2", None)),
        ("fra.txt.gz", MANY, (None, "1")),
        ("my.tsv", "en\tfr\nGo.\tVa !\nHi.\tSalut.\n", (None, None)),
        ("my.csv", "id,English,French\n1,Go.,Va !\n2,Hi.,Salut.\n", (None, None)),
        ("my.csv.gz", "id,cible,origine\n1,Go.,Va !\n2,Hi.,Salut.\n", ("origine", "cible")),
        ("my.tsv", "a\tb\tc\nGo.\t-\tVa !\nHi.\t-\tSalut.\n", ("c", "a")),
    ],
)
def test_columns_are_named_by_flags_or_by_the_languages(tmp_path, name, content, columns):
    pairs = read(tmp_path, name, content, columns=columns).pairs
    assert pairs == [("Va !", "Go."), ("Salut.", "Hi.")]
    swapped = read(tmp_path, name, content, ("en", "fr"), columns[::-1]).pairs
    assert swapped == [("Go.", "Va !"), ("Hi.", "Salut.")]


def test_attributions_are_ignored_without_flags(tmp_path):
    assert read(tmp_path, "fra.txt", MANY, ("en", "fr")).pairs[0] == ("Go.", "Va !")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (("prix", None), r"no column 'prix' \(found: en, fr\)"),
        (("1", "1"), "must be two columns, from 1"),
        (("0", "1"), "must be two columns, from 1"),
        (("1", "3"), "line 2: expected a source, a tab and a target, got 2"),
    ],
)
def test_wrong_columns_are_refused(tmp_path, columns, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, "my.tsv", "en\tfr\nGo.\tVa !\n", columns=columns)


def test_quoted_fields_may_hold_tabs_and_line_ends(tmp_path):
    content = '"Va\nvite, ""toi"".\tOui."\t"Go\nfast."\nSalut.\tHi.\n'
    expected = [('Va\nvite, "toi".\tOui.', "Go\nfast."), ("Salut.", "Hi.")]
    assert read(tmp_path, "my.tsv", content).pairs == expected
    content = 'fr,en\n"Va\nvite, ""toi"".\tOui.","Go\nfast."\nSalut.,Hi.\n'
    assert read(tmp_path, "my.csv", content).pairs == expected


def test_quotation_marks_of_sentences_are_text(tmp_path):
    rows = [
        ('"Viens", dit-il.', '"Come," he said.'),
        ('"Je pars.', '"I leave.'),
        ('"Je pars', "I leave"),
        ('"Qui ?" "Moi."', '"Who?" "Me."'),
        ('Il dit : "oui"', 'He says "yes"'),
    ]
    content = "".join(f"{a}\t{b}\n" for a, b in rows)
    assert read(tmp_path, "my.tsv", content).pairs == rows


TMX = """<?xml version="1.0" encoding="UTF-8"?>
<tmx version="1.4"><header srclang="en"/><body>
<tu><tuv xml:lang="en-US"><seg>Press <bpt i="1">&lt;b&gt;</bpt>start<ept i="1">&lt;/b&gt;</ept>
 &amp; wait.</seg></tuv><tuv xml:lang="fr"><seg>Appuie sur
<hi>start</hi> et attends.</seg></tuv></tu>
<tu><tuv xml:lang="de"><seg>Nein.</seg></tuv><tuv xml:lang="fr"><seg>Non.</seg></tuv></tu>
<tu><tuv lang="FR"><seg>Oui.</seg></tuv><tuv lang="EN"><seg>Yes.</seg></tuv></tu>
</body></tmx>"""


@pytest.mark.parametrize("name", ["my.tmx", "my.tmx.gz"])
def test_translation_memories_are_read(tmp_path, name):
    assert read(tmp_path, name, TMX) == (
        [("Appuie sur start et attends.", "Press start & wait."), ("Oui.", "Yes.")],
        [("unit 2", "no text in 'en'")],
    )


def test_parallel_files_may_be_compressed(tmp_path):
    (tmp_path / "my.en.gz").write_bytes(gzip.compress(b"Go.\n"))
    assert read(tmp_path, "my.fr.gz", "Va !\n").pairs == [("Va !", "Go.")]


def test_a_damaged_archive_is_refused(tmp_path):
    whole = gzip.compress(b"Va !\tGo.\n" * 1000)
    (tmp_path / "my.tsv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"my\.tsv\.gz: cannot decompress: "):
        formats.read_pairs(tmp_path / "my.tsv.gz", FRENCH)
