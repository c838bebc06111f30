"""Settings of the named-entity task, and a preset for each data set."""

from __future__ import annotations

import dataclasses
from typing import Literal

from common.commands.config import Count, Fraction, Positive, RunConfig
from common.data import bucket_lengths

TASK = "ner"
NO_LITERT = "its outputs are places in the raw text, and LiteRT has no ops that find words in text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A bidirectional recurrent tagger with a CRF."""

    epochs: Count = 30
    """passes over the training data; the learning rate decays to 0 along a half cosine"""
    learning_rate: Positive = 2e-3
    """peak learning rate"""
    patience: Count = 30
    """epochs without improvement of the validation F1 after which training stops"""
    max_length: Count = 128
    """maximum tokens of a sentence; longer ones are truncated, also by the export's text inputs"""
    word_length: Count = 20
    """maximum characters of a word; longer words are truncated"""

    exchange: Fraction = 0.0
    """fraction of entities replaced by others of the same type, drawn anew in each epoch"""
    listed_names: bool = False
    """replacements also from the lists in tasks/ner/sentences/names (PER, LOC, ORG, MISC)"""
    lower_case: Fraction = 0.0
    """fraction of training sentences that are lower-cased, drawn anew in each epoch"""

    vectors: str = "glove-6b-50d"
    """pretrained word vectors: a GloVe text file, glove-6b-50d (extra [ner]), '' for none"""
    frequent_words: int = 400_000
    """number of pretrained words, most frequent first, added to those of the training text"""
    dimension: Count = 50
    """dimension of the word vectors if none are pretrained"""
    word_dropout: Fraction = 0.1
    """fraction of words replaced by the unknown word in training; their characters stay"""
    rare_word_dropout: float = 10.0
    """k; in training, the learned vector of a word seen n times has probability n / (n + k)"""
    subwords: int = 0
    """number of training words in which a subword (3 to 5 letters) must occur; 0 for no subwords"""
    subword_dropout: Fraction = 0.3
    """fraction of words whose subword vectors are dropped in training"""
    character_dimension: Count = 16
    """dimension of the character vectors"""
    character_filters: Count = 32
    """filters of the convolution over each word's characters (width 3)"""
    character_dropout: Fraction = 0.1
    """fraction of characters replaced by the unknown character in training"""
    embedding_dropout: Fraction = 0.4
    """fraction of each word's input features dropped in training"""

    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """type of the recurrent layers"""
    units: Count = 100
    """units of each recurrent layer, per direction"""
    layers: Count = 1
    """number of stacked bidirectional layers"""
    dropout: Fraction = 0.5
    """fraction of each recurrent layer's outputs dropped in training"""

    members: Count = 1
    """ensemble members, trained together; their tag probabilities are averaged"""
    outside_weight: Positive = 1.0
    """factor on the probability of O before decoding; below 1 more entities are predicted"""

    def bucket_lengths(self) -> list[int]:
        """Return the fixed lengths to which batches are padded."""
        return bucket_lengths(self.max_length)


# The values were chosen on the validation splits.
PRESETS = {
    "everyday_entities": Config(
        dataset="everyday_entities", exchange=0.5, listed_names=True, lower_case=0.1
    ),
    "wnut17": Config(
        dataset="wnut17",
        epochs=16,
        exchange=0.5,
        listed_names=True,
        lower_case=0.1,
        outside_weight=0.12,
        members=3,
    ),
    "btc": Config(dataset="btc", epochs=10, lower_case=0.05, outside_weight=0.35, members=3),
    "nero": Config(dataset="nero", epochs=10),
    "conll2003": Config(dataset="conll2003", epochs=15, lower_case=0.05),
    "wikiann": Config(dataset="wikiann", epochs=10, lower_case=0.05),
}
DEFAULT = "everyday_entities"
# Changes made by `python -m tasks train --quick`.
QUICK = {"epochs": 4}
