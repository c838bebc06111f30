"""The phrase book of the translation task."""

import re
import string
import unicodedata

from tasks.translation.datasets import PHRASES
from tasks.translation.patterns import expand
from tasks.translation.splits import ACCEPTANCE, normalise
from tests.benchmarks.everyday import read_everyday

import pytest


def pairs(split):
    lines = (PHRASES / f"{split}.tsv").read_bytes().decode("utf-8").split("\n")
    assert lines.pop() == ""  # the file ends with a line end
    rows = [tuple(line.split("\t")) for line in lines]
    assert {len(row) for row in rows} == {2}
    return rows


@pytest.fixture(scope="module")
def book():
    return {split: pairs(split) for split in ("train", "validation", "test")} | {
        "patterns": expand(PHRASES / "patterns.txt")
    }


def words(sentence):
    return re.findall(r"\w+'?", sentence.lower())


def test_the_everyday_sentences_stand_nowhere(book):
    everyday = read_everyday()
    assert len(everyday) == 100 and all(all(targets) for targets in everyday.values())
    sources = {normalise(source) for rows in book.values() for source, _ in rows}
    assert not sources & set(map(normalise, everyday))


def test_the_counts_are_those_of_its_readme(book):
    counts = dict(
        re.findall(r"^\| `(\w+)\.\w+` \| (\d+) ", (PHRASES / "README.md").read_text(), re.M)
    )
    assert {name: len(rows) for name, rows in book.items()} == {
        name: int(count) for name, count in counts.items()
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
        # A question is translated by a question.
        assert (row[0][-1] == "?") == (row[1][-1] == "?"), row


def test_french_elides_and_contracts(book):
    """No "je ai", "de eau", "si il", "à le"; "puis-je avoir" and "le onze" stay as they are."""
    unelided = re.compile(
        r"(?<!-)\b(?:je|me|te|se|le|la|de|ne|que) (?:[aeiouyàâéèêîôœ]|h(?!uit))(?!nze)"
        r"|\bsi ils?\b|\b(?:à|de) les?\b",
        re.IGNORECASE,
    )
    assert unelided.search("Je ai soif.")
    assert unelided.search("C'est près de hôtel.")
    for rows in book.values():
        for french, _ in rows:
            assert not unelided.search(french), french


def test_no_sentence_is_in_training_twice_or_has_two_translations(book):
    french = [normalise(row[0]) for row in book["train"] + book["patterns"]]
    assert len(french) == len(set(french))


@pytest.mark.parametrize("side", [0, 1], ids=["french", "english"])
def test_no_held_out_sentence_is_in_another_split(book, side):
    training = {normalise(row[side]) for row in book["train"] + book["patterns"]}
    validation, test = (
        {normalise(row[side]) for row in book[split]} for split in ("validation", "test")
    )
    assert len(validation) == len(book["validation"])
    assert len(test) == len(book["test"])
    assert not training & validation
    assert not training & test
    assert not validation & test


@pytest.mark.parametrize("side", [0, 1], ids=["french", "english"])
def test_held_out_sentences_are_made_of_known_words(book, side):
    vocabulary = {word for row in book["train"] + book["patterns"] for word in words(row[side])}
    for split, fractions in (("validation", (0.990, 0.994)), ("test", (0.990, 0.994))):
        covered = [word in vocabulary for row in book[split] for word in words(row[side])]
        assert sum(covered) / len(covered) == pytest.approx(fractions[side], abs=5e-4)


def test_the_acceptance_sentences_are_absent_but_their_words_are_present(book):
    rows = [row for part in book.values() for row in part]
    for sentence in ACCEPTANCE:
        assert not any(normalise(sentence) in normalise(side) for row in rows for side in row)
    training = dict(book["train"] + book["patterns"])
    assert training["Voulez-vous danser avec moi?"] == "Do you want to dance with me?"
    assert training["Je veux chanter avec toi."] == "I want to sing with you."
    assert sum(french.startswith("Voulez-vous ") for french in training) > 50
    assert sum("avec moi" in french for french in training) > 30
    assert sum("chanter" in french for french in training) > 20
