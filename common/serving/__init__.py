"""Serving: exports published, verified, loaded and called."""
