"""What a rule does to gradients before its network sees them: [n] -> [features, n]."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

Tensor = Any


def identity(gradient: Tensor) -> Tensor:
    """Passes the gradient on as its one feature.

    Args:
        gradient: float32 `[n]`.

    Returns:
        float32 `[1, n]`.
    """
    return ops.expand_dims(gradient, 0)


def log_sign(gradient: Tensor, p: float = 10.0) -> Tensor:
    """Splits the gradient into its magnitude on a log scale and its sign.

    `(log|∇| / p, sign ∇)` where `|∇| >= e^-p`, else `(-1, e^p ∇)`.

    Args:
        gradient: float32 `[n]`.
        p: How small a gradient still counts: magnitudes below `e^-p` are treated linearly.

    Returns:
        float32 `[2, n]`.

    Source: Andrychowicz et al. (2016), appendix A.
    """
    threshold = math.exp(-p)
    magnitude = ops.abs(gradient)
    # The logarithm is taken of a clipped value: log(0) in the branch that `where` does not choose
    # would still make the derivative NaN.
    log_magnitude = ops.log(ops.maximum(magnitude, threshold)) / p
    direction = ops.where(magnitude >= threshold, ops.sign(gradient), gradient / threshold)
    return ops.stack([log_magnitude, direction])


PREPROCESSING = {"none": (identity, 1), "log_sign": (log_sign, 2)}
"""Preprocessing by name: the function and the number of features that it returns."""


def get_preprocessing(name: str) -> tuple[Callable[[Tensor], Tensor], int]:
    """Returns a preprocessing by its name, and the number of features that it returns.

    Args:
        name: One of `PREPROCESSING`.

    Returns:
        `(preprocessing, features)`.

    Raises:
        ValueError: If there is none of the name.

    Example:
        >>> preprocess, features = get_preprocessing("log_sign")
        >>> features
        2
    """
    if name not in PREPROCESSING:
        raise ValueError(
            f"`preprocessing` must be one of {sorted(PREPROCESSING)}. Received: {name!r}"
        )
    return PREPROCESSING[name]
