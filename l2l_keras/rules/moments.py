"""Moving averages of gradients and of their squares, without a bias towards zero."""

from __future__ import annotations

import math
from typing import Any

from keras import ops

Tensor = Any
Moments = tuple[Tensor, Tensor, Tensor, Tensor]

ROWS = (1, 1, 1, 1)
"""Rows of the state: the averages of the gradient and of its square, then those of ones."""


def bias_correction(decay: float, steps: Tensor) -> Tensor:
    """Computes what to divide a moving average by that started as zero.

    Args:
        decay: Decay of the average, in [0, 1).
        steps: Number of values in the average, 1 or more, float32 of any shape.

    Returns:
        `1 - decay ** steps`, of the shape of `steps`.

    Example:
        >>> bias_correction(0.9, keras.ops.array([1.0, 2.0])).numpy().round(2)
        array([0.1 , 0.19], dtype=float32)
    """
    return 1.0 - ops.exp(math.log(decay) * steps) if decay else ops.ones_like(steps)


def update(
    gradient: Tensor, state: Moments, beta_1: float, beta_2: float, epsilon: float
) -> tuple[Tensor, Tensor, Moments]:
    """Updates Adam's moments with a gradient.

    Args:
        gradient: float32 `[1, n]`.
        state: The moments, float32 `[1, n]` each; zeros before the first step.
        beta_1: Decay of the average of gradients.
        beta_2: Decay of the average of their squares.
        epsilon: Added to the RMS of the gradients.

    Returns:
        `(mean, rms, state)`: m̂ and √v̂ + ε, with their bias corrected, and the next state.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization" (2015).
    """
    # The averages of ones are Adam's 1 - β^t. Kept per element, they count the steps in which the
    # element had a gradient.
    m, v, ones_1, ones_2 = state
    m = beta_1 * m + (1.0 - beta_1) * gradient
    v = beta_2 * v + (1.0 - beta_2) * ops.square(gradient)
    ones_1 = beta_1 * ones_1 + (1.0 - beta_1)
    ones_2 = beta_2 * ones_2 + (1.0 - beta_2)
    # Clipped far below epsilon: where the square of a small gradient is zero in float32, the root
    # has no derivative, and second derivatives would not be finite.
    rms = ops.sqrt(ops.maximum(v / ones_2, 1e-36)) + epsilon
    return m / ones_1, rms, (m, v, ones_1, ones_2)
