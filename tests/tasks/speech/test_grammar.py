import hashlib
import itertools

from common.datasets import SPLITS
from tasks.speech import grammar

import pytest


def test_no_sentence_is_in_two_splits():
    texts = {
        split: [
            sentence.text
            for sentence, _ in zip(grammar.sentences(split, 1), range(1000), strict=False)
        ]
        for split in SPLITS
    }
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(texts[one]) & set(texts[other])
    for split, sentences in texts.items():
        assert len(set(sentences)) == 1000
        assert grammar.HELD_OUT not in sentences
        assert sentences == [
            s.text for s, _ in zip(grammar.sentences(split, 1), range(1000), strict=False)
        ]
        assert set("".join(sentences)) == set("abcdefghijklmnopqrstuvwxyz ")


def test_the_held_out_sentence_is_in_no_other_file(pytestconfig):
    for path in (pytestconfig.rootpath / "tasks" / "speech").glob("*.py"):
        allowed = {"grammar.py": 1}.get(path.name, 0)
        assert path.read_text().lower().count(grammar.HELD_OUT) == allowed, path.name


def test_numbers_and_ordinals_in_words():
    assert [grammar.number(n) for n in (0, 13, 40, 99, 100, 342, 20_007, 110_100)] == [
        "zero",
        "thirteen",
        "forty",
        "ninety nine",
        "one hundred",
        "three hundred and forty two",
        "twenty thousand and seven",
        "one hundred and ten thousand one hundred",
    ]
    assert [grammar.ordinal(n) for n in (1, 12, 20, 21, 30)] == [
        "first",
        "twelfth",
        "twentieth",
        "twenty first",
        "thirtieth",
    ]


@pytest.mark.parametrize(
    ("split", "digest"),
    [("train", "cecc1f58a79a"), ("validation", "a3090685c02b"), ("test", "28c609fc4f5d")],
)
def test_the_sentences_of_a_prepared_data_set_are_unchanged(split, digest):
    """Other sentences need a new VERSION of `spoken_commands`."""
    texts = hashlib.sha1()
    for sentence in itertools.islice(grammar.sentences(split, 1), 1000):
        texts.update("\t".join(sentence).encode() + b"\n")
    assert texts.hexdigest()[:12] == digest
