"""What tests share."""

import os
from pathlib import Path

import pytest

# Development data lies beside the checkout; tests that need it skip without it.
SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"


@pytest.fixture
def shared_data():
    """The folder of real development data."""
    if not SHARED.is_dir():
        pytest.skip(f"development data not found ({SHARED.name})")
    return SHARED


@pytest.fixture(scope="session")
def command_environment():
    """Environment of a command run as a user would run it."""
    return {**os.environ, "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "100"}
