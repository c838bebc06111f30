"""The dictionary of rare words, against counts by hand and an alignment written out in full."""

import collections
import dataclasses
import itertools

from common.datasets import Corpus
from tasks.translation import data, dictionary, train

import pytest

PAIRS = [
    ("Le pompier dort.", "The fireman sleeps."),
    ("Un pompier mange.", "A fireman eats."),
    ("Le chat mange.", "The cat eats."),
    ("Un chat dort.", "A cat sleeps."),
    ("Le train de Turin.", "The train from Turin."),
    ("Un hôtel, Turin.", "A hotel in Turin."),
    ("Le 25 mai.", "On 25 May."),
    ("Un 25 mai ?", "One 25 May?"),
]


def model_1(pairs, rounds):
    """Return P(target | source) in plain Python; the empty word stands in every source."""
    probability = collections.defaultdict(lambda: 1.0)
    for _ in range(rounds):
        counts, totals = collections.Counter(), collections.Counter()
        for source, target in pairs:
            for word in target:
                scores = {other: probability[other, word] for other in source}
                for other in source:
                    counts[other, word] += scores[other] / sum(scores.values())
                    totals[other] += scores[other] / sum(scores.values())
        probability.update({(s, t): c / totals[s] for (s, t), c in counts.items()})
    return probability


def test_words_translate_each_other_in_both_directions():
    letters = str.maketrans(dict.fromkeys(".,?", " "))
    rows = [
        tuple(["", *side.lower().translate(letters).split()] for side in pair) for pair in PAIRS
    ]
    assert all(len(set(side)) == len(side) for row in rows for side in row)
    forward = model_1(rows, dictionary.ROUNDS)
    backward = model_1([row[::-1] for row in rows], dictionary.ROUNDS)
    counts = collections.Counter(itertools.chain.from_iterable(source for source, _ in rows))
    expected = {
        (s, t)
        for (s, t), p in list(forward.items())
        if p * backward[t, s] >= dictionary.AGREEMENT and counts[s] >= 2 and s.isalpha()
        if t.isalpha()
    }
    learnt = dictionary.learn(PAIRS)
    assert {(s, t.lower()) for s, t in learnt} == expected
    assert learnt == sorted(learnt)
    assert {("pompier", "fireman"), ("chat", "cat"), ("turin", "Turin")} <= set(learnt)
    assert not {s for s, _ in learnt} & {"25", "hôtel", "train", ""}  # a number, and single ones


@pytest.mark.parametrize("pairs", [[], [("?", "!")], [("a", "")], [("Bonjour", "Hello")]])
def test_texts_without_repeated_words_have_no_dictionary(pairs):
    assert dictionary.learn(pairs) == []


def test_only_so_much_text_is_read_as_fits_into_memory(monkeypatch):
    monkeypatch.setattr(dictionary, "CELLS", 16 * 4)
    many = [*PAIRS[:4], *[("Une souris.", "A mouse.")] * 3]
    assert "souris" not in dict(dictionary.learn(many))
    monkeypatch.setattr(dictionary, "CELLS", 16 * 5 + 27)
    assert dict(dictionary.learn(many))["souris"] == "mouse"


def test_the_usual_form_is_not_that_of_the_first_word():
    pairs = [("vite", "Fast"), ("vite", "Fast"), ("mai", "in May"), ("mai", "in May")]
    assert set(dictionary.learn(pairs)) >= {("vite", "fast"), ("mai", "May")}


def test_the_training_split_alone_has_the_dictionary(capsys):
    rows = data.as_dataset(PAIRS)
    corpus = Corpus("own", {"train": rows, "validation": rows, "test": rows}, "", "")
    longer = train.add_dictionary(corpus)
    words = dictionary.learn(PAIRS)
    assert f"{len(words)} rare words with their translations" in capsys.readouterr().err
    assert list(data.sampled_pairs(longer)) == [*PAIRS, *words]
    assert longer.size("validation") == longer.size("test") == len(PAIRS)
    unknown = dataclasses.replace(corpus, splits={"train": data.as_dataset([("a", "b")])})
    assert train.add_dictionary(unknown).size("train") == 1
