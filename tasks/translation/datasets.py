"""The named data sets of the translation task, as tensorflow-datasets builders.

`phrase_book` was written for this project. `tatoeba` and `multi30k` are downloaded from their
public addresses. `homeassistant` comes from a package on the package index.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import re
import zipfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from common.datasets import SPLITS, PackageArchive, fetch_package, split_by_hash
from common.errors import InputError
from common.files import read_member
from tasks.translation.formats import Pair, read_pairs
from tasks.translation.patterns import expand
from tasks.translation.splits import flatten, group_rows, is_acceptance

import tensorflow_datasets as tfds

TATOEBA = "https://raw.githubusercontent.com/genimind/seq2seq/master/fra-eng.zip"
MULTI30K = "https://raw.githubusercontent.com/multi30k/dataset/master/data/task1/raw/"
PHRASES = Path(__file__).with_name("phrases")

LICENCES = {
    "phrase_book": "CC0",
    "tatoeba": "CC BY 2.0",
    "multi30k": "research and education, non-commercial: do not redistribute",
    "homeassistant": "Apache-2.0",
}

_ELLIOTT_2017 = """@inproceedings{elliott2017findings,
  title = {Findings of the Second Shared Task on Multimodal Machine Translation and Multilingual
           Image Description},
  author = {Elliott, Desmond and Frank, Stella and Barrault, Loic and Bougares, Fethi and
            Specia, Lucia},
  booktitle = {WMT}, year = {2017}}"""
_TATOEBA = """@misc{tatoeba,
  title = {Tatoeba: collection of sentences and translations},
  note = {selection of manythings.org/anki, 2017},
  url = {https://tatoeba.org}}"""


class _ParallelCorpus(tfds.core.GeneratorBasedBuilder):
    """Base of the builders: sentences in French and English, unless a builder has others."""

    LANGUAGES: tuple[str, ...] = ("fr", "en")
    URLS: tuple[str, ...] = ()
    CITATION = ""

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.Translation(languages=self.LANGUAGES),
            citation=self.CITATION,
        )

    def _generate_examples(
        self, rows: Iterable[tuple[str, ...]]
    ) -> Iterator[tuple[int, dict[str, str]]]:
        for number, row in enumerate(rows):
            yield number, dict(zip(self.LANGUAGES, row, strict=True))


class PhraseBook(_ParallelCorpus):
    """French and English phrases of everyday conversation, written for this project."""

    VERSION = tfds.core.Version("1.0.0")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        pairs = {
            split: read_pairs(PHRASES / f"{split}.tsv", ("fr", "en")).pairs for split in SPLITS
        }
        pairs["train"] += expand(PHRASES / "patterns.txt")
        return {split: self._generate_examples(pairs[split]) for split in SPLITS}


class Tatoeba(_ParallelCorpus):
    """Everyday sentences from Tatoeba; the splits of this project have no sentence in common."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = (TATOEBA,)
    CITATION = _TATOEBA

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        text = read_member(Path(dl_manager.download(TATOEBA)), "fra.txt").decode("utf-8")
        rows = [line.split("\t") for line in text.removesuffix("\n").split("\n")]
        splits = split_tatoeba((french, english) for english, french in rows)
        return {split: self._generate_examples(pairs) for split, pairs in splits.items()}


def split_tatoeba(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Split pairs so that no sentence is in two splits.

    The groups of `group_rows` are sorted by the SHA-1 of their smallest English sentence. The first
    2,000 groups are the test split, the next 1,000 the validation split and the others the training
    split. Pairs with an acceptance sentence are removed from the training split.

    Args:
      pairs: French sentences with their English translations.
    """

    def digest(group: list[Pair]) -> str:
        smallest = min(english for _, english in group)
        return hashlib.sha1(smallest.encode("utf-8")).hexdigest()

    groups = sorted(group_rows(pairs), key=digest)
    train = [pair for pair in flatten(groups[3000:]) if not is_acceptance(*pair)]
    return {
        "test": flatten(groups[:2000]),
        "validation": flatten(groups[2000:3000]),
        "train": train,
    }


class Multi30k(_ParallelCorpus):
    """Image captions. `test` is test_2016_flickr; `test_2017` is an additional split."""

    VERSION = tfds.core.Version("1.0.0")
    FILES: ClassVar = {
        "train": "train",
        "validation": "val",
        "test": "test_2016_flickr",
        "test_2017": "test_2017_flickr",
    }
    URLS = tuple(f"{MULTI30K}{name}.{side}.gz" for name in FILES.values() for side in ("fr", "en"))
    CITATION = _ELLIOTT_2017

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        sides = [read_gzip_lines(Path(path)) for path in dl_manager.download(list(self.URLS))]
        return {
            split: self._generate_examples(zip(sides[2 * k], sides[2 * k + 1], strict=True))
            for k, split in enumerate(self.FILES)
        }


def read_gzip_lines(path: Path) -> list[str]:
    """Read the lines of a compressed UTF-8 text file, without surrounding whitespace."""
    text = gzip.decompress(path.read_bytes()).decode("utf-8")
    return [line.strip() for line in text.removesuffix("\n").split("\n")]


class Homeassistant(_ParallelCorpus):
    """Interface texts of Home Assistant in four languages; a missing translation is ""."""

    VERSION = tfds.core.Version("1.0.0")
    PACKAGE = PackageArchive(
        "homeassistant==2024.3.3",
        "6e1ec2c07441d63fdcfb8acd2c4bbb6f68bc97330855784d3623d10c38fe3577",
    )
    LANGUAGES = ("en", "fr", "de", "es")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        rows: dict[str, list[tuple[str, ...]]] = {split: [] for split in SPLITS}
        for group in group_rows(read_interface_texts(archive, self.LANGUAGES)):
            rows[split_by_hash(min(group)[0])] += group
        return {split: self._generate_examples(rows[split]) for split in SPLITS}


def read_interface_texts(archive: Path, languages: Sequence[str]) -> list[tuple[str, ...]]:
    """Read the files `translations/<language>.json` of all components of Home Assistant.

    Texts of fewer than three words in the first language are dropped, and so are duplicates.

    Args:
      archive: a wheel of Home Assistant.
      languages: languages of the texts.

    Returns:
      Rows with a text in each language; "" where a component has no translation.

    Raises:
      InputError: the archive or a file in it is malformed.
    """
    pattern = re.compile(r"homeassistant/components/([^/]+)/translations/en\.json")
    try:
        with zipfile.ZipFile(archive) as file:
            names = set(file.namelist())
            rows = [
                row
                for name in sorted(filter(pattern.fullmatch, names))
                for row in _read_component(file, name, names, languages)
            ]
    except (zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise InputError(f"cannot read: {error}", archive) from error
    return list(dict.fromkeys(rows))


def _read_component(
    file: zipfile.ZipFile, english: str, names: Collection[str], languages: Sequence[str]
) -> Iterator[tuple[str, ...]]:
    """Yield the texts of one component, paired by their keys.

    Args:
      file: the open archive.
      english: name of the component's English file.
      names: names of all files in the archive.
      languages: languages of the texts.
    """
    texts: list[Mapping[str, str]] = []
    for language in languages:
        name = english.replace("/en.json", f"/{language}.json")
        texts.append(_flatten_texts(json.loads(file.read(name))) if name in names else {})
    for key, first in texts[0].items():
        if len(first.split()) >= 3:
            yield tuple(" ".join(side.get(key, "").split()) for side in texts)


def _flatten_texts(tree: Any, path: str = "") -> dict[str, str]:
    """Return the texts of a nested dict, by the path of their keys."""
    if isinstance(tree, str):
        return {path: tree}
    texts: dict[str, str] = {}
    for key, value in tree.items() if isinstance(tree, dict) else ():
        texts |= _flatten_texts(value, f"{path}/{key}")
    return texts
