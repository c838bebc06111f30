"""Translation: from a sentence in one language to the same sentence in another language."""
