"""The examples of a data set, read from anything that `keras.Model.fit` takes."""

from __future__ import annotations

import itertools
import math
import tempfile
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Nest = Any
Tensor = Any

_TAKES = (
    "(x, y) or (x, y, sample_weight) of arrays, a tf.data.Dataset, a keras.utils.PyDataset, a "
    "generator or a torch DataLoader"
)


class Examples:
    """Examples that can be drawn by their indices, in memory or on disk.

    Args:
        data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`: nested structures of arrays, examples on
            the first axis.
        batch_size: Examples in the first minibatch; None for arrays and single examples.
        stream: Whether to leave arrays where they are, such as on disk, rather than to copy them
            into tensors.

    Attributes:
        batch_size: See above.
        total: Number of examples.

    Raises:
        ValueError: If arrays differ in their number of examples.
    """

    def __init__(self, data: tuple[Nest, ...], batch_size: int | None, stream: bool) -> None:
        data = tf.nest.map_structure(np.asanyarray, data)
        counts = {array.shape[:1] for array in tf.nest.flatten(data)}
        if len(counts) != 1 or counts == {()}:
            raise ValueError(
                "`dataset` must have the same number of examples everywhere. "
                f"Received: {sorted(counts)}"
            )
        self.batch_size = batch_size
        self.total = counts.pop()[0]
        self._stream = stream
        if not stream:
            # On the host: a data set may exceed an accelerator's memory.
            with tf.device("CPU"):
                data = tf.nest.map_structure(tf.convert_to_tensor, data)
        self._data = data

    def take(self, indices: Tensor) -> tuple[Nest, ...]:
        """Returns the examples of indices, int32 `[n]`."""
        if not self._stream:
            return tf.nest.map_structure(lambda array: tf.gather(array, indices), self._data)
        arrays = tf.nest.flatten(self._data)
        parts = tf.numpy_function(
            lambda chosen: [np.asarray(array[chosen]) for array in arrays],
            [indices],
            [tf.as_dtype(array.dtype) for array in arrays],
        )
        for part, array in zip(parts, arrays, strict=True):
            part.set_shape([indices.shape[0], *array.shape[1:]])
        return tf.nest.pack_sequence_as(self._data, parts)


def read(
    dataset: Any,
    steps: int | None,
    stream: bool,
    loss_of: Callable[[Nest], float],
) -> Examples:
    """Reads the examples of a data set.

    Minibatches of different lengths are padded with zeros to one, if this leaves the loss as it is.

    Args:
        dataset: Arrays, or an iterable of minibatches; a `tf.data.Dataset` may be of single
            examples.
        steps: Minibatches to read, for data sets without an end; None reads all.
        stream: Whether to keep what is read in temporary files, and arrays where they are.
        loss_of: Computes the loss of a minibatch, without dropout; raises if it is none.

    Raises:
        ValueError: If the data set is none of these, is empty or never ends, or its examples differ
            in shape and padding changes the loss.
    """
    batch_size = None
    if isinstance(dataset, (tuple, list)):
        data = _checked(dataset)
    else:
        batches = _batches(dataset, steps)
        first = next(batches, None)
        if first is None:
            raise ValueError("`dataset` must not be empty.")
        batches = itertools.chain([first], batches)
        if isinstance(dataset, tf.data.Dataset) and not _fits(first, loss_of):
            batches = (_batch_of_one(example) for example in batches)
        else:
            batch_size = len(tf.nest.flatten(first)[0])
        data = _joined(batches, stream, loss_of)
    return Examples(data, batch_size, stream)


def _batches(dataset: Any, steps: int | None) -> Iterator[tuple[Nest, ...]]:
    """Yields the elements of a data set, as tuples of arrays."""
    if isinstance(dataset, tf.data.Dataset):
        endless = bool(dataset.cardinality() == tf.data.INFINITE_CARDINALITY)
        elements: Iterable = dataset.as_numpy_iterator()
    elif isinstance(dataset, keras.utils.PyDataset):
        endless = getattr(dataset, "num_batches", None) is None
        numbers = itertools.count() if endless else range(len(dataset))
        elements = (dataset[k] for k in numbers)
    elif isinstance(dataset, Iterator):  # A generator, of which nobody knows whether it ends.
        endless, elements = True, dataset
    elif hasattr(dataset, "__iter__") and hasattr(dataset, "batch_size"):  # A DataLoader.
        endless, elements = False, iter(dataset)
    else:
        raise ValueError(
            f"`dataset` must be {_TAKES}, or a dictionary of such with the keys 'train', "
            f"'validation' and 'test'. Received: {type(dataset).__name__}"
        )
    if endless and steps is None:
        raise ValueError(
            "A data set without an end needs `steps_per_epoch`, the minibatches to read. "
            "Received: steps_per_epoch=None"
        )
    for element in itertools.islice(elements, steps):
        yield _checked(element if isinstance(element, (tuple, list)) else (element,))


def _checked(data: Any) -> tuple[Nest, ...]:
    """Returns `(x,)`, `(x, y)` or `(x, y, sample_weight)` without missing parts at the end."""
    parts = tuple(data)
    while parts and parts[-1] is None:
        parts = parts[:-1]
    if not 1 <= len(parts) <= 3:
        raise ValueError(
            f"`dataset` must be {_TAKES}. Received: {type(data).__name__} of {len(parts)}"
        )
    return parts


def _fits(element: Nest, loss_of: Callable[[Nest], float]) -> bool:
    """Returns whether `fit` accepts an element of a data set as a minibatch."""
    try:
        loss_of(element)
    except Exception:
        return False
    return True


def _batch_of_one(example: tuple[Nest, ...]) -> tuple[Nest, ...]:
    return tf.nest.map_structure(lambda part: np.asarray(part)[np.newaxis], example)


def _joined(
    batches: Iterable[tuple[Nest, ...]], stream: bool, loss_of: Callable[[Nest], float]
) -> tuple[Nest, ...]:
    """Joins minibatches, in temporary files if `stream`."""
    structure: Nest = None
    columns: list[_Column] = []
    shortest: list[np.ndarray] = []
    for batch in batches:
        arrays = [np.asarray(part) for part in tf.nest.flatten(batch)]
        if structure is None:
            structure, columns = batch, [_Column(array, stream) for array in arrays]
        tf.nest.assert_same_structure(structure, batch)
        for column, array in zip(columns, arrays, strict=True):
            column.append(array)
        shortest = min(shortest or arrays, arrays, key=_length)
    data = [column.join() for column in columns]
    padded = [_padded(part, array.shape[1:]) for part, array in zip(shortest, data, strict=True)]
    if _length(padded) != _length(shortest):
        own, new = (loss_of(tf.nest.pack_sequence_as(structure, x)) for x in (shortest, padded))
        if not np.isclose(own, new, rtol=1e-5, equal_nan=True):
            raise ValueError(
                "Minibatches of different lengths are padded with zeros to one length, which must "
                "not change the model's loss: mask padding (`mask_zero=True`, a `Masking` layer), "
                f"or pad all to one length. Received: a loss of {own:.6g} that becomes {new:.6g}"
            )
    return tf.nest.pack_sequence_as(structure, data)


def _length(arrays: Iterable[np.ndarray]) -> int:
    """Returns how many numbers an example has."""
    return sum(math.prod(array.shape[1:]) for array in arrays)


def _padded(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns an array with examples of a shape, zeros at their ends; itself if they have it."""
    if array.shape[1:] == shape:
        return array
    ends = [(0, new - old) for new, old in zip(shape, array.shape[1:], strict=True)]
    return np.pad(array, [(0, 0), *ends], constant_values=b"" if array.dtype.hasobject else 0)


class _Column:
    """One array of a data set, minibatch by minibatch: in memory or in a temporary file."""

    def __init__(self, first: np.ndarray, stream: bool) -> None:
        if stream and first.dtype.hasobject:
            raise ValueError("`stream` needs numbers. Received: strings or other objects")
        self._shape, self._dtype = first.shape[1:], first.dtype
        self._file = tempfile.TemporaryFile() if stream else None  # noqa: SIM115
        self._parts: list[np.ndarray] = []
        self._count = 0

    def append(self, array: np.ndarray) -> None:
        """Adds a minibatch."""
        shape = array.shape[1:]
        if len(shape) != len(self._shape) or (self._file and shape != self._shape):
            raise ValueError(
                f"Examples must have one {'shape to be streamed' if self._file else 'rank'}. "
                f"Received: {self._shape} and {shape}"
            )
        self._count += len(array)
        if self._file:
            array.astype(self._dtype, copy=False).tofile(self._file)
        else:
            self._shape = tuple(map(max, self._shape, shape))
            self._parts.append(array)

    def join(self) -> np.ndarray:
        """Returns all examples. The file lasts as long as the array."""
        if not self._file:
            return np.concatenate([_padded(part, self._shape) for part in self._parts])
        self._file.flush()
        return np.memmap(self._file, self._dtype, "r", shape=(self._count, *self._shape))
