"""Video: a clip in, the activity out."""
