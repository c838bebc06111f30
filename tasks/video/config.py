"""Every setting of the video task, and the ones behind each published score."""

from __future__ import annotations

import dataclasses
from typing import Literal

from common.commands.config import RunConfig
from common.data import bucket_lengths
from common.errors import InputError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A small residual network on each frame, recurrent layers over time."""

    batch_size: int = 16
    """clips a step, over all devices together"""
    learning_rate: float = 2e-3
    """peak learning rate"""
    average: float = 0.99
    """momentum of the moving average of the weights that is measured and exported; 0 for none"""

    image_size: int = 64
    """pixels a side that the network sees; frames are fitted into such squares"""
    frame_rate: float = 12.5
    """frames a second that the network sees"""
    max_length: int = 96
    """frames at that rate; longer clips are cut there, in training and in the export"""

    channels: tuple[int, ...] = (16, 24, 48, 96)
    """filters of each stage, multiples of 8; each stage halves the picture's sides"""
    colours: float = 1.0
    """the network sees black and white as minus and plus so much"""
    changes: float = 4.0
    """it also sees how far pixels are from the frame before and from the clip's mean, from black to
    white as so much; 0: it does not"""
    features: int = 128
    """numbers that describe a frame"""

    cell: Literal["lstm", "gru", "simple_rnn"] = "gru"
    """kind of recurrent layer"""
    units: int = 96
    """width of each layer, per direction"""
    layers: int = 1
    """how many bidirectional layers"""
    dropout: float = 0.1
    """share of a frame's features dropped, and of outputs between layers"""
    pooling: Literal["mean", "max", "last", "attention"] = "attention"
    """how a clip's steps become one vector"""
    head_dropout: float = 0.3
    """share of the pooled features dropped"""
    label_smoothing: float = 0.05
    """share of the target that is spread over all classes"""

    flip: bool = True
    """mirror half of the training clips (not where left and right tell classes apart)"""
    zoom: float = 0.15
    """training clips are shown up to so much larger or smaller"""
    shift: float = 0.08
    """training clips are moved by up to this share of the side"""
    speed: float = 0.2
    """training clips run up to so much faster or slower"""
    brightness: float = 0.2
    """training clips are made up to so much brighter or darker, and of more or less contrast"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        super().__post_init__()
        self.require_counts("image_size", "max_length", "features", "units", "layers")
        self.require_positive("frame_rate", "colours")
        if self.changes < 0.0:
            raise InputError(f"--changes must be 0 or more, got {self.changes}")
        self.require_fractions("dropout", "head_dropout", "label_smoothing")
        self.require_fractions("zoom", "shift", "speed", "brightness")
        if not self.channels or any(count < 8 or count % 8 for count in self.channels):
            raise InputError(f"--channels must be multiples of 8, got {self.channels}")
        if self.image_size % 2 ** len(self.channels):
            raise InputError(
                f"--image_size must be a multiple of {2 ** len(self.channels)}, since each of the "
                f"{len(self.channels)} stages halves it; got {self.image_size}"
            )

    def bucket_lengths(self) -> list[int]:
        """The fixed lengths of batches."""
        return bucket_lengths(self.max_length)


# That the network sees changes at all was chosen by short runs on hdm05_actors, how large gaits'
# are by short runs on gaits; no other setting was compared on its own.
_HDM05 = Config(dataset="hdm05", epochs=16, patience=16, average=0.995)
PRESETS = {
    # Smaller and fewer pictures than the others: more passes in the same time.
    "gaits": Config(
        dataset="gaits",
        epochs=18,
        patience=18,
        batch_size=8,
        image_size=32,
        frame_rate=10,
        colours=0.25,
        changes=32.0,
    ),
    "hdm05": _HDM05,
    "hdm05_views": dataclasses.replace(_HDM05, dataset="hdm05_views"),
    "hdm05_actors": dataclasses.replace(_HDM05, dataset="hdm05_actors"),
    "ucf101": Config(
        dataset="ucf101", epochs=30, patience=8, average=0.999, channels=(32, 64, 128, 256)
    ),
}
DEFAULT = "gaits"
# What `python -m tasks train --quick` asks for.
QUICK = {"epochs": 3}
