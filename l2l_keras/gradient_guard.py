"""The guard that keeps non-finite and runaway gradients from weights and state."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any

_FORGET = 0.99  # How much of the largest norm is remembered after a step.
_GROWTH = 10.0  # How many times it may grow in a step.


def square_norm(vector: Tensor) -> Tensor:
    """Computes the square of a vector's norm, without an array of squares.

    Args:
        vector: float32 `[n]`.

    Returns:
        A float32 scalar, which is not finite if a number in the vector is not.
    """
    return ops.dot(vector, vector)


def judge(norm: Tensor, largest: Tensor, runaway_factor: float | None) -> tuple[Tensor, Tensor]:
    """Decides whether a step is to be taken, from the norm of its gradients.

    A step is skipped if the norm is not finite, or more than `runaway_factor` times the largest of
    recent steps. That largest norm is forgotten slowly, by 1 % a step, and grows at most tenfold a
    step: one wild step is no measure for the next, but gradients that *stay* larger are accepted
    within a few steps, whatever their scale.

    Args:
        norm: Norm of all gradients of the step, a float32 scalar.
        largest: Largest norm of recent steps, a float32 scalar; 0 before the first step.
        runaway_factor: How many times `largest` is too much, or None for any finite norm to pass.

    Returns:
        `(accepted, largest)`: whether to take the step, a boolean scalar, and the next `largest`.
    """
    finite = ops.isfinite(norm)
    first = ops.equal(largest, 0.0)
    grown = ops.where(first, norm, ops.minimum(norm, _GROWTH * largest))
    new_largest = ops.where(finite, ops.maximum(_FORGET * largest, grown), largest)
    if runaway_factor is None:
        return finite, new_largest
    usual = ops.logical_or(first, norm <= runaway_factor * largest)
    return ops.logical_and(finite, usual), new_largest
