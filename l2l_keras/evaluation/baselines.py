"""The optimizers that learned ones are compared with, and the learning rates tried for each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A hand-written optimizer with the learning rates to choose from.

    Attributes:
        name: Name in tables and figures.
        make: Makes a fresh optimizer from a learning rate.
        grid: Learning rates to try, in increasing order.

    Example:
        >>> adam = l2l_keras.evaluation.BASELINES["Adam"]
        >>> float(adam.make(adam.grid[0]).learning_rate)  # float32
        9.999999747378752e-05
    """

    name: str
    make: Callable[[float], keras.optimizers.Optimizer]
    grid: tuple[float, ...]


def half_decades(lowest: float, highest: float) -> tuple[float, ...]:
    """Lists learning rates two per factor of ten, both ends included.

    Args:
        lowest: Power of ten of the first one, a multiple of a half.
        highest: Power of ten of the last one, a multiple of a half, not below `lowest`.

    Returns:
        The learning rates in increasing order.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> l2l_keras.evaluation.half_decades(-1, 0)
        (0.1, 0.31622776601683794, 1.0)
    """
    if lowest > highest or (2 * lowest) % 1 or (2 * highest) % 1:
        raise ValueError(
            "`lowest` and `highest` must be multiples of 0.5 with lowest <= highest. "
            f"Received: lowest={lowest}, highest={highest}"
        )
    return tuple(10.0 ** (k / 2) for k in range(int(2 * lowest), int(2 * highest) + 1))


# Adam and RMSprop take steps of about the learning rate whatever the gradient's scale, so that
# rates above 1 make no sense; those of SGD and NAG are in units of (parameter)² / loss.
BASELINES: dict[str, Baseline] = {
    baseline.name: baseline
    for baseline in (
        Baseline("Adam", keras.optimizers.Adam, half_decades(-4, 0)),
        Baseline("RMSprop", keras.optimizers.RMSprop, half_decades(-4, 0)),
        Baseline(
            "NAG",
            lambda rate: keras.optimizers.SGD(rate, momentum=0.9, nesterov=True),
            half_decades(-4, 1),
        ),
        Baseline("SGD", keras.optimizers.SGD, half_decades(-4, 1)),
    )
}
"""The paper's baselines by name; hyper-parameters not named here are at Keras' defaults.

Source: Andrychowicz et al. (2016), section 3.
"""
