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
    """Skips and counts steps whose gradients are not finite, or far larger than before.

    Args:
        runaway_factor: As in `accept`. With None, the norms stay as they are.
    """

    name = "skip_steps"

    def __init__(self, runaway_factor: float | None) -> None:
        self._runaway_factor = runaway_factor

    def scalars(self) -> Mapping[str, tuple[Shape, str]]:
        """Returns the number of skipped steps, and the norms that `accept` compares with."""
        return {"skipped_steps": ((), "int"), "gradient_norms": ((2,), "float32")}

    def begin(
        self, conditions: Conditions, scalars: Mapping[str, Tensor]
    ) -> tuple[Conditions, None, Mapping[str, Tensor]]:
        """Decides whether the step counts; see `Safeguard.begin`."""
        norm = conditions.gradient_norm
        skipped, norms = scalars["skipped_steps"], scalars["gradient_norms"]
        if self._runaway_factor is None:
            accepted = ops.isfinite(norm)
        else:
            accepted, norms = accept(norm, norms, self._runaway_factor)
        skipped = skipped + ops.cast(ops.logical_not(accepted), skipped.dtype)
        conditions = conditions._replace(accepted=ops.logical_and(conditions.accepted, accepted))
        return conditions, None, {"skipped_steps": skipped, "gradient_norms": norms}


def accept(norm: Tensor, norms: Tensor, runaway_factor: float) -> tuple[Tensor, Tensor]:
    """Decides whether to take a step, from the norm of its gradients.

    A step is skipped if the norm is not finite, or *suddenly* larger: more than `runaway_factor`
    times the largest of recent steps. That largest norm is forgotten slowly, by 1 % a step, and
    grows at most tenfold a step: one wild step does not set the standard for the next, but
    gradients that *stay* larger are accepted within a few steps, whatever their scale.

    A step is also skipped if gradients have grown over many steps: if the norm is more than
    `runaway_factor ** 2` times the largest norm of all steps, which grows at most by 1 % a step,
    or tenfold where the norm is suddenly larger. Gradients that leave a plateau, or return after
    convergence, pass; a run that diverges is slowed down until someone looks at it.

    Args:
        norm: Norm of all gradients of the step, a float32 scalar.
        norms: Largest norm of recent steps, and of all steps, float32 `[2]`; zeros before the first
            step.
        runaway_factor: How many times the largest norm of recent steps is too much.

    Returns:
        `(accepted, norms)`: whether to take the step, a boolean scalar, and the next `norms`.

    Example:
        >>> accepted, norms = accept(keras.ops.array(5.0), keras.ops.array([1.0, 1.0]), 2.0)
        >>> bool(accepted), [round(float(norm), 2) for norm in norms]
        (False, [5.0, 5.0])
    """
    recent, overall = ops.unstack(norms)
    finite, first = ops.isfinite(norm), ops.equal(recent, 0.0)
    sudden = norm > runaway_factor * recent
    gradual = norm > runaway_factor * (runaway_factor * overall)
    factors = ops.stack([_GROWTH, ops.where(sudden, _GROWTH, 1.0 / _FORGET)])
    grown = ops.where(first, norm, ops.minimum(norm, factors * norms))
    kept = norms * ops.convert_to_tensor([_FORGET, 1.0])
    usual = ops.logical_or(first, ops.logical_not(ops.logical_or(sudden, gradual)))
    return ops.logical_and(finite, usual), ops.where(finite, ops.maximum(kept, grown), norms)
