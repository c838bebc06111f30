"""Where sentence pairs come from, and how they become batches.

Four data sets are tfds builders of ours: `phrase_book` (the default, written for this project),
`tatoeba`, `multi30k` and `homeassistant` (it comes with a package on the index). The catalogue's
translation sets, such as `ted_hrlr_translate/pt_to_en`, go by their own names. Users bring a TSV
file, or two parallel text files.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import json
import re
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from common.cli import EvaluateConfig, RunConfig
from common.data import (
    SPLITS,
    Corpus,
    InputError,
    PackageArchive,
    batches,
    fetch_package,
    prepare,
    read_lines,
    read_member,
    split_by_hash,
    split_rows,
)
from tasks.translation.config import Config
from tasks.translation.subwords import END, START, Subwords

import numpy as np
import tensorflow as tf
import tensorflow_datasets as tfds

Pair = tuple[str, str]

# The sentences that acceptance examples ask about, and their answers: no model trains on them.
ACCEPTANCE = (
    "Voulez-vous chanter avec moi?",
    "Do you want to sing with me?",
    "Would you like to sing with me?",
)


def normalise(text: str) -> str:
    """What makes two sentences the same: letters and digits, lower-cased."""
    return " ".join(re.findall(r"\w+", text.lower()))


_ACCEPTANCE = frozenset(map(normalise, ACCEPTANCE))


def is_acceptance(*sentences: str) -> bool:
    """Whether one of these is a sentence that an acceptance example asks about."""
    return any(normalise(sentence) in _ACCEPTANCE for sentence in sentences)


# --- batches --------------------------------------------------------------------------------------


class Encoded(NamedTuple):
    """Sentence pairs as ids, held in memory; row k of both is pair k.

    Attributes:
      source: ragged `<int32>[pairs, (time)]`, with the end mark.
      target: ragged `<int32>[pairs, (steps)]`, with start and end mark.
    """

    source: tf.RaggedTensor
    target: tf.RaggedTensor


def encode(
    pairs: tf.data.Dataset, reader: Subwords, writer: Subwords, *, max_length: int
) -> Encoded:
    """Cuts sentence pairs into subwords.

    Args:
      pairs: elements `{source: <string>[], target: <string>[]}`.
      reader: subwords of the source.
      writer: subwords of the target.
      max_length: pairs with more subwords on a side are left out.
    """

    def cut(batch: Mapping[str, tf.Tensor]) -> tuple[tf.RaggedTensor, tf.RaggedTensor]:
        source, target = reader.encode(batch["source"]), writer.encode(batch["target"])
        kept = (source.row_lengths() <= max_length) & (target.row_lengths() <= max_length)
        source = tf.ragged.boolean_mask(source, kept)
        target = tf.ragged.boolean_mask(target, kept)
        mark = tf.ones([source.nrows(), 1], tf.int32)
        return (
            tf.concat([source, END * mark], axis=1),
            tf.concat([START * mark, target, END * mark], axis=1),
        )

    parts = list(pairs.batch(1024).map(cut, tf.data.AUTOTUNE))
    if not parts:
        raise InputError("no sentence pairs in this split")
    return Encoded(*(tf.concat(side, axis=0) for side in zip(*parts, strict=True)))


def to_batches(
    encoded: Encoded, *, batch_size: int, shuffle_seed: int | None = None
) -> tf.data.Dataset:
    """Groups pairs of like length into right-padded batches.

    Pairs are sorted by the lengths of both sides, so that hardly anything is padding; the order of
    pairs of one length, and that of the batches, is random in training.

    Args:
      encoded: the pairs.
      batch_size: pairs a batch.
      shuffle_seed: the order of training; None takes the pairs and batches in order of length.

    Returns:
      A data set of `ids` `<int32>[batch, time]` and `length` `<int32>[batch]` of the source;
      `target_ids` `<int32>[batch, steps]`, the start mark and the target; `labels`
      `<int32>[batch, steps]`, the target and the end mark; `target_length` `<int32>[batch]`.
    """
    lengths = [side.row_lengths().numpy() for side in encoded]
    random = np.random.default_rng(shuffle_seed)
    noise = random.permutation(len(lengths[0])) if shuffle_seed is not None else lengths[0]
    order = np.lexsort((noise, lengths[1], lengths[0]))
    starts = np.arange(0, len(order), batch_size)
    if shuffle_seed is not None:
        random.shuffle(starts)

    def gather(start: tf.Tensor) -> dict[str, tf.Tensor]:
        rows = tf.constant(order)[start : start + batch_size]
        source, target = tf.gather(encoded.source, rows), tf.gather(encoded.target, rows)
        return {
            "ids": source.to_tensor(),
            "length": tf.cast(source.row_lengths(), tf.int32),
            "target_ids": target[:, :-1].to_tensor(),
            "labels": target[:, 1:].to_tensor(),
            "target_length": tf.cast(target.row_lengths(), tf.int32) - 1,
        }

    return tf.data.Dataset.from_tensor_slices(starts).map(gather).prefetch(8)


# --- builders -------------------------------------------------------------------------------------

TATOEBA = (
    "https://raw.githubusercontent.com/genimind/seq2seq/"
    "4f3f8eb0eb6d0ea09b0bff60e7f43d7c9c7a1ed1/fra-eng.zip"
)


def tatoeba_splits(pairs: Iterable[Pair]) -> dict[str, list[Pair]]:
    """Deals (English, French) pairs into splits that share no sentence.

    Pairs that share an English or a French sentence (case and punctuation aside) form a group.
    Groups are ordered by the SHA-1 of their smallest English sentence: the first 2,000 are test,
    the next 1,000 validation, the rest train. Pairs with a sentence of an acceptance example are
    left out of all.
    """
    parent: dict[tuple[str, str], tuple[str, str]] = {}

    def root(node: tuple[str, str]) -> tuple[str, str]:
        while parent.setdefault(node, node) != node:
            parent[node] = parent[parent[node]]
            node = parent[node]
        return node

    pairs = list(pairs)
    for english, french in pairs:
        parent[root(("en", normalise(english)))] = root(("fr", normalise(french)))
    groups = collections.defaultdict(list)
    for english, french in pairs:
        groups[root(("en", normalise(english)))].append((english, french))
    smallest = {node: min(english for english, _ in group) for node, group in groups.items()}
    order = sorted(
        groups, key=lambda node: hashlib.sha1(smallest[node].encode("utf-8")).hexdigest()
    )
    bounds = {"test": order[:2000], "validation": order[2000:3000], "train": order[3000:]}
    return {
        split: [pair for node in nodes for pair in groups[node] if not is_acceptance(*pair)]
        for split, nodes in bounds.items()
    }
