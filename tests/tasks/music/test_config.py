from common.errors import InputError
from tasks.music import datasets
from tasks.music.config import PRESETS, Config

import pytest


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"transpose": 13}, "--transpose must be 0 to 12"),
        ({"max_length": 1}, "--max_length must be 2 or more"),
        ({"steps_per_quarter": 0}, "--steps_per_quarter must be 1 or more"),
        ({"steps_per_quarter": 100}, "--steps_per_quarter must be 1 to 48"),
        ({"dropout": 1.0}, r"--dropout must be in \[0, 1\)"),
        ({"members": 0}, "--members must be 1 or more"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        Config(**changes)


def test_presets_have_the_names_of_their_data_sets():
    assert all(config.dataset == name for name, config in PRESETS.items())
    assert set(PRESETS) == set(datasets.GRIDS) == set(datasets.LICENCES)
