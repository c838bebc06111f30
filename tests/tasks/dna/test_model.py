from tasks.dna import model, sequence_statistics
from tasks.dna.config import Config
from tasks.dna.grammar import SIGNALS, make_grammar
from tasks.dna.nucleotides import FRACTIONS, encode
from tasks.dna.paths import EncodedRecords, path_of
from tasks.dna.sequence_statistics import REACH, words_of
from tests.tasks.own.dna import complement, spliced_record

import keras
import numpy as np
import pytest
import tensorflow as tf

GRAMMAR = make_grammar(("ATG",))


@pytest.mark.parametrize("cell", ["lstm", "gru", "simple_rnn"])
def test_padding_never_affects_the_model(cell):
    config = Config(filters=6, units=5, layers=2, cell=cell, convolutions=2)
    built = model.build(config)
    random = np.random.default_rng(0)
    for weight in built.weights:
        weight.assign(random.normal(scale=0.3, size=weight.shape))
    bases = (1 << random.integers(0, 4, (2, 40))).astype(np.int32)
    length = np.array([40, 22], np.int32)
    bases[1, 22:] = 0
    plain = built({"bases": bases, "length": length})
    junk = np.pad(bases, [(0, 0), (0, 33)], constant_values=5)
    junk[1, 22:] = 9
    padded = built({"bases": junk, "length": length})
    for row, count in enumerate(length):
        np.testing.assert_allclose(
            padded["channels"][row, :count], plain["channels"][row, :count], atol=1e-5
        )
        np.testing.assert_array_equal(padded["states"][row, :count], plain["states"][row, :count])


@pytest.mark.parametrize("margin", [0.0, 0.3])
def test_losses_are_the_likelihood_and_the_cross_entropy_of_bases(margin):
    config = Config(filters=6, units=5, layers=1, convolutions=1, base_loss=0.5, margin=margin)
    built = model.build(config)
    record = spliced_record(np.random.default_rng(0))
    states = path_of(GRAMMAR, record).states[None]
    bases = encode(record.sequence)[None]
    length = np.array([bases.shape[1]], np.int32)
    batch = {"bases": bases, "states": states, "length": length}
    outputs = built({name: batch[name] for name in ("bases", "length")})
    tensors = {name: tf.constant(value) for name, value in batch.items()}
    values, weights = model.make_losses(built, config)(outputs, tensors)
    channels = outputs["channels"].numpy()[0]
    emissions = built.get_layer("emissions")(channels[None], bases, batch["length"])
    wrong = GRAMMAR.labels[None, None, :] != GRAMMAR.labels[states][..., None]
    rivals = emissions + margin * wrong  # the true path itself gets no bonus
    likelihood = built.get_layer("crf").log_likelihood(rivals, states, batch["length"])
    names = np.array(GRAMMAR.channels)
    is_signal = np.isin([name.rstrip("'") for name in names], SIGNALS)
    expected = -float(likelihood[0])
    single = outputs["single"].numpy()[0]
    logs = single[:, ~is_signal] - np.logaddexp.reduce(single[:, ~is_signal], 1, keepdims=True)
    truth = GRAMMAR.mixing[:, states[0]].T
    expected -= 0.5 * (truth[:, ~is_signal] * logs).sum()
    signal, target = single[:, is_signal], truth[:, is_signal]
    likely = 1 / (1 + np.exp(-signal))
    expected -= 0.5 * (target * np.log(likely) + (1 - target) * np.log(1 - likely)).sum()
    np.testing.assert_allclose(values, [expected], rtol=1e-4)
    assert weights.numpy().tolist() == [bases.shape[1]]


def test_a_new_model_returns_the_statistics_of_either_strand():
    rows = [spliced_record(np.random.default_rng(n), str(n)) for n in range(9)]
    built = model.build(Config(filters=6, units=5, layers=1, convolutions=1))
    encoded = EncodedRecords(rows, GRAMMAR)
    model.fill(built, encoded)
    record = rows[0]
    size = len(record.sequence)
    both = np.stack([encode(record.sequence), encode(complement(record.sequence))])
    one, other = built({"bases": both, "length": np.array([size, size])})["channels"].numpy()
    np.testing.assert_allclose(one, other[::-1][:, GRAMMAR.swap], atol=1e-5)
    words = sequence_statistics.word_scores(encoded)
    motifs = sequence_statistics.motif_scores(encoded)
    place = 100
    expected = words[words_of(both)[0, place]].copy()
    around = FRACTIONS[both[0, place - REACH : place + REACH + 1]]
    expected += np.einsum("tb,tbc->c", around, motifs)
    half = len(GRAMMAR.strand_channels)
    np.testing.assert_allclose(one[place, 1 : 1 + half], expected, atol=1e-4)
    assert not one[:, 0].any()


def test_a_saved_model_has_the_registered_names_and_loads(tmp_path):
    """A published `model.keras` must load in later versions."""
    built = model.build(Config(filters=6, units=5, layers=1, convolutions=1))
    names = {keras.saving.get_registered_name(type(layer)) for layer in built.layers}
    assert {n for n in names if n.startswith("tasks.dna>")} == {
        f"tasks.dna>{name}" for name in ("Bases", "Statistics", "Unfold", "Crop", "Emissions")
    }
    built.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    bases, length = encode("ACATGGCCTAAGT")[None], np.array([13])
    for name, value in built({"bases": bases, "length": length}).items():
        np.testing.assert_array_equal(loaded({"bases": bases, "length": length})[name], value)
