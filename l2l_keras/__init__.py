"""Learned optimizers for Keras 3: learning to learn by gradient descent by gradient descent.

`LearnedOptimizer` and `rules` work on every Keras backend. `tasks`, `meta`, `evaluation`,
`studies` and `reproduction` need TensorFlow and are imported when they are first used.
"""

import importlib
import pathlib
import sys
from typing import TYPE_CHECKING, Any

from l2l_keras.version import __version__ as __version__

if TYPE_CHECKING:
    from l2l_keras import presets, rules
    from l2l_keras.callbacks import Diagnostics, ObserveLoss, SkippedSteps
    from l2l_keras.optimizer import LearnedOptimizer
    from l2l_keras.presets import list_presets
    from l2l_keras.presets.hub import upload_preset
    from l2l_keras.safeguards.adam_fallback import Guard
    from l2l_keras.studies.run import study

__all__ = [
    "Diagnostics",
    "Guard",
    "LearnedOptimizer",
    "ObserveLoss",
    "SkippedSteps",
    "evaluation",
    "list_presets",
    "meta",
    "presets",
    "reproduction",
    "rules",
    "studies",
    "study",
    "tasks",
    "upload_preset",
]


# The modules of public names that are not modules themselves.
_MODULES = {
    "Diagnostics": "callbacks",
    "Guard": "safeguards.adam_fallback",
    "LearnedOptimizer": "optimizer",
    "ObserveLoss": "callbacks",
    "SkippedSteps": "callbacks",
    "list_presets": "presets",
    "study": "studies.run",
    "upload_preset": "presets.hub",
}


def __getattr__(name: str) -> Any:
    """Imports a public name when it is first used."""
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Returns the public names."""
    return [*__all__, "__version__"]


# Keras only finds classes and presets' names that were imported. A command imports them later: its
# --help needs no Keras. (While Python looks for the module to run, argv[0] is "-m".)
_program = pathlib.Path(*sys.argv[:1]).name
if _program != "-m" and not _program.startswith("l2l-"):
    importlib.import_module("l2l_keras.preset_names")
