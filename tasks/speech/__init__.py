"""Speech recognition: log-mel frames, a deep bidirectional RNN, CTC over letters."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from tasks.speech.predict import Transcript, load

__all__ = ["Transcript", "load"]
