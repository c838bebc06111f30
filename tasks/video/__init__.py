"""Video classification: from a clip to its activity."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from tasks.video.predict import Activity, load

__all__ = ["Activity", "load"]
