"""The tokeniser against literal tokens, lookups against dictionaries."""

import itertools
import re
import unicodedata

from common.errors import InputError
from common.text import Vocabulary, compose, count_words, frequent, locate, rewrite, tokenize

import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("There is nothing to like.", "there is nothing to like ."),
        ("I can't say it's BAD", "i ca n't say it 's bad"),
        ("we'd they'll I'm you've isn't", "we 'd they 'll i 'm you 've is n't"),
        ("wo n't , it 's ``fine''", "wo n't , it 's \" fine \""),
        ("-LRB- so-so -rrb-", "( so-so )"),
        ("U.S. costs 3,000.50 at 10:30...", "u.s. costs 3,000.50 at 10:30 ..."),
        ("x--y !?", "x -- y ! ?"),
        ("“curly” isn’t", '" curly " is n\'t'),
        ("Ünïcode ÉTÉ 你好", "ünïcode été 你好"),
        ("a\u00a0b\tc\nd", "a b c d"),
        ("<pad> <unk>", "< pad > < unk >"),
        ("writer\\/director", "writer / director"),
        ("e\u0301te\u0301", "été"),
        # Joiners inside words of Persian and Hindi, and between two words.
        ("می\u200cخواهم.", "می\u200cخواهم ."),
        ("क्\u200dष", "क्\u200dष"),
        ("\u200dgood\u200c \u200d", "good"),
        ("東京　大阪", "東京 大阪"),
        # Emoji: joined, with a tone of skin, in colour, a flag of letters, a flag of tags, a key.
        ("ok👩‍🚀👍🏽❤️🇫🇷🇩🇪🏴\U000e0067\U000e007f#️⃣", "ok 👩‍🚀 👍🏽 ❤️ 🇫🇷 🇩🇪 🏴\U000e0067\U000e007f #️⃣"),
    ],
)
def test_tokens_are_the_expected_ones(text, tokens):
    decoded = [token.decode() for token in tokenize(tf.constant([text])).to_list()[0]]
    assert decoded == tokens.split(" ")


def test_blank_texts_have_no_tokens_and_invalid_utf8_is_repaired():
    rows = tokenize(tf.constant([b"", b"  \t ", b"ok \xff\xfe bad"])).to_list()
    assert rows[:2] == [[], []]
    assert rows[2][0] == b"ok" and rows[2][-1] == b"bad"
    assert all(token.decode("utf-8") for token in rows[2])


def check_letters(text):
    once = tokenize(tf.constant([text]), lower=False).to_list()[0]
    joined = b" ".join(once)
    if "rb-" not in text.lower():  # bracket names of the Penn Treebank are rewritten
        before, after = (unicodedata.normalize("NFD", x) for x in (text, joined.decode()))
        assert [c for c in after if c.isalnum()] == [c for c in before if c.isalnum()]
    assert tokenize(tf.constant([joined]), lower=False).to_list()[0] == once


@settings(max_examples=30, deadline=None)
@given(st.text(max_size=60))
def test_tokenising_keeps_all_letters_and_is_idempotent(text):
    check_letters(text)


@pytest.mark.slow  # the same test on more texts
@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_tokenising_many_texts_keeps_all_letters_and_is_idempotent(text):
    check_letters(text)


# Pieces to which the rules apply, in addition to random text.
PIECES = ("``", "''", "`", "'", "’", "n't", "n’T", "'s", "-LRB-", "-rsb-", "\\\\/", "\\*", "U.S.")
PIECES += ("--", "...", "_", "\x00", "\x01", "\ufeff", "\u00a0")
PIECES += ("é", "e\u0301", "👩‍🚀", "🇫🇷", "東京", "क्षि")
PIECES += ("n'te\u0301", "e\u0301n't", "n't\u0327", "``\u200d``")
PIECES += ("\u200c", "\u200d", "می\u200cخواهم", "<\u0338", "#️⃣", "한")
written = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join)


def check_offsets(texts):
    tokens, start, end = (part.to_list() for part in locate(tf.constant(texts)))
    for row, text in enumerate(texts):
        surfaces = [text[a:b] for a, b in zip(start[row], end[row], strict=True)]
        assert surfaces == [token.decode() for token in tokens[row]]
        gaps = [text[a:b] for a, b in zip([0, *end[row]], [*start[row], len(text)], strict=True)]
        assert not re.sub(r"\s", "", "".join(g for g in "".join(gaps) if g.isprintable()))
    same = tokenize(tf.constant(texts), lower=False)
    assert rewrite(locate(tf.constant(texts))[0]).to_list() == same.to_list()


@settings(max_examples=40, deadline=None)
@given(st.lists(written, min_size=1, max_size=3))
def test_offsets_and_tokens_of_locate_agree_with_the_text_and_with_tokenize(texts):
    check_offsets(texts)


@pytest.mark.slow  # the same test on more texts
@settings(max_examples=150, deadline=None)
@given(st.lists(written, min_size=1, max_size=3))
def test_offsets_and_tokens_of_many_texts_agree(texts):
    check_offsets(texts)


def test_offsets_count_code_points_of_the_repaired_text():
    tokens, start, end = locate(tf.constant([b"a\xff b", "👩🏽 x".encode()]))
    assert tokens.to_list()[0] == [b"a", "\ufffd".encode(), b"b"]
    assert start.to_list() == [[0, 1, 3], [0, 3]] and end.to_list() == [[1, 2, 4], [2, 4]]
    tokens, start, end = locate(tf.constant(["e\u0301te\u0301 a\u200d"]))
    assert (start.to_list(), end.to_list()) == ([[0, 6]], [[5, 7]])


def test_every_letter_of_unicode_is_composed_as_by_python():
    letters = [chr(code) for code in range(0x110000) if not 0xD800 <= code < 0xE000]
    apart = [unicodedata.normalize("NFD", letter) for letter in letters]
    changing = [pair for pair in zip(letters, apart, strict=True) if pair[0] != pair[1]]
    assert len(changing) > 13_000
    texts = [f"x{text}y" for text in itertools.chain(*changing)]
    expected = [unicodedata.normalize("NFC", text).encode() for text in texts]
    assert compose(tf.constant(texts)).numpy().tolist() == expected


def test_composed_texts_and_compatibility_forms_stay_as_they_are():
    texts = ["", "été ﬁ ½ Ａ", "क्\u200dष می\u200cخواهم", "한국어 日本語　ガ", "👩‍🚀"]
    assert [text.decode() for text in compose(tf.constant(texts)).numpy()] == texts
    rows = compose(tf.ragged.constant([["e\u0301", "o"], [], ["\u1112\u1161\u11ab"]]))
    assert [[text.decode() for text in row] for row in rows.to_list()] == [["é", "o"], [], ["한"]]


@pytest.fixture
def vocabulary(tmp_path):
    Vocabulary.write(tmp_path / "vocabulary.txt", ["good", "bad", "été"])
    return Vocabulary(tmp_path / "vocabulary.txt")


def test_ids_are_line_numbers_and_unknown_words_are_one(vocabulary):
    tokens = tf.ragged.constant([["bad", "zebra", "été"], [], ["good"]])
    assert vocabulary.ids(tokens).to_list() == [[3, 1, 4], [], [2]]
    assert vocabulary.ids(tf.constant([["good", "?"]])).numpy().tolist() == [[2, 1]]
    assert len(vocabulary) == 5


def test_a_second_vocabulary_of_the_same_path_has_its_own_words(tmp_path):
    """Two trainings in one process write to the same path."""
    path = tmp_path / "vocabulary.txt"
    Vocabulary.write(path, ["good", "bad"])
    first = Vocabulary(path)
    Vocabulary.write(path, ["bad", "ugly"])
    second = Vocabulary(path)
    words = tf.constant(["good", "bad", "ugly"])
    assert first.ids(words).numpy().tolist() == [2, 3, 1]
    assert second.ids(words).numpy().tolist() == [1, 2, 3]


def test_an_export_holds_the_words_and_their_file(vocabulary, tmp_path):
    module = tf.Module()
    module.vocabulary = vocabulary
    spec = tf.TensorSpec([None], tf.string)
    module.ids = tf.function(vocabulary.ids, input_signature=[spec])
    tf.saved_model.save(module, tmp_path / "export")
    asset = tmp_path / "export" / "assets" / "vocabulary.txt"
    assert asset.read_bytes() == vocabulary.path.read_bytes()
    vocabulary.path.unlink()
    loaded = tf.saved_model.load(tmp_path / "export")
    assert loaded.ids(tf.constant(["bad", "zebra"])).numpy().tolist() == [3, 1]


def test_no_text_can_name_a_reserved_word(vocabulary):
    ids = vocabulary.ids(tokenize(tf.constant(["<pad> <unk>"]))).to_list()[0]
    assert 0 not in ids


def test_a_file_that_is_not_a_vocabulary_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("good\nbad\n")
    with pytest.raises(InputError, match=r"words.txt, line 1: expected <pad> and <unk>"):
        Vocabulary(tmp_path / "words.txt")
    Vocabulary.write(tmp_path / "words.txt", ["good", "bad", "good"])
    with pytest.raises(InputError, match=r"words.txt: the word 'good' stands on two lines"):
        Vocabulary(tmp_path / "words.txt")


def test_counts_and_their_order():
    counts = count_words(tf.data.Dataset.from_tensor_slices(["b a b", "c a b"]))
    assert counts == {"a": 2, "b": 3, "c": 1}
    assert frequent(counts) == ["b", "a", "c"]
    assert frequent(counts, at_least=2) == ["b", "a"]
