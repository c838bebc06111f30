"""Music: a recurrent model of piano rolls that continues or composes pieces."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from tasks.music.predict import Composition, load

__all__ = ["Composition", "load"]
