"""The coordinates of many variables as columns of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from l2l_keras import _backend

Tensor = Any
Shape = tuple[int, ...]

# Largest number of coordinates whose gradients are copied into one vector, 4 MB.
_LIMIT = 2**20


class Step(NamedTuple):
    """What a step of all rules is made of.

    Attributes:
        factor: Factor of updates, a scalar.
        weights: Each group's weights.
        gradients: Gradients of variables as returned by `to_vector`, by their places.
        members: Places of the variables to update.
        accepted: Whether to step at all, a boolean scalar.
        read: Returns the value of a variable, given its place.
        add: Adds to a variable, given its place and a tensor of its shape.
    """

    factor: Tensor
    weights: Mapping[str, Sequence[Tensor]]
    gradients: Mapping[int, Tensor]
    members: Collection[int]
    accepted: Tensor
    read: Callable[[int], Tensor]
    add: Callable[[int, Tensor], Any]


class Slot(NamedTuple):
    """What a block keeps from step to step.

    Attributes:
        name: What it is the state of.
        shape: Shape of the array.
        dtype: Its type.
        axes: Axes of the device mesh over which those of the array are sharded.
        reference: Place of a variable next to which it is to lie.
    """

    name: str
    shape: Shape
    dtype: str
    axes: tuple[str | None, ...]
    reference: int


def slot_like(
    name: str, index: int, shape: Shape, axes: Sequence[str | None], dtype: str = "float32"
) -> Slot:
    """Returns a slot of a variable's shape, sharded like it.

    Args:
        name: What it is the state of.
        index: The variable's place.
        shape: Its shape.
        axes: Axes of the device mesh over which it is sharded; () if over none.
        dtype: Type of the array. Defaults to float32.
    """
    return Slot(name, shape, dtype, tuple(axes) or (None,) * len(shape), index)


class Columns:
    """The coordinates of several variables as the columns of arrays, one variable after the other.

    Args:
        shapes: Shape of each variable, by its place among the optimizer's variables.

    Attributes:
        shapes: Shapes of the variables, by their places.
        size: Number of columns, n.
    """

    def __init__(self, shapes: Mapping[int, Shape]) -> None:
        self.shapes = dict(shapes)
        self.size = sum(map(math.prod, self.shapes.values()))

    def join(self, vectors: Mapping[int, Tensor]) -> Tensor:
        """Joins vectors to one.

        Args:
            vectors: Vectors of variables, by their places. Those of others are passed over.

        Returns:
            float32 `[n]`, zero for variables without a vector.
        """
        parts = [
            vectors[index] if index in vectors else ops.zeros((stop - start,), "float32")
            for index, start, stop in self.spans()
        ]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts)

    def split(self, vector: Tensor, members: Collection[int]) -> Iterator[tuple[int, Tensor]]:
        """Yields what a vector holds for some of the variables.

        Args:
            vector: `[n]`.
            members: Places of variables. Those of others are passed over.

        Yields:
            The place of a variable, and an array of its shape.
        """
        stops = [stop for _, _, stop in self.spans()]
        parts = ops.split(vector, stops[:-1]) if len(stops) > 1 else [vector]
        for (index, shape), part in zip(self.shapes.items(), parts, strict=True):
            if index in members:
                yield index, part if len(shape) == 1 else ops.reshape(part, shape)

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Yields each variable's place, its first column, and one past its last."""
        stop = 0
        for index, shape in self.shapes.items():
            start, stop = stop, stop + math.prod(shape)
            yield index, start, stop

    def windows(self, spans: Sequence[tuple[int, int]], limit: int) -> _backend.Windows:
        """Returns windows over some of the columns, all of one length.

        Args:
            spans: First columns to update, and one past the last.
            limit: Largest length of a window.
        """
        length = math.ceil(self.size / max(1, math.ceil(self.size / limit)))
        first = [column for a, b in spans for column in range(a, b, length)]
        last = [min(column + length, b) for a, b in spans for column in range(a, b, length)]
        begin = [min(column, self.size - length) for column in first]
        return _backend.Windows(length, *(np.asarray(c, "int32") for c in (begin, first, last)))


def divide(shapes: Mapping[int, Shape]) -> Iterator[dict[int, Shape]]:
    """Divides variables into parts of about equal size, none of which takes much memory to copy.

    Args:
        shapes: Shapes of variables, by their places.

    Yields:
        Shapes by places. A variable that is large itself is a part of its own, and is not copied.
    """
    total = max(1, sum(map(math.prod, shapes.values())))
    # Of equal sizes where that can be: they share a compiled program.
    target = math.ceil(total / math.ceil(total / _LIMIT))
    part: dict[int, Shape] = {}
    size = start = 0
    for index, shape in shapes.items():
        n = math.prod(shape)
        if part and (size + n > _LIMIT or start // target > (start - size) // target):
            yield part
            part, size = {}, 0
        part[index] = shape
        size += n
        start += n
    if part:
        yield part


def to_vector(gradient: Tensor, shape: Shape) -> Tensor:
    """Returns a gradient as a dense vector, with the repeated rows of a sparse one summed.

    The sum comes first: preprocessing is not linear.

    Args:
        gradient: Dense or sparse.
        shape: Shape of the variable, since a `tf.IndexedSlices` need not know its own.

    Returns:
        float32 `[n]`.
    """
    if hasattr(gradient, "dense_shape"):  # A `tf.IndexedSlices`, as an embedding's gradient is.
        values = ops.cast(gradient.values, "float32")
        gradient = ops.segment_sum(values, gradient.indices, num_segments=shape[0])
    gradient = ops.convert_to_tensor(gradient, dtype="float32", sparse=False)
    return gradient if len(shape) == 1 else ops.reshape(gradient, (math.prod(shape),))
