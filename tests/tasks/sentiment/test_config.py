from common.errors import InputError
from tasks.sentiment import datasets
from tasks.sentiment.config import PRESETS, Config

import pytest


def test_presets_have_the_names_of_their_data_sets():
    for name, preset in PRESETS.items():
        assert preset.dataset == name
        assert preset.bucket_lengths()[-1] == preset.max_length
    assert set(PRESETS) == set(datasets.LICENCES)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pooling": ()}, "--pooling needs at least one kind"),
        ({"labels": ("bad",)}, "--labels needs 2 to 10 different labels"),
        ({"labels": ("bad", "bad")}, "--labels needs 2 to 10 different labels"),
        ({"word_dropout": 1.0}, r"--word_dropout must be in \[0, 1\)"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(InputError, match=message):
        Config(**changes)
