"""Serving: exports that are published, verified, loaded and called."""

from typing import Literal

TargetName = Literal["portable", "gpu", "tpu", "litert"]
