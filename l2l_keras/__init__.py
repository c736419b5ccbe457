"""Learned optimizers for Keras 3: learning to learn by gradient descent by gradient descent.

`LearnedOptimizer` and `rules` work on every Keras backend. `tasks`, `meta`, `evaluation` and
`reproduction` need TensorFlow and are imported when they are first used.
"""

import importlib
from typing import Any

from l2l_keras import presets, rules
from l2l_keras.callbacks import Diagnostics, ObserveLoss, SkippedSteps
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.presets import list_presets
from l2l_keras.safeguards.adam_fallback import Guard

__version__ = "0.1.0"

_LAZY = ("evaluation", "meta", "reproduction", "tasks")

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
    "tasks",
]


def __getattr__(name: str) -> Any:
    """Imports a module of the package that needs TensorFlow."""
    if name in _LAZY:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Returns the public names."""
    return [*__all__, "__version__"]
