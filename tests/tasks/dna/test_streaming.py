"""Paths of records of any length: long records in pieces, short ones in batches."""

from common.errors import InputError
from common.serving.versions import find
from tasks.dna import streaming
from tasks.dna.nucleotides import encode
from tasks.dna.paths import genes_of
from tests.tasks.own.dna import fly_record

import numpy as np
import pytest


def test_the_path_in_pieces_is_that_of_one_viterbi(spliced, monkeypatch):
    monkeypatch.setattr(streaming, "PIECE", 450)
    monkeypatch.setattr(streaming, "CONTEXT", 180)
    record = fly_record(np.random.default_rng(2), genes_wanted=3)
    grammar = streaming.grammar_of(spliced)
    bases = encode(record.sequence)
    parts = list(streaming.stream_path(spliced, grammar, bases))
    assert len(parts) > 1  # settled states were released early
    path = np.concatenate(parts)
    channels = []
    for start in range(0, len(bases), 450):
        low, end = max(0, start - 180), min(len(bases), start + 450)
        high = min(len(bases), end + 180)
        piece = spliced.call("network", bases=bases[None, low:high], length=[high - low])
        channels.append(piece["channels"][:, start - low : end - low])
    model = find(spliced.path).model
    length = np.array([len(bases)])
    emissions = model.get_layer("emissions")(np.concatenate(channels, axis=1), bases[None], length)
    expected, _ = model.get_layer("crf").viterbi(emissions, length)
    np.testing.assert_array_equal(path, expected[0])
    assert genes_of(grammar, path)


def test_a_row_longer_than_a_piece_has_the_same_path_in_one_request(spliced):
    """The pieces of the exported graph are those of `stream_path`."""
    record = fly_record(np.random.default_rng(3), genes_wanted=9)
    bases = encode(record.sequence)[: streaming.PIECE + 3000]
    assert len(bases) > streaming.PIECE
    states = spliced.call("tensors", bases=bases[None], length=[len(bases)])["states"][0]
    parts = streaming.stream_path(spliced, streaming.grammar_of(spliced), bases)
    np.testing.assert_array_equal(states, np.concatenate(list(parts)))


def test_long_and_short_records_keep_their_order(spliced, monkeypatch):
    monkeypatch.setattr(streaming, "SHORT", 500)
    record = fly_record(np.random.default_rng(4), genes_wanted=3)
    sizes = [40, 900, 7, 300, 501, 500]
    sequences = [record.sequence[:size] for size in sizes]
    paths = list(streaming.predict_paths(spliced, sequences, batch_size=2))
    assert [sequence for sequence, _ in paths] == sequences
    for sequence, path in paths:
        bases = encode(sequence)
        states = spliced.call("tensors", bases=bases[None], length=[len(bases)])["states"][0]
        np.testing.assert_array_equal(path, states)


def test_records_longer_than_the_export_accepts_are_sent_in_pieces(spliced):
    """The export accepts 65,536 bases."""
    record = fly_record(np.random.default_rng(4), genes_wanted=3)
    long = (record.sequence * (66_000 // len(record.sequence) + 1))[:66_000]
    ((_, path),) = streaming.predict_paths(spliced, [long], batch_size=2)
    assert len(path) == 66_000 and path.any()


def test_a_letter_outside_iupac_is_refused(spliced):
    with pytest.raises(InputError, match="'J' at base 3 is no IUPAC letter of DNA"):
        list(streaming.predict_paths(spliced, ["ACGT", "ACJT"], batch_size=2))
