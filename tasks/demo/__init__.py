"""The page of `python -m tasks demo`: its layout, the answers of the models, and their views."""
