"""Vectors of coordinates that belong to several tensors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

from keras import ops

Tensor = Any
Shape = tuple[int, ...]


# What Keras calls arrays of which an example takes rows by their numbers.
_EMBEDDINGS = ("embeddings", "lora_embeddings_a")


def fan_in(path: str, shape: Shape) -> int:
    """Returns how many inputs a unit of a layer has.

    Args:
        path: Path of the layer's variable.
        shape: Its shape, as Keras lays out kernels.

    Returns:
        The number of inputs; 1 for vectors, and for embeddings: an example has one of their words,
        and what becomes of it does not depend on how many there are.

    Example:
        >>> fan_in("model/dense/kernel", (20, 10)), fan_in("model/embedding/embeddings", (20, 10))
        (20, 1)
    """
    if len(shape) < 2 or path.rpartition("/")[2] in _EMBEDDINGS:
        return 1
    return max(1, math.prod(shape[:-1]))


class Tensors:
    """The tensors whose coordinates make a vector, one tensor after the other.

    Args:
        shapes: Their shapes.
        fan_ins: How many inputs a unit has in each, as `fan_in` tells from their names. Defaults to
            what it tells from their shapes alone.

    Attributes:
        shapes: Their shapes.
        fan_ins: As above.
        sizes: Their numbers of coordinates.
        runs: Shapes of neighbours that have the same one, each with their number: what is computed
            at once.

    Example:
        >>> tensors = Tensors([(2, 2), (1,)])
        >>> sums = tensors.combine(keras.ops.array([[1.0, 10.0]]), keras.ops.ones((1, 5)))
        >>> tensors.join(sums).numpy()
        array([ 1.,  1.,  1.,  1., 10.], dtype=float32)
    """

    def __init__(
        self, shapes: Sequence[Sequence[int]], fan_ins: Sequence[int] | None = None
    ) -> None:
        self.shapes: tuple[Shape, ...] = tuple(tuple(shape) for shape in shapes)
        self.fan_ins = tuple(fan_ins or (fan_in("", shape) for shape in self.shapes))
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

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Undoes `cut`."""
        return _joined([ops.reshape(part, (*part.shape[:-2], -1)) for part in parts])

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
                # Said like this, XLA makes no transposed copy.
                product = ops.moveaxis(ops.einsum("tin,tjn->tij", part, part), 0, -1)
            means.append(product * (1.0 / max(part.shape[-1], 1)))
        return _joined(means)

    def combine(self, coefficients: Tensor, rows: Tensor) -> list[Tensor]:
        """Computes sums of rows, each with a coefficient of every tensor, cut as by `cut`.

        Args:
            coefficients: float32 `[k, T]`.
            rows: float32 `[k, n]`.

        Returns:
            Those of each run of tensors, float32 `[count, size]`.
        """
        own = _split(coefficients, [count for _, count in self.runs])
        sums = [
            ops.matmul(ops.transpose(c)[:, None], ops.swapaxes(part, 0, 1))
            for c, part in zip(own, self.cut(rows), strict=True)
        ]
        return [part[:, 0] for part in sums]


def _split(rows: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Splits the last axis."""
    # The derivative of a split is one concatenation; those of slices would be added up.
    stops = list(itertools.accumulate(sizes))
    return ops.split(rows, stops[:-1], axis=-1) if len(stops) > 1 else [rows]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Joins along the last axis."""
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
