"""The presets."""

import dataclasses

from common.errors import InputError
from tasks.ner import train
from tasks.ner.config import DEFAULT, OFFLINE, PRESETS, Config, preset_for_size

import pytest


def test_each_preset_names_its_data_set_and_has_its_longest_bucket():
    for name, preset in PRESETS.items():
        assert preset.dataset == name
        assert preset.bucket_lengths()[-1] == preset.max_length
    assert OFFLINE in DEFAULT.split("+")


def test_any_mixture_has_the_preset_of_the_default_one():
    preset = train.read_settings(["--epochs", "3", "--dataset", "btc+wikigold"])
    assert preset == dataclasses.replace(PRESETS[DEFAULT], dataset="btc+wikigold", epochs=3)


def test_the_users_own_files_get_none_of_our_names():
    for count in (1, 600, 3000, 14_000, 10**6):
        preset = preset_for_size(count)
        assert preset.exchange == 0.0 and not preset.listed_names
        assert preset.outside_weight is None and preset.dataset is None


@pytest.mark.parametrize("columns", [(0, -1), (1, 0), (2, 2)])
def test_columns_that_do_not_exist_are_refused(columns):
    with pytest.raises(InputError, match="--token_column and --tag_column"):
        Config(token_column=columns[0], tag_column=columns[1])
