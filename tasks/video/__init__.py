"""Video classification: from a clip to its activity."""
