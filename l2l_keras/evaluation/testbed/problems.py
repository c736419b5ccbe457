"""The problems of the testbed: Keras models and data as unlike each other as users' are.

No rule is meta-trained on any of them, nor on their data; no preset is chosen by them. None can be
learned by heart, which would make ratios of losses those of rounding errors: where data are few,
there is dropout, a regulariser or smoothed labels.

To add one, write a function that returns its task, and a line in `EMBEDDED` or `STORED`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import layers, ops

from l2l_keras.evaluation.testbed import data
from l2l_keras.tasks.keras_task import KerasTask
from l2l_keras.tasks.paper.images import cross_entropy, load_images, scale_pixels

Tensor = Any
ModelFn = Callable[[], keras.Model]

_CHARACTERS = 48
_WORDS = 500


def cancer_mlp(initial_scale: float = 1.0) -> KerasTask:
    """Returns the task of telling tumours apart by 30 measurements.

    Args:
        initial_scale: Factor of the first layer's initial weights; that of the last layer's is its
            inverse. Defaults to 1.
    """
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    table = data.halves(data.standardised(x), y[:, None].astype("float32"))
    # The variances of Glorot's initializer, times the squares of the factors.
    first, last = (
        keras.initializers.VarianceScaling(factor, mode="fan_avg", distribution="uniform")
        for factor in (initial_scale**2, initial_scale**-2)
    )

    def model_fn() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((x.shape[1],)),
                layers.Dropout(0.3),
                layers.Dense(64, activation="relu", kernel_initializer=first.clone()),
                layers.Dropout(0.3),
                layers.Dense(64, activation="relu"),
                layers.Dense(1, kernel_initializer=last.clone()),
            ]
        )

    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return KerasTask(model_fn, loss, table, batch_size=32, jit_compile=True)


def diabetes_regression() -> KerasTask:
    """Returns the task of telling how far a disease went, from 10 measurements."""
    from sklearn.datasets import load_diabetes

    x, y = load_diabetes(return_X_y=True)
    table = data.halves(data.standardised(x), data.standardised(y[:, None]))
    model_fn = _mlp((x.shape[1],), (32, 32), "gelu", 1, regularizer=keras.regularizers.L2(1e-3))
    return KerasTask(model_fn, "mean_squared_error", table, batch_size=8, jit_compile=True)


def wine_of_many_scales() -> KerasTask:
    """Returns the task of telling three wines apart by measurements of very different sizes."""
    from sklearn.datasets import load_wine

    x, y = load_wine(return_X_y=True)
    # From hundredths to hundreds, as they are: nobody standardised them.
    table = data.halves((x / x.std()).astype("float32"), y.astype("int32"))
    model_fn = _mlp((x.shape[1],), (32,), "tanh", 3, regularizer=keras.regularizers.L2(1e-3))
    return KerasTask(model_fn, cross_entropy(), table, batch_size=16, jit_compile=True)


def deep_relu() -> KerasTask:
    """Returns the task of telling tumours apart with eight plain ReLU layers."""
    from sklearn.datasets import load_breast_cancer

    x, y = load_breast_cancer(return_X_y=True)
    table = data.halves(data.standardised(x), keras.utils.to_categorical(y))
    model_fn = _mlp((x.shape[1],), (32,) * 8, "relu", 2, initializer="he_normal")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    return KerasTask(model_fn, loss, table, batch_size=64, jit_compile=True)


def spirals_mlp() -> KerasTask:
    """Returns the task of telling two spirals apart, a small network on small minibatches."""
    model_fn = _mlp((2,), (16, 16, 16), "tanh", 1)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return KerasTask(model_fn, loss, data.spirals(), batch_size=8, jit_compile=True)


def linear_classifier() -> KerasTask:
    """Returns the convex task of telling where a patch is from with a linear model."""
    patches = data.placed_patches(size=12, count=4000)
    model_fn = _mlp((12, 12, 3), (), "linear", 4)
    return KerasTask(model_fn, cross_entropy(), patches, batch_size=256, jit_compile=True)


def patch_autoencoder() -> KerasTask:
    """Returns the task of squeezing coloured patches through 16 numbers."""
    patches = data.patches_themselves(size=12, count=8000)
    size = 12 * 12 * 3

    def model_fn() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((size,)),
                layers.Dense(64, activation="relu"),
                layers.Dense(16),
                layers.Dense(64, activation="relu"),
                layers.Dense(size, activation="sigmoid"),
            ]
        )

    return KerasTask(model_fn, "mean_squared_error", patches, batch_size=64, jit_compile=True)


def picture_network() -> KerasTask:
    """Returns the task of learning a photograph by heart: from a pixel's place to its colour."""

    def model_fn() -> keras.Model:
        frequencies = [2.0**k for k in range(6)]
        place = keras.Input((2,))
        angles = layers.Concatenate()([place * frequency for frequency in frequencies])
        x = layers.Concatenate()([ops.sin(angles), ops.cos(angles)])
        for _ in range(2):
            x = layers.Dense(64, activation="silu")(x)
        return keras.Model(place, layers.Dense(3)(x))

    return KerasTask(
        model_fn, "mean_squared_error", data.pixels(), batch_size=256, jit_compile=True
    )


def patch_convnet() -> KerasTask:
    """Returns the task of telling where a patch is from: convolutions and batch normalisation."""

    def model_fn() -> keras.Model:
        patch = keras.Input((16, 16, 3))
        x = patch
        for filters in (16, 32):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
            x = layers.MaxPooling2D()(x)
        return keras.Model(patch, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))

    patches = data.placed_patches(size=16, count=8000)
    return KerasTask(model_fn, cross_entropy(), patches, batch_size=64)


def character_transformer() -> KerasTask:
    """Returns the task of telling the next character with a block of a transformer."""
    length, width = 32, 48

    def model_fn() -> keras.Model:
        codes = keras.Input((length,), dtype="int32")
        places = layers.Embedding(length, width)(ops.arange(length))
        x = layers.Embedding(_CHARACTERS + 1, width)(codes) + places
        seen = layers.LayerNormalization()(x)
        x = x + layers.MultiHeadAttention(4, width // 4)(seen, seen, use_causal_mask=True)
        hidden = layers.Dense(2 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(width)(hidden)
        return keras.Model(codes, layers.Dense(_CHARACTERS + 1)(layers.LayerNormalization()(x)))

    pieces = data.characters(length, _CHARACTERS)
    return KerasTask(model_fn, cross_entropy(), pieces, batch_size=16, jit_compile=True)


def character_lstm() -> KerasTask:
    """Returns the task of telling the next character with an LSTM."""
    length = 24

    def model_fn() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((length,), dtype="int32"),
                layers.Embedding(_CHARACTERS + 1, 16),
                layers.LSTM(48, return_sequences=True, unroll=True),
                layers.Dense(_CHARACTERS + 1),
            ]
        )

    pieces = data.characters(length, _CHARACTERS)
    return KerasTask(model_fn, cross_entropy(), pieces, batch_size=32, jit_compile=True)


def word_embedding() -> KerasTask:
    """Returns the task of telling a word from those around it, by embeddings."""
    context = 2

    def model_fn() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((2 * context,), dtype="int32"),
                layers.Embedding(_WORDS + 1, 24),
                layers.GlobalAveragePooling1D(),
                layers.Dense(_WORDS + 1),
            ]
        )

    return KerasTask(
        model_fn, cross_entropy(), data.words(context, _WORDS), batch_size=128, jit_compile=True
    )


def series_gru() -> KerasTask:
    """Returns the task of forecasting a chaotic series with a GRU."""
    length = 20

    def model_fn() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((length, 1)),
                layers.GRU(24, unroll=True),
                layers.Dense(1),
            ]
        )

    windows = data.chaotic_series(length)
    return KerasTask(model_fn, "mean_squared_error", windows, batch_size=32, jit_compile=True)


def cifar_residual(data_dir: str | None = None, download: bool = True) -> KerasTask:
    """Returns the task of classifying CIFAR-10 with a small residual network.

    Args:
        data_dir: Folder of TensorFlow Datasets. Defaults to that library's own.
        download: Whether to download CIFAR-10 where it is missing. Defaults to True.
    """

    def normalised(x: Tensor) -> Tensor:
        return layers.ReLU()(layers.GroupNormalization(groups=4)(x))

    def model_fn() -> keras.Model:
        image = keras.Input((32, 32, 3))
        x = layers.Conv2D(12, 4, strides=4, use_bias=False)(image)
        for _ in range(2):
            inner = layers.Conv2D(12, 3, padding="same", use_bias=False)(normalised(x))
            x = x + layers.Conv2D(12, 3, padding="same", use_bias=False)(normalised(inner))
        x = layers.GlobalAveragePooling2D()(normalised(x))
        return keras.Model(image, layers.Dense(10)(x))

    images = _cifar10(data_dir, download)
    return KerasTask(model_fn, cross_entropy(), images, batch_size=32, transform=scale_pixels)


def cifar_wide_mlp(data_dir: str | None = None, download: bool = True) -> KerasTask:
    """Returns the task of classifying CIFAR-10 with a wide perceptron.

    Args:
        data_dir: Folder of TensorFlow Datasets. Defaults to that library's own.
        download: Whether to download CIFAR-10 where it is missing. Defaults to True.
    """

    def model_fn() -> keras.Model:
        return keras.Sequential(
            [
                keras.Input((32, 32, 3)),
                layers.AveragePooling2D(2),
                layers.Flatten(),
                layers.Dense(256, activation="relu"),
                layers.Dropout(0.5),
                layers.Dense(10),
            ]
        )

    images = _cifar10(data_dir, download)
    return KerasTask(model_fn, cross_entropy(), images, batch_size=128, transform=scale_pixels)


EMBEDDED: dict[str, Callable[..., KerasTask]] = {
    "cancer_mlp": cancer_mlp,
    "cancer_mlp_large_scale": functools.partial(cancer_mlp, initial_scale=5.0),
    "cancer_mlp_small_scale": functools.partial(cancer_mlp, initial_scale=0.1),
    "character_lstm": character_lstm,
    "character_transformer": character_transformer,
    "deep_relu": deep_relu,
    "diabetes_regression": diabetes_regression,
    "linear_classifier": linear_classifier,
    "patch_autoencoder": patch_autoencoder,
    "patch_convnet": patch_convnet,
    "picture_network": picture_network,
    "series_gru": series_gru,
    "spirals_mlp": spirals_mlp,
    "wine_of_many_scales": wine_of_many_scales,
    "word_embedding": word_embedding,
}
"""Problems that need no download."""

STORED: dict[str, Callable[..., KerasTask]] = {
    "cifar_residual": cifar_residual,
    "cifar_wide_mlp": cifar_wide_mlp,
}
"""Problems that read a data set from a folder."""


def _mlp(
    shape: tuple[int, ...],
    units: Sequence[int],
    activation: str,
    outputs: int,
    initializer: str = "glorot_uniform",
    regularizer: keras.regularizers.Regularizer | None = None,
) -> ModelFn:
    """Returns a function that makes perceptrons."""
    dense = functools.partial(
        layers.Dense, kernel_initializer=initializer, kernel_regularizer=regularizer
    )

    def model_fn() -> keras.Model:
        model = keras.Sequential([keras.Input(shape), layers.Flatten()])
        for count in units:
            model.add(dense(count, activation))
        model.add(dense(outputs))
        return model

    return model_fn


def _cifar10(data_dir: str | None, download: bool) -> data.Data:
    """Returns half of CIFAR-10's training images for tuning, and the other half for tests."""
    parts = {"validation": "train[:50%]", "test": "train[50%:]"}
    return data.splits(*load_images("cifar10", parts, data_dir, download).values())
