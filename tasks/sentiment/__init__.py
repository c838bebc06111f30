"""Sentiment: a text in, stars out."""
