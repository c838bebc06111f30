"""DNA: a sequence in, its genes out, base by base."""
