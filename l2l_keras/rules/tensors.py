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

    Example:
        >>> tensors = Tensors([(2, 2), (1,)])
        >>> tensors.combine(keras.ops.array([[1.0, 10.0]]), keras.ops.ones((1, 5))).numpy()
        array([ 1.,  1.,  1.,  1., 10.], dtype=float32)
    """

    def __init__(self, shapes: Sequence[Sequence[int]]) -> None:
        self.shapes: tuple[Shape, ...] = tuple(tuple(shape) for shape in shapes)
        self.sizes = tuple(math.prod(shape) for shape in self.shapes)

    def __len__(self) -> int:
        """Returns the number of tensors, T."""
        return len(self.shapes)

    def cut(self, rows: Tensor) -> list[Tensor]:
        """Cuts rows `[..., n]` into those of each tensor, `[..., size]`."""
        # The derivative of a split is one concatenation; those of slices would be added up.
        stops = list(itertools.accumulate(self.sizes))
        return ops.split(rows, stops[:-1], axis=-1) if len(stops) > 1 else [rows]

    def products(self, rows: Tensor) -> Tensor:
        """Computes the mean products of rows with each other, tensor by tensor.

        Args:
            rows: float32 `[r, n]`.

        Returns:
            float32 `[r, r, T]`, zero for a tensor without coordinates.
        """
        means = [
            ops.matmul(part, ops.transpose(part)) * (1.0 / max(size, 1))
            for part, size in zip(self.cut(rows), self.sizes, strict=True)
        ]
        return ops.stack(means, axis=-1)

    def combine(self, coefficients: Tensor, rows: Tensor) -> Tensor:
        """Computes sums of rows, each with a coefficient of every tensor.

        Args:
            coefficients: float32 `[k, T]`.
            rows: float32 `[k, n]`.

        Returns:
            float32 `[n]`.
        """
        parts = [
            ops.matmul(coefficients[:, tensor], part) for tensor, part in enumerate(self.cut(rows))
        ]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts)
