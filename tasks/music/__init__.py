"""Music: frames of piano keys, learnt and sampled."""
