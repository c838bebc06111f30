"""Annotated sentences as data sets and as batches.

`load` reads a published data set (`tasks.ner.datasets`, or the catalogue of tensorflow-datasets) or
the user's CoNLL files (`tasks.ner.formats`). `Reader` converts tokens to ids and is exported with
the model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from common.data import batches
from common.datasets import SPLITS, Corpus, DataSource, check_obtainable, prepare
from common.errors import InputError
from common.text import Vocabulary, rewrite
from tasks.ner.config import MIXABLE, Config
from tasks.ner.datasets import LICENCES, SHARED_TYPES  # registers the builders with tfds, too
from tasks.ner.formats import (
    FIRST_AND_LAST,
    OUTSIDE,
    Columns,
    Sentence,
    entity_types,
    read_splits,
    tag_names,
)

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
        return _own_corpus(source.data, seed, columns)
    if source.dataset is None:
        raise InputError("no data: pass --dataset NAME or --data PATH")
    names = source.dataset.split("+")
    if len(names) == 1:
        return _published_corpus(source.dataset, source)
    if unknown := sorted(set(names) - set(MIXABLE)):
        raise InputError(f"{', '.join(unknown)} cannot be mixed; known: {', '.join(MIXABLE)}")
    return _mix([_published_corpus(name, source) for name in names])


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


def _own_corpus(path: Path, seed: int, columns: Columns) -> Corpus:
    """Load the user's CoNLL files."""
    splits, types = read_splits(path, seed=seed, columns=columns)
    labels = tag_names(types)
    return Corpus(
        name=path.name,
        labels=labels,
        splits={split: as_dataset(rows, labels) for split, rows in splits.items()},
        citation="",
        licence="yours",
    )


def _builder(name: str, source: DataSource) -> tuple[tfds.core.DatasetBuilder, Path | None]:
    """Return the builder of a data set, and the folder of its downloaded files.

    With several data sets, `--manual_dir` may hold a folder for each.
    """
    data_dir = None if source.data_dir is None else str(source.data_dir)
    # English is one of wikiann's many configurations.
    builder = tfds.builder({"wikiann": "wikiann/en"}.get(name, name), data_dir=data_dir)
    manual_dir = source.manual_dir
    if manual_dir is not None and (manual_dir / name).is_dir():
        manual_dir /= name
    return builder, manual_dir


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
    splits: dict[str, tf.data.Dataset] = {}
    for corpus in corpora:
        for split, rows in _relabel(corpus, labels, SHARED_TYPES).splits.items():
            splits[split] = splits[split].concatenate(rows) if split in splits else rows
    return Corpus(
        name="+".join(corpus.name for corpus in corpora),
        labels=labels,
        splits=splits,
        citation="\n\n".join(corpus.citation for corpus in corpora if corpus.citation),
        licence="; ".join(f"{corpus.name}: {corpus.licence}" for corpus in corpora),
    )


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
