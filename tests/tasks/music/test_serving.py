"""The signatures of the export: sampled music, scores, and invalid rows."""

from tasks.music import serving
from tasks.music.midi import KEYS
from tests.tasks import commands
from tests.tasks.music.examples import nll, random_model, random_notes
from tests.tasks.own.music import CHORDS

import numpy as np
import pytest
import tensorflow as tf


def request(rows=1, **changes):
    values = {
        "prime": np.zeros((rows, 1, KEYS)),
        "prime_length": np.zeros(rows),
        "steps": np.full(rows, 6),
        "temperature": np.ones(rows),
        "top_p": np.ones(rows),
        "seed": np.stack([np.zeros(rows), np.arange(rows)], axis=1),
    }
    return {**values, **{name: np.asarray(value) for name, value in changes.items()}}


def test_the_signatures_are_those_of_the_golden_file(served, pytestconfig):
    commands.check_signatures(served, pytestconfig.rootpath / "tests/golden/music.json")


# --- serving_default ------------------------------------------------------------------------------


def test_temperature_0_chooses_the_most_likely_note_and_a_huge_one_any_note(served):
    cold = served.call("serving_default", **request(3, temperature=[0.0, 0.0, 0.0]))["notes"]
    assert np.array_equal(cold[0], cold[1]) and np.array_equal(cold[0], cold[2])
    assert tuple(np.flatnonzero(cold[0, 0])) in CHORDS.values()
    narrow = served.call("serving_default", **request(3, top_p=[0.0, 0.0, 0.0]))["notes"]
    assert np.array_equal(narrow, cold)
    hot = served.call("serving_default", **request(3, temperature=np.full(3, 1000.0)))
    assert np.isin(hot["notes"], (0, 1)).all() and (hot["length"] == 6).all()
    # At each choice, every higher key is as likely as the end of the frame.
    assert hot["notes"][:, :, 60:].any() and hot["notes"][:, :, :20].any()


def test_invalid_rows_are_empty_and_leave_the_other_rows_alone(served):
    prime = np.zeros((10, 4, KEYS), np.float32)
    prime[:, :, CHORDS["C"]] = 1.0
    prime[1, 1, 5] = np.nan
    prime[2, 3, 5] = np.nan  # after the end of its prime
    inputs = request(
        10,
        prime=prime,
        prime_length=[2, 2, 2, 5, -1, 2, 2, 2, 2, 4],
        steps=[3, 3, 3, 3, 3, -1, 2**31 - 1, 3, 3, 0],
        temperature=[1, 1, 1, 1, 1, 1, 1, np.nan, -1, 1],
        top_p=np.full(10, 0.9),
    )
    outputs = served.call("serving_default", **inputs)
    assert outputs["length"].tolist() == [5, 0, 5, 0, 0, 0, 0, 0, 0, 4]
    assert not outputs["notes"][outputs["length"] == 0].any()
    alone = served.call("serving_default", **{name: value[:1] for name, value in inputs.items()})
    assert np.array_equal(alone["notes"][0], outputs["notes"][0])
    assert np.array_equal(outputs["notes"][9, :4], prime[9])
    high = served.call("serving_default", **request(2, top_p=[1.5, np.nan]))
    assert high["length"].tolist() == [0, 0] and not high["notes"].any()
    hot = served.call("serving_default", **request(3, temperature=[1001, np.inf, 1000]))
    assert hot["length"].tolist() == [0, 0, 6]


def test_the_longest_rows_beyond_the_limits_are_empty(served):
    settings = served.settings
    assert settings["max_steps"] == 768 and settings["max_batch_frames"] == 8_192
    steps = [769, 768] + [300] * 30 + [3]
    length = served.call("serving_default", **request(33, steps=steps))["length"]
    # 27 rows of 300 frames are within 8,192 frames; the shorter row is one of them.
    assert length.tolist() == [0, 0] + [300] * 26 + [0] * 4 + [3]
    many = served.call("serving_default", **request(1025, steps=np.full(1025, 1)))
    assert not many["length"].any()
    long = served.call("tensors", notes=random_notes((1, 4097)), length=[4097])
    assert not long["nll"].any() and long["nll"].shape == (1, 4096)


def test_each_seed_generates_its_own_music(served):
    notes = served.call("serving_default", **request(6, steps=np.full(6, 40)))["notes"]
    assert len({row.tobytes() for row in notes}) == 6
    again = served.call("serving_default", **request(6, steps=np.full(6, 40)))["notes"]
    assert np.array_equal(again, notes)


# --- tensors --------------------------------------------------------------------------------------


@pytest.mark.thorough
def test_scoring_in_chunks_changes_nothing(monkeypatch):
    built = random_model()
    notes, length = random_notes((3, 9)), tf.constant([9, 4, 1])

    def score():
        return serving.signatures(built)["tensors"](notes, length)

    whole = score()
    monkeypatch.setattr(serving, "CHUNK", 3)
    for name, value in score().items():
        np.testing.assert_allclose(value, whole[name], rtol=1e-5, atol=1e-7)
    expected = nll(built, notes, [9, 4, 1])[:, 1:]
    np.testing.assert_allclose(whole["nll"][:2], expected[:2], rtol=1e-5)
    assert not whole["nll"][2].numpy().any() and not whole["probabilities"][1, 3:].numpy().any()


def test_invalid_rows_are_not_scored(served):
    notes = random_notes((5, 6))
    notes[1, 2, 3] = np.nan
    outputs = served.call("tensors", notes=notes, length=[6, 6, 1, 7, -2])
    assert outputs["nll"].shape == (5, 5) and outputs["probabilities"].shape == (5, 5, KEYS)
    assert (outputs["nll"][0] > 0).all() and not outputs["nll"][1:].any()
    assert not outputs["probabilities"][1:].any()
    for time in (0, 1):
        empty = served.call("tensors", notes=np.zeros((2, time, KEYS)), length=[time, 0])
        assert empty["nll"].shape == (2, 0)


@pytest.mark.parametrize("rows", [0, 1, 17])
def test_a_batch_has_any_number_of_rows(served, rows):
    outputs = served.call("serving_default", **request(rows))
    assert outputs["length"].tolist() == [6] * rows and len(outputs["notes"]) == rows
    scores = served.call("tensors", notes=random_notes((rows, 3)), length=[3] * rows)
    assert scores["nll"].shape == (rows, 2) and scores["probabilities"].shape == (rows, 2, KEYS)
