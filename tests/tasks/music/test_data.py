from common.commands.config import EvaluateConfig
from common.errors import InputError
from tasks.music import data, midi
from tasks.music.config import Config
from tasks.music.formats import Piece
from tasks.music.midi import KEYS
from tests.tasks.music.examples import random_notes
from tests.tasks.own.music import write_folder

import numpy as np
import pytest


def test_folders_that_are_split_already_stay_so(tmp_path):
    for number, split in enumerate(("train", "validation", "test")):
        write_folder(tmp_path / "mine" / split, 3 + number, seed=number)
    corpus = data.load(Config(data=tmp_path / "mine"), steps_per_quarter=1, seed=1)
    assert {split: corpus.size(split) for split in corpus.splits} == {
        "train": 3,
        "validation": 4,
        "test": 5,
    }
    first = data.pieces(corpus.splits["train"])[0]
    assert first.name == "000.mid" and first.notes.dtype == np.uint8


def test_flags_without_data_are_refused():
    with pytest.raises(InputError, match="give --dataset or --data"):
        data.load(EvaluateConfig(), steps_per_quarter=1, seed=1)


def test_transposition_stays_within_the_keys_of_the_training_music():
    row = Piece("", random_notes((40,), 30, 50).astype(np.uint8))
    random = np.random.default_rng(0)
    config = Config(transpose=6, max_length=16)
    shifts, variants = set(), set()
    for _ in range(200):
        notes = data.augment(row, config, random, low=28, high=53).notes
        keys = np.flatnonzero(notes.any(axis=0))
        assert notes.shape == (16, KEYS) and keys[0] >= 28 and keys[-1] <= 53
        shift = next(
            s
            for s in range(-6, 7)
            for t in range(25)
            if np.array_equal(np.roll(row.notes[t : t + 16], s, 1), notes)
        )
        shifts.add(shift)
        variants.add(notes.tobytes())
    assert shifts == {-2, -1, 0, 1, 2, 3} and len(variants) > 60
    same = data.augment(row, Config(max_length=64), random, low=28, high=53)
    assert np.array_equal(same.notes, row.notes)


def test_an_epoch_is_determined_by_its_seed():
    rows = [Piece("", random_notes((n,), seed=n).astype(np.uint8)) for n in range(4, 30)]
    batches = [
        [
            batch["notes"].numpy().tobytes()
            for batch in data.train_batches(rows, Config(transpose=3), low=30, high=60, seed=seed)
        ]
        for seed in (1, 1, 2)
    ]
    assert batches[0] == batches[1] != batches[2]


def test_training_music_without_a_note_is_refused():
    with pytest.raises(InputError, match="no note in the training data"):
        data.key_range([Piece("", np.zeros((4, KEYS), np.uint8))])


def test_a_validation_split_without_pieces_is_refused():
    with pytest.raises(InputError, match="no validation examples"):
        data.validation_batches([])


def test_long_pieces_are_validated_in_parts_of_bounded_size(monkeypatch):
    monkeypatch.setattr(data, "VALIDATED", 64)
    monkeypatch.setattr(data, "VALIDATED_TOGETHER", 128)
    rows = [Piece(str(n), random_notes((n,), seed=n).astype(np.uint8)) for n in (200, 30, 64, 65)]
    scored = 0
    for batch in data.validation_batches(rows):
        assert batch["notes"].shape[0] * batch["notes"].shape[1] <= 128
        scored += int((batch["length"] - batch["known"]).numpy().sum())
    assert scored == sum(len(row.notes) - 1 for row in rows)  # each frame but the first once


def test_pieces_in_one_key_are_not_transposed():
    major = [39, 41, 43, 44, 46, 48, 50]  # C major, and A minor
    random = np.random.default_rng(0)

    def piece(shift):
        notes = np.zeros((40, KEYS), np.uint8)
        notes[np.arange(40), random.choice(major, 40) + shift] = 1
        return Piece("", notes)

    assert data.choose_transposition([piece(0) for _ in range(9)] + [piece(2)]) == 0
    assert data.choose_transposition([piece(shift) for shift in range(-5, 6)]) == 6
    shifts = [random.integers(-5, 7) for _ in range(12)]
    found = [midi.main_scale(piece(shift).notes) for shift in shifts]
    assert found == [shift % 12 for shift in shifts]
