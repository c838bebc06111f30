"""NER: a sentence in, its named entities out."""
