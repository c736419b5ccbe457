"""The problems of the testbed: Keras models and data as unlike each other as users' are.

No preset is trained on them or their data, or chosen by them. No model can memorize its data, or
ratios of losses would be ratios of rounding errors: where data are few, there is dropout, a
regularizer or label smoothing.

To add a problem, write a function that returns its task, and add it to `EMBEDDED` or `STORED`.
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

_CHARACTERS = 48
_WORDS = 500
_compiled_task = functools.partial(KerasTask, jit_compile=True)


def _sequential(make_layers: Callable[[], list]) -> Callable[[], keras.Model]:
    """Returns a function that makes sequential models of fresh layers."""
    return lambda: keras.Sequential(make_layers())


def _mlp(
    shape: tuple[int, ...],
    units: Sequence[int],
    activation: str,
    outputs: int,
    initializer: str = "glorot_uniform",
    regularizer: keras.regularizers.Regularizer | None = None,
) -> Callable[[], keras.Model]:
    """Returns a function that makes multi-layer perceptrons."""
    dense = functools.partial(
        layers.Dense, kernel_initializer=initializer, kernel_regularizer=regularizer
    )
    return _sequential(
        lambda: [
            keras.Input(shape),
            layers.Flatten(),
            *(dense(count, activation) for count in units),
            dense(outputs),
        ]
    )


def cancer_mlp(initial_scale: float = 1.0) -> KerasTask:
    """Classifies tumours, with the first layer's initial weights scaled, the last's inversely."""
    x, y = data.table("breast_cancer")
    examples = data.halves(data.standardized(x), y[:, None].astype("float32"))
    # Glorot's variances, times the squares of the factors.
    first, last = (
        keras.initializers.VarianceScaling(factor, mode="fan_avg", distribution="uniform")
        for factor in (initial_scale**2, initial_scale**-2)
    )
    model_fn = _sequential(
        lambda: [
            keras.Input((x.shape[1],)),
            layers.Dropout(0.3),
            layers.Dense(64, activation="relu", kernel_initializer=first.clone()),
            layers.Dropout(0.3),
            layers.Dense(64, activation="relu"),
            layers.Dense(1, kernel_initializer=last.clone()),
        ]
    )
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    return _compiled_task(model_fn, loss, examples, batch_size=32)


def diabetes_regression() -> KerasTask:
    """Predicts the progress of a disease from 10 measurements."""
    x, y = data.table("diabetes")
    examples = data.halves(data.standardized(x), data.standardized(y[:, None]))
    model_fn = _mlp((x.shape[1],), (32, 32), "gelu", 1, regularizer=keras.regularizers.L2(1e-3))
    return _compiled_task(model_fn, "mean_squared_error", examples, batch_size=8)


def wine_of_many_scales() -> KerasTask:
    """Classifies three wines by measurements of very different scales, not standardized."""
    x, y = data.table("wine")
    examples = data.halves((x / x.std()).astype("float32"), y.astype("int32"))
    model_fn = _mlp((x.shape[1],), (32,), "tanh", 3, regularizer=keras.regularizers.L2(1e-3))
    return _compiled_task(model_fn, cross_entropy(), examples, batch_size=16)


def deep_relu() -> KerasTask:
    """Classifies tumours with eight plain ReLU layers."""
    x, y = data.table("breast_cancer")
    examples = data.halves(data.standardized(x), keras.utils.to_categorical(y))
    model_fn = _mlp((x.shape[1],), (32,) * 8, "relu", 2, initializer="he_normal")
    loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
    return _compiled_task(model_fn, loss, examples, batch_size=64)


def spirals_mlp() -> KerasTask:
    """Separates two spirals with a small network on small minibatches."""
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model_fn = _mlp((2,), (16, 16, 16), "tanh", 1)
    return _compiled_task(model_fn, loss, data.spirals(), batch_size=8)


def linear_classifier() -> KerasTask:
    """Classifies patches by their origin with a linear model: a convex problem."""
    patches = data.patches(size=12, count=4000)
    return _compiled_task(_mlp((12, 12, 3), (), "linear", 4), cross_entropy(), patches, 256)


def patch_autoencoder() -> KerasTask:
    """Compresses coloured patches to 16 numbers."""
    size = 12 * 12 * 3
    model_fn = _sequential(
        lambda: [
            keras.Input((size,)),
            layers.Dense(64, activation="relu"),
            layers.Dense(16),
            layers.Dense(64, activation="relu"),
            layers.Dense(size, activation="sigmoid"),
        ]
    )
    patches = data.patches(size=12, count=8000)
    flat = {split: (x.reshape(-1, size),) * 2 for split, (x, _) in patches.items()}
    return _compiled_task(model_fn, "mean_squared_error", flat, batch_size=64)


def picture_network() -> KerasTask:
    """Maps a pixel's position to its colour: an implicit representation of a photograph."""

    def model_fn() -> keras.Model:
        position = keras.Input((2,))
        angles = layers.Concatenate()([position * 2.0**k for k in range(6)])
        x = layers.Concatenate()([ops.sin(angles), ops.cos(angles)])
        for _ in range(2):
            x = layers.Dense(64, activation="silu")(x)
        return keras.Model(position, layers.Dense(3)(x))

    return _compiled_task(model_fn, "mean_squared_error", data.pixels(), batch_size=256)


def patch_convnet() -> KerasTask:
    """Classifies patches by their origin with convolutions and batch normalization."""

    def model_fn() -> keras.Model:
        patch = keras.Input((16, 16, 3))
        x = patch
        for filters in (16, 32):
            x = layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
            x = layers.MaxPooling2D()(x)
        return keras.Model(patch, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))

    return KerasTask(model_fn, cross_entropy(), data.patches(size=16, count=8000), batch_size=64)


def character_transformer() -> KerasTask:
    """Predicts the next character with one transformer block."""
    length, width = 32, 48

    def model_fn() -> keras.Model:
        codes = keras.Input((length,), dtype="int32")
        positions = layers.Embedding(length, width)(ops.arange(length))
        x = layers.Embedding(_CHARACTERS + 1, width)(codes) + positions
        normalized = layers.LayerNormalization()(x)
        attention = layers.MultiHeadAttention(4, width // 4)
        x = x + attention(normalized, normalized, use_causal_mask=True)
        hidden = layers.Dense(2 * width, activation="gelu")(layers.LayerNormalization()(x))
        x = x + layers.Dense(width)(hidden)
        return keras.Model(codes, layers.Dense(_CHARACTERS + 1)(layers.LayerNormalization()(x)))

    text = data.characters(length, _CHARACTERS)
    return _compiled_task(model_fn, cross_entropy(), text, batch_size=16)


def character_lstm() -> KerasTask:
    """Predicts the next character with an LSTM."""
    length = 24
    model_fn = _sequential(
        lambda: [
            keras.Input((length,), dtype="int32"),
            layers.Embedding(_CHARACTERS + 1, 16),
            layers.LSTM(48, return_sequences=True, unroll=True),
            layers.Dense(_CHARACTERS + 1),
        ]
    )
    text = data.characters(length, _CHARACTERS)
    return _compiled_task(model_fn, cross_entropy(), text, batch_size=32)


def word_embedding() -> KerasTask:
    """Predicts a word from the words around it, by embeddings."""
    context = 2
    model_fn = _sequential(
        lambda: [
            keras.Input((2 * context,), dtype="int32"),
            layers.Embedding(_WORDS + 1, 24),
            layers.GlobalAveragePooling1D(),
            layers.Dense(_WORDS + 1),
        ]
    )
    words = data.words(context, _WORDS)
    return _compiled_task(model_fn, cross_entropy(), words, batch_size=128)


def series_gru() -> KerasTask:
    """Forecasts a chaotic series with a GRU."""
    length = 20
    model_fn = _sequential(
        lambda: [keras.Input((length, 1)), layers.GRU(24, unroll=True), layers.Dense(1)]
    )
    series = data.chaotic_series(length)
    return _compiled_task(model_fn, "mean_squared_error", series, batch_size=32)


def cifar_residual(data_dir: str | None = None, download: bool = True) -> KerasTask:
    """Classifies CIFAR-10 with a small residual network."""

    def normalized(x: Tensor) -> Tensor:
        return layers.ReLU()(layers.GroupNormalization(groups=4)(x))

    def model_fn() -> keras.Model:
        image = keras.Input((32, 32, 3))
        x = layers.Conv2D(12, 4, strides=4, use_bias=False)(image)
        for _ in range(2):
            inner = layers.Conv2D(12, 3, padding="same", use_bias=False)(normalized(x))
            x = x + layers.Conv2D(12, 3, padding="same", use_bias=False)(normalized(inner))
        x = layers.GlobalAveragePooling2D()(normalized(x))
        return keras.Model(image, layers.Dense(10)(x))

    return _cifar_task(model_fn, 32, data_dir, download)


def cifar_wide_mlp(data_dir: str | None = None, download: bool = True) -> KerasTask:
    """Classifies CIFAR-10 with a wide perceptron."""
    model_fn = _sequential(
        lambda: [
            keras.Input((32, 32, 3)),
            layers.AveragePooling2D(2),
            layers.Flatten(),
            layers.Dense(256, activation="relu"),
            layers.Dropout(0.5),
            layers.Dense(10),
        ]
    )
    return _cifar_task(model_fn, 128, data_dir, download)


def _cifar_task(
    model_fn: Callable[[], keras.Model], batch_size: int, data_dir: str | None, download: bool
) -> KerasTask:
    """Returns a task on CIFAR-10: one half of the training images for tuning, one for tests."""
    parts = {"validation": "train[:50%]", "test": "train[50%:]"}
    images = data.splits(*load_images("cifar10", parts, data_dir, download).values())
    return KerasTask(model_fn, cross_entropy(), images, batch_size, transform=scale_pixels)


EMBEDDED: dict[str, Callable[..., KerasTask]] = {
    "cancer_mlp_large_scale": functools.partial(cancer_mlp, initial_scale=5.0),
    "cancer_mlp_small_scale": functools.partial(cancer_mlp, initial_scale=0.1),
    **{
        function.__name__: function
        for function in (
            *(cancer_mlp, diabetes_regression, wine_of_many_scales, deep_relu, spirals_mlp),
            *(linear_classifier, patch_autoencoder, picture_network, patch_convnet),
            *(character_transformer, character_lstm, word_embedding, series_gru),
        )
    },
}
"""Problems that need no download."""

STORED: dict[str, Callable[..., KerasTask]] = {
    "cifar_residual": cifar_residual,
    "cifar_wide_mlp": cifar_wide_mlp,
}
"""Problems that read a data set from a folder."""
