"""Perceptrons that classify small images: the paper's MNIST network, and one for 8×8 digits."""

from __future__ import annotations

import functools
import random
import urllib.parse
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2l_keras.tasks.base import SPLITS, Nest, Tensor
from l2l_keras.tasks.keras_task import KerasTask
from l2l_keras.tasks.layers import ActivationMixture

Data = dict[str, tuple[np.ndarray, np.ndarray]]


def digits_mlp(
    layers: Sequence[int] = (20,),
    activation: str | Sequence[str] = "sigmoid",
    batch_size: int = 128,
) -> KerasTask:
    """Returns the task of classifying scikit-learn's 8×8 digits, which needs no download.

    Args:
        layers: See `mnist_mlp`.
        activation: See `mnist_mlp`.
        batch_size: See `mnist_mlp`.

    Returns:
        A `KerasTask` with cross-entropy as its loss. Training, validation and test optimizees see
        599 images each: fewer would be memorized, and tell little about other optimizees.

    Raises:
        ValueError: If `layers` is not as described.

    Example:
        >>> l2l_keras.tasks.digits_mlp().size
        1510
    """
    data = embedded_digits()
    model_fn = _mlp(data["train"][0].shape[1:], layers, activation)
    loss, name = cross_entropy(), "digits_mlp"
    return KerasTask(model_fn, loss, data, batch_size, jit_compile=True, name=name)


def mnist_mlp(
    layers: Sequence[int] = (20,),
    activation: str | Sequence[str] = "sigmoid",
    data_dir: str | None = None,
    download: bool = True,
    batch_size: int = 128,
) -> KerasTask:
    """Returns the paper's task of classifying MNIST with a multilayer perceptron.

    Args:
        layers: Units of the hidden layers. Defaults to the paper's one layer of 20.
        activation: Activation of the hidden layers, or several, of which each optimizee draws one.
            Defaults to `"sigmoid"`.
        data_dir: Folder of TensorFlow Datasets. Defaults to that library's own.
        download: Whether to download MNIST if it is missing. Defaults to True.
        batch_size: Examples in a minibatch. Defaults to 128.

    Returns:
        A `KerasTask` with cross-entropy as its loss. Training optimizees see the first 50,000
        training images, validation optimizees the other 10,000, test optimizees the test images.

    Raises:
        FileNotFoundError: If MNIST is neither in `data_dir` nor downloaded.
        ValueError: If `layers` is not as described.

    Example:
        >>> l2l_keras.tasks.mnist_mlp().size  # doctest: +SKIP
        15910

    Source: Andrychowicz et al. (2016), section 3.2.
    """
    parts = {"train": "train[:50000]", "validation": "train[50000:]", "test": "test"}
    data = load_images("mnist", parts, data_dir, download)
    return image_mlp(data, layers, activation, batch_size, name="mnist_mlp")


def embedded_digits() -> Data:
    """Returns scikit-learn's digits, a random third for each split.

    Images are float32 `[599, 8, 8, 1]` from 0 to 1, and labels int32.
    """
    # Imported here: scikit-learn takes a second, and few tasks need it.
    from sklearn.datasets import load_digits

    digits = load_digits()
    pixels = (digits.images[..., np.newaxis] / 16.0).astype("float32")
    labels = digits.target.astype("int32")
    parts = np.split(np.random.default_rng(0).permutation(len(pixels)), 3)
    return {split: (pixels[part], labels[part]) for split, part in zip(SPLITS, parts, strict=True)}


def load_images(name: str, parts: dict[str, str], data_dir: str | None, download: bool) -> Data:
    """Reads a data set of TensorFlow Datasets, of which `parts` names the part for each split.

    Images are uint8 `[examples, height, width, channels]`, and labels int32.
    """
    # Imported here: it takes seconds, and most tasks do without it.
    import tensorflow_datasets as tfds

    try:
        builder = tfds.builder(name, data_dir=data_dir)
        if download and not builder.is_prepared():
            _check_connection(builder.url_infos or ())
            builder.download_and_prepare()
        loaded = builder.as_dataset(list(parts.values()), batch_size=-1, as_supervised=True)
    except Exception as error:
        # No network, no such folder, a damaged file: in one line.
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise FileNotFoundError(
            f"Data set {name!r} could not be read from {data_dir or 'the default folder'} "
            f"(download={download}): {reason}"
        ) from error
    return {
        split: (images.numpy(), labels.numpy().astype("int32"))
        for split, (images, labels) in zip(parts, loaded, strict=True)
    }


def _check_connection(urls: Iterable[str]) -> None:
    """Raises a ConnectionError within seconds if no host of some URLs can be reached.

    TensorFlow Datasets tries again for minutes, and leaves unfinished folders behind.
    """
    import requests  # As that library does, it heeds the variables that name proxies.

    hosts = {urllib.parse.urlsplit(url).netloc: url for url in urls}
    for url in hosts.values():
        try:
            requests.head(url, timeout=10)
        except requests.ConnectionError:
            continue
        except requests.RequestException:
            pass  # It is there, and may be slow.
        return
    if hosts:
        raise ConnectionError(f"no connection to {', '.join(hosts)}")


def scale_pixels(images: Tensor, labels: Tensor) -> Nest:
    """Maps uint8 pixels to float32 from 0 to 1, and leaves labels unchanged."""
    return tf.cast(images, "float32") / 255.0, labels


def image_mlp(
    data: Data,
    layers: Sequence[int] = (20,),
    activation: str | Sequence[str] = "sigmoid",
    batch_size: int = 128,
    name: str = "image_mlp",
) -> KerasTask:
    """Returns the task of classifying images of ten classes with a multilayer perceptron.

    Args:
        data: For each split, uint8 images `[examples, height, width, channels]` and labels from
            0 to 9.
        layers: See `mnist_mlp`.
        activation: See `mnist_mlp`.
        batch_size: See `mnist_mlp`.
        name: Name of the task. Defaults to `"image_mlp"`.

    Returns:
        A `KerasTask` with cross-entropy as its loss.

    Raises:
        ValueError: If `layers` is not as described.

    Example:
        >>> images, labels = np.zeros((20, 4, 4, 1), "uint8"), np.arange(20) % 10
        >>> data = {split: (images, labels) for split in ("train", "validation", "test")}
        >>> l2l_keras.tasks.image_mlp(data, layers=(8,), batch_size=10).size
        226

    Source: Andrychowicz et al. (2016), section 3.2.
    """
    model_fn = _mlp(data["train"][0].shape[1:], layers, activation)
    return KerasTask(model_fn, cross_entropy(), data, batch_size, scale_pixels, name=name)


def cross_entropy() -> keras.losses.Loss:
    """Returns the loss of classifiers whose outputs are logits."""
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def _mlp(
    shape: Any, layers: Sequence[int], activation: str | Sequence[str]
) -> Callable[[], keras.Model]:
    """Returns a function that makes perceptrons with ten outputs (logits)."""
    if not isinstance(layers, Sequence) or not all(isinstance(n, int) and n > 0 for n in layers):
        raise ValueError(f"`layers` must be a sequence of positive integers. Received: {layers!r}")

    def model_fn() -> keras.Model:
        if isinstance(activation, str):
            make_activation = functools.partial(keras.layers.Activation, activation)
        else:
            chosen = random.randrange(len(activation))
            make_activation = functools.partial(ActivationMixture, activation, chosen)
        model = keras.Sequential([keras.Input(shape), keras.layers.Flatten()])
        for units in layers:
            model.add(keras.layers.Dense(units))
            model.add(make_activation())
        model.add(keras.layers.Dense(10))
        return model

    return model_fn
