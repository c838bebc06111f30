"""DNA: from a sequence to its genes and the label of each base."""

from etils import epy

with epy.lazy_api_imports(globals()):
    from tasks.dna.predict import Annotation, load

__all__ = ["Annotation", "load"]
