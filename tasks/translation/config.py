"""Every setting of the translation task, and the ones behind each published score."""

from __future__ import annotations

import dataclasses
from typing import Any, Literal

from common.commands.config import RunConfig
from common.errors import InputError

SEARCH = ("beam", "length_penalty")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A recurrent encoder-decoder with attention."""

    source: str = "fr"
    """language that is read, as the data set names it"""
    target_language: str = "en"
    """language that is written"""
    epochs: int = 12
    """passes over the training data; the learning rate falls to 0 along half a cosine"""
    patience: int = 12
    """stop after so many epochs without a better BLEU on validation data"""
    batch_size: int = 128
    """sentence pairs a step"""
    learning_rate: float = 2e-3
    """peak learning rate"""
    max_length: int = 64
    """subwords; longer sources are cut there, longer pairs are left out of training"""

    source_subwords: int = 6000
    """subwords of the source language"""
    target_subwords: int = 4000
    """subwords of the target language"""
    shared_subwords: bool = False
    """one vocabulary (of target_subwords) and one embedding for both languages"""
    subword_dropout: float = 0.0
    """share of fitting subwords passed over in training sources: words are cut in many ways"""

    embedding: int = 256
    """width of the embeddings"""
    cell: Literal["gru", "lstm"] = "gru"
    """kind of recurrent layer"""
    units: int = 256
    """width of each layer; each direction of the encoder has half of them"""
    encoder_layers: int = 1
    """how many bidirectional layers read"""
    decoder_layers: int = 2
    """how many layers write"""
    attention: Literal["dot", "additive"] = "dot"
    """how the decoder looks back at the source"""
    input_feeding: bool = False
    """the decoder's last answer is part of its next input (slower)"""
    dropout: float = 0.2
    """share of embeddings, of inputs of layers and of answers dropped"""

    label_smoothing: float = 0.1
    """share of the target that is spread over all subwords"""
    clip_norm: float = 1.0
    """gradients are scaled down to this norm"""
    average: float = 0.998
    """momentum of the moving average of the weights that is measured and exported; 0 for none"""

    beam: int = 5
    """hypotheses that the export keeps while it searches"""
    length_penalty: float = 0.6
    """exponent of the length normalisation of Wu et al. 2016"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        super().__post_init__()
        self.require_fractions("subword_dropout", "dropout", "label_smoothing")
        self.require_counts("embedding", "units", "encoder_layers", "decoder_layers", "beam")
        if self.units % 2:
            raise InputError(f"--units must be even, got {self.units}")
        if self.max_length < 2:
            raise InputError(f"--max_length must be 2 or more, got {self.max_length}")
        if self.length_penalty < 0:
            raise InputError(f"--length_penalty must be 0 or more, got {self.length_penalty}")
        if self.source == self.target_language:
            raise InputError("--source and --target_language must differ")

    def checkpoint_settings(self) -> dict[str, Any]:
        """Those of every task, without the search's: it touches no weight."""
        settings = super().checkpoint_settings()
        return {name: settings[name] for name in settings if name not in SEARCH}


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
        embedding=128,
        units=128,
        max_length=32,
    ),
    "tatoeba": Config(
        dataset="tatoeba",
        epochs=8,
        patience=8,
        batch_size=256,
        learning_rate=2.5e-3,
        source_subwords=4000,
        target_subwords=3000,
        embedding=192,
        dropout=0.15,
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
DEFAULT = "phrase_book"
# What `python -m tasks train --quick` asks for.
QUICK = {"epochs": 3}
