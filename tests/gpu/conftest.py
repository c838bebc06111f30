"""The device of these tests: a GPU, without which they are skipped."""

import os

import pytest
import tensorflow as tf

KIND = os.environ.get("TESTED_DEVICE", "GPU")  # CPU tests everything but the GPU


@pytest.fixture(scope="session")
def device():
    """The device as TensorFlow names it."""
    devices = tf.config.list_physical_devices(KIND)
    if not devices:
        pytest.skip(
            f"TensorFlow {tf.__version__} finds no GPU; install with pip install -e '.[gpu]' and "
            "look for the card with nvidia-smi"
        )
    return f"{KIND}:0"


@pytest.fixture(scope="session")
def target(device):
    """The target of exports."""
    return "gpu" if device.startswith("GPU") else "portable"
