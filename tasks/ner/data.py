"""Annotated sentences as data sets and as batches.

`load` reads a published data set (`tasks.ner.datasets`, or the catalogue of tensorflow-datasets) or
the user's CoNLL files (`tasks.ner.formats`). `Reader` converts tokens to ids and is exported with
the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from common.data import SHUFFLED, batches
from common.datasets import (
    SPLITS,
    Corpus,
    DataSource,
    check_obtainable,
    find_splits,
    join,
    manual_folder,
    parts_of,
    prepare,
    split_numbers,
)
from common.errors import InputError
from common.files import count_lines
from common.messages import say
from common.progress import progress
from common.tables import (
    Own,
    Rows,
    Writer,
    identity,
    is_large,
    open_table,
    own_folder,
    read_each,
)
from common.text import Vocabulary, rewrite
from tasks.ner.config import MIXABLE, Config
from tasks.ner.datasets import LICENCES, SHARED_TYPES  # registers the builders with tfds, too
from tasks.ner.formats import (
    FIRST_AND_LAST,
    OUTSIDE,
    SUFFIXES,
    Columns,
    Sentence,
    entity_types,
    iterate_conll,
    tag_names,
)

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

# --- data sets ------------------------------------------------------------------------------------


def load(source: DataSource, *, seed: int, columns: Columns = FIRST_AND_LAST) -> Corpus:
    """Load a published data set, several that train together, or the user's own files.

    The elements are `{tokens: <string>[time], tags: <int64>[time]}`, where a tag is an index of the
    corpus's labels.

    Args:
      source: the flags that name the data; `a+b` names two data sets, whose types are mapped to
        PER, LOC, ORG and MISC.
      seed: seed of the split of a single file.
      columns: the columns of the user's own files.

    Raises:
      InputError: the data cannot be downloaded or read.
    """
    if source.data is not None:
        return _own_corpus(source, seed, columns)
    if source.dataset is None:
        raise InputError("no data: pass --dataset NAME or --data PATH")
    if "+" not in source.dataset:
        return _published_corpus(source.dataset, source)
    return _mix([_published_corpus(name, source) for name in parts_of(source.dataset, MIXABLE)])


def not_obtainable(names: Sequence[str], source: DataSource) -> dict[str, str]:
    """Return the reason for each data set that can be neither downloaded nor read.

    Args:
      names: of data sets.
      source: the flags that name the folders.
    """
    reasons = {}
    for name in names:
        builder, manual_dir = _builder(name, source)
        try:
            check_obtainable(builder, manual_dir=manual_dir)
        except InputError as error:
            reasons[name] = str(error)
    return reasons


def _own_corpus(source: DataSource, seed: int, columns: Columns) -> Corpus:
    """Load the user's CoNLL files as tables in memory or on disk.

    A single file is split 80/10/10. A type that does not occur in the training sentences cannot be
    learned; a message says that its entities count as missed.

    Raises:
      InputError: a file is missing or malformed, or the training sentences have no entity.
    """
    path = source.data
    assert path is not None
    files = find_splits(path, SUFFIXES)
    root = own_folder("ner", source.data_dir) if is_large([*files.values()]) else None
    opened = {split: open_sentences(file, columns, root) for split, file in files.items()}
    rows = opened
    if "all" in opened:
        whole = opened["all"]
        rows = {s: whole.select(part) for s, part in split_numbers(len(whole), seed).items()}
    types = {split: part.types() for split, part in rows.items()}
    if not types["train"]:
        raise InputError("every tag is O: expected entities (B-TYPE)", files.get("train", path))
    for split in ("validation", "test"):
        if unknown := sorted(set(types[split]) - set(types["train"])):
            say(
                f"{path.name}: entities of type {', '.join(unknown)} occur in the {split} "
                "sentences, but not in the training sentences; they count as missed"
            )
    labels = tag_names(set().union(*types.values()))
    return Corpus(
        name=path.name,
        labels=labels,
        splits={split: part.as_dataset(labels) for split, part in rows.items()},
        citation="",
        licence="yours",
        identity=identity(opened, seed),
        stored=rows,
    )


@dataclasses.dataclass(frozen=True)
class Sentences(Rows):
    """Some sentences of a file of the user.

    Attributes:
      lengths: `<int32>[rows of the table]`, their numbers of tokens.
    """

    lengths: np.ndarray

    def __iter__(self) -> Iterator[Sentence]:
        """Yield the sentences in order."""
        return map(_sentence, self.read())

    def types(self) -> set[str]:
        """Return the entity types that occur in these sentences."""
        has = np.zeros(len(self.table), bool)
        has[self.numbers] = True
        places = self.table.column("types")[has[self.table.column("rows_of_types")]]
        return {self.table.facts["types"][place] for place in np.unique(places)}

    def as_dataset(self, labels: Sequence[str]) -> tf.data.Dataset:
        """Return the sentences in order, with the elements of `load`."""

        def read(rows: np.ndarray) -> tuple[np.ndarray, ...]:
            return _arrays(map(_sentence, self.table.read(rows)), index)

        def to_ragged(block: Mapping[str, tf.Tensor]) -> dict[str, tf.RaggedTensor]:
            columns = {"tokens": block["tokens"], "tags": tf.cast(block["tags"], tf.int64)}
            return {
                name: tf.RaggedTensor.from_row_lengths(column, block["length"])
                for name, column in columns.items()
            }

        index = {tag: number for number, tag in enumerate(labels)}
        count = tf.data.experimental.assert_cardinality(len(self))
        return self.blocks(read, _signature()).map(to_ragged).unbatch().apply(count)


def _sentence(row: bytes) -> Sentence:
    """Return the sentence of a row of a table, of which the lines are its tokens and its tags."""
    lines = row.decode().split("\n")
    return Sentence(lines[: len(lines) // 2], lines[len(lines) // 2 :])


def _arrays(rows: Iterable[Sentence], index: Mapping[str, int]) -> tuple[np.ndarray, ...]:
    """Return tokens, tags and lengths of sentences, as `_signature` has them."""
    every = list(rows)
    tokens = np.array([token.encode() for row in every for token in row.tokens], object)
    tags = np.array([index[tag] for row in every for tag in row.tags], np.int32)
    return tokens, tags, np.array([len(row.tokens) for row in every], np.int32)


def _signature() -> dict[str, tf.TensorSpec]:
    numbers = tf.TensorSpec([None], tf.int32)
    return {"tokens": tf.TensorSpec([None], tf.string), "tags": numbers, "length": numbers}


def open_file(path: Path, columns: Columns, data_dir: Path | None) -> Sentences:
    """Open one file of the user; the sentences of a large file stay on disk.

    Args:
      path: a CoNLL file.
      columns: its columns.
      data_dir: the folder of prepared data; see `common.tables.own_folder`.

    Raises:
      InputError: the file is malformed.
    """
    root = own_folder("ner", data_dir) if is_large([path]) else None
    return open_sentences(path, columns, root)


def open_sentences(path: Path, columns: Columns, root: Path | None) -> Sentences:
    """Open a file of the user, and say what was converted or skipped.

    Args:
      path: a CoNLL file.
      columns: its columns.
      root: the folder of tables on disk; None: the sentences stay in memory.

    Raises:
      InputError: the file is malformed.
    """

    def write(writer: Writer) -> Mapping[str, Any]:
        return _write(writer, path, columns)

    table = open_table([path], [columns], write, root)
    for message in table.facts["messages"]:
        say(f"{path.name}: {message}")
    return Sentences(table, np.arange(len(table)), table.column("length"))


def _write(writer: Writer, path: Path, columns: Columns) -> Mapping[str, Any]:
    """Write the sentences of a file, and which types of entities each has."""
    messages: list[str] = []
    index: dict[str, int] = {}
    lengths = writer.column("length", "i")
    types, rows_of_types = writer.column("types", "H"), writer.column("rows_of_types", "i")
    rows = iterate_conll(path, columns, messages)
    total = count_lines(path)
    for _, row in progress(rows, total=total, unit="lines", place=lambda row: row.line):
        for name in entity_types(row.tags):
            types.append(index.setdefault(name, len(index)))
            rows_of_types.append(len(writer))
        writer.append("\n".join([*row.tokens, *row.tags]).encode("utf-8", "replace"))
        lengths.append(len(row.tokens))
    return {"messages": messages, "types": list(index)}


def _builder(name: str, source: DataSource) -> tuple[tfds.core.DatasetBuilder, Path | None]:
    """Return the builder of a data set, and the folder of its downloaded files."""
    data_dir = None if source.data_dir is None else str(source.data_dir)
    # English is one of wikiann's many configurations.
    builder = tfds.builder({"wikiann": "wikiann/en"}.get(name, name), data_dir=data_dir)
    return builder, manual_folder(source.manual_dir, name)


def _published_corpus(name: str, source: DataSource) -> Corpus:
    """Load a data set through its tfds builder; `source` names the folders."""
    builder, manual_dir = _builder(name, source)
    prepare(builder, manual_dir=manual_dir)
    column, validation = ("ner", "dev") if name == "conll2003" else ("tags", "validation")
    names = builder.info.features[column].feature.names
    splits = {}
    for split in SPLITS:
        published = validation if split == "validation" else split
        rows = builder.as_dataset(split=published, shuffle_files=False)
        splits[split] = rows.map(lambda row: {"tokens": row["tokens"], "tags": row[column]})
    corpus = Corpus(
        name=name,
        labels=tuple(names),
        splits=splits,
        citation=builder.info.citation,
        licence=LICENCES[name],
    )
    return _relabel(corpus, tag_names(entity_types(names)), {})


def _mix(corpora: Sequence[Corpus]) -> Corpus:
    """Join data sets that train together."""
    types = {SHARED_TYPES.get(name, name) for c in corpora for name in entity_types(c.labels)}
    labels = tag_names(types)
    return join([_relabel(corpus, labels, SHARED_TYPES) for corpus in corpora])


def _relabel(corpus: Corpus, labels: Sequence[str], types: Mapping[str, str]) -> Corpus:
    """Return a corpus whose tags are indices of `labels`.

    Args:
      corpus: the corpus.
      labels: names of the tags.
      types: an entity type of the corpus -> that of the labels, where they differ.
    """

    def renamed(tag: str) -> str:
        prefix, _, entity_type = tag.partition("-")
        return tag if tag == OUTSIDE else f"{prefix}-{types.get(entity_type, entity_type)}"

    index = tf.constant([labels.index(renamed(tag)) for tag in corpus.labels], tf.int64)

    def convert(row: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"tokens": row["tokens"], "tags": tf.gather(index, row["tags"])}

    splits = {
        split: rows.map(convert).apply(tf.data.experimental.assert_cardinality(rows.cardinality()))
        for split, rows in corpus.splits.items()
    }
    return dataclasses.replace(corpus, labels=tuple(labels), splits=splits)


def sentences(rows: tf.data.Dataset, labels: Sequence[str]) -> list[Sentence]:
    """Convert a split of a corpus to plain sentences; the inverse of `as_dataset`."""
    return [
        Sentence([token.decode() for token in row["tokens"]], [labels[tag] for tag in row["tags"]])
        for row in rows.as_numpy_iterator()
    ]


def as_dataset(rows: Sequence[Sentence], labels: Sequence[str]) -> tf.data.Dataset:
    """Convert plain sentences to a data set with the elements of `load`.

    Example:
      >>> labels = ("O", "B-LOC", "I-LOC")
      >>> dataset = as_dataset([Sentence(["in", "Rome"], ["O", "B-LOC"])], labels)
      >>> sentences(dataset, labels)
      [Sentence(tokens=['in', 'Rome'], tags=['O', 'B-LOC'])]
    """
    index = {tag: number for number, tag in enumerate(labels)}
    tokens = tf.ragged.constant([row.tokens for row in rows], tf.string, ragged_rank=1)
    tags = [[index[tag] for tag in row.tags] for row in rows]
    tags = tf.ragged.constant(tags, tf.int64, ragged_rank=1)
    return tf.data.Dataset.from_tensor_slices({"tokens": tokens, "tags": tags})


# --- batches --------------------------------------------------------------------------------------


def word_forms(tokens: tf.Tensor | tf.RaggedTensor) -> tf.Tensor | tf.RaggedTensor:
    """Return tokens in the form of the word vocabulary: lower-cased, web addresses as `http`.

    Example:
      >>> word_forms(tf.constant(["Rome", "https://example.org"])).numpy()
      array([b'rome', b'http'], dtype=object)
    """
    forms = tf.strings.lower(tokens, encoding="utf-8")
    return tf.strings.regex_replace(forms, r"^(?:https?:|www\.).*", "http")


class Reader(tf.Module):
    """Convert tokens to word ids and character ids; exported with the model.

    A word that is not in the vocabulary is looked up again without the punctuation at its ends, so
    "#London" gets the id of "london". An unknown letter gets the id of "X" or "x", an unknown digit
    that of "0".

    Args:
      words: the word vocabulary, lower-cased.
      characters: the character vocabulary.
      word_length: maximum characters per word; the remaining ones are ignored.
    """

    def __init__(self, words: Vocabulary, characters: Vocabulary, word_length: int):
        super().__init__(name="reader")
        self.words, self.characters, self.word_length = words, characters, word_length

    def __call__(self, tokens: tf.RaggedTensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Look tokens up.

        Args:
          tokens: ragged `<string>[batch, (tokens)]`.

        Returns:
          `(words <int32>[batch, time], characters <int32>[batch, time, word_length])`; rows and
          words are right-padded with 0.
        """
        tokens = rewrite(tokens)
        words = tokens.with_flat_values(self._word_ids(tokens.flat_values))
        characters = tokens.with_flat_values(self._character_ids(tokens.flat_values))
        return words.to_tensor(), characters.to_tensor()

    def _word_ids(self, tokens: tf.Tensor) -> tf.Tensor:
        """Look words up: `<string>[tokens]` to `<int32>[tokens]`."""
        forms = word_forms(tokens)
        bare = tf.strings.regex_replace(forms, r"^[^\pL\pN]+|[^\pL\pN]+$", "")
        ids = self.words.ids(forms)
        return tf.where(ids == 1, self.words.ids(bare), ids)

    def _character_ids(self, tokens: tf.Tensor) -> tf.Tensor:
        """Look characters up: `<string>[tokens]` to `<int32>[tokens, word_length]`."""
        characters = tf.strings.unicode_split(tokens, "UTF-8", errors="replace")
        characters = characters[:, : self.word_length]
        ids = self.characters.ids(characters.flat_values)
        classes = characters.flat_values
        for pattern, stand_in in ((r"^\p{Lu}$", "X"), (r"^\p{Ll}$", "x"), (r"^\p{Nd}$", "0")):
            classes = tf.strings.regex_replace(classes, pattern, stand_in)
        ids = tf.where(ids == 1, self.characters.ids(classes), ids)
        return characters.with_flat_values(ids).to_tensor(shape=[None, self.word_length])


def to_batches(
    rows: tf.data.Dataset, reader: Reader, config: Config, *, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Group sentences into batches.

    Args:
      rows: a data set with the elements of `load`.
      reader: converts tokens to ids.
      config: the lengths and the batch size.
      shuffle_seed: seed of the order; None: no shuffling.

    Returns:
      A data set of `words` `<int32>[batch, time]`, `characters` `<int32>[batch, time, word
      length]`, `length` `<int32>[batch]` and `tags` `<int32>[batch, time]`. Sentences are truncated
      to `config.max_length` tokens.
    """

    def encode(batch: Mapping[str, tf.RaggedTensor]) -> dict[str, tf.Tensor]:
        tokens = batch["tokens"][:, : config.max_length]
        words, characters = reader(tokens)
        tags = tf.cast(batch["tags"][:, : config.max_length].to_tensor(), tf.int32)
        length = tf.cast(tokens.row_lengths(), tf.int32)
        return {"words": words, "characters": characters, "tags": tags, "length": length}

    def without_padding(example: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        length = example["length"]
        padded = ("words", "characters", "tags")
        return {**example, **{name: example[name][:length] for name in padded}}

    # Encoding many sentences at a time is much faster than one by one.
    encoded = rows.ragged_batch(1024).map(encode, tf.data.AUTOTUNE)
    examples = encoded.unbatch().map(without_padding).cache()
    return batches(examples, config.bucket_lengths(), config.batch_size, shuffle_seed=shuffle_seed)


def stored_batches(
    rows: Sentences,
    labels: Sequence[str],
    reader: Reader,
    config: Config,
    *,
    own: Own,
    shuffle_seed: int | None = None,
    vary: Callable[[int, Sentence], Sentence] | None = None,
) -> tf.data.Dataset:
    """Group the user's own sentences into the batches of `to_batches`.

    The batches follow from the lengths of the sentences, so each worker reads and encodes only its
    own rows of them.

    Args:
      rows: the sentences.
      labels: names of the tags.
      reader: see `to_batches`, as for `config` and `shuffle_seed`.
      config: see there.
      own: number of rows of a batch -> those that this worker reads; the others have length 0.
      shuffle_seed: see there.
      vary: number and sentence -> the sentence that is trained on; batches follow from the lengths
        before.
    """
    index = {tag: number for number, tag in enumerate(labels)}
    buckets = tf.constant(config.bucket_lengths())
    reads_all = own(config.batch_size) == slice(0, config.batch_size)

    def read(numbers: np.ndarray, planned: np.ndarray) -> tuple[np.ndarray, ...]:
        mine = numbers[own(len(numbers))]
        every = map(_sentence, rows.table.read(mine))
        if vary is not None:
            every = map(vary, mine.tolist(), every)
        tokens, tags, lengths = _arrays(every, index)
        padded = np.zeros(len(numbers), np.int32)
        padded[own(len(numbers))] = lengths
        return tokens, tags, padded, planned

    def encode(batch: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        tokens, tags = (
            tf.RaggedTensor.from_row_lengths(batch[name], batch["length"])[:, : config.max_length]
            for name in ("tokens", "tags")
        )
        length = tf.minimum(batch["length"], config.max_length)
        words, characters = reader(tokens)
        # Workers read different rows, and their shapes must agree.
        longest = length if reads_all else batch["planned"]
        place = tf.searchsorted(buckets, tf.reduce_max(longest)[None])[0]
        changes = vary is not None and (config.exchange or config.titles)
        padded = buckets[place if reads_all or not changes else -1]
        extra = [[0, 0], [0, padded - tf.shape(words)[1]]]
        return {
            "words": tf.pad(words, extra),
            "characters": tf.pad(characters, [*extra, [0, 0]]),
            "tags": tf.pad(tags.to_tensor(), extra),
            "length": length,
        }

    order = rows.numbers
    if shuffle_seed is not None and len(order) > SHUFFLED:  # more than `batches` shuffles
        order = np.random.default_rng(shuffle_seed).permutation(order)
    lengths = np.minimum(rows.lengths[order], config.max_length)
    plan = tf.data.Dataset.from_tensor_slices({"row": order, "length": lengths})
    plan = batches(plan, config.bucket_lengths(), config.batch_size, shuffle_seed=shuffle_seed)
    plan = plan.map(lambda batch: (batch["row"], batch["length"]))
    signature = _signature() | {"planned": tf.TensorSpec([None], tf.int32)}
    made = read_each(read, plan, signature).map(encode, tf.data.AUTOTUNE)
    return made.prefetch(tf.data.AUTOTUNE)
