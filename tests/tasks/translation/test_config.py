"""Settings of the translation task."""

from tasks.translation.config import PRESETS, Config


def test_every_preset_is_valid_and_names_its_data_set():
    for name, preset in PRESETS.items():
        assert preset.dataset == name


def test_what_only_the_search_uses_may_change_on_resume():
    settings = Config(beam=3).checkpoint_settings()
    assert settings == Config(beam=5, length_penalty=1.0).checkpoint_settings()
    assert settings != Config(units=128).checkpoint_settings()
