"""The words of reports, by language."""

from __future__ import annotations

import importlib.resources
import json

LANGUAGES = ("en", "ja")


def words(lang: str) -> dict[str, str]:
    """Returns the texts of a language by what they say; parts in braces are to be filled in."""
    folder = importlib.resources.files("l2l_keras.studies").joinpath("words")
    return json.loads(folder.joinpath(f"{lang}.json").read_text(encoding="utf-8"))
