"""Ensembles, against the probabilities of their members in NumPy."""

import functools
import itertools

from common import encoder_decoder
from common.serving.publish import publish
from common.serving.served import load_export
from common.serving.versions import find
from tasks.translation import model, serving, shortlist, train
from tasks.translation.config import Config
from tasks.translation.shortlist import Shortlist
from tasks.translation.subwords import END, PAD, START

import keras
import numpy as np
import pytest
import tensorflow as tf

SIZE = 40
SMALL = {"embedding": 6, "units": 8, "decoder_layers": 1, "cell": "gru"}


@functools.cache
def ensemble(members=3):
    keras.utils.set_random_seed(4)
    built = model.build(Config(**SMALL, members=members), source_size=SIZE, target_size=SIZE)
    built.set_weights([3.0 * weight for weight in built.get_weights()])
    return built


def probabilities(network, ids, tokens, allowed):
    """Return those of each next subword after `tokens`, among the allowed ones."""
    started = tf.constant([[START, *tokens]])
    inputs = {"ids": ids, "length": tf.constant([ids.shape[1]]), "target_ids": started}
    answers = network(inputs)["answers"].numpy()[0].astype(np.float64)
    scores = answers @ encoder_decoder.token_embedding(network).get_weights()[0].T
    scores = np.where(allowed, scores, -np.inf)
    values = np.exp(scores - scores.max(axis=1, keepdims=True))
    return values / values.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("beam", [1, 3])
@pytest.mark.parametrize("listed", [False, True])
def test_the_score_is_that_of_the_mean_probability_of_the_members(beam, listed, tmp_path):
    built, lists = ensemble(), None
    ids, allowed = tf.constant([[10, 11, 12, END], [30, 31, 10, END]]), np.ones((2, SIZE), bool)
    allowed[:, [PAD, START]] = False
    if listed:
        translations = np.arange(SIZE)[:, None] + np.arange(4)
        arrays = {"translations": np.minimum(translations, SIZE - 1), "frequent": np.arange(9)}
        shortlist.write(tmp_path / "lists.npz", {k: np.int32(v) for k, v in arrays.items()})
        lists = Shortlist(tmp_path / "lists.npz", SIZE)
        for row in range(2):
            chosen = np.union1d(arrays["translations"][ids[row]], arrays["frequent"])
            allowed[row] &= np.isin(np.arange(SIZE), chosen)
    search = {"max_length": 9, "beam": beam, "best": beam, "alpha": 0.7, "shortlist": lists}
    decoded = model.translate(built, ids, tf.constant([4, 4]), **search)
    for row in range(2):
        for place in range(beam):
            length = int(decoded.length[row, place])
            tokens = decoded.tokens.numpy()[row, place, :length].tolist()
            mean = np.mean(
                [
                    probabilities(network, ids[row : row + 1], tokens, allowed[row])
                    for network in model.networks(built)
                ],
                axis=0,
            )
            written = [*tokens, END] if length < 9 else tokens  # the end is forced at the limit
            expected = np.log(mean[np.arange(len(written)), written]).sum()
            if length == 9:
                expected += np.log(mean[9, END])
            expected /= ((5 + length + 1) / 6) ** 0.7
            np.testing.assert_allclose(decoded.score[row, place], expected, rtol=1e-4)


def test_members_are_different_networks_and_one_is_the_plain_model():
    members = model.networks(ensemble())
    assert [network.name for network in members] == ["member_0", "member_1", "member_2"]
    tables = [encoder_decoder.token_embedding(network).get_weights()[0] for network in members]
    assert min(np.abs(a - b).max() for a, b in itertools.pairwise(tables)) > 0.1
    alone = model.build(Config(**SMALL), source_size=SIZE, target_size=SIZE)
    plain = encoder_decoder.build(source_size=SIZE, target_size=SIZE, name="translation", **SMALL)
    assert model.networks(alone) == [alone]
    assert [w.path for w in alone.weights] == [w.path for w in plain.weights]
    assert [layer.name for layer in alone.layers] == [layer.name for layer in plain.layers]
    scores = tf.constant([[0.5, 7.0]])
    assert model.mean_scores([scores]) is scores


def test_the_loss_is_the_sum_of_those_of_the_members():
    built = ensemble()
    generator = np.random.default_rng(0)
    ids, target_ids, labels = (
        tf.constant(generator.integers(3, SIZE, (2, 5)), tf.int32) for _ in range(3)
    )
    batch = {"ids": ids, "length": tf.constant([5, 3]), "target_ids": target_ids}
    batch |= {"labels": labels, "target_length": tf.constant([4, 5])}
    inputs = {name: batch[name] for name in built.input}
    values, weights = model.make_losses(built, label_smoothing=0.1)(built(inputs), batch)
    alone = [
        model.make_losses(network, label_smoothing=0.1)(network(inputs), batch)
        for network in model.networks(built)
    ]
    np.testing.assert_allclose(values, sum(x for x, _ in alone), rtol=1e-5)
    np.testing.assert_array_equal(weights, alone[0][1])


def test_gradients_are_clipped_as_for_one_member():
    norms = [Config(members=n, clip_norm=0.5).fit_arguments()["clip_norm"] for n in (1, 4)]
    assert norms == [0.5, 1.0]


def test_init_takes_the_number_of_members_of_the_published_model():
    config = Config(members=3)
    assert config.with_architecture({}, train.ARCHITECTURE).members == 1  # an earlier release
    assert config.with_architecture({"members": 2}, train.ARCHITECTURE).members == 2


@pytest.mark.serving
def test_an_export_translates_as_its_model_and_explains_the_mean_attention(pieces, tmp_path):
    keras.utils.set_random_seed(4)
    config = Config(**SMALL, members=2)
    built = model.build(config, source_size=len(pieces), target_size=len(pieces))
    version = publish(
        serving.signatures(built, pieces, pieces, max_length=12, beam=3, alpha=0.6),
        model=built,
        resources=[pieces],
        examples={name: some[:1] for name, some in serving.examples(12).items()},
        settings={"task": "translation"},
        directory=tmp_path / "translation",
    )
    served, loaded = load_export(version), find(version, "translation").model
    text = ["Le chat noir dort."]
    answer = served.call("explain", text=text)
    ids, length = (tf.constant(x) for x in ([[40, 41, 42, END]], [4]))
    outputs = served.call("tensors", ids=ids.numpy(), length=length.numpy())
    for one in (built, loaded):
        assert len(model.networks(one)) == 2
        decoded = model.translate(one, ids, length, max_length=12, beam=3, best=1, alpha=0.6)
        np.testing.assert_array_equal(outputs["target_ids"], decoded.tokens[:, 0])
        np.testing.assert_allclose(outputs["score"], decoded.score[:, 0], rtol=1e-4)
    assert served.call("serving_default", text=text)["translation"] == answer["translations"][:, 0]
    np.testing.assert_allclose(answer["attention"].sum(axis=2), 1.0, atol=1e-5)
    inputs = {"ids": ids, "length": length, "target_ids": tf.constant([[START, 43]])}
    weights = [network(inputs)["attention"] for network in model.networks(built)]
    assert np.abs(weights[0] - weights[1]).max() > 1e-3
    np.testing.assert_allclose(built(inputs)["attention"], np.mean(weights, axis=0), rtol=1e-5)
