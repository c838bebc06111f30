"""Speech recognition: log-mel frames, a deep bidirectional RNN, CTC over letters."""
