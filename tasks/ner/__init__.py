"""Named-entity recognition: a sentence in, its entities out."""
