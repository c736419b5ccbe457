"""Warnings of what users of `LearnedOptimizer` rarely mean."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import keras
from keras import ops

from l2l_keras import schedules

_SMALL_RATE, _LARGE_DECAY = 0.05, 1e-3
_SCHEDULE_STEPS = (0, *(factor * 10**power for power in range(6) for factor in (1, 3)))


def warn_of_small_rate(learning_rate: Any) -> None:
    """Warns of a learning rate, or a schedule, that suits Adam but not a learned rule."""
    largest = _largest(learning_rate)
    if largest is not None and 0.0 < largest < _SMALL_RATE:
        warnings.warn(
            "`learning_rate` multiplies the steps that the rule was trained to make, which already "
            f"have the right size: {largest:g} makes them {1.0 / largest:,.0f} times smaller. "
            "Leave it at 1, or let a schedule fall from 1, such as "
            "keras.optimizers.schedules.CosineDecay(1.0, steps).",
            stacklevel=3,
        )


def warn_of_large_decay(weight_decay: float | None) -> None:
    """Warns of a weight decay that suits AdamW, whose learning rate is about 0.001."""
    if weight_decay is not None and weight_decay > _LARGE_DECAY:
        warnings.warn(
            "`weight_decay` is multiplied by the learning rate, here about 1 instead of AdamW's "
            f"0.001: {weight_decay:g} takes {100 * weight_decay:g} % off all weights in each step. "
            f"For what AdamW does with {weight_decay:g}, pass {1e-3 * weight_decay:g}.",
            stacklevel=3,
        )


def warn_of_missing_schedule(card: Mapping[str, Any], learning_rate: Any) -> None:
    """Warns of a constant learning rate with a preset that was trained with one that falls."""
    if card.get("schedule") == "cosine" and isinstance(learning_rate, int | float):
        steps = card.get("horizon", "steps")
        warnings.warn(
            "This preset was trained with a learning rate that falls: pass "
            f"learning_rate={schedules.as_keras(steps)}, or as many steps as you take. "
            f"Received: learning_rate={learning_rate:g}",
            stacklevel=3,
        )


def warn_of_skipped_steps(skipped: int, steps: int) -> None:
    """Warns of steps that were skipped in a run."""
    if skipped:
        warnings.warn(
            f"{skipped:,} of {steps:,} steps were skipped: their gradients were not finite, or far "
            "larger than before. Many of them mean that the rule does not suit this model: train "
            "with `guard=True`, or with another preset.",
            stacklevel=3,
        )


def _largest(learning_rate: float | Callable[..., Any]) -> float | None:
    """Returns the largest value of a learning rate; None if only its function knows it."""
    if isinstance(learning_rate, keras.optimizers.schedules.LearningRateSchedule):
        values = [ops.convert_to_numpy(learning_rate(step)) for step in _SCHEDULE_STEPS]
        return float(max(values))
    if callable(learning_rate):
        return None
    return float(ops.convert_to_numpy(learning_rate))
