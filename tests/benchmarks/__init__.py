"""Benchmarks, each run as `python -m tests.benchmarks.<name>`; pytest runs none of them."""
