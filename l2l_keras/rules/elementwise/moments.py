"""Adam's moments of every coordinate's gradients, for the features of rules."""

from __future__ import annotations

from typing import Any

from keras import ops

Tensor = Any
Moments = tuple[Tensor, Tensor, Tensor, Tensor]

ROWS = (1, 1, 1, 1)
"""Rows of the state: the averages of the gradient and of its square, then those of ones."""


def check_decay(argument: str, value: float) -> float:
    """Returns the decay of an average as a float.

    Args:
        argument: Its name, for the message.
        value: The decay.

    Raises:
        ValueError: If it is not in [0, 1).
    """
    if not 0.0 <= value < 1.0:
        raise ValueError(f"`{argument}` must be in [0, 1). Received: {value}")
    return float(value)


def update(
    gradient: Tensor, state: Moments, beta_1: float, beta_2: float, epsilon: float
) -> tuple[Tensor, Tensor, Moments]:
    """Updates the moments with a gradient.

    Args:
        gradient: float32 `[1, n]`.
        state: The moments, float32 `[1, n]` each.
        beta_1: Decay of the average of gradients.
        beta_2: Decay of the average of their squares.
        epsilon: Added to the usual size.

    Returns:
        `(mean, usual, state)`: m̂ and √v̂ + ε, with their bias corrected, and the next state.

    Source: Kingma and Ba, "Adam: a method for stochastic optimization" (2015).
    """
    # The averages of ones are Adam's 1 - β^t: kept for each coordinate, they count the steps in
    # which it had a gradient.
    m, v, ones_1, ones_2 = state
    m = beta_1 * m + (1.0 - beta_1) * gradient
    v = beta_2 * v + (1.0 - beta_2) * ops.square(gradient)
    ones_1 = beta_1 * ones_1 + (1.0 - beta_1)
    ones_2 = beta_2 * ones_2 + (1.0 - beta_2)
    # Clipped far below epsilon: where the square of a small gradient is zero in float32, the root
    # has no derivative, and second derivatives would not be finite.
    usual = ops.sqrt(ops.maximum(v / ones_2, 1e-36)) + epsilon
    return m / ones_1, usual, (m, v, ones_1, ones_2)
