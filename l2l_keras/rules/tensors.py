"""Vectors of coordinates that belong to several tensors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from keras import ops

Tensor = Any
Shape = tuple[int, ...]


class Tensors:
    """The tensors whose coordinates make a vector, one tensor after the other.

    Args:
        shapes: Their shapes.

    Attributes:
        shapes: Their shapes.
        sizes: Their numbers of coordinates.
        runs: Shapes of neighbours that have the same one, each with their number: what is computed
            at once.

    Example:
        >>> tensors = Tensors([(2, 2), (1,)])
        >>> tensors.combine(keras.ops.array([[1.0, 10.0]]), keras.ops.ones((1, 5))).numpy()
        array([ 1.,  1.,  1.,  1., 10.], dtype=float32)
    """

    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        self.shapes: tuple[Shape, ...] = tuple(tuple(shape) for shape in shapes)
        self.sizes = tuple(math.prod(shape) for shape in self.shapes)
        self.runs = [(shape, len(list(run))) for shape, run in itertools.groupby(self.shapes)]

    def __len__(self) -> int:
        """Returns the number of tensors, T."""
        return len(self.shapes)

    def cut(self, rows: Tensor) -> list[Tensor]:
        """Cuts rows `[..., n]` into those of each run of tensors, `[..., count, size]`."""
        parts = _split(rows, [count * math.prod(shape) for shape, count in self.runs])
        return [
            ops.reshape(part, (*part.shape[:-1], count, math.prod(shape)))
            for part, (shape, count) in zip(parts, self.runs, strict=True)
        ]

    def products(self, rows: Tensor) -> Tensor:
        """Computes the mean products of rows with each other, tensor by tensor.

        Args:
            rows: float32 `[r, n]`.

        Returns:
            float32 `[r, r, T]`, zero for a tensor without coordinates.
        """
        means = []
        for part in self.cut(rows):
            # XLA is three times as fast at the product of matrices as at that of a batch of one.
            if part.shape[1] == 1:
                part = part[:, 0]
                product = ops.matmul(part, ops.transpose(part))[..., None]
            else:
                part = ops.swapaxes(part, 0, 1)
                product = ops.moveaxis(ops.matmul(part, ops.swapaxes(part, 1, 2)), 0, -1)
            means.append(product * (1.0 / max(part.shape[-1], 1)))
        return _joined(means)

    def combine(self, coefficients: Tensor, rows: Tensor) -> Tensor:
        """Computes sums of rows, each with a coefficient of every tensor.

        Args:
            coefficients: float32 `[k, T]`.
            rows: float32 `[k, n]`.

        Returns:
            float32 `[n]`.
        """
        own = _split(coefficients, [count for _, count in self.runs])
        sums = [
            ops.matmul(ops.transpose(c)[:, None], ops.swapaxes(part, 0, 1))
            for c, part in zip(own, self.cut(rows), strict=True)
        ]
        return _joined([ops.reshape(part, (-1,)) for part in sums])


def _split(rows: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Splits the last axis."""
    # The derivative of a split is one concatenation; those of slices would be added up.
    stops = list(itertools.accumulate(sizes))
    return ops.split(rows, stops[:-1], axis=-1) if len(stops) > 1 else [rows]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Joins along the last axis."""
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
