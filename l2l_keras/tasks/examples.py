"""The examples of a data set, read from anything that `keras.Model.fit` takes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

Nest = Any
Tensor = Any

_TAKES = (
    "(x, y) or (x, y, sample_weight) of arrays, a tf.data.Dataset, a keras.utils.PyDataset or a "
    "torch DataLoader"
)


class Examples(NamedTuple):
    """Examples, and the number of them in a minibatch of their source.

    Attributes:
        data: `(x,)`, `(x, y)` or `(x, y, sample_weight)`: nested structures of tensors, examples on
            the first axis.
        batch_size: Examples in the first minibatch; None for arrays and single examples.
    """

    data: tuple[Nest, ...]
    batch_size: int | None

    @property
    def total(self) -> int:
        """Number of examples."""
        return int(tf.nest.flatten(self.data)[0].shape[0])

    def take(self, indices: Any) -> Examples:
        """Returns some of the examples."""
        return self._replace(
            data=tf.nest.map_structure(lambda array: tf.gather(array, indices), self.data)
        )


def read(
    dataset: Any,
    steps: int | None,
    class_weight: Mapping[int, float] | None,
    fits: Callable[[Nest], bool],
) -> Examples:
    """Reads examples into memory.

    Args:
        dataset: Arrays, or an iterable of minibatches; a `tf.data.Dataset` may be of single
            examples.
        steps: Minibatches to read, for data sets without an end; None reads all.
        class_weight: Weights of classes, as `fit` takes them.
        fits: Whether `fit` accepts an element of a `tf.data.Dataset` as a minibatch.

    Raises:
        ValueError: If the data set is none of these, is empty or never ends, or its examples differ
            in shape.
    """
    batch_size = None
    if isinstance(dataset, (tuple, list)):
        data = _checked(dataset)
    else:
        batches = _batches(dataset, steps)
        first = next(batches, None)
        if first is None:
            raise ValueError("`dataset` must not be empty.")
        single = isinstance(dataset, tf.data.Dataset) and not fits(first)
        join = np.stack if single else np.concatenate
        data = _joined([first, *batches], join)
        if not single:
            batch_size = len(tf.nest.flatten(first)[0])
    # On the host: a data set may exceed an accelerator's memory.
    with tf.device("CPU"):
        data = tf.nest.map_structure(tf.convert_to_tensor, data)
    counts = {int(array.shape[0]) for array in tf.nest.flatten(data) if array.shape.rank}
    if len(counts) != 1 or any(array.shape.rank == 0 for array in tf.nest.flatten(data)):
        raise ValueError(
            f"`dataset` must have the same number of examples everywhere. Received: {counts}"
        )
    if class_weight is not None:
        data = _weighted(data, class_weight)
    return Examples(data, batch_size)


def _batches(dataset: Any, steps: int | None) -> Iterator[tuple[Nest, ...]]:
    """Yields the elements of a data set, as tuples of arrays."""
    if isinstance(dataset, tf.data.Dataset):
        endless = bool(dataset.cardinality() == tf.data.INFINITE_CARDINALITY)
        elements: Iterable = dataset.as_numpy_iterator()
    elif isinstance(dataset, keras.utils.PyDataset):
        endless = getattr(dataset, "num_batches", None) is None
        numbers = itertools.count() if endless else range(len(dataset))
        elements = (dataset[k] for k in numbers)
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


def _joined(batches: list[tuple[Nest, ...]], join: Callable) -> tuple[Nest, ...]:
    """Joins minibatches, or single examples, whose shapes have to agree."""
    try:
        return tf.nest.map_structure(
            lambda *arrays: join([np.asarray(a) for a in arrays]), *batches
        )
    except ValueError as error:
        shapes = {str([np.shape(a) for a in tf.nest.flatten(batch)]) for batch in batches}
        raise ValueError(
            "Examples must have one shape: pad sequences to one length. "
            f"Received: {', '.join(sorted(shapes)[:3])}"
        ) from error


def _weighted(data: tuple[Nest, ...], class_weight: Mapping[int, float]) -> tuple[Nest, ...]:
    """Returns the data with sample weights from the weights of classes, as `fit` computes them."""
    if len(data) != 2 or tf.nest.is_nested(data[1]):
        raise ValueError(
            "`class_weight` needs one array of labels, and no sample weights. Received: "
            f"class_weight={class_weight}, {len(data)} parts"
        )
    x, y = data
    labels = y.numpy()
    if labels.ndim > 1:
        labels = labels.argmax(-1) if labels.shape[-1] != 1 else labels[..., 0]
    classes = np.round(labels).astype(int)
    weights = np.vectorize(lambda label: class_weight.get(int(label), 1.0), otypes=["float32"])
    return x, y, tf.convert_to_tensor(weights(classes))
