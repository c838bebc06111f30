"""Settings of the translation task, and the presets of its data sets."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Any, Final, Literal

from common.commands.config import (
    Choice,
    Count,
    Dropout,
    Fraction,
    LearningRate,
    Positive,
    RunConfig,
    Smoothing,
)
from common.data import bucket_lengths
from common.errors import InputError

TASK = "translation"
# The validation metric that selects the best epoch, and in `tune` the best settings.
MONITOR: Final = "chrf"
MODE: Final = "max"
NO_LITERT = "LiteRT needs fixed lengths, and every sentence would take as long as the longest one"
# Settings of the exported search. They do not affect the weights.
SEARCH = ("beam", "length_penalty", "candidates")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A recurrent encoder-decoder with attention and beam search."""

    source: str = "fr"
    """source language, as the data set names it"""
    target_language: str = "en"
    """target language, as the data set names it"""
    source_column: str | None = None
    """column of the source in a table given by --data: a name in its header, or a number from 1"""
    target_column: str | None = None
    """column of the target"""
    preset: str | None = None
    """start from the settings of this data set (default: those of --dataset; with --data, those
    that fit its size)"""
    epochs: Count = 12
    """passes over the training data; the learning rate decays to 0 along half a cosine"""
    patience: Count = 12
    """epochs without improvement of the validation chrF after which training stops"""
    batch_size: Count = 128
    """sentence pairs per step"""
    learning_rate: LearningRate = 2e-3
    """peak learning rate"""
    max_length: int = 64
    """maximum subwords per sentence; longer sources are truncated, longer training pairs dropped"""

    source_subwords: int = 6000
    """number of subwords of the source language"""
    target_subwords: int = 4000
    """number of subwords of the target language"""
    shared_subwords: bool = False
    """one vocabulary (of target_subwords) and one embedding for both languages"""
    dictionary: bool = False
    """read rare words with their translations, too, which are learnt from the training pairs"""
    subword_dropout: Fraction = 0.0
    """fraction of matching subwords skipped in training pairs (MaxMatch-Dropout)"""

    embedding: Count = 256
    """size of the embeddings"""
    cell: Literal["gru", "lstm"] = "gru"
    """type of the recurrent layers"""
    units: Annotated[Count, Choice((128, 192, 256, 320))] = 256
    """units of each layer; each direction of the encoder has half of them"""
    encoder_layers: Count = 1
    """number of bidirectional encoder layers"""
    decoder_layers: Count = 2
    """number of decoder layers"""
    attention: Literal["dot", "additive"] = "dot"
    """attention of the decoder: dot product or additive (Bahdanau et al. 2015)"""
    input_feeding: bool = False
    """last output of the decoder as part of its next input (slower)"""
    lexical: bool = False
    """score translations by the attended source subwords, too (Nguyen & Chiang 2018)"""
    dropout: Dropout = 0.2
    """fraction of embeddings, layer inputs and decoder outputs dropped in training"""
    word_dropout: Dropout = 0.0
    """fraction of subwords on both sides whose whole embedding is dropped in training"""
    members: Count = 1
    """number of ensemble members; their probabilities are averaged"""

    label_smoothing: Smoothing = 0.1
    """fraction of the target probability spread over all subwords"""
    clip_norm: Positive = 1.0
    """maximum norm of the gradients; larger ones are scaled down"""
    average: Fraction = 0.998
    """momentum of the moving average of the weights, which is scored and exported; 0 for none"""

    beam: Count = 5
    """number of hypotheses of the exported beam search"""
    length_penalty: float = 0.6
    """exponent of the length normalisation (Wu et al. 2016)"""
    candidates: int = 0
    """likely translations of each source subword that the search may write; 0: all subwords"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if self.units % 2:
            raise InputError(f"--units must be even, got {self.units}")
        if self.max_length < 2:
            raise InputError(f"--max_length must be 2 or more, got {self.max_length}")
        if self.length_penalty < 0:
            raise InputError(f"--length_penalty must be 0 or more, got {self.length_penalty}")
        if self.candidates < 0:
            raise InputError(f"--candidates must be 0 or more, got {self.candidates}")
        if self.preset is not None and self.preset not in PRESETS:
            raise InputError(f"no preset {self.preset!r}; known: {', '.join(PRESETS)}")
        if self.source == self.target_language:
            raise InputError("--source and --target_language must differ")

    def bucket_lengths(self) -> list[int]:
        """Return the fixed lengths to which batches of sources are padded, end symbol included."""
        return bucket_lengths(self.max_length + 1)

    def fit_arguments(self) -> dict[str, Any]:
        """Return the options of `fit`; each ensemble member may have gradients of `clip_norm`."""
        return {**super().fit_arguments(), "clip_norm": self.clip_norm * self.members**0.5}

    def checkpoint_settings(self) -> dict[str, Any]:
        """Return the settings that a resumed run must repeat; the search may change."""
        settings = super().checkpoint_settings()
        return {name: settings[name] for name in settings if name not in SEARCH}


MIXTURE = "tatoeba+phrase_book"
# Chosen on the validation splits.
PRESETS = {
    "phrase_book": Config(
        dataset="phrase_book",
        epochs=12,
        patience=12,
        batch_size=64,
        learning_rate=4e-3,
        source_subwords=1200,
        target_subwords=1000,
        dictionary=True,
        embedding=128,
        units=128,
        lexical=True,
        max_length=32,
    ),
    "tatoeba": Config(
        dataset="tatoeba",
        epochs=14,
        patience=14,
        batch_size=128,
        learning_rate=1.5e-3,
        source_subwords=4000,
        target_subwords=3000,
        dictionary=True,
        embedding=192,
        units=320,
        encoder_layers=2,
        lexical=True,
        dropout=0.2,
    ),
    "multi30k": Config(
        dataset="multi30k",
        epochs=18,
        patience=18,
        batch_size=128,
        learning_rate=3e-3,
        source_subwords=4000,
        target_subwords=4000,
        subword_dropout=0.05,
        dropout=0.25,
        members=3,
        length_penalty=1.4,
    ),
    "homeassistant": Config(
        dataset="homeassistant",
        epochs=20,
        patience=20,
        batch_size=64,
        source_subwords=3000,
        target_subwords=3000,
        embedding=160,
        units=192,
        dropout=0.3,
    ),
    "ted_hrlr_translate/pt_to_en": Config(dataset="ted_hrlr_translate/pt_to_en", source="pt"),
    "opus/medical": Config(dataset="opus/medical", source="de"),
}
PRESETS[MIXTURE] = dataclasses.replace(PRESETS["tatoeba"], dataset=MIXTURE)
# Everyday sentences; where they cannot be downloaded, a small book takes their place.
DEFAULT, OFFLINE = MIXTURE, "phrase_book"
# Data sets that train together, as in --dataset tatoeba+phrase_book.
MIXABLE = ("tatoeba", "phrase_book", "multi30k", "homeassistant")
# Training pairs that all epochs together read: more of them need fewer epochs.
MOST_PAIRS = 1_200_000


def preset_for_size(pairs: int) -> Config:
    """Return the settings for the user's own data.

    Args:
      pairs: number of training pairs.

    Example:
      >>> [preset_for_size(pairs).target_subwords for pairs in (1_000, 20_000, 100_000)]
      [1000, 4000, 3000]
      >>> [preset_for_size(pairs).epochs for pairs in (1_000, 20_000, 100_000, 600_000)]
      [12, 18, 12, 2]
      >>> preset_for_size(20_000).lexical
      True
    """
    name = "phrase_book" if pairs < 10_000 else "multi30k" if pairs < 60_000 else "tatoeba"
    preset = PRESETS[name]
    epochs = max(1, min(preset.epochs, MOST_PAIRS // max(pairs, 1)))
    return dataclasses.replace(
        preset,
        dataset=None,
        epochs=epochs,
        patience=epochs,
        max_length=Config.max_length,  # sentences may be longer than those of the data set
        members=1,  # an ensemble takes as many times as long
        lexical=True,
        dictionary=True,
    )


# Changes made by `python -m tasks train --quick`.
QUICK = {"dataset": OFFLINE, "epochs": 3}
