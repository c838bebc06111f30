"""Translation: a sentence in one language in, the same sentence in another language out."""
