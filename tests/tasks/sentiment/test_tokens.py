"""Tokens of opinions, and the parts of unknown words."""

from common.text import Vocabulary
from common.word_embedding import known_part
from tasks.sentiment.tokens import Reader, _split_compound, tokenize

import numpy as np
import pytest
import tensorflow as tf


def split(text):
    return [token.decode() for token in tokenize(tf.constant([text])).to_list()[0]]


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("great:) :-( :'( =) (: ;-)", "great 🙂 🙁 😢 🙂 🙂 😉"),
        (":D XD ;P :/ :o :* <3 </3 >:(", "😀 😀 😛 😕 😮 😘 ❤ 💔 😠"),
        ("^_^ -_- :)))", "😊 😑 🙂"),
        ("👍🏽 ❤️ 😂😂", "👍 ❤ 😂 😂"),
        ("ab\u00adso\u00adlutely za\u200bny", "absolutely zany"),
        ("\uff27\uff4f\uff4f\uff44\uff01 caf\u0065\u0301", "good ! café"),
        ("See https://a.example/b?c=:/d, or www.x.example", "see http or http"),
        ("@ann and @bob_2: mail me@x.example", "@ and @ : mail me @ x.example"),
        ("good<br />bad <BR>", "good bad"),
        # These are no emoticons.
        ("at 10:30 (see 8) note:(a) and/or 3:0", "at 10:30 ( see 8 ) note : ( a ) and / or 3:0"),
        ("Does it? (Yes!)", "does it ? ( yes ! )"),
        ("exDs x:Dy", "exds x:dy"),
        ("-LRB- fine -RRB- ``it 's''", '( fine ) " it \'s "'),
        ("", ""),
        ("\u00ad :", ":"),
    ],
)
def test_emoticons_emoji_and_addresses_are_one_token(text, tokens):
    assert split(text) == tokens.split()


def reader(tmp_path, words):
    Vocabulary.write(tmp_path / "words.txt", words)
    return Reader(Vocabulary(tmp_path / "words.txt"))


def test_unknown_words_are_read_as_their_known_parts(tmp_path):
    read = reader(tmp_path, ["buzz", "obsessed", "stylish", "feel-good", "naïve"])
    texts = ["Buzz-obsessed, feel-good stylishness", "", "naïveté styl x-y ..... zzz"]
    tokens, ids = read(tf.constant(texts))
    expected = [
        ["buzz", "obsessed", ",", "feel-good", "stylish"],
        [],
        ["naïve", "styl", "x", "y", ".....", "zzz"],
    ]
    assert [[token.decode() for token in row] for row in tokens.to_list()] == expected
    assert ids.to_list() == [[2, 3, 1, 5, 4], [], [6, 1, 1, 1, 1, 1]]
    tokens, ids = read(tf.constant(texts), 2)
    assert (
        [len(row) for row in tokens.to_list()] == [len(row) for row in ids.to_list()] == [2, 0, 2]
    )


def test_the_graph_finds_the_parts_that_python_finds(tmp_path):
    random = np.random.default_rng(0)

    def draw(count, longest):
        return [
            "".join(random.choice(list("abü"), random.integers(1, longest))) for _ in range(count)
        ]

    known, words = set(draw(300, 9)), draw(2_000, 30)
    found = reader(tmp_path, sorted(known))._known_part(tf.constant(words)).numpy()
    expected = [*((known_part(word, known) or [word])[0] for word in words)]
    assert [part.decode() for part in found] == expected
    assert sum(part != word for part, word in zip(expected, words, strict=True)) > 100


def test_a_token_of_punctuation_is_kept_when_compounds_are_split():
    parts = _split_compound(tf.constant(["a-b.c", "....", "1,000"])).numpy().tolist()
    assert parts == [b"a b c", b"....", b"1 000"]
