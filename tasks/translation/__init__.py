"""Translation: from a sentence in one language to the same sentence in another language."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from tasks.translation.predict import Translation, load

__all__ = ["Translation", "load"]
