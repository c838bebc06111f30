"""Training: the loop, and the devices and machines that it runs on."""

from typing import Literal

StrategyName = Literal["one", "mirrored", "multiworker", "tpu"]
