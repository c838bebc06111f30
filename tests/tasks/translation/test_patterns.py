"""Expansion of pattern files."""

from common.errors import InputError
from tasks.translation import patterns

import pytest


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_slots_are_filled_with_all_combinations(tmp_path):
    path = write(
        tmp_path / "drinks.txt",
        "# drinks\n[who]\nje\tI\ntu\tyou\n\n[drink]\nde l'eau\twater\nun thé\ta tea\n"
        "[patterns]\nÉtienne et {who}: {drink}, {drink}!\t{drink} {who}\noui\tyes\n",
    )
    assert patterns.expand(path) == [
        ("Étienne et je: de l'eau, de l'eau!", "Water I"),
        ("Étienne et je: un thé, un thé!", "A tea I"),
        ("Étienne et tu: de l'eau, de l'eau!", "Water you"),
        ("Étienne et tu: un thé, un thé!", "A tea you"),
        ("Oui", "Yes"),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\tb\n", ", line 1: expected the name of a list in brackets first"),
        ("[x]\na b\n", ", line 2: expected a source, a tab and a target"),
        ("[x]\na\tb\tc\n", ", line 2: expected a source, a tab and a target"),
        ("[x]\na\t \n", ", line 2: expected a source, a tab and a target"),
        ("[x]\na\tb\n[x]\n", ", line 3: duplicate list [x]"),
        ("[patterns]\n{x}\t{x}\n", ", line 2: no list [x] in this file"),
        ("[patterns]\n{patterns}\t{patterns}\n", ", line 2: no list [patterns] in this file"),
        ("[x]\na\tb\n[patterns]\n{x}\tb\n", ", line 4: expected the same slots on both sides"),
        ("[patterns]\na\tb\nA\tc\n", ", line 3: duplicate source sentence 'A'"),
        ("[x]\na\tb\n[patterns]\na\tb\n", ": no pattern uses the list [x]"),
        ("# nothing\n", ": no patterns in this file: expected a line [patterns] and pairs"),
    ],
)
def test_bad_patterns_are_refused_with_file_and_line(tmp_path, text, message):
    path = write(tmp_path / "bad.txt", text)
    with pytest.raises(InputError) as error:
        patterns.expand(path)
    assert str(error.value) == f"{path}{message}"
