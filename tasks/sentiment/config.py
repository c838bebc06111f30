"""Settings of the sentiment task, and one preset per data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Final, Literal

from common.commands.config import (
    Choice,
    Count,
    Dropout,
    Fraction,
    LearningRate,
    Positive,
    RunConfig,
    Settings,
    Smoothing,
)
from common.data import bucket_lengths
from common.errors import InputError
from tasks.sentiment.formats import Layout, canonical

TASK = "sentiment"
# The validation metric that selects the best epoch, and in `tune` the best settings.
MONITOR: Final = "accuracy"
MODE: Final = "max"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FileSettings(Settings):
    """Flags of `train`, `evaluate` and `predict`: the layout of the user's files."""

    text_column: str | None = None
    """column, or key of JSON Lines, of the texts in your files (default: text)"""
    delimiter: str | None = None
    """character between the fields (default: a comma in .csv, a tab in .tsv)"""
    encoding: str | None = None
    """encoding of your files, such as latin-1 (default: utf-8)"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        self.layout()

    def layout(self, trained: Mapping[str, Any] = MappingProxyType({})) -> Layout:
        """Return how files are read.

        Args:
          trained: the settings of a model's training, which replace flags that are not given.
        """
        flags: dict[str, str] = {}
        for field in dataclasses.fields(Layout):
            value = getattr(self, field.name, None)
            value = trained.get(field.name) if value is None else value
            flags |= {} if value is None else {field.name: value}
        return Layout(**flags)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelSettings(FileSettings):
    """Flags of `train` and `evaluate`, which read labels, too."""

    label_column: str | None = None
    """column, or key of JSON Lines, of the labels in your files (default: label)"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig, LabelSettings):
    """A bidirectional recurrent classifier of texts."""

    epochs: Count = 8
    """number of passes over the training data; the learning rate decays to 0 along half a cosine"""
    learning_rate: LearningRate = 2e-3
    """peak learning rate"""
    patience: Count = 8
    """stop after this many epochs without improvement of the validation accuracy"""
    labels: tuple[str, ...] = ()
    """classes of --data from worst to best (default: numbers by value, words alphabetically)"""
    phrases: bool = False
    """train on the labelled phrases of the training sentences, too (sst5, sst2)"""
    sentence_weight: Positive = 1.0
    """weight of a sentence in the loss, if that of a phrase is 1; needs --phrases"""
    class_weights: bool = False
    """weigh examples so that all classes count the same in the loss"""
    rating_spread: float = 0.0
    """standard deviation of mean ratings, which spreads their targets over classes (rated_texts)"""
    clauses: int = 0
    """short clauses with negated words of the lexicon to add to the training data (rated_texts)"""
    max_length: Count = 64
    """tokens per text; longer texts are truncated, in training and in the export"""

    vectors: str = "glove-6b-50d"
    """pretrained word vectors: a GloVe text file, glove-6b-50d (extra [sentiment]), '' = none"""
    frequent_words: int = 20_000
    """number of most frequent words of the pretrained vectors to add to the vocabulary"""
    lexicon: bool = True
    """add the ratings of VADER's lexicon to the vectors of English words, and emoji"""
    dimension: Count = 50
    """width of the word vectors, if none are pretrained"""
    word_dropout: Dropout = 0.1
    """fraction of words replaced by the unknown word in training"""
    least_count: Count = 2
    """a word with fewer occurrences in the training data has no learned vector"""
    rare_word_dropout: float = 10.0
    """in training, a word with n occurrences uses its learned vector with chance n / (n + this)"""
    subwords: int = 5
    """subwords (3 to 5 letters) of at least this many training words have a vector; 0 = none"""
    subword_dropout: Fraction = 0.3
    """fraction of words without subword vectors in training"""
    clusters: Literal["explosion", "none"] = "none"
    """features of word clusters; explosion: 20,000 of them, CC0, 33 MB from the package index"""
    cluster_dropout: Fraction = 0.2
    """fraction of words whose cluster is dropped in training"""
    embedding_dropout: Dropout = 0.1
    """dropout rate of the features of the word vectors; one mask per text"""

    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """type of the recurrent layers"""
    units: Annotated[Count, Choice((64, 96, 140, 200))] = 140
    """units of each recurrent layer, per direction"""
    layers: Count = 1
    """number of bidirectional layers"""
    dropout: Fraction = 0.3
    """dropout rate between layers"""
    pooling: tuple[Literal["mean", "max", "last", "attention"], ...] = ("mean", "max")
    """pooling over time; the results of several kinds are concatenated"""
    head_dropout: Dropout = 0.5
    """dropout rate of the pooled features"""

    members: Count = 1
    """number of ensemble members; their probabilities are averaged"""
    label_smoothing: Smoothing = 0.1
    """fraction of the target distribution that is spread over all classes"""
    neighbour_smoothing: float = 0.0
    """target weight of the classes next to the true one, whose weight is 1 (ordered labels)"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if not self.pooling:
            raise InputError("--pooling needs at least one kind of pooling")
        if self.sentence_weight != 1.0 and not self.phrases:
            raise InputError("--sentence_weight needs --phrases")
        if self.rating_spread < 0 or (self.rating_spread and self.dataset != "rated_texts"):
            raise InputError("--rating_spread must be 0 or more, and above 0 for rated_texts only")
        if self.clauses and not (self.lexicon and self.dataset == "rated_texts"):
            raise InputError("--clauses needs --lexicon and --dataset rated_texts")
        object.__setattr__(self, "labels", tuple(map(canonical, self.labels)))
        if self.labels and not 2 <= len(set(self.labels)) == len(self.labels) <= 10:
            raise InputError("--labels needs 2 to 10 different labels")

    def bucket_lengths(self) -> list[int]:
        """Return the fixed lengths of batches.

        Example:
          >>> Config(max_length=100).bucket_lengths()
          [8, 16, 24, 32, 64, 100]
        """
        return bucket_lengths(self.max_length)


# Chosen on the validation splits. The sizes of vocabularies and networks keep exports below 10 MB.
_TREEBANK = Config(
    phrases=True,
    sentence_weight=4.0,
    epochs=4,
    batch_size=128,
    learning_rate=3e-3,
    members=3,
)
PRESETS = {
    "rated_texts": Config(
        dataset="rated_texts",
        rating_spread=0.4,
        clauses=3_000,
        batch_size=64,
        learning_rate=3e-3,
        members=3,
    ),
    "sst5": dataclasses.replace(_TREEBANK, dataset="sst5", clusters="explosion"),
    "sst2": dataclasses.replace(_TREEBANK, dataset="sst2"),
    "mr": Config(dataset="mr", epochs=6, members=3),
    "imdb_reviews": Config(dataset="imdb_reviews", max_length=400, batch_size=64, epochs=6),
}
DEFAULT = "rated_texts"
OWN = Config()  # with --data
# Overrides for `python -m tasks train --quick`.
QUICK = {"epochs": 2, "members": 1, "batch_size": 128}
