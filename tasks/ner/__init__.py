"""Named-entity recognition: a sentence in, its entities out."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from tasks.ner.predict import Entity, Tagged, load

__all__ = ["Entity", "Tagged", "load"]
