"""How the learning rate that multiplies a rule's updates changes in a training run."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

Schedule = Callable[[Any], Any]
"""Maps shares of a run that are over, from 0 to 1, to factors of the learning rate."""


def cosine(share: Any) -> Any:
    """Falls from 1 to 0."""
    return 0.5 + 0.5 * ops.cos(math.pi * share)


def as_keras(steps: int | str) -> str:
    """Returns Python that makes Keras' schedule that is `cosine`."""
    return f"keras.optimizers.schedules.CosineDecay(1.0, {steps})"


SCHEDULES: dict[str, Schedule | None] = {"constant": None, "cosine": cosine}
"""Schedules by name; None is 1 throughout.

`"cosine"` is that of `keras.optimizers.schedules.CosineDecay(1.0, steps)`.
"""
