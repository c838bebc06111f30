"""Every setting of the sentiment task, and the ones behind each published score."""

from __future__ import annotations

import dataclasses
from typing import Literal

from common.commands.config import RunConfig
from common.data import bucket_lengths
from common.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A bidirectional recurrent classifier of texts."""

    epochs: int = 8
    """passes over the training data; the learning rate falls to 0 along half a cosine"""
    learning_rate: float = 2e-3
    """peak learning rate"""
    patience: int = 8
    """stop after so many epochs without a better validation accuracy"""
    labels: tuple[str, ...] = ()
    """classes from worst to best, for --data (default: numbers by value, words by the alphabet)"""
    max_length: int = 64
    """tokens; longer texts are cut there, in training and in the export"""

    vectors: str = "glove-6b-50d"
    """pretrained word vectors: a GloVe text file, glove-6b-50d (extra [sentiment]), '' for none"""
    frequent_words: int = 100_000
    """the first so many words of the vectors are known beside those of the training text"""
    dimension: int = 50
    """width of the word vectors where none are pretrained"""
    word_dropout: float = 0.1
    """share of words hidden from the model while training"""
    rare_word_dropout: float = 10.0
    """a word seen n times uses what was learnt about it with chance n / (n + this), in training"""
    subwords: int = 3
    """parts of 3 to 5 letters that so many training words share have a vector; 0 for none"""
    subword_dropout: float = 0.3
    """share of words whose subwords are left out while training"""
    embedding_dropout: float = 0.1
    """share of the vectors' features dropped, for a whole text at once"""

    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """kind of recurrent layer"""
    units: int = 150
    """width of each layer, per direction"""
    layers: int = 1
    """how many bidirectional layers"""
    dropout: float = 0.3
    """share of outputs dropped between layers"""
    pooling: tuple[Literal["mean", "max", "last", "attention"], ...] = ("mean", "max")
    """how a text's steps become one vector; several are put side by side"""
    head_dropout: float = 0.5
    """share of the pooled features dropped"""

    members: int = 1
    """networks that are trained side by side; the mean of their answers is the answer"""
    label_smoothing: float = 0.1
    """share of the target that is spread over all classes"""
    neighbour_smoothing: float = 0.0
    """weight of the classes beside the true one (ordered labels), the true one having 1"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        super().__post_init__()
        self.require_counts("max_length", "dimension", "units", "layers", "members")
        self.require_fractions("word_dropout", "subword_dropout", "embedding_dropout")
        self.require_fractions("dropout", "head_dropout", "label_smoothing")
        if not self.pooling:
            raise InputError("--pooling needs one kind of pooling or more")
        if self.labels and not 2 <= len(set(self.labels)) == len(self.labels) <= 10:
            raise InputError("--labels needs 2 to 10 different labels")

    def bucket_lengths(self) -> list[int]:
        """The fixed lengths of batches."""
        return bucket_lengths(self.max_length)


# Chosen on the validation splits. Several members cost time and gain about a point of accuracy.
PRESETS = {
    "rated_reviews": Config(dataset="rated_reviews"),
    "sst5": Config(dataset="sst5", epochs=6, members=4),
    "sst2": Config(dataset="sst2", epochs=8, members=4, frequent_words=400_000),
    "mr": Config(dataset="mr", epochs=6, members=4),
    "imdb_reviews": Config(dataset="imdb_reviews", max_length=400, batch_size=64, epochs=6),
}
DEFAULT = "rated_reviews"
# What `python -m tasks train --quick` asks for.
QUICK = {"epochs": 2}
