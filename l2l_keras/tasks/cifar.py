"""The paper's convolutional network for CIFAR-10 and subsets of its labels."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from l2l_keras.tasks.images import cross_entropy, load_images, scale_pixels
from l2l_keras.tasks.keras_task import KerasTask

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

    Convolutions of 3×3, each with batch normalisation, ReLU and max-pooling; then a dense layer,
    with batch normalisation and ReLU too, and logits. The paths of the convolutions' variables,
    those of their normalisation included, contain `conv`: `{"conv": rule, ".*": rule}` gives them
    a rule of their own, as the paper does.

    Args:
        labels: The labels to tell apart, numbers from 0 to 9; images of others are left out.
            Defaults to all. The paper's CIFAR-5 and CIFAR-2 are subsets of five and two.
        filters: Filters of each convolution. Defaults to (16, 16, 16).
        units: Units of the dense layer. Defaults to 32.
        data_dir: Folder of TensorFlow Datasets. Defaults to that library's own.
        download: Whether to download CIFAR-10 where it is missing. Defaults to True.
        batch_size: Examples in a minibatch. Defaults to 128.

    Returns:
        A `KerasTask` with cross-entropy as its loss. Training optimizees see nine tenths of the
        training images, validation optimizees the other tenth, test optimizees the test images.

    Raises:
        FileNotFoundError: If CIFAR-10 is not in `data_dir` and is not downloaded.
        ValueError: If an argument is not as described.

    Example:
        >>> l2l_keras.tasks.cifar_convnet().size  # doctest: +SKIP
        13722

    Source: Andrychowicz et al. (2016), section 3.3.
    """
    labels = tuple(labels)
    if len(set(labels)) < max(2, len(labels)) or not set(labels) <= set(LABELS):
        raise ValueError(
            f"`labels` must be two or more different numbers from 0 to 9. Received: {labels}"
        )
    if not filters or any(not isinstance(count, int) or count < 1 for count in (*filters, units)):
        raise ValueError(
            "`filters` and `units` must be positive integers. "
            f"Received: filters={filters}, units={units}"
        )
    parts = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
    data = load_images("cifar10", parts, data_dir, download)

    def model_fn() -> keras.Model:
        model = keras.Sequential([keras.Input((32, 32, 3))])
        for k, count in enumerate(filters):
            model.add(
                keras.layers.Conv2D(count, 3, padding="same", use_bias=False, name=f"conv_{k}")
            )
            model.add(keras.layers.BatchNormalization(name=f"conv_{k}_norm"))
            model.add(keras.layers.ReLU())
            model.add(keras.layers.MaxPooling2D())
        model.add(keras.layers.Flatten())
        model.add(keras.layers.Dense(units, use_bias=False, name="dense"))
        model.add(keras.layers.BatchNormalization(name="dense_norm"))
        model.add(keras.layers.ReLU())
        model.add(keras.layers.Dense(len(labels), name="logits"))
        return model

    return KerasTask(
        model_fn,
        cross_entropy(),
        {split: _only(images, targets, labels) for split, (images, targets) in data.items()},
        batch_size,
        transform=scale_pixels,
        name="cifar_convnet",
    )


def _only(
    images: np.ndarray, targets: np.ndarray, labels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the images of some labels, which are counted from 0 in their order."""
    number = np.full(len(LABELS), -1, "int32")
    number[list(labels)] = np.arange(len(labels))
    targets = number[targets]
    return images[targets >= 0], targets[targets >= 0]
