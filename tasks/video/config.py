"""Settings of the video task, and a preset for each data set."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path
from typing import Annotated, Final, Literal

from common.commands.config import (
    Choice,
    Count,
    Dropout,
    Fraction,
    LearningRate,
    Positive,
    RunConfig,
)
from common.data import bucket_lengths
from common.errors import InputError

TASK = "video"
# The validation metric that selects the best epoch, and in `tune` the best settings.
MONITOR: Final = "loss"
MODE: Final = "min"
# Names of views of the one prepared data set `hdm05`:
# hdm05: trained on three actors, tested on one fixed view of each take of the two others.
# hdm05_views: the same, tested on five random views of each take.
# hdm05_actors: for development; trained on bd and bk, validated on dg.
RENDERED_MOTIONS = ("hdm05", "hdm05_views", "hdm05_actors")
NO_LITERT = "LiteRT needs one length and size, and the clips of a request have any"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A residual network on each frame, and recurrent layers over time."""

    batch_size: Count = 16
    """clips per step, over all devices together"""
    learning_rate: LearningRate = 2e-3
    """peak learning rate"""
    average: Fraction = 0.99
    """momentum of the moving average of the weights, which is scored and exported; 0 for none"""

    pose: bool = False
    """read joints over time instead of pixels (see README, --pose)"""
    group: str | None = None
    """regular expression for --data: clips in whose paths it finds the same text, such as a person,
    are never in two splits (default: clips cut from one recording, NAME_c1 and NAME_c2)"""
    image_size: Count = 64
    """side of the square pictures that the network receives, pixels"""
    frame_rate: Positive = 12.5
    """frame rate that the network receives, frames per second"""
    max_length: Count = 96
    """maximum frames of a clip at that rate; training and the export cut longer clips"""

    channels: tuple[int, ...] = (16, 24, 48, 96)
    """filters of each stage, multiples of 8; each stage halves the sides of the picture"""
    colours: Positive = 1.0
    """scale of the colour channels: black is -COLOURS, white is +COLOURS"""
    changes: float = 4.0
    """scale of the two change channels (absolute difference from the previous frame and from the
    mean of the clip): from black to white is CHANGES; 0 for no such channels"""
    frame: Literal["vector", "pooled", "joints"] = "vector"
    """input of the recurrent layers from each frame: a vector of its flattened feature maps, one of
    their means and maxima (which tell no positions), or the places of its joints"""
    pose_weight: float = 0.0
    """weight in the training loss of the distance of those joints from the true ones, which hdm05
    has (mean distance, in sides of the picture); 0 for places of the network's own choice"""
    features: Count = 128
    """size of the vector that describes a frame"""

    cell: Literal["lstm", "gru", "simple_rnn"] = "gru"
    """type of the recurrent layers"""
    units: Annotated[Count, Choice((64, 96, 128))] = 96
    """units of each recurrent layer, per direction"""
    layers: Count = 1
    """number of bidirectional recurrent layers"""
    dropout: Dropout = 0.1
    """dropout rate of the frame vectors and between recurrent layers"""
    pooling: Literal["mean", "max", "last", "attention"] = "attention"
    """pooling of the steps of a clip into one vector"""
    head_dropout: Dropout = 0.3
    """dropout rate of the pooled vector"""
    label_smoothing: Fraction = 0.05
    """fraction of the target probability that is spread evenly over all classes"""

    flip: bool = True
    """random mirroring of training clips (not where left and right tell classes apart)"""
    zoom: Fraction = 0.15
    """maximum random enlargement or reduction of training clips, fraction of their size"""
    shift: Fraction = 0.08
    """maximum random shift of training clips, fraction of the side"""
    speed: Fraction = 0.2
    """maximum random change of speed of training clips, fraction of their speed"""
    brightness: Fraction = 0.2
    """maximum random change of brightness and of contrast of training clips, fraction"""

    negatives: Fraction = 0.0
    """fraction of training clips replaced by some without an activity (a still picture, a moving
    test pattern), of which the model learns to be unsure"""

    backbone: Literal["own", "mobilenet_v3"] = "own"
    """network on each frame: ours alone, or with a frozen MobileNetV3Small next to it"""
    backbone_weights: Path | None = None
    """weights file of the backbone without its top, as keras.applications publishes it"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if self.pose != (self.dataset or "").endswith("_joints") and self.dataset is not None:
            raise InputError(f"--pose and the pixels of {self.dataset!r} do not fit together")
        if self.group is not None:
            if self.data is None:
                raise InputError("--group needs --data")
            try:
                re.compile(self.group)
            except re.error as error:
                raise InputError(f"--group is no regular expression: {error}") from error
        if (self.backbone == "own") != (self.backbone_weights is None) and self.init is None:
            raise InputError("--backbone mobilenet_v3 and --backbone_weights PATH go together")
        if self.backbone_weights is not None and not self.backbone_weights.is_file():
            raise InputError("no such file; --backbone_weights needs one", self.backbone_weights)
        self._check_joints()
        if self.changes < 0.0:
            raise InputError(f"--changes must be 0 or more, got {self.changes}")
        if not self.channels or any(count < 8 or count % 8 for count in self.channels):
            raise InputError(f"--channels must be multiples of 8, got {self.channels}")
        if self.image_size % 2 ** len(self.channels):
            raise InputError(
                f"--image_size must be a multiple of {2 ** len(self.channels)}, since each of the "
                f"{len(self.channels)} stages halves it; got {self.image_size}"
            )

    def _check_joints(self) -> None:
        if self.frame == "joints" and (self.backbone != "own" or len(self.channels) < 2):
            raise InputError("--frame joints needs --backbone own and two or more --channels")
        if self.pose_weight < 0.0:
            raise InputError(f"--pose_weight must be 0 or more, got {self.pose_weight}")
        if self.pose_weight and self.frame != "joints":
            raise InputError(
                "--pose_weight needs --frame joints, also of the model of --init; else pass "
                "--pose_weight 0"
            )
        known = self.data is None and (self.dataset or "hdm05") in RENDERED_MOTIONS
        if self.pose_weight and not known:
            names = ", ".join(RENDERED_MOTIONS)
            raise InputError(f"--pose_weight needs clips with known joints: --dataset {names}")

    def bucket_lengths(self) -> list[int]:
        """Return the fixed lengths to which batches are padded."""
        return bucket_lengths(self.max_length)


# Small pictures at a low rate, so that more epochs fit into the same time.
_GAITS = Config(
    dataset="gaits",
    epochs=18,
    patience=18,
    batch_size=8,
    image_size=32,
    frame_rate=10,
    colours=0.25,
    changes=32.0,
    negatives=0.08,
)
_HDM05 = Config(
    dataset="hdm05",
    epochs=16,
    patience=16,
    batch_size=8,
    average=0.995,
    image_size=48,
    frame_rate=10,
    frame="joints",
    pose_weight=10.0,
)
MIXTURE = "gaits+hdm05"
PRESETS = {
    "gaits": _GAITS,
    "hdm05": _HDM05,
    MIXTURE: dataclasses.replace(_GAITS, dataset=MIXTURE),
    "hdm05_views": dataclasses.replace(_HDM05, dataset="hdm05_views"),
    "hdm05_actors": dataclasses.replace(_HDM05, dataset="hdm05_actors"),
    "fights": Config(
        dataset="fights",
        epochs=14,
        patience=14,
        batch_size=8,
        average=0.98,
        frame_rate=10,
        max_length=40,
        colours=0.25,
        changes=16.0,
        frame="pooled",
    ),
    "ucf101": Config(
        dataset="ucf101", epochs=30, patience=8, average=0.999, channels=(32, 64, 128, 256)
    ),
}
# Joints over time: no pixels, so many epochs cost little.
_JOINTS = Config(
    dataset="hdm05_joints",
    pose=True,
    epochs=150,
    patience=150,
    batch_size=16,
    learning_rate=1e-3,
    average=0.99,
    frame_rate=15.0,
    dropout=0.3,
    head_dropout=0.4,
)
PRESETS |= {
    "hdm05_joints": _JOINTS,
    "hdm05_actors_joints": dataclasses.replace(_JOINTS, dataset="hdm05_actors_joints"),
}
DEFAULT = "gaits"
# Data sets that train together, as in --dataset gaits+hdm05.
MIXABLE = ("gaits", "hdm05", "hdm05_actors")
# Settings of `python -m tasks train --quick`; with little noise two epochs teach as much as three.
QUICK = {
    "epochs": 2,
    "head_dropout": 0.1,
    "dropout": 0.0,
    "zoom": 0.05,
    "shift": 0.03,
    "average": 0.98,
    "negatives": 0.0,
}
