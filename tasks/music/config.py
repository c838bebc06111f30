"""Every setting of the music task, and the ones behind each published score."""

from __future__ import annotations

import dataclasses
from typing import Literal

from common.commands.config import RunConfig
from common.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A deep recurrent model of frames of the 88 piano keys."""

    epochs: int = 30
    """passes over the training data; the learning rate falls to 0 along half a cosine"""
    patience: int = 30
    """stop after so many epochs without a better validation score"""
    batch_size: int = 16
    """pieces a step"""
    learning_rate: float = 3e-3
    """peak learning rate"""
    average: float = 0.99
    """momentum of the moving average of the weights that is measured and exported; 0 for none"""
    max_length: int = 256
    """frames; of a longer piece another part is trained on in each epoch"""
    transpose: int = 0
    """semitones by which pieces are moved up or down at most, anew in each epoch, while training"""
    steps_per_quarter: int = 4
    """frames a quarter note takes, for --data"""

    head: Literal["joint", "independent"] = "joint"
    """joint = each key given those below it in the frame; independent = given the past alone"""
    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """kind of recurrent layer"""
    units: int = 200
    """width of each recurrent layer"""
    layers: int = 2
    """how many recurrent layers"""
    input_dropout: float = 0.1
    """share of what the recurrent network reads that is dropped"""
    dropout: float = 0.3
    """share of outputs dropped behind each recurrent layer"""
    key_units: int = 64
    """width of the two layers that all keys share"""
    key_dropout: float = 0.2
    """share of their units dropped, for all keys of a frame at once"""
    members: int = 1
    """networks that are trained side by side; the mean of their probabilities is the answer"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        super().__post_init__()
        self.require_counts("steps_per_quarter", "units", "layers", "key_units", "members")
        self.require_fractions("input_dropout", "dropout", "key_dropout")
        if self.max_length < 2:
            raise InputError(f"--max_length must be 2 or more, got {self.max_length}")
        if self.steps_per_quarter > 48:
            raise InputError(f"--steps_per_quarter must be 1 to 48, got {self.steps_per_quarter}")
        if not 0 <= self.transpose <= 12:
            raise InputError(f"--transpose must be 0 to 12, got {self.transpose}")


# Chosen on the validation splits.
PRESETS = {
    "bach_chorales": Config(dataset="bach_chorales", transpose=6, epochs=16),
    "jsb_chorales": Config(dataset="jsb_chorales", key_units=96),
    "nottingham": Config(dataset="nottingham", batch_size=8, epochs=3, key_dropout=0.1),
}
DEFAULT = "bach_chorales"
# What `python -m tasks train --quick` asks for.
QUICK = {"epochs": 3}
