"""Sentiment: a classifier of texts, from 1 to 5 stars."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from tasks.sentiment.predict import Rating, load

__all__ = ["Rating", "load"]
