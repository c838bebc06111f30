from tasks.video import datasets
from tasks.video.config import PRESETS


def test_every_preset_is_sound_and_trains_the_set_it_names():
    for name, preset in PRESETS.items():
        assert preset.dataset == name and datasets.LICENCES.keys() >= set(name.split("+"))
        assert preset.bucket_lengths()[-1] == preset.max_length
