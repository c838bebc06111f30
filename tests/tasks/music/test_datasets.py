import itertools

from common.datasets import SPLITS
from common.errors import InputError
from tasks.music import data, datasets
from tasks.music.config import Config
from tasks.music.formats import Piece
from tasks.music.midi import KEYS

import numpy as np
import pytest
import scipy.io


def test_published_sets_are_read_whole_from_manual_dir(shared_data, tmp_path):
    folder = shared_data / "music" / "boulanger_lewandowski"
    sizes = {"jsb_chorales": (229, 76, 77, 4648), "nottingham": (694, 173, 170, 44293)}
    for name, (*counts, frames) in sizes.items():
        config = Config(dataset=name, manual_dir=folder, data_dir=tmp_path)
        corpus = data.load(config, steps_per_quarter=4, seed=1)
        assert [corpus.size(split) for split in SPLITS] == counts
        assert "boulanger2012" in corpus.citation and "do not redistribute" in corpus.licence
        rows = data.pieces(corpus.splits["test"])
        # The number of frames over which published scores are averaged.
        assert sum(len(row.notes) - 1 for row in rows) == frames


def test_other_matlab_files_are_refused(tmp_path):
    path = tmp_path / "a.mat"
    path.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a MATLAB file of piano rolls"):
        datasets.read_matrices(path)
    rolls = np.empty((1, 1), object)
    rolls[0, 0] = np.full((4, 88), 7)
    scipy.io.savemat(path, {"traindata": rolls, "validdata": rolls, "testdata": rolls})
    with pytest.raises(InputError, match=r"expected zeros and ones of \[time, 88\]"):
        datasets.read_matrices(path)


def melody(intervals, start=40):
    top = start + np.cumsum([0, *intervals])
    return Piece("", np.eye(KEYS, dtype=np.uint8)[np.repeat(top, 2)])


def test_settings_of_one_tune_are_grouped_in_any_key():
    random = np.random.default_rng(0)
    tune, other = (random.choice([-2, -1, 1, 2, 3, -3], size=30).tolist() for _ in range(2))
    rows = [melody(tune), melody(other), melody(tune, 45), melody([5, -5, *tune[:20], 1, 1, -2])]
    assert datasets.same_tune(rows) == [[0, 2, 3], [1]]
    assert datasets.melody_runs(melody([2, 2, 1]).notes, 2) == {(2, 2), (2, 1)}


@pytest.mark.slow
def test_no_tune_of_the_chorales_is_in_two_splits(tmp_path):
    config = Config(dataset="bach_chorales", data_dir=tmp_path)
    corpus = data.load(config, steps_per_quarter=2, seed=1)
    rows = {split: data.pieces(corpus.splits[split]) for split in SPLITS}
    assert [len(rows[split]) for split in SPLITS] == [297, 39, 30]
    runs = {split: [datasets.melody_runs(row.notes, 10) for row in rows[split]] for split in rows}
    for one, other in itertools.combinations(SPLITS, 2):
        for a, b in itertools.product(runs[one], runs[other]):
            assert len(a & b) < 0.2 * max(1, min(len(a), len(b)))
