"""How rules preprocess gradients for their networks: `[n]` to `[features, n]`."""

from __future__ import annotations

import math
from collections.abc import Callable

from keras import ops

from l2l_keras import arguments
from l2l_keras.rules.base import Tensor


def log_sign(gradient: Tensor) -> Tensor:
    """Returns `(log|∇| / 10, sign ∇)` where `|∇| >= e^-10`, else `(-1, e^10 ∇)`, as `[2, n]`.

    Source: Andrychowicz et al. (2016), appendix A.
    """
    threshold = math.exp(-10.0)
    magnitude = ops.abs(gradient)
    # Clipped: log(0) in the branch that `where` does not choose would make the derivative NaN.
    log_magnitude = ops.log(ops.maximum(magnitude, threshold)) / 10.0
    direction = ops.where(magnitude >= threshold, ops.sign(gradient), gradient / threshold)
    return ops.stack([log_magnitude, direction])


PREPROCESSING = {
    "none": (lambda gradient: ops.expand_dims(gradient, 0), 1),
    "log_sign": (log_sign, 2),
}
"""Preprocessing by name: the function, and the number of features that it returns."""


def get_preprocessing(name: str) -> tuple[Callable[[Tensor], Tensor], int]:
    """Returns one of `PREPROCESSING`."""
    return PREPROCESSING[arguments.one_of("preprocessing", name, PREPROCESSING)]
