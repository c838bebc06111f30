from tasks.dna.config import PRESETS


def test_every_preset_trains_on_its_data_set():
    for name, preset in PRESETS.items():
        assert preset.dataset == name
