"""The paper's convolutional network for CIFAR-10, and the same for the embedded digits."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers

from l2l_keras import arguments
from l2l_keras.tasks.keras_task import KerasTask
from l2l_keras.tasks.paper.images import cross_entropy, embedded_digits, load_images, scale_pixels

LABELS = tuple(range(10))


def cifar_convnet(
    labels: Sequence[int] = LABELS,
    filters: Sequence[int] = (16, 16, 16),
    units: int = 32,
    data_dir: str | None = None,
    download: bool = True,
    batch_size: int = 128,
) -> KerasTask:
    """Returns the paper's task of classifying CIFAR-10 with a small convolutional network.

    3×3 convolutions, each with batch normalization, ReLU and max pooling; then a dense layer with
    batch normalization and ReLU, and logits. The paths of the variables of convolutions and their
    normalization contain `conv`: `{"conv": rule, ".*": rule}` gives them a rule of their own, as in
    the paper.

    Args:
        labels: The classes, labels from 0 to 9; other images are left out. Defaults to all. The
            paper's CIFAR-5 and CIFAR-2 are subsets of five and two.
        filters: Filters of each convolution. Defaults to (16, 16, 16).
        units: Units of the dense layer. Defaults to 32.
        data_dir: Folder of TensorFlow Datasets. Defaults to that library's own.
        download: Whether to download CIFAR-10 if it is missing. Defaults to True.
        batch_size: Examples in a minibatch. Defaults to 128.

    Returns:
        A `KerasTask` with cross-entropy as its loss. Training optimizees see nine tenths of the
        training images, validation optimizees the other tenth, test optimizees the test images.

    Raises:
        FileNotFoundError: If CIFAR-10 is neither in `data_dir` nor downloaded.
        ValueError: If an argument is not as described.

    Example:
        >>> l2l_keras.tasks.cifar_convnet().size  # doctest: +SKIP
        13722

    Source: Andrychowicz et al. (2016), section 3.3.
    """
    parts = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
    load = functools.partial(load_images, "cifar10", parts, data_dir, download)
    return _task("cifar_convnet", load, labels, filters, units, batch_size, scale_pixels)


def digits_convnet(
    labels: Sequence[int] = LABELS,
    filters: Sequence[int] = (8, 8, 8),
    units: int = 16,
    batch_size: int = 128,
) -> KerasTask:
    """Returns the task of classifying scikit-learn's 8×8 digits with a convolutional network.

    The network is that of `cifar_convnet`. No download is needed.

    Args:
        labels: See `cifar_convnet`.
        filters: Filters of each convolution, at most three. Defaults to (8, 8, 8).
        units: Units of the dense layer. Defaults to 16.
        batch_size: Examples in a minibatch. Defaults to 128.

    Returns:
        A `KerasTask` with cross-entropy as its loss, and the data of `digits_mlp`.

    Example:
        >>> l2l_keras.tasks.digits_convnet().size
        1602
    """
    return _task("digits_convnet", embedded_digits, labels, filters, units, batch_size)


def _task(
    name: str,
    load: Callable[[], Any],
    labels: Sequence[int],
    filters: Sequence[int],
    units: int,
    batch_size: int,
    transform: Callable[[Any, Any], Any] | None = None,
) -> KerasTask:
    """Returns the task of classifying the images of some labels."""
    valid = len(set(labels)) >= max(2, len(labels)) and set(labels) <= set(LABELS)
    arguments.check(valid, "labels", "two or more different labels from 0 to 9", labels)
    if not filters or any(not isinstance(count, int) or count < 1 for count in (*filters, units)):
        received = f"Received: filters={filters}, units={units}"
        raise ValueError(f"`filters` and `units` must be positive integers. {received}")
    data = load()
    shape = data["train"][0].shape[1:]

    def model_fn() -> keras.Model:
        model = keras.Sequential([keras.Input(shape)])
        for k, count in enumerate(filters):
            model.add(layers.Conv2D(count, 3, padding="same", use_bias=False, name=f"conv_{k}"))
            model.add(layers.BatchNormalization(name=f"conv_{k}_norm"))
            model.add(layers.ReLU())
            model.add(layers.MaxPooling2D())
        model.add(layers.Flatten())
        model.add(layers.Dense(units, use_bias=False, name="dense"))
        model.add(layers.BatchNormalization(name="dense_norm"))
        model.add(layers.ReLU())
        model.add(layers.Dense(len(labels), name="logits"))
        return model

    # Labels are renumbered from 0 in their order; images of other labels are left out.
    index = np.full(len(LABELS), -1, "int32")
    index[list(labels)] = np.arange(len(labels))
    numbered = {split: (images, index[targets]) for split, (images, targets) in data.items()}
    chosen = {split: (x[y >= 0], y[y >= 0]) for split, (x, y) in numbered.items()}
    return KerasTask(model_fn, cross_entropy(), chosen, batch_size, transform, name=name)
