"""Sentiment: a classifier of texts, from 1 to 5 stars."""
