"""Tests and a benchmark on a GPU; see `__main__.py`."""

import os

# Before TensorFlow starts: the commands under test need memory of the same card.
os.environ["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
