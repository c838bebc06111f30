"""Tests and a benchmark on a GPU; see `__main__.py`."""
