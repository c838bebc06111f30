from tasks.sentiment.lexicon import clauses, read_lexicon

import pytest

pytest.importorskip("vaderSentiment")


def test_words_and_emoji_have_their_ratings():
    ratings, emoji = read_lexicon()
    assert ratings["good"] == 1.9 and ratings["horrible"] == -2.5
    assert emoji["😢"] == ["crying", "face"] and ratings["😢"] == ratings["crying"]
    assert ratings["👎"] < 0 < ratings["👍"]
    assert not any(" " in word for word in ratings)
    assert {
        "🙂",
        "🙁",
        "😢",
        "😂",
        "😀",
        "😛",
        "😕",
        "😮",
        "😘",
        "😊",
        "😑",
        "😉",
        "❤",
        "💔",
    } <= set(emoji)


def test_a_negation_reverses_the_rating_of_a_word():
    made = clauses({"good": 2.0, "bad": -2.0, "so": 0.5}, 400, seed=1)
    assert made == clauses({"good": 2.0, "bad": -2.0, "so": 0.5}, 400, seed=1) and len(made) == 400
    negators = ("not", "n't", "never", "no ", "nothing", "nobody", "without", "hardly")
    for text, rating in made:
        is_negated = any(word in text for word in negators)
        assert ("good" in text) == ((rating > 0) != is_negated)
        assert abs(rating) == (1.48 if is_negated else 2.0)
