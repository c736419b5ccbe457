"""Vectors that hold the elements of several tensors."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from keras import ops

from l2l_keras.rules.base import Shape, Tensor
from l2l_keras.rules.tensorwise.sampling import sample

# Names of Keras' variables of which an example looks up rows.
_EMBEDDINGS = ("embeddings", "lora_embeddings_a")


def fan_in(path: str, shape: Shape) -> int:
    """Returns the number of inputs of a unit of a layer, from a variable's path and shape.

    1 for vectors and for embeddings, of which an example looks up one row at a time.
    """
    if len(shape) < 2 or path.rpartition("/")[2] in _EMBEDDINGS:
        return 1
    return max(1, math.prod(shape[:-1]))


class Tensors:
    """Tensors whose elements make up one vector, one tensor after the other.

    Args:
        shapes: Shapes of the tensors.
        fan_ins: Number of inputs of a unit in each tensor (see `fan_in`). Defaults to what the
            shapes alone tell.

    Attributes:
        shapes: As given.
        fan_ins: As given.
        sizes: Their numbers of elements.
        runs: `(shape, count)` of each run of neighbours of one shape, which are computed at once.

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
        """Cuts rows `[..., n]` by run of tensors, into arrays `[..., count, size]`."""
        parts = _split(rows, [count * math.prod(shape) for shape, count in self.runs])
        return [
            ops.reshape(part, (*part.shape[:-1], count, math.prod(shape)))
            for part, (shape, count) in zip(parts, self.runs, strict=True)
        ]

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Undoes `cut`."""
        return _joined([ops.reshape(part, (*part.shape[:-2], -1)) for part in parts])

    def gram_matrices(self, rows: Tensor, sampled: bool = False) -> Tensor:
        """Computes the Gram matrix of rows, a mean over elements, of each tensor.

        Args:
            rows: float32 `[r, n]`.
            sampled: Whether to sample the elements of large tensors. Defaults to False.

        Returns:
            float32 `[r, r, T]`, zero for a tensor without elements.
        """
        parts = self.cut(rows)
        if sampled:
            shapes = (shape for shape, _ in self.runs)
            parts = [sample(part, shape) for part, shape in zip(parts, shapes, strict=True)]
        return _joined([gram_matrices(part) for part in parts])

    def combine(self, coefficients: Tensor, rows: Tensor) -> list[Tensor]:
        """Computes weighted sums of rows, with coefficients for each tensor.

        Args:
            coefficients: float32 `[k, T]`.
            rows: float32 `[k, n]`.

        Returns:
            The sums of each run of tensors, float32 `[count, size]`.
        """
        own = _split(coefficients, [count for _, count in self.runs])
        sums = [
            ops.matmul(ops.transpose(c)[:, None], ops.swapaxes(part, 0, 1))
            for c, part in zip(own, self.cut(rows), strict=True)
        ]
        return [part[:, 0] for part in sums]


def gram_matrices(rows: Tensor) -> Tensor:
    """Returns the Gram matrices, means over elements, of tensors of one size.

    Maps float32 `[r, count, ...]`, with elements from the third axis on, to `[r, r, count]`.
    """
    rows = ops.reshape(rows, (*rows.shape[:2], math.prod(rows.shape[2:])))
    # XLA multiplies two matrices three times as fast as a batch of one.
    if rows.shape[1] == 1:
        matrix = rows[:, 0]
        products = ops.matmul(matrix, ops.transpose(matrix))[..., None]
    else:
        batch = ops.swapaxes(rows, 0, 1)
        # In this form, XLA makes no transposed copy.
        products = ops.moveaxis(ops.einsum("tin,tjn->tij", batch, batch), 0, -1)
    return products * (1.0 / max(rows.shape[-1], 1))


def _split(rows: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Splits the last axis."""
    # The derivative of a split is one concatenation; those of slices would be added up.
    stops = list(itertools.accumulate(sizes))
    return ops.split(rows, stops[:-1], axis=-1) if len(stops) > 1 else [rows]


def _joined(parts: Sequence[Tensor]) -> Tensor:
    """Joins along the last axis."""
    return parts[0] if len(parts) == 1 else ops.concatenate(parts, axis=-1)
