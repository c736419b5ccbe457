"""How variables are packed into vectors, and which arrays hold the state of a step."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from l2l_keras.engine.backends import backend
from l2l_keras.engine.backends.windows import Windows

Tensor = Any
Variable = Any
Shape = tuple[int, ...]
Axes = tuple[str | None, ...]

# Most elements whose gradients are copied into one vector, 4 MB.
_LONGEST_VECTOR = 2**20


class VariableInfo(NamedTuple):
    """Path, shape, device and axes of the device mesh, () if not sharded, of a variable."""

    path: str
    shape: Shape
    device: str
    axes: Axes


class StateArray(NamedTuple):
    """An array that is kept from step to step, next to the variable with the index `reference`."""

    name: str
    shape: Shape
    dtype: str
    axes: Axes
    reference: int


class PackedLayout:
    """The elements of several variables, given by index, as one vector of `size` elements."""

    def __init__(self, shapes: Mapping[int, Shape]) -> None:
        self.shapes = dict(shapes)
        self.size = sum(map(math.prod, self.shapes.values()))

    def pack(self, vectors: Mapping[int, Tensor]) -> Tensor:
        """Returns the vectors of the variables as one, float32 `[n]`, zero for missing ones."""
        parts = [
            vectors[index] if index in vectors else ops.zeros((stop - start,), "float32")
            for index, start, stop in self.spans()
        ]
        return parts[0] if len(parts) == 1 else ops.concatenate(parts)

    def unpack(self, vector: Tensor, members: Collection[int]) -> dict[int, Tensor]:
        """Returns the arrays of some of the variables, by index, from one vector `[n]`."""
        stops = [stop for _, _, stop in self.spans()]
        parts = ops.split(vector, stops[:-1]) if len(stops) > 1 else [vector]
        return {
            index: part if len(shape) == 1 else ops.reshape(part, shape)
            for (index, shape), part in zip(self.shapes.items(), parts, strict=True)
            if index in members
        }

    def spans(self) -> Iterator[tuple[int, int, int]]:
        """Yields each variable's index, its first element, and one past its last."""
        stop = 0
        for index, shape in self.shapes.items():
            start, stop = stop, stop + math.prod(shape)
            yield index, start, stop

    def span(self, index: int) -> slice:
        """Returns the elements of a variable."""
        return next(slice(start, stop) for own, start, stop in self.spans() if own == index)

    def windows(self, members: Collection[int], longest: int) -> Windows:
        """Returns windows that update the elements of some of the variables, each once."""
        runs: list[tuple[int, int]] = []
        for index, start, stop in self.spans():
            if index not in members or start == stop:
                continue
            if runs and runs[-1][1] == start:
                start, _ = runs.pop()
            runs.append((start, stop))
        length = math.ceil(self.size / max(1, math.ceil(self.size / longest)))
        first = [element for a, b in runs for element in range(a, b, length)]
        last = [min(element + length, b) for a, b in runs for element in range(a, b, length)]
        begin = [min(element, self.size - length) for element in first]
        return Windows(
            length, *(np.asarray(elements, "int32") for elements in (begin, first, last))
        )


def divide(shapes: Mapping[int, Shape]) -> Iterator[dict[int, Shape]]:
    """Divides variables into parts of similar size that take little memory to copy.

    A large variable is a part of its own, which is not copied.
    """
    total = max(1, sum(map(math.prod, shapes.values())))
    # Of one size where possible: they share a compiled program.
    target = math.ceil(total / math.ceil(total / _LONGEST_VECTOR))
    part: dict[int, Shape] = {}
    size = start = 0
    for index, shape in shapes.items():
        n = math.prod(shape)
        too_large = size + n > _LONGEST_VECTOR
        if part and (too_large or start // target > (start - size) // target):
            yield part
            part, size = {}, 0
        part[index] = shape
        size += n
        start += n
    if part:
        yield part


def to_vector(gradient: Tensor, shape: Shape) -> Tensor:
    """Returns a gradient, dense or sparse, as a dense float32 vector `[n]`.

    Repeated rows of a sparse gradient are summed first: preprocessing is not linear. The shape is
    the variable's, which a `tf.IndexedSlices` need not know.

    Raises:
        ValueError: If the gradient has another shape, or is complex.
    """
    if hasattr(gradient, "dense_shape"):  # A `tf.IndexedSlices`, as an embedding's gradient is.
        values = ops.cast(gradient.values, "float32")
        gradient = ops.segment_sum(values, gradient.indices, num_segments=shape[0])
    own = tuple(gradient.shape)
    if "complex" in keras.backend.standardize_dtype(gradient.dtype) or (
        own != shape and None not in own
    ):
        raise ValueError(
            f"The gradient of a variable of shape {shape} must be real, and have its shape. "
            f"Received: {keras.backend.standardize_dtype(gradient.dtype)} of shape {own}"
        )
    gradient = ops.convert_to_tensor(gradient, dtype="float32", sparse=False)
    return gradient if len(shape) == 1 else ops.reshape(gradient, (math.prod(shape),))


def square_norm(vector: Tensor) -> Tensor:
    """Computes the square of the norm of a vector `[n]`, without an array of squares."""
    return ops.dot(vector, vector)


def describe(variable: Variable, path: str) -> VariableInfo:
    """Returns what blocks know of a variable, given its path."""
    return VariableInfo(path, tuple(variable.shape), backend.device(variable), _axes(variable))


def _axes(variable: Variable) -> Axes:
    """Returns the axes of the device mesh over which a variable is sharded; () if it is not."""
    distribution = keras.distribution.distribution()
    if distribution is None:
        return ()
    axes = tuple(distribution.get_variable_layout(variable).axes)
    return axes if any(axis is not None for axis in axes) else ()


def layout_argument(array: StateArray) -> dict[str, Any]:
    """Returns the `layout` argument of `add_variable` for a state array.

    Empty where nothing is distributed: early versions of Keras 3 have no such argument.
    """
    distribution = keras.distribution.distribution()
    if distribution is None:
        return {}
    axes: Sequence[str | None] = array.axes or (None,) * len(array.shape)
    return {"layout": keras.distribution.TensorLayout(tuple(axes), distribution.device_mesh)}
