"""Which elements of a large tensor show how directions are aligned in it.

Gram matrices are means over elements: a few thousand of them tell as much as all, and cost a
fraction. About `_FEWEST` elements of a tensor are sampled, and about `_OF_EACH` of each of its rows
and columns, or more: a single row may hold most of a gradient, as that of a frequent word does.
"""

from __future__ import annotations

import math

from keras import ops

from l2l_keras.rules.base import Shape, Tensor

LARGE = 2**13
"""Tensors of more elements than this are sampled."""

_FEWEST, _OF_EACH = 2**12, 8


def sample(elements: Tensor, shape: Shape) -> Tensor:
    """Returns a sample `[..., periods, span]` of a large tensor's elements `[..., size]`.

    Of a small tensor, returns all elements, `[..., size]`.
    """
    span, period = _span_and_period(shape)
    if span == period:
        return elements
    size = math.prod(shape)
    periods = size // period
    # From the middle of the remainder, so that neither the first nor the last row falls short.
    start = size % period // 2
    several = tuple(elements.shape[:-1])
    chosen = elements[..., start : start + periods * period]
    # Not flattened: XLA would then find each element by a division.
    return ops.reshape(chosen, (*several, periods, period))[..., :span]


def _span_and_period(shape: Shape) -> tuple[int, int]:
    """Returns how many neighbours to take of how many elements.

    Each row of a matrix has two spans, one span further along than in the row before, so that all
    columns have their turn.
    """
    rows, columns = math.prod(shape[:-1]), math.prod(shape[-1:])
    fraction = min(rows * columns / _FEWEST, rows / _OF_EACH, columns / _OF_EACH)
    if rows * columns <= LARGE or fraction < 2.0:
        return 1, 1
    span = math.ceil(columns / fraction / 2.0)
    return span, (columns + span) // 2
