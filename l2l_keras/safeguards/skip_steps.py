"""Skips steps whose gradients are not finite, or far larger than before."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras import ops

from l2l_keras.engine.safeguard import Conditions, Safeguard, Shape

Tensor = Any

_FORGET = 0.99  # The part of the largest norm that is remembered after a step.
_GROWTH = 10.0  # How many times it may grow in a step.


class SkipSteps(Safeguard):
    """Skips and counts steps whose gradients are not finite, or suddenly far larger than before.

    Args:
        runaway_factor: As in `accept`. With None, the largest norm stays as it is.
    """

    name = "skip_steps"

    def __init__(self, runaway_factor: float | None) -> None:
        self._runaway_factor = runaway_factor

    def scalars(self) -> Mapping[str, tuple[Shape, str]]:
        """Returns the number of skipped steps, and the largest norm of recent ones."""
        return {"skipped_steps": ((), "int"), "largest_norm": ((), "float32")}

    def begin(
        self, conditions: Conditions, scalars: Mapping[str, Tensor]
    ) -> tuple[Conditions, None, Mapping[str, Tensor]]:
        """Decides whether the step counts; see `Safeguard.begin`."""
        norm = conditions.gradient_norm
        skipped, largest = scalars["skipped_steps"], scalars["largest_norm"]
        if self._runaway_factor is None:
            accepted = ops.isfinite(norm)
        else:
            accepted, largest = accept(norm, largest, self._runaway_factor)
        skipped = skipped + ops.cast(ops.logical_not(accepted), skipped.dtype)
        conditions = conditions._replace(accepted=ops.logical_and(conditions.accepted, accepted))
        return conditions, None, {"skipped_steps": skipped, "largest_norm": largest}


def accept(norm: Tensor, largest: Tensor, runaway_factor: float) -> tuple[Tensor, Tensor]:
    """Decides whether to take a step, from the norm of its gradients.

    A step is skipped if the norm is not finite, or more than `runaway_factor` times the largest of
    recent steps. That largest norm is forgotten slowly, by 1 % a step, and grows at most tenfold a
    step: one wild step does not set the standard for the next, but gradients that *stay* larger are
    accepted within a few steps, whatever their scale.

    Args:
        norm: Norm of all gradients of the step, a float32 scalar.
        largest: Largest norm of recent steps, a float32 scalar; 0 before the first step.
        runaway_factor: How many times `largest` is too much.

    Returns:
        `(accepted, largest)`: whether to take the step, a boolean scalar, and the next `largest`.

    Example:
        >>> accepted, largest = accept(keras.ops.array(5.0), keras.ops.array(1.0), 2.0)
        >>> bool(accepted), float(largest)
        (False, 5.0)
    """
    finite = ops.isfinite(norm)
    first = ops.equal(largest, 0.0)
    grown = ops.where(first, norm, ops.minimum(norm, _GROWTH * largest))
    new_largest = ops.where(finite, ops.maximum(_FORGET * largest, grown), largest)
    usual = ops.logical_or(first, norm <= runaway_factor * largest)
    return ops.logical_and(finite, usual), new_largest
