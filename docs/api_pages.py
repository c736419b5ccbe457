"""Adapts docstrings to mkdocstrings, which shows them on the pages of the API."""

from typing import Any

import griffe


class ApiPages(griffe.Extension):
    """Reads the section `Example:`, as Keras names it, as Google's `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes an object that has been read."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")
