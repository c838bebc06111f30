"""The signatures of the export: their values, padding, and invalid rows."""

from common.serving.versions import find
from tasks.dna.genes import LABELS
from tasks.dna.nucleotides import encode
from tasks.dna.streaming import grammar_of
from tests.tasks import commands
from tests.tasks.own.dna import complement, spliced_record

import numpy as np
import pytest


def random_batch():
    """Return four rows of bases and their lengths; the padding holds bases, too."""
    bases = (1 << np.random.default_rng(0).integers(0, 4, (4, 300))).astype(np.int32)
    return bases, np.array([300, 120, 1, 77], np.int32)


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/dna.json")


def test_invalid_rows_are_empty_and_leave_the_other_rows_alone(served):
    valid = spliced_record(np.random.default_rng(1)).sequence
    rows = [valid, "", "ACGJ", "-", b"\xff\xfe", "A" * 20_001, valid.lower()]
    outputs = served.call("serving_default", sequence=np.array(rows, object))
    assert [len(row) for row in outputs["labels"]] == [len(valid), 0, 0, 0, 0, 0, len(valid)]
    probabilities = outputs["probabilities"]
    assert np.isfinite(probabilities).all() and not probabilities[1:6].any()
    np.testing.assert_allclose(probabilities[0, : len(valid)].sum(axis=-1), 1.0, atol=1e-5)
    assert not probabilities[0, len(valid) :].any()
    assert outputs["labels"][0] == outputs["labels"][6]
    alone = served.call("serving_default", sequence=[valid])
    assert alone["labels"][0] == outputs["labels"][0]
    np.testing.assert_allclose(alone["probabilities"][0], probabilities[0, : len(valid)], atol=1e-5)


def test_values_in_the_padding_change_nothing(served):
    bases, length = random_batch()
    expected = served.call("tensors", bases=bases, length=length)
    junk = np.random.default_rng(1).integers(-99, 99, (4, 340)).astype(np.int32)
    for row, count in enumerate(length):
        junk[row, :count] = bases[row, :count]
    outputs = served.call("tensors", bases=junk, length=length)
    for name, value in expected.items():
        np.testing.assert_allclose(outputs[name][:, :300], value, atol=1e-5)
        assert not outputs[name][:, 300:].any()


def test_rows_of_an_invalid_length_are_empty(served):
    bases, length = random_batch()
    expected = served.call("tensors", bases=bases, length=length)["probabilities"]
    outputs = served.call("tensors", bases=bases, length=[301, 0, -5, 77])
    assert not outputs["labels"][:3].any() and not outputs["probabilities"][:3].any()
    np.testing.assert_allclose(outputs["probabilities"][3], expected[3], atol=1e-5)
    no_steps = served.call("tensors", bases=np.zeros((2, 0), np.int32), length=[0, 0])
    assert no_steps["probabilities"].shape == (2, 0, 5)


def test_the_longest_rows_beyond_the_limits_are_empty(served):
    assert served.settings["max_batch_bases"] == 98_304
    rows = ["ACGT" * 1_000] * 30 + ["ACGTACGT"] * 10 + ["A" * 10**7]
    labels = served.call("serving_default", sequence=rows)["labels"]
    # With the ten short rows, 24 rows of 4,000 bases are within 98,304.
    assert [len(row) for row in labels] == [4_000] * 14 + [0] * 16 + [8] * 10 + [0]
    assert not served.call("serving_default", sequence=["A"] * 1025)["labels"].astype(bool).any()
    ones = np.ones((2, 98_305), np.int32)
    channels = served.call("network", bases=ones, length=[98_305, 10])["channels"]
    assert not channels[0].any() and channels[1, :10].any()
    whole = served.call("network", bases=ones[:1, :10], length=[10])["channels"]
    np.testing.assert_allclose(channels[1, :10], whole[0], atol=1e-5)


@pytest.mark.parametrize("size", [0, 1, 9])
def test_a_batch_has_any_size(served, size):
    for name in ("serving_default", "explain"):
        sequence = np.array(["AGCCCCTGTGAGGAACTAG"] * size, object)
        outputs = served.call(name, sequence=sequence)
        assert all(len(value) == size for value in outputs.values())


def test_the_signals_of_the_reverse_complement_are_mirrored(served):
    record = spliced_record(np.random.default_rng(5))
    both = [record.sequence, complement(record.sequence)]
    forward, reverse = served.call("explain", sequence=both)["signals"]
    swap = grammar_of(served).swap
    np.testing.assert_allclose(forward, reverse[::-1][:, swap], atol=1e-4)


def test_probabilities_are_marginals_and_labels_the_best_path(served):
    record = spliced_record(np.random.default_rng(6))
    bases = encode(record.sequence)[None]
    length = [bases.shape[1]]
    outputs = served.call("tensors", bases=bases, length=length)
    signals = served.call("explain", sequence=[record.sequence])["signals"]
    model = find(served.path).model
    emissions = model.get_layer("emissions")(signals, bases, np.array(length))
    chain, grammar = model.get_layer("crf"), grammar_of(served)
    np.testing.assert_array_equal(chain.viterbi(emissions, length)[0], outputs["states"])
    marginals = chain.marginals(emissions, length).numpy()[0]
    for label in range(len(LABELS)):
        expected = marginals[:, grammar.labels == label].sum(axis=1)
        np.testing.assert_allclose(outputs["probabilities"][0, :, label], expected, atol=1e-5)
    np.testing.assert_array_equal(grammar.labels[outputs["states"]], outputs["labels"])
