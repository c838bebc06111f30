"""Settings of the music task, and one preset per data set."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final, Literal

from common.commands.config import Choice, Count, Dropout, Fraction, LearningRate, RunConfig
from common.errors import InputError

TASK = "music"
# The validation metric that selects the best epoch, and in `tune` the best settings.
MONITOR: Final = "nll"
MODE: Final = "min"
NO_LITERT = "LiteRT needs one fixed number of frames, so a short piece would cost as much as a long"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A deep recurrent model of piano rolls, sampled step by step."""

    epochs: Count = 30
    """number of passes over the training data; the learning rate decays to 0 along half a cosine"""
    patience: Count = 30
    """stop after this many epochs without improvement of the validation score"""
    batch_size: Count = 16
    """pieces per training step"""
    learning_rate: LearningRate = 3e-3
    """peak learning rate"""
    average: Fraction = 0.99
    """momentum of the moving average of the weights, which is evaluated and exported; 0 = none"""
    max_length: int = 256
    """frames per training example; a random part of a longer piece is used in each epoch"""
    transpose: int | None = None
    """largest random transposition in training, up or down, in semitones (default: 6 for --data
    unless the pieces stand in one key)"""
    steps_per_quarter: Count = 4
    """frames per quarter note, for --data"""

    samples: int = 0
    """pieces sampled after training, to compare with real ones and to search for copies"""

    head: Literal["joint", "independent"] = "joint"
    """joint = each key depends on the keys below it in the frame; independent = only on the past"""
    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """type of the recurrent layers"""
    units: Annotated[Count, Choice((100, 150, 200, 300))] = 200
    """units of each recurrent layer"""
    layers: Count = 2
    """number of recurrent layers"""
    input_dropout: Dropout = 0.1
    """dropout rate of the input of the recurrent layers"""
    dropout: Dropout = 0.3
    """dropout rate of the output of each recurrent layer"""
    key_units: Count = 64
    """units of the two hidden layers that all keys share"""
    key_dropout: Dropout = 0.2
    """dropout rate of the shared hidden layers; one mask for all keys of a frame"""
    members: Count = 1
    """number of ensemble members; their probabilities are averaged"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if self.samples < 0:
            raise InputError(f"--samples must be 0 or more, got {self.samples}")
        if self.max_length < 2:
            raise InputError(f"--max_length must be 2 or more, got {self.max_length}")
        if self.steps_per_quarter > 48:
            raise InputError(f"--steps_per_quarter must be 1 to 48, got {self.steps_per_quarter}")
        if self.transpose is not None and not 0 <= self.transpose <= 12:
            raise InputError(f"--transpose must be 0 to 12, got {self.transpose}")


# The values were chosen on the validation splits.
PRESETS = {
    "bach_chorales": Config(dataset="bach_chorales", transpose=6, epochs=16, samples=32),
    "jsb_chorales": Config(
        dataset="jsb_chorales", key_units=96, transpose=0, samples=32, members=3
    ),
    "nottingham": Config(
        dataset="nottingham",
        batch_size=8,
        epochs=3,
        key_dropout=0.1,
        transpose=0,
        samples=32,
        members=3,
    ),
}
DEFAULT = "bach_chorales"
# Changes made by `python -m tasks train --quick`.
QUICK = {"epochs": 3}
