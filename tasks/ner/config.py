"""Every setting of the named-entity task, and the ones behind each published score."""

from __future__ import annotations

import dataclasses
from typing import Literal

from common.commands.config import RunConfig
from common.data import bucket_lengths


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A bidirectional recurrent tagger of words with a CRF."""

    epochs: int = 30
    """passes over the training data; the learning rate falls to 0 along half a cosine"""
    learning_rate: float = 2e-3
    """peak learning rate"""
    patience: int = 30
    """stop after so many epochs without a better validation F1"""
    max_length: int = 128
    """tokens; longer sentences are cut there, in training and in the export's text signatures"""
    word_length: int = 20
    """characters; of longer words the first so many are seen"""

    exchange: float = 0.0
    """share of the names that are exchanged for others of the same type, anew in each epoch"""
    listed_names: bool = False
    """whether they are exchanged for those of tasks/ner/sentences/names, too (PER, LOC, ...)"""
    lower_case: float = 0.0
    """share of the training sentences that are lower-cased, anew in each epoch"""

    vectors: str = "glove-6b-50d"
    """pretrained word vectors: a GloVe text file, glove-6b-50d (extra [ner]), '' for none"""
    frequent_words: int = 400_000
    """the first so many words of the vectors are known beside those of the training text"""
    dimension: int = 50
    """width of the word vectors where none are pretrained"""
    word_dropout: float = 0.1
    """share of words hidden from the model while training; their characters stay"""
    rare_word_dropout: float = 10.0
    """a word seen n times uses what was learnt about it with chance n / (n + this), in training"""
    subwords: int = 0
    """parts of 3 to 5 letters that so many training words share have a vector; 0 for none"""
    subword_dropout: float = 0.3
    """share of words whose subwords are left out while training"""
    character_dimension: int = 16
    """width of the character vectors"""
    character_filters: int = 32
    """what a word's characters are summed up in, by a convolution over three of them"""
    character_dropout: float = 0.1
    """share of characters hidden from the model while training"""
    embedding_dropout: float = 0.4
    """share of a word's features dropped"""

    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """kind of recurrent layer"""
    units: int = 100
    """width of each layer, per direction"""
    layers: int = 1
    """how many bidirectional layers"""
    dropout: float = 0.5
    """share of the outputs dropped behind each recurrent layer"""

    members: int = 1
    """networks that are trained side by side; tags are found by the mean of their probabilities"""
    outside_weight: float = 1.0
    """what the probability of O is multiplied by before tags are found; less finds more names"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        super().__post_init__()
        self.require_counts("max_length", "word_length", "dimension", "units", "layers", "members")
        self.require_counts("character_dimension", "character_filters")
        self.require_fractions("exchange", "lower_case", "word_dropout", "subword_dropout")
        self.require_fractions("character_dropout", "embedding_dropout", "dropout")
        self.require_positive("outside_weight")

    def bucket_lengths(self) -> list[int]:
        """The fixed lengths of batches."""
        return bucket_lengths(self.max_length)


# Chosen on the validation splits.
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
# What `python -m tasks train --quick` asks for.
QUICK = {"epochs": 4}
