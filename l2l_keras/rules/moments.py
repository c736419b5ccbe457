"""Moving averages of gradients and of their squares, without a bias towards zero."""

from __future__ import annotations

import math

from keras import ops

from l2l_keras.rules.base import Tensor

Moments = tuple[Tensor, Tensor, Tensor, Tensor]

ROWS = (1, 1, 1, 1)
"""Rows of the state: the averages of the gradient and of its square, then those of ones."""


def bias_correction(decay: float, steps: Tensor) -> Tensor:
    """Returns `1 - decay ** steps`, the divisor of a moving average that started as zero."""
    return 1.0 - ops.exp(math.log(decay) * steps) if decay else ops.ones_like(steps)


def update(
    gradient: Tensor, state: Moments, beta_1: float, beta_2: float, epsilon: float
) -> tuple[Tensor, Tensor, Moments]:
    """Returns Adam's m̂, √v̂ + epsilon and the next state, for a gradient; all float32 `[1, n]`.

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
