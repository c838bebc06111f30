"""Word clusters: their archive, and their features."""

import io
import json
import struct
import zipfile

from common import datasets
from common import word_clusters as clusters
from common.errors import InputError

import keras
import numpy as np
import pytest


@pytest.mark.parametrize(
    ("text", "expected"),
    # Published values: keys of these words in spaCy's `StringStore`.
    [("coffee", 3197928453018144401), ("apple", 8566208034543834098)],
)
def test_hashes_are_those_of_spacy(text, expected):
    assert clusters.murmur_hash(text.encode()) == expected


def make_archive(path, words, vectors):
    """Write an archive like the published one: words and the rows of their vectors."""
    content = struct.pack(">BI", 0xDF, len(words))
    for word, row in words.items():
        content += struct.pack(">BQ", 0xCF, clusters.murmur_hash(word.encode()))
        content += struct.pack(">B", row) if row < 128 else struct.pack(">BH", 0xCD, row)
    array = io.BytesIO()
    np.save(array, vectors)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{clusters.VOCABULARY}/key2row", content)
        archive.writestr(f"{clusters.VOCABULARY}/strings.json", json.dumps([*words, "no vector"]))
        archive.writestr(f"{clusters.VOCABULARY}/vectors", array.getvalue())
    return path


def test_an_archive_is_read_and_its_vectors_are_whitened(tmp_path):
    random = np.random.default_rng(0)
    vectors = random.normal(size=(300, 80)).astype(np.float32) * np.arange(1, 81)
    words = {"Rome": 7, "rome": 7, "internationalisation": 299, "é": 130}
    found = clusters.read(make_archive(tmp_path / "a.whl", words, vectors), 50)
    assert found.of_word == {"rome": 7, "internationalisation": 299, "é": 130}
    assert found.vectors.shape == (300, 50)
    np.testing.assert_allclose(np.cov(found.vectors.T, bias=True), np.eye(50), atol=1e-3)
    centred = vectors - vectors.mean(axis=0)
    left, _, _ = np.linalg.svd(centred, full_matrices=False)
    correlation = np.abs(found.vectors.T @ left[:, :50]) / np.sqrt(300)
    np.testing.assert_allclose(correlation, np.eye(50), atol=1e-2)


def test_features_are_rounded_vectors_and_dropped_in_training():
    vectors = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    layer = clusters.ClusterFeatures(5, 9, 4, dropout=0.5)
    layer.build((None, None))
    layer.fill(["<pad>", "<unk>", "a", "b", "c"], clusters.Clusters({"a": 8, "c": 0}, vectors))
    ids = np.array([[0, 1, 2, 3, 4, 99, -1]])
    expected = np.zeros((1, 7, 4))
    expected[0, 2], expected[0, 4] = vectors[8], vectors[0]
    np.testing.assert_allclose(layer(ids), expected, atol=1 / 64)
    rows = np.full((1, 4000), 2)
    kept = np.any(layer(rows, training=True).numpy()[0] != 0, axis=-1)
    assert abs(kept.mean() - 0.5) < 0.04
    again = clusters.ClusterFeatures.from_config(layer.get_config())
    again.build((None, None))
    again.set_weights(layer.get_weights())
    np.testing.assert_array_equal(again(ids), layer(ids))
    assert isinstance(again, keras.layers.Layer)


def test_without_the_index_the_message_names_the_flag(tmp_path, monkeypatch):
    def refuse(*_):
        raise InputError("cannot fetch it.")

    monkeypatch.setattr(datasets, "fetch_package", refuse)
    with pytest.raises(InputError, match=r"cannot fetch it\. Or train without .*--clusters none"):
        clusters.fetch(tmp_path)
