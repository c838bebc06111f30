"""Extension of griffe: the sections of this project's docstrings that griffe does not know."""

import re
from typing import Any

import griffe

SECTIONS = {"Example": "Examples", "Call arguments": "Other Parameters: Call arguments"}


class Sections(griffe.Extension):
    """Rename sections before they are parsed."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Rename the sections of the docstring of an object."""
        if obj.docstring is not None:
            for ours, theirs in SECTIONS.items():
                renamed = re.sub(
                    rf"^( *){ours}:$", rf"\1{theirs}:", obj.docstring.value, flags=re.M
                )
                obj.docstring.value = renamed
