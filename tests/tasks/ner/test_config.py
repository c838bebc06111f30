"""The presets."""

from tasks.ner.config import PRESETS


def test_each_preset_names_its_data_set_and_has_its_longest_bucket():
    for name, preset in PRESETS.items():
        assert preset.dataset == name
        assert preset.bucket_lengths()[-1] == preset.max_length
