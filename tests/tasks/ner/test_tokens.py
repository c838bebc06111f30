"""Tokens of raw text and their places."""

from common.text import rewrite
from tasks.ner import tokens

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

locate = tf.function(tokens.locate, input_signature=[tf.TensorSpec([None], tf.string)])


def split(*texts):
    return [[t.decode() for t in row] for row in locate(tf.constant(texts))[0].to_list()]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("London,Paris", "London , Paris"),
        ("a,b,c;d:e", "a , b , c ; d : e"),
        ("Paris,2020 and 1,000.50 at 10:30", "Paris , 2020 and 1,000.50 at 10:30"),
        ("I saw it.Next day", "I saw it . Next day"),
        ("in 2020.Then", "in 2020 . Then"),
        ("see example.org/x or e.g. Node.js", "see example.org / x or e.g. Node.js"),
        ("Dr. No, Mr.Smith and St. Ives", "Dr. No , Mr. Smith and St. Ives"),
        ("Acme Inc., Widget Ltd. (U.S.A.)", "Acme Inc. , Widget Ltd. ( U.S.A. )"),
        ("Acme Inc.’s Dr.", "Acme Inc. ’s Dr."),
        ("the cod. A Drag. X-Dr. fast.", "the cod . A Drag . X-Dr . fast ."),
        ("J.R.R.Tolkien", "J.R.R. Tolkien"),
        ("@ada_l,@bob: #Rome!", "@ada_l , @bob : #Rome !"),
        ("ada@example.org #5 C# R&#x", "ada @ example.org # 5 C # R & # x"),
    ],
)
def test_missing_blanks_are_cut_and_abbreviations_keep_their_dot(text, expected):
    assert split(text) == [expected.split()]


DIFFICULT = ["it.Next", "a,b,c", "Dr.No", "Inc.", "日本,東京", "don’t", "e\u0301,A", "\U0001f600:A"]
DIFFICULT += [
    "\x01A,\x01b",
    "",
    "  ",
    "St.\u00a0X",
    "ﬁ,ﬂ",
    "\ud7ff\ue000,\U000e01ef.A\U00010600",
    "10:30,x",
]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=12) | st.sampled_from(DIFFICULT), min_size=1, max_size=5))
def test_offsets_are_exact_and_no_visible_character_is_lost(pieces):
    texts = ["".join(pieces), *pieces]
    found, start, end = (part.to_list() for part in locate(tf.constant(texts)))
    for text, row, begins, ends in zip(texts, found, start, end, strict=True):
        assert [text[a:b] for a, b in zip(begins, ends, strict=True)] == [t.decode() for t in row]
        assert all(b <= a for a, b in zip(begins[1:], ends, strict=False))
        covered = {place for a, b in zip(begins, ends, strict=True) for place in range(a, b)}
        missing = {c for place, c in enumerate(text) if place not in covered}
        assert not any(c.isalnum() for c in missing - {tokens._AT, tokens._HASH})


def test_tokenize_returns_the_normal_form_of_the_same_tokens():
    text = tf.constant(["Dr. Lee’s “A,B”"])
    found = tokens.tokenize(text).to_list()
    assert found == rewrite(tokens.locate(text)[0]).to_list()
    assert found == [[b"Dr.", b"Lee", b"'s", b'"', b"A", b",", b"B", b'"']]
