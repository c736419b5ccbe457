"""Lets mkdocstrings show the examples in docstrings as code."""

from typing import Any

import griffe


class DocstringExamples(griffe.Extension):
    """Reads the section `Example:`, as Keras names it, as Google's `Examples:`."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Changes the docstring of an object that has been read."""
        if obj.docstring:
            obj.docstring.value = obj.docstring.value.replace("Example:\n", "Examples:\n")
