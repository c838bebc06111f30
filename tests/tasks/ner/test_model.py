"""The layers and the tagger: numbers against NumPy, padding, IOB2."""

import itertools

from common.crf import Constraints, Scores, viterbi
from common.word_clusters import ClusterFeatures
from common.word_embedding import WordEmbedding
from tasks.ner import model
from tasks.ner.config import Config
from tasks.ner.formats import entities, tag_names, to_iob2

import keras
import numpy as np
import pytest

TAGS = tag_names(["PER", "LOC"])


def small_model(seed=0, **changes):
    keras.utils.set_random_seed(seed)
    config = Config(**{"units": 5, "members": 2, "word_length": 6, **changes})
    embedding = WordEmbedding(9, 9, 4, members=config.members)
    shape = model.WordShape(12, name="shape")
    lookups = [ClusterFeatures(9, 3, 2, name=name) for name in model.lookups_of(config)]
    built = model.build(config, embedding, shape, lookups, tags=TAGS)
    embedding.set_fixed(np.random.default_rng(seed).normal(size=(9, 4)))
    shape.fill(["", "", *"abcABC01.-"])
    return built


def random_inputs(batch, time, seed=0):
    random = np.random.default_rng(seed)
    return {
        "words": random.integers(2, 9, (batch, time)).astype(np.int32),
        "characters": random.integers(0, 12, (batch, time, 6)).astype(np.int32),
        "length": random.integers(1, time + 1, batch).astype(np.int32),
    }


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_additional_padding_changes_nothing(cell):
    built = small_model(cell=cell, layers=2, clusters="explosion", gazetteer="geonames")
    inputs = random_inputs(3, 5)
    padded = {
        "words": np.pad(inputs["words"], [(0, 0), (0, 4)], constant_values=7),
        "characters": np.pad(inputs["characters"], [(0, 0), (0, 4), (0, 0)], constant_values=3),
        "length": inputs["length"],
    }
    plain, more = built(inputs), built(padded)
    np.testing.assert_array_equal(more["tags"][:, :5], plain["tags"])
    np.testing.assert_allclose(more["probabilities"][:, :5], plain["probabilities"], atol=1e-6)
    np.testing.assert_allclose(more["confidence"][:, :5], plain["confidence"], atol=1e-5)
    for name in ("tags", "probabilities", "confidence"):
        assert not np.any(more[name][:, 5:])


@pytest.mark.parametrize("outside_weight", [1.0, 0.01, 1e-6])
def test_predicted_tags_are_always_valid_iob2(outside_weight):
    built = small_model(outside_weight=outside_weight)
    head = [layer for layer in built.layers if layer.name in ("head_0", "head_1")]
    random = np.random.default_rng(0)
    for layer in head:  # random emissions violate IOB2 at most steps
        layer.set_weights([5 * random.normal(size=w.shape) for w in layer.get_weights()])
    inputs = random_inputs(200, 9, seed=1)
    found = built(inputs)["tags"].numpy()
    names = 0
    for row, length in zip(found, inputs["length"], strict=True):
        tags = [TAGS[tag] for tag in row[:length]]
        assert to_iob2(tags) == tags
        names += len(entities(tags))
    assert names > 50


def test_the_confidence_of_an_entity_sums_over_all_paths_that_mark_it():
    """Enumerate all valid paths of short rows."""
    random = np.random.default_rng(0)
    layer = model.Committee(TAGS, members=2, outside_weight=0.2)
    layer.build((None, 2, None, 5))
    for weight in layer.weights:
        weight.assign(random.normal(size=weight.shape))
    emissions = random.normal(size=(12, 2, 4, 5)).astype(np.float32) * 2
    length = np.array([4, 4, 4, 3, 2, 1] * 2, np.int32)
    tags, probabilities, confidence = (value.numpy() for value in layer(emissions, length))
    marked = 0
    for row, steps in enumerate(length):
        paths = [
            path
            for path in itertools.product(range(5), repeat=int(steps))
            if to_iob2([TAGS[tag] for tag in path]) == [TAGS[tag] for tag in path]
        ]
        weights = np.mean(
            [
                np.exp(
                    crf.log_likelihood(
                        np.repeat(emissions[row : row + 1, n], len(paths), axis=0)[:, :steps],
                        np.array(paths),
                        [steps] * len(paths),
                    )
                )
                for n, crf in enumerate(layer.crfs)
            ],
            axis=0,
        )
        assert weights.sum() == pytest.approx(1.0, abs=1e-4)
        spans = [set(entities([TAGS[tag] for tag in path])) for path in paths]
        predicted = [TAGS[tag] for tag in tags[row, :steps]]
        expected = np.array([weights @ [path[t] == 0 for path in paths] for t in range(steps)])
        for span in entities(predicted):
            expected[span[1] : span[2]] = weights @ [span in every for every in spans]
            marked += span[2] - span[1]
        np.testing.assert_allclose(confidence[row, :steps], expected, atol=1e-5)
        assert not confidence[row, steps:].any()
        outside = [name == "O" for name in predicted]
        np.testing.assert_allclose(
            confidence[row, :steps][outside], probabilities[row, :steps, 0][outside], atol=1e-5
        )
    assert marked > 15


def test_a_weight_for_each_row_decodes_as_that_weight_alone():
    layer = model.Committee(TAGS)
    layer.build((None, 1, None, 5))
    probabilities = np.random.default_rng(0).dirichlet(np.ones(5), (3, 6)).astype(np.float32)
    length = np.array([6, 4, 5], np.int32)
    weights = np.array([1.0, 0.01, 0.2], np.float32)
    together = layer.decode(probabilities, length, weights)
    for row, weight in enumerate(weights):
        alone = layer.decode(probabilities, length, float(weight))
        np.testing.assert_array_equal(together[row], alone[row])


def test_transitions_follow_iob2():
    allowed, start = model.iob2_transitions(TAGS)
    for a, before in enumerate(TAGS):
        for b, tag in enumerate(TAGS):
            valid = not tag.startswith("I-") or before[2:] == tag[2:]
            assert allowed[a, b] == valid
    assert start.tolist() == [True, True, False, True, False]


def test_the_ensemble_predicts_by_the_mean_and_learns_by_the_sum():
    built = small_model()
    inputs = random_inputs(4, 6)
    outputs = built(inputs)
    ensemble = built.get_layer("head_committee")
    found = [
        crf.marginals(outputs["emissions"][:, n], inputs["length"])
        for n, crf in enumerate(ensemble.crfs)
    ]
    np.testing.assert_allclose(outputs["probabilities"], np.mean(found, axis=0), atol=1e-6)
    batch = {**inputs, "tags": np.zeros((4, 6), np.int32)}
    values, weights = model.make_losses(built)(outputs, batch)
    each = [
        crf.log_likelihood(outputs["emissions"][:, n], batch["tags"], inputs["length"])
        for n, crf in enumerate(ensemble.crfs)
    ]
    np.testing.assert_allclose(values, -np.sum(each, axis=0), rtol=1e-5)
    assert weights.numpy().tolist() == [1.0] * 4
    allowed, start = model.iob2_transitions(TAGS)
    zero = Scores(np.zeros((5, 5)), np.zeros(5), np.zeros(5))
    best, _ = viterbi(
        np.log(np.maximum(outputs["probabilities"], 1e-9)),
        inputs["length"],
        zero,
        Constraints(allowed, start),
    )
    np.testing.assert_array_equal(outputs["tags"], best)


def test_word_shapes_of_hand_made_examples():
    characters = ["", "", *"abAB01.-"]
    layer = model.WordShape(10)
    layer.build((None, None, 4))
    layer.fill(characters)
    words = ["Ab", "AB", "ab", "aB", "a1", "10", "a-b", "--", "A", ""]
    ids = [[characters.index(c) for c in word] + [0] * (4 - len(word)) for word in words]
    found = layer(np.array([ids], np.int32))[0].numpy().astype(int).tolist()
    assert found == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],  # Ab: begins with a capital
        [1, 1, 0, 1, 0, 0, 0, 0, 0],  # AB: all capitals
        [0, 0, 1, 0, 0, 0, 0, 0, 0],
        [0, 0, 0, 1, 0, 0, 0, 0, 0],
        [0, 0, 1, 0, 1, 0, 0, 0, 0],
        [0, 0, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 1, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 1],
        [0] * 9,
    ]


def test_the_character_convolution_equals_numpy():
    layer = model.CharacterCNN(8, 3, 4)
    ids = np.array([[[2, 5, 7, 0, 0], [0, 0, 0, 0, 0], [99, 3, 4, 6, 2]]], np.int32)
    found = layer(ids).numpy()
    vectors, kernel, bias = layer.get_weights()
    for word, numbers in enumerate([[2, 5, 7], [], [1, 3, 4, 6, 2]]):
        rows = np.stack([np.zeros(3), *vectors[numbers], np.zeros(3)])
        values = [
            np.maximum(np.concatenate(rows[i : i + 3]) @ kernel + bias, 0)
            for i in range(len(numbers))
        ]
        expected = np.max(values, axis=0) if values else np.zeros(4)
        np.testing.assert_allclose(found[0, word], expected, atol=1e-6)
