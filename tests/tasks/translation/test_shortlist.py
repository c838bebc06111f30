"""Short-lists, against counts in Python and against the search of all subwords."""

from tasks.translation import data, model, shortlist
from tasks.translation.config import Config
from tasks.translation.shortlist import Shortlist
from tasks.translation.subwords import END, SPECIAL
from tests.tasks.own.translation import own_pairs

import keras
import numpy as np
import pytest
import tensorflow as tf


@pytest.fixture(scope="module")
def encoded(pieces):
    return data.encode(data.as_dataset(own_pairs()), pieces, pieces, max_length=24)


def to_shortlist(path, pieces, **arrays):
    shortlist.write(path, {name: np.array(value, np.int32) for name, value in arrays.items()})
    return Shortlist(path, len(pieces))


def test_translations_equal_those_of_model_1_in_python():
    generator = np.random.default_rng(0)
    source, target = (
        [generator.integers(0, 5, generator.integers(1, 6)).tolist() for _ in range(40)]
        for _ in range(2)
    )
    table = np.full((5, 6), 0.2)
    for _ in range(shortlist.ROUNDS):
        counts = np.zeros((5, 6))
        for left, right in zip(source, target, strict=True):
            for written in right:
                total = sum(table[read, written] for read in left)
                for read in left:
                    counts[read, written] += table[read, written] / total
        table = counts / counts.sum(axis=1, keepdims=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortlist, "CELLS", 50)
        found = shortlist._model_1(*map(tf.ragged.constant, (source, target)), (5, 6))
    np.testing.assert_allclose(found, table, atol=1e-5)


def test_words_are_translated_by_their_list(pieces, encoded, tmp_path):
    source, target = encoded.ragged(shortlist.learned_from(len(encoded)))
    arrays = shortlist.learn(source, target[:, 1:], pieces, pieces, count=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shortlist, "FREQUENT", 4)
        few = shortlist.learn(source, target[:, 1:], pieces, pieces, count=3)
    assert len(few["frequent"]) == len(SPECIAL) - 1 + 4  # the end symbol is frequent, too
    shortlist.write(tmp_path / "lists.npz", arrays)
    read = shortlist.read(tmp_path / "lists.npz")
    assert all((read[name] == value).all() for name, value in arrays.items())
    number = {piece: place for place, piece in enumerate(pieces.pieces.numpy().tolist())}
    for french, english in ((b" chat", b" cat"), (b" dort", b" sleeps")):
        if french in number and english in number:
            assert number[english] in arrays["translations"][number[french], :3]
    byte = number[b"\xe6"]  # in no pair: it can only be copied
    assert arrays["translations"][byte].tolist() == [END] * 3 + [byte]


def test_the_list_of_a_row_depends_on_that_row_only(pieces, tmp_path):
    translations = np.full((len(pieces), 2), END)
    translations[40], translations[41], translations[42] = (50, 51), (51, 60), (70, 71)
    lists = to_shortlist(
        tmp_path / "x.npz", pieces, translations=translations, frequent=range(len(SPECIAL))
    )
    ids = tf.constant([[40, 41, END, 42], [42, END, 40, 41]])
    tokens, penalty = lists.select(ids, tf.constant([3, 2]))
    special = list(range(len(SPECIAL)))
    assert tokens.numpy().tolist() == [*special, 50, 51, 60, 70, 71]
    allowed = penalty.numpy()[:, len(SPECIAL) :] == 0
    assert allowed.tolist() == [[True] * 3 + [False] * 2, [False] * 3 + [True] * 2]
    assert (penalty.numpy()[:, : len(SPECIAL)] == 0).all()


@pytest.mark.parametrize("beam", [1, 3])
def test_the_search_in_a_list_of_all_subwords_is_the_search_without_one(pieces, beam, tmp_path):
    keras.utils.set_random_seed(1)
    config = Config(embedding=6, units=8, encoder_layers=1, decoder_layers=1)
    built = model.build(config, source_size=len(pieces), target_size=len(pieces))
    built.set_weights([3.0 * weight for weight in built.get_weights()])
    every = np.arange(len(pieces))
    both = np.array([[40, 41, 42, END], [43, END, 0, 0]], np.int32), np.array([4, 2], np.int32)
    search = {"max_length": 12, "beam": beam, "best": beam, "alpha": 0.6}

    @tf.function(
        input_signature=[tf.TensorSpec([None, None], tf.int32), tf.TensorSpec([None], tf.int32)]
    )
    def with_all(ids, length):
        return model.translate(built, ids, length, shortlist=lists, **search)

    lists = to_shortlist(tmp_path / "all.npz", pieces, translations=every[:, None], frequent=every)
    expected = model.translate(built, *map(tf.constant, both), **search)
    decoded = with_all(*both)
    np.testing.assert_array_equal(decoded.tokens, expected.tokens)
    np.testing.assert_allclose(decoded.score, expected.score, rtol=1e-4)


def test_translations_hold_only_listed_subwords_whatever_the_other_rows(pieces, tmp_path):
    keras.utils.set_random_seed(1)
    config = Config(embedding=6, units=8, encoder_layers=1, decoder_layers=1)
    built = model.build(config, source_size=len(pieces), target_size=len(pieces))
    translations = np.full((len(pieces), 2), END)
    translations[40], translations[43] = (50, 51), (60, 61)
    lists = to_shortlist(
        tmp_path / "x.npz", pieces, translations=translations, frequent=range(len(SPECIAL))
    )
    ids, length = tf.constant([[40, END], [43, END]]), tf.constant([2, 2])
    search = {"max_length": 12, "beam": 3, "alpha": 0.6, "shortlist": lists}
    both = model.translate(built, ids, length, **search)
    for row, listed in ((0, {50, 51}), (1, {60, 61})):
        alone = model.translate(built, ids[row : row + 1], length[row : row + 1], **search)
        np.testing.assert_array_equal(alone.tokens[0], both.tokens[row])
        np.testing.assert_allclose(alone.score[0], both.score[row], rtol=1e-4)
        written = set(both.tokens.numpy()[row].reshape(-1).tolist())
        assert written <= listed | set(range(len(SPECIAL))) and written & listed


def test_the_lists_of_a_published_model_are_kept(tmp_path):
    new = {"translations": np.array([[5], [6]]), "frequent": np.array([1, 2])}
    before = {"translations": np.array([[7, 8], [9, 6]]), "frequent": np.array([2, 3])}
    merged = shortlist.merge(new, before)
    assert merged["translations"].tolist() == [[5, 7, 8], [6, 9, 6]]
    assert merged["frequent"].tolist() == [1, 2, 3]
