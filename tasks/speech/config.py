"""Settings of the speech task and the presets of its data sets."""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated, Final, Literal

from common.commands.config import (
    Choice,
    Count,
    Dropout,
    Fraction,
    LearningRate,
    Positive,
    RunConfig,
    Settings,
)
from common.errors import InputError
from tasks.speech.audio import Channel

TASK = "speech"
# The validation metric that selects the best epoch, and in `tune` the best settings.
MONITOR: Final = "wer"
MODE: Final = "min"
NO_LITERT = "LiteRT needs one fixed length, and every recording would take as long as the longest"


@dataclasses.dataclass(frozen=True, kw_only=True)
class FolderSettings(Settings):
    """Flags of `train` and `evaluate` for the user's own recordings."""

    max_bad: Fraction = 0.1
    """largest fraction of recordings that may be skipped since they are broken, too long or short,
    or without a text"""
    channel: Channel = "mix"
    """channel of the recordings that is read: the first, the second, or the mean of all"""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig, FolderSettings):
    """A recurrent recogniser with CTC and a letter language model."""

    epochs: Count = 40
    """passes over the training data; the learning rate falls to 0 along half a cosine"""
    patience: Count = 40
    """stop after this many epochs without improvement of the validation word error rate"""
    batch_size: Count = 16
    """recordings per step, over all devices together"""
    learning_rate: LearningRate = 2e-3
    """peak learning rate"""
    max_seconds: Positive = 20.0
    """longest recording in seconds; longer training data is skipped, and the export returns an
    empty text for longer input"""
    buckets: Count = 8
    """maximum number of lengths that batches are padded to"""

    bands: Count = 64
    """number of mel bands"""
    channels: Count = 32
    """channels of each of the two convolutions"""
    strides: tuple[int, int] = (2, 2)
    """strides in time of the two convolutions: 2 2 means one RNN step every 40 ms"""
    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """type of the recurrent layers"""
    units: Annotated[Count, Choice((128, 192, 256, 320))] = 256
    """units of each recurrent layer, per direction"""
    layers: Annotated[Count, Choice((2, 3, 4))] = 3
    """number of recurrent layers"""
    streaming: bool = False
    """read forwards only, with running statistics, for a model that transcribes while one speaks;
    --units 320 has as many weights as 192 in both directions"""
    dropout: Dropout = 0.3
    """dropout rate between the recurrent layers and before the softmax"""

    time_masks: int = 2
    """SpecAugment: number of time masks per training recording"""
    time_share: Fraction = 0.08
    """SpecAugment: maximum length of a time mask, as a fraction of the recording"""
    band_masks: int = 2
    """SpecAugment: number of frequency masks per training recording"""
    band_width: int = 12
    """SpecAugment: maximum width of a frequency mask, in mel bands"""
    speed: Fraction = 0.1
    """largest relative change of speed of a training recording, in both directions"""
    noise: float = 20.0
    """lowest signal-to-noise ratio in dB of the noise that is added in training; the highest is 50
    dB"""
    silence: float = 0.8
    """maximum seconds of silence that are added around a training recording"""
    rooms: Fraction = 0.1
    """fraction of training recordings that get the echo of a room"""
    telephone: Fraction = 0.1
    """fraction of training recordings that are limited to the band of a telephone"""
    nothing: Fraction = 0.03
    """fraction of training recordings that are replaced by noise or silence without a text"""

    beam: Count = 16
    """number of prefixes that the beam search keeps at each step"""
    order: int = 8
    """letters of the longest n-gram of the language model; 0 for no language model"""
    min_count: Count = 1
    """letter sequences with fewer occurrences in the training transcripts use shorter n-grams"""
    lm_weights: tuple[float, ...] = (0.0, 0.3, 0.6, 0.9, 1.2)
    """candidate weights of the language model; the best one on validation data is used"""
    bonuses: tuple[float, ...] = (0.0, 0.5, 1.0)
    """candidate bonuses per letter, which offset the preference of the language model for short
    texts; the best one on validation data is used"""

    def __post_init__(self) -> None:
        """Validate the settings.

        Raises:
          InputError: a setting is out of range.
        """
        super().__post_init__()
        if min(self.strides) < 1:
            raise InputError(f"--strides must be 1 or more, got {self.strides}")
        if self.streaming and (self.strides[0] > 5 or self.strides[1] > 3):
            raise InputError(f"--streaming needs --strides of at most 5 3, got {self.strides}")
        if self.streaming and self.target != "portable":
            raise InputError(f"--streaming is for --target portable, not {self.target}")
        if not 0 <= self.band_width <= self.bands:
            raise InputError(f"--band_width must be in 0..{self.bands}, got {self.band_width}")
        if self.order < 0:
            raise InputError(f"--order must be 0 or more, got {self.order}")
        if self.silence < 0.0:
            raise InputError(f"--silence must be 0 or more, got {self.silence}")
        if not self.lm_weights or not self.bonuses:
            raise InputError("--lm_weights and --bonuses must have at least one value each")


_SPOKEN_COMMANDS = Config(
    dataset="spoken_commands",
    epochs=8,
    patience=8,
    buckets=6,
    cell="gru",
    units=192,
    strides=(3, 1),
    max_seconds=10.0,
    rooms=0.4,
    telephone=0.2,
    order=6,
    min_count=2,  # an export has 9 MB
    # Validation sentences follow the rules of the training sentences, so the best weight there
    # is too large for other texts: these values are better for the validation split of `an4`.
    lm_weights=(0.3,),
    bonuses=(0.5,),
)
MIXTURE = "spoken_commands+an4"
PRESETS = {
    "spoken_commands": _SPOKEN_COMMANDS,
    "an4": Config(
        dataset="an4",
        epochs=60,
        patience=60,
        average=0.99,
        strides=(3, 1),
        max_seconds=10.0,
        noise=5.0,
        silence=4.0,
    ),
    MIXTURE: dataclasses.replace(_SPOKEN_COMMANDS, dataset=MIXTURE, noise=5.0, silence=2.0),
    "librispeech": Config(dataset="librispeech", max_seconds=35.0, min_count=3),
    "ljspeech": Config(dataset="ljspeech", max_seconds=15.0, min_count=2),
    "speech_commands": Config(dataset="speech_commands", max_seconds=2.0, order=0),
}
DEFAULT = "spoken_commands"
# Data sets that train together, as in --dataset spoken_commands+an4: all are English.
MIXABLE = ("spoken_commands", "an4", "librispeech", "ljspeech", "speech_commands")
STEPS = 3_200  # of a training on the user's own recordings, as many as `an4` takes


def preset_for_size(recordings: int, hours: float, longest: float) -> Config:
    """Return the preset of the user's own recordings.

    Args:
      recordings: number of training recordings.
      hours: their duration.
      longest: seconds of the longest one; up to 35 s are read.

    Example:
      >>> preset = preset_for_size(848, hours=0.7, longest=6.2)
      >>> preset.epochs, preset.units, preset.layers, preset.max_seconds
      (60, 256, 3, 10.0)
      >>> [preset_for_size(n, hours=n / 1_000, longest=5.0).epochs for n in (20, 8_000, 100_000)]
      [300, 12, 12]
    """
    start = PRESETS["an4"]
    epochs = round(STEPS * start.batch_size / max(recordings, 1))
    epochs = min(max(epochs, 12), 300)
    preset = dataclasses.replace(
        start,
        dataset=None,
        epochs=epochs,
        patience=epochs,
        max_seconds=min(max(10.0, 5.0 * math.ceil(longest / 5.0)), 35.0),
    )
    if hours < 0.2:  # a large network learns such recordings by heart
        return dataclasses.replace(preset, units=128, layers=2, channels=16)
    return preset


# Overrides of the default preset for `python -m tasks train --quick`: a small network, which learns
# more in two epochs with little noise.
QUICK = {
    "epochs": 2,
    "units": 128,
    "layers": 1,
    "channels": 16,
    "dropout": 0.1,
    "time_masks": 0,
    "band_masks": 0,
    "rooms": 0.0,
    "telephone": 0.0,
    "average": 0.99,
    "lm_weights": (0.6, 0.9),
    "bonuses": (1.0,),
}
