"""Every setting of the music task, and the ones behind each published score."""

from __future__ import annotations

import dataclasses
from typing import Literal

from common.cli import RunConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A deep recurrent model of frames of the 88 piano keys."""

    epochs: int = 40
    learning_rate: float = 3e-3
    batch_size: int = 16
    patience: int = 40
    head: Literal["joint", "independent"] = "joint"
    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    units: int = 200
    layers: int = 2
    input_dropout: float = 0.2
    dropout: float = 0.5
    key_units: int = 64
    key_dropout: float = 0.2
    weight_decay: float = 0.0
    members: int = 1
    transpose: int = 0
    max_length: int = 256
    steps_per_quarter: int = 4
    clip_norm: float = 5.0
    average: float = 0.99
