"""The phrase book of the translation task, and the patterns that write part of it."""

import re
import string
import unicodedata
from pathlib import Path

from common.errors import InputError
from tasks.translation import patterns

import pytest

BOOK = Path(patterns.__file__).with_name("phrases")
# The sentence by which the task is shown, and the answers that count as right.
SHOWN = (
    "Voulez-vous chanter avec moi?",
    "Do you want to sing with me?",
    "Would you like to sing with me?",
)


def pairs(split):
    lines = (BOOK / f"{split}.tsv").read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""  # the file ends with a line end
    rows = [tuple(line.split("\t")) for line in lines]
    assert {len(row) for row in rows} == {2}
    return rows


@pytest.fixture(scope="module")
def book():
    return {split: pairs(split) for split in ("train", "validation", "test")} | {
        "patterns": patterns.expand(BOOK / "patterns.txt")
    }


def words(sentence):
    return re.findall(r"\w+'?", sentence.lower())


def key(sentence):
    return " ".join(re.findall(r"\w+", sentence.lower()))


def test_the_counts_are_those_of_its_readme(book):
    told = dict(re.findall(r"^\| `(\w+)\.\w+` \| (\d+) ", (BOOK / "README.md").read_text(), re.M))
    assert {name: len(rows) for name, rows in book.items()} == {
        name: int(count) for name, count in told.items()
    }
    assert len(book["train"]) >= 700
    assert len(book["validation"]) >= 60
    assert len(book["test"]) >= 100


def test_every_line_is_a_clean_sentence_in_both_languages(book):
    plain = set(string.ascii_letters + " .,?!'-")
    french = plain | set("ÀÂÇÈÉÊÎÔàâçèéêëîïôùûœ")
    english = plain | {"é"}  # café, Rue du Marché
    for row in [row for rows in book.values() for row in rows]:
        for sentence, letters in zip(row, (french, english), strict=True):
            assert sentence == unicodedata.normalize("NFC", sentence), row
            assert set(sentence) <= letters, row
            assert sentence == " ".join(sentence.split()), row
            assert sentence[0].isupper(), row
            assert sentence[-1] in ".?!", row
            assert not re.search(r" [.,?!']|[.,?!'-]{2}|,[^ ]|' ", sentence), row
        # The two sides ask, order or tell alike, but for a few like "Could you ..."
        assert (row[0][-1] == "?") == (row[1][-1] == "?"), row


def test_french_elides_and_contracts(book):
    """No "je ai", "de eau", "si il", "à le"; "puis-je avoir" and "le onze" stay as they are."""
    missed = re.compile(
        r"(?<!-)\b(?:je|me|te|se|le|la|de|ne|que) (?:[aeiouyàâéèêîôœ]|h(?!uit))(?!nze)"
        r"|\bsi ils?\b|\b(?:à|de) les?\b",
        re.IGNORECASE,
    )
    assert missed.search("Je ai soif.")
    assert missed.search("C'est près de hôtel.")
    for rows in book.values():
        for french, _ in rows:
            assert not missed.search(french), french


def test_no_sentence_stands_twice_in_training_and_none_has_two_translations(book):
    french = [key(row[0]) for row in book["train"] + book["patterns"]]
    assert len(french) == len(set(french))


@pytest.mark.parametrize("side", [0, 1], ids=["french", "english"])
def test_no_held_out_sentence_stands_elsewhere(book, side):
    training = {key(row[side]) for row in book["train"] + book["patterns"]}
    validation, test = ({key(row[side]) for row in book[split]} for split in ("validation", "test"))
    assert len(validation) == len(book["validation"])
    assert len(test) == len(book["test"])
    assert not training & validation
    assert not training & test
    assert not validation & test


@pytest.mark.parametrize("side", [0, 1], ids=["french", "english"])
def test_held_out_sentences_are_made_of_known_words(book, side):
    known = {word for row in book["train"] + book["patterns"] for word in words(row[side])}
    for split, share in (("validation", (0.990, 0.994)), ("test", (0.990, 0.994))):
        found = [word in known for row in book[split] for word in words(row[side])]
        assert sum(found) / len(found) == pytest.approx(share[side], abs=5e-4)


def test_the_sentence_shown_stands_nowhere_but_its_parts_do(book):
    rows = [row for part in book.values() for row in part]
    for sentence in SHOWN:
        assert not any(key(sentence) in key(side) for row in rows for side in row)
    training = dict(book["train"] + book["patterns"])
    assert training["Voulez-vous danser avec moi?"] == "Do you want to dance with me?"
    assert training["Je veux chanter avec toi."] == "I want to sing with you."
    assert sum(french.startswith("Voulez-vous ") for french in training) > 50
    assert sum("avec moi" in french for french in training) > 30
    assert sum("chanter" in french for french in training) > 20


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_slots_are_filled_alike_on_both_sides_in_all_combinations(tmp_path):
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
        ("[x]\na b\n", ", line 2: expected a pair, its sides parted by a tab"),
        ("[x]\na\tb\tc\n", ", line 2: expected a pair, its sides parted by a tab"),
        ("[x]\na\t \n", ", line 2: expected a pair, its sides parted by a tab"),
        ("[x]\na\tb\n[x]\n", ", line 3: a second list [x]"),
        ("[patterns]\n{x}\t{x}\n", ", line 2: there is no list [x]"),
        ("[patterns]\n{patterns}\t{patterns}\n", ", line 2: there is no list [patterns]"),
        ("[x]\na\tb\n[patterns]\n{x}\tb\n", ", line 4: expected the same slots on both sides"),
        ("[patterns]\na\tb\nA\tc\n", ", line 3: gives 'A' a second time"),
        ("[x]\na\tb\n[patterns]\na\tb\n", ": no pattern uses the list [x]"),
        ("# nothing\n", ": no patterns in this file: expected a line [patterns] and pairs"),
    ],
)
def test_bad_patterns_are_told_in_one_line(tmp_path, text, message):
    path = write(tmp_path / "bad.txt", text)
    with pytest.raises(InputError) as error:
        patterns.expand(path)
    assert str(error.value) == f"{path}{message}"
