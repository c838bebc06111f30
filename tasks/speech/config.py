"""Every setting of the speech task, and the ones behind each published score."""

from __future__ import annotations

import dataclasses
from typing import Literal

from common.commands.config import RunConfig
from common.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """Log-mel frames, strided convolutions, a deep bidirectional RNN, CTC over characters."""

    epochs: int = 40
    """passes over the training data; the learning rate falls to 0 along half a cosine"""
    patience: int = 40
    """stop after so many epochs without a better validation word error rate"""
    batch_size: int = 16
    """recordings a step, over all devices together"""
    learning_rate: float = 2e-3
    """peak learning rate"""
    max_seconds: float = 20.0
    """longer training recordings are refused; the export leaves longer rows without an answer"""
    buckets: int = 8
    """lengths that batches are padded to, at most"""

    bands: int = 64
    """mel bands"""
    channels: int = 32
    """of each of the two convolutions"""
    strides: tuple[int, int] = (2, 2)
    """steps in time of the two convolutions: 2 2 gives the RNN a step each 40 ms"""
    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """kind of recurrent layer"""
    units: int = 256
    """width of each layer, per direction"""
    layers: int = 3
    """how many bidirectional layers"""
    dropout: float = 0.3
    """share of outputs dropped between layers, and before the softmax"""

    time_masks: int = 2
    """SpecAugment: stretches of time that are hidden in training"""
    time_share: float = 0.08
    """SpecAugment: each up to this share of the recording"""
    band_masks: int = 2
    """SpecAugment: stretches of frequency that are hidden in training"""
    band_width: int = 12
    """SpecAugment: each up to so many mel bands"""
    speed: float = 0.1
    """training recordings are played faster or slower by up to this share"""
    noise: float = 20.0
    """white noise is added in training, at this signal-to-noise ratio in dB at the loudest"""

    beam: int = 16
    """prefixes that the search keeps at each step"""
    order: int = 8
    """letters of the longest n-gram of the language model; 0 for none"""
    min_count: int = 1
    """letter sequences seen more rarely in the training transcripts are left to shorter ones"""
    lm_weights: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9, 1.2)
    """weights of the language model to choose from, on validation data"""
    bonuses: tuple[float, ...] = (0.0, 0.5, 1.0)
    """what each letter is worth against the language model, to choose from likewise"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        super().__post_init__()
        self.require_counts("buckets", "bands", "channels", "units", "layers", "beam", "min_count")
        self.require_fractions("dropout", "time_share", "speed")
        self.require_positive("max_seconds")
        if min(self.strides) < 1:
            raise InputError(f"--strides must be 1 or more, got {self.strides}")
        if not 0 <= self.band_width <= self.bands:
            raise InputError(f"--band_width must be in 0..{self.bands}, got {self.band_width}")
        if self.order < 0 or not self.lm_weights or not self.bonuses:
            raise InputError("--order must be 0 or more; --lm_weights and --bonuses need a value")


PRESETS = {
    "spoken_commands": Config(
        dataset="spoken_commands",
        epochs=6,
        patience=6,
        buckets=6,
        cell="gru",
        units=192,
        strides=(3, 1),
        max_seconds=10.0,
        order=6,
    ),
    "an4": Config(
        dataset="an4", epochs=60, patience=60, average=0.99, strides=(3, 1), max_seconds=10.0
    ),
    "librispeech": Config(dataset="librispeech", max_seconds=35.0, min_count=3),
    "ljspeech": Config(dataset="ljspeech", max_seconds=15.0, min_count=2),
    "speech_commands": Config(dataset="speech_commands", max_seconds=2.0, order=0),
}
DEFAULT = "spoken_commands"
# What `python -m tasks train --quick` asks for.
QUICK = {"epochs": 2, "units": 128, "layers": 2}
