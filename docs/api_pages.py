"""Adapts docstrings to mkdocstrings, which shows them on the pages of the API."""

from typing import Any

import griffe


class ApiPages(griffe.Extension):
    """Reads Keras' section `Example:` as `Examples:`, and leaves out special methods."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes an object that has been read."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")
        if obj.is_function and obj.name.startswith("__"):
            obj.public = False
