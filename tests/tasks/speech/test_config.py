from common.errors import InputError
from tasks.speech import datasets
from tasks.speech.config import DEFAULT, MIXABLE, PRESETS, QUICK, Config

import pytest


def test_every_preset_is_valid_and_names_its_data_set():
    for name, preset in PRESETS.items():
        assert preset.dataset == name and datasets.DATASETS.keys() >= set(name.split("+"))
    assert datasets.DATASETS.keys() >= set(MIXABLE)
    assert DEFAULT in PRESETS and QUICK.keys() <= vars(PRESETS[DEFAULT]).keys()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"dropout": 1.0}, "--dropout must be in"),
        ({"units": 0}, "--units must be 1 or more"),
        ({"strides": (0, 1)}, "--strides"),
        ({"band_width": 99}, "--band_width"),
        ({"order": -1}, "--order must be 0 or more, got -1"),
        ({"lm_weights": ()}, "--lm_weights and --bonuses must have"),
        ({"bonuses": ()}, "--lm_weights and --bonuses must have"),
        ({"max_seconds": 0.0}, "--max_seconds"),
    ],
)
def test_invalid_settings_are_refused(wrong, message):
    with pytest.raises(InputError, match=message):
        Config(**wrong)
