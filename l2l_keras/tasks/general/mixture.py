"""The mixture that general optimizers are meta-trained on.

Small models of many kinds, on digits, MNIST and generated data. None of them, and none of their
data, is among the problems of `l2l_keras.evaluation.testbed`.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import tensorflow as tf
from keras import layers, ops

from l2l_keras.tasks.general import generated
from l2l_keras.tasks.keras_task import KerasTask
from l2l_keras.tasks.layers import AveragePooling, BatchNormalization, Convolution
from l2l_keras.tasks.mixture import Mixture
from l2l_keras.tasks.paper.activation_mixture import ActivationMixture
from l2l_keras.tasks.paper.images import average, cross_entropy, embedded_digits, load_images

Tensor = Any
Data = dict[str, tuple[Tensor, Tensor]]
ModelFn = Callable[[], keras.Model]
Initializer = Callable[[], keras.initializers.VarianceScaling]

# Its test images are not used.
_MNIST_PARTS = {
    "train": "train[:30000]",
    "validation": "train[30000:45000]",
    "test": "train[45000:]",
}
_ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "elu")
_HE = keras.initializers.HeNormal
_BINARY = functools.partial(keras.losses.BinaryCrossentropy, from_logits=True)


def general(
    data_dir: str | None = None,
    download: bool = True,
    kinds: Sequence[str] | None = None,
    validation: Sequence[str] | None = None,
) -> Mixture:
    """Returns the mixture of tasks that the general presets are meta-trained on.

    Args:
        data_dir: Folder of TensorFlow Datasets, for MNIST. Defaults to that library's own.
        download: Whether to download MNIST where it is missing. Defaults to True.
        kinds: Names of the members to train on. Defaults to all.
        validation: Names of the tasks to validate on. Defaults to all.

    Returns:
        The mixture. What it is validated on are models of other sizes and kinds, on data that no
        training optimizee sees.

    Raises:
        ValueError: If there is no member or task of such a name.
        FileNotFoundError: If a chosen one is of MNIST, which is not in `data_dir` and is not
            downloaded.
    """
    digits = {split: (x[..., 0], y) for split, (x, y) in embedded_digits().items()}
    tokens = generated.tokens(vocabulary=24, length=12)
    text = functools.cache(generated.text)
    small = functools.partial(generated.table, count=750)

    # Read where it is needed, once.
    @functools.cache
    def mnist(pool: int = 1) -> Data:
        return _pixels(load_images("mnist", _MNIST_PARTS, data_dir, download), pool)

    @functools.cache
    def pixels() -> Data:
        """Averages of MNIST's pixels as vectors, which are their own targets."""
        flat = {split: tf.reshape(x, (len(x), -1)) for split, (x, _) in mnist(pool=2).items()}
        return {split: (x, x) for split, x in flat.items()}

    @functools.cache
    def sums() -> Data:
        return _shared(generated.sums(mnist(pool=2)))

    members = {
        "shallow": lambda: _task(_mlp((8, 8), (20,), 10), digits, 128),
        "middling": lambda: _task(_mlp((8, 8), (64, 64), 10), digits, 32),
        "deep": lambda: _task(_mlp((8, 8), (32,) * 6, 10, initializer=_HE), digits, 64),
        "badly_scaled": lambda: _task(_mlp((8, 8), (40, 40), 10, initializer=_far_off), digits, 32),
        "residual": lambda: _task(_mlp((8, 8), (32,) * 6, 10, residual=True), digits, 16),
        "layer_norm": lambda: _task(
            _mlp((8, 8), (48, 48), 10, layers.LayerNormalization), digits, 16
        ),
        "batch_norm": lambda: _task(_mlp((8, 8), (48, 48, 48), 10, BatchNormalization), digits, 64),
        "wide": lambda: _task(_mlp((14, 14), (128,), 10), mnist(pool=2), 32),
        "wider": lambda: _task(_mlp((14, 14), (256, 256), 10), mnist(pool=2), 16),
        "dropout": lambda: _task(_mlp((14, 14), (48, 48), 10, dropout=0.3), mnist(pool=2), 64),
        "linear": lambda: _task(_mlp((14, 14), (), 10), mnist(pool=2), 256),
        "large_inputs": lambda: _task(_mlp((28, 28), (32,), 10), mnist(), 64),
        "autoencoder": lambda: _task(_mlp((196,), (48, 16, 48), 196), pixels(), 32, _BINARY()),
        "wide_autoencoder": lambda: _task(
            _mlp((196,), (256, 32, 256), 196), pixels(), 16, _BINARY()
        ),
        "deep_autoencoder": lambda: _task(
            _mlp((196,), (48, 24, 8, 24, 48), 196, output="sigmoid"),
            pixels(),
            16,
            "mean_squared_error",
        ),
        "teacher": lambda: _task(
            _mlp((9,), (40, 24), 1), generated.teacher(9, 1), 16, "mean_squared_error"
        ),
        "field": lambda: _task(
            _mlp((2,), (48, 48), 2), generated.field(), 128, "mean_squared_error"
        ),
        "table": lambda: _task(_mlp((20,), (32,), 1), generated.table(), 32, _BINARY()),
        "small_table": lambda: _task(
            _mlp((16,), (48, 48), 1, dropout=0.2), small(16), 32, _BINARY()
        ),
        "small_regression": lambda: _task(
            _mlp((12,), (32, 32), 1, regularizer=keras.regularizers.L2(1e-3)),
            generated.teacher(12, 1, count=600, noise=0.5),
            8,
            "mean_squared_error",
        ),
        "classes": lambda: _task(
            _mlp((10,), (32, 32), 5, initializer=_far_off), generated.clusters(5, 10, 1800), 64
        ),
        "two_classes": lambda: _task(
            _mlp((18,), (40,), 2, initializer=_far_off), generated.clusters(2, 18), 16
        ),
        "linear_classes": lambda: _task(_mlp((13,), (), 3), generated.clusters(3, 13, 750), 8),
        # Dropout and few rows: losses fall to hundredths, and whoever steps too far is punished
        # by the few rows that are hard.
        "dropped_classes": lambda: _task(
            _mlp((28,), (64, 64), 2, dropout=0.3, initializer=_far_off),
            generated.clusters(2, 28, distance=3.0),
            32,
        ),
        "dropped_shallow_classes": lambda: _task(
            _mlp((22,), (48,), 2, dropout=0.2), generated.clusters(2, 22, 600, distance=4.0), 16
        ),
        "distant_classes": lambda: _task(
            _mlp((12,), (40, 24), 3, dropout=0.4, initializer=_far_off),
            generated.clusters(3, 12, 1200, distance=7.0),
            64,
        ),
        "deeply_dropped_classes": lambda: _task(
            _mlp((34,), (40, 40, 40), 2, dropout=0.15, initializer=_HE),
            generated.mislabelled(generated.clusters(2, 34, 750, distance=6.0), 0.04),
            8,
        ),
        "apart_classes": lambda: _task(
            _mlp((20,), (48, 48), 2, dropout=0.2, apart=True),
            generated.clusters(2, 20, distance=3.0),
            32,
        ),
        "apart_digits": lambda: _task(_mlp((8, 8), (48, 32), 10, apart=True), digits, 32),
        "apart_regression": lambda: _task(
            _mlp((14,), (40, 40), 1, dropout=0.1, apart=True),
            generated.teacher(14, 1, count=900, noise=0.3),
            16,
            "mean_squared_error",
        ),
        # Few rows, some of them mislabelled, and layers whose scales are far apart: learned within
        # a few steps, and then lost again by whoever goes on at such a pace.
        "apart_table": lambda: _task(
            _mlp((30,), (64, 48), 1, dropout=0.2, apart=True),
            generated.mislabelled(small(30), 0.02),
            32,
            _BINARY(),
        ),
        "apart_distant_classes": lambda: _task(
            _mlp((32,), (56,), 3, dropout=0.25, apart=True),
            generated.mislabelled(generated.clusters(3, 32, 690, distance=5.0), 0.03),
            16,
        ),
        "apart_two_classes": lambda: _task(
            _mlp((24,), (64, 64), 2, dropout=0.3, apart=True),
            generated.mislabelled(generated.clusters(2, 24, 570, distance=4.0), 0.02),
            32,
        ),
        "apart_shallow_classes": lambda: _task(
            _mlp((17,), (40, 32), 2, apart=True),
            generated.mislabelled(generated.clusters(2, 17, 840, distance=6.0), 0.04),
            8,
        ),
        "apart_deep_classes": lambda: _task(
            _mlp((38,), (48, 32, 24), 4, dropout=0.1, apart=True),
            generated.clusters(4, 38, 660, distance=5.0),
            64,
        ),
        # Rows that are far from all others make gradients that are far larger.
        "skewed_classes": lambda: _task(
            _mlp((27,), (48, 48), 2, dropout=0.2),
            generated.skewed(generated.clusters(2, 27, 780, distance=5.0)),
            32,
        ),
        "skewed_shallow_classes": lambda: _task(
            _mlp((23,), (64,), 3, initializer=_far_off),
            generated.skewed(generated.clusters(3, 23, distance=4.0)),
            16,
        ),
        "apart_skewed_classes": lambda: _task(
            _mlp((31,), (56, 56), 2, dropout=0.1, apart=True),
            generated.skewed(generated.clusters(2, 31, 630, distance=5.0)),
            32,
        ),
        "apart_skewed_shallow_classes": lambda: _task(
            _mlp((19,), (40,), 2, apart=True),
            generated.skewed(
                generated.mislabelled(generated.clusters(2, 19, 870, distance=5.0), 0.02)
            ),
            16,
        ),
        "mislabelled_classes": lambda: _task(
            _mlp((15,), (40, 24), 3, initializer=_far_off),
            generated.mislabelled(generated.clusters(3, 15, 2400, distance=3.0), 0.1),
            16,
        ),
        "mislabelled_linear": lambda: _task(
            _mlp((25,), (), 2), generated.mislabelled(generated.clusters(2, 25, 1500), 0.2), 8
        ),
        "mislabelled_digits": lambda: _task(
            _mlp((14, 14), (160, 64), 10), generated.mislabelled(mnist(pool=2), 0.4), 64
        ),
        "textures": lambda: _task(
            _mlp((22, 22, 3), (56, 40), 8),
            generated.mislabelled(generated.textures(8, 22), 0.2),
            32,
        ),
        "regions": lambda: _task(_mlp((2,), (24, 24), 4), generated.regions(4), 16),
        "correlated": lambda: _task(
            _mlp((30,), (), 1), generated.correlated(), 32, "mean_squared_error"
        ),
        "convolutions": lambda: _task(_convnet((8, 8, 1), (6, 12)), _channels(digits), 32),
        "normalised_convolutions": lambda: _task(
            _convnet((8, 8, 1), (6, 12), BatchNormalization), _channels(digits), 16
        ),
        "strided_convolutions": lambda: _task(
            _convnet((14, 14, 1), (8, 12), strides=2), _channels(mnist(pool=2)), 16
        ),
        "transformer": lambda: _task(_transformer(24, 12, width=32, heads=4), tokens, 8),
        "wide_transformer": lambda: _task(_transformer(24, 12, width=96, heads=4), tokens, 4),
        "narrow_transformer": lambda: _task(
            _transformer(24, 12, width=16, heads=2, blocks=2), tokens, 32
        ),
        "deep_transformer": lambda: _task(
            _transformer(24, 12, width=48, heads=4, blocks=4), tokens, 8
        ),
        "lstm": lambda: _task(
            _recurrent(layers.LSTM, (12,), 24, vocabulary=24, embedding=8), tokens, 32
        ),
        "gru": lambda: _task(
            _recurrent(layers.GRU, (10, 1), 16),
            generated.waves(length=10),
            32,
            "mean_squared_error",
        ),
        # Without noise: losses fall by orders of magnitude.
        "responses": lambda: _task(
            _recurrent(layers.GRU, (12, 1), 20),
            generated.responses(12),
            32,
            "mean_squared_error",
        ),
        "responses_of_lstm": lambda: _task(
            _recurrent(layers.LSTM, (8, 1), 16),
            generated.responses(8),
            16,
            "mean_squared_error",
        ),
        "exact_teacher": lambda: _task(
            _mlp((12,), (48, 32), 1),
            generated.teacher(12, 1, count=30000, noise=0.0),
            32,
            "mean_squared_error",
        ),
        # Of these there is always something left to learn: who is content too early loses.
        "text_transformer": lambda: _task(
            _transformer(25, 16, width=48, heads=4, blocks=2), text(25, 16), 16
        ),
        "text_gru": lambda: _task(
            _recurrent(layers.GRU, (16,), 48, vocabulary=25, embedding=16), text(25, 16), 32
        ),
        "sums": lambda: _task(_mlp((14, 28), (128, 64), 10, dropout=0.1), sums(), 32),
        "sums_of_convolutions": lambda: _task(
            _convnet((14, 28, 1), (8, 12, 16), BatchNormalization, strides=2),
            _channels(sums()),
            32,
        ),
        "deep_teacher": lambda: _task(
            _mlp((24,), (96, 64), 2),
            generated.teacher(24, 2, count=60000, depth=3),
            32,
            "mean_squared_error",
        ),
        "bag": lambda: _task(_bag(200, 16, 4), generated.bags(200, 4), 64),
        "rare_words": lambda: _task(_bag(1500, 40, 6), generated.bags(1500, 6), 64),
        "frequent_words": lambda: _task(_bag(201, 24, 4), generated.bags(3000, 4, kept=200), 128),
        "many_words": lambda: _task(_bag(800, 28, 4), generated.bags(6000, 4, kept=799), 128),
        "factors": lambda: _task(
            _factors(150, 8), generated.ratings(100, 50), 128, "mean_squared_error"
        ),
    }
    tasks = {
        # With dropout: what is learned by heart makes ratios of losses those of rounding errors.
        "two_layers": lambda: _task(_mlp((28, 28), (40, 40), 10, dropout=0.2), mnist(), 128),
        "nine_layers": lambda: _task(
            _mlp((14, 14), (24,) * 9, 10, initializer=_HE), mnist(pool=2), 32
        ),
        "wide_layer": lambda: _task(_mlp((14, 14), (400, 40), 10, dropout=0.2), mnist(pool=2), 64),
        "squeezing": lambda: _task(
            _mlp((196,), (96, 12, 96), 196, output="sigmoid"),
            pixels(),
            128,
            "mean_squared_error",
        ),
        "regression": lambda: _task(
            _mlp((16,), (24, 24, 24), 3), generated.teacher(16, 3, noise=0.3), 8, "mae"
        ),
        "few_rows": lambda: _task(
            _mlp((24,), (64, 32), 1, dropout=0.3, initializer=_far_off), small(24), 16, _BINARY()
        ),
        "kinds": lambda: _task(
            _mlp((14,), (24,), 3, initializer=_far_off, regularizer=keras.regularizers.L2(1e-3)),
            generated.clusters(3, 14, 600),
            16,
        ),
        "dropped_kinds": lambda: _task(
            _mlp((26,), (56, 40), 2, dropout=0.35),
            generated.mislabelled(generated.clusters(2, 26, 840, distance=3.0), 0.02),
            32,
        ),
        "dropped_few_kinds": lambda: _task(
            _mlp((18,), (48, 48), 2, dropout=0.25, initializer=_far_off),
            generated.mislabelled(generated.clusters(2, 18, 660, distance=5.0), 0.04),
            16,
        ),
        "apart_kinds": lambda: _task(
            _mlp((24,), (40, 40), 3, dropout=0.25, apart=True),
            generated.mislabelled(generated.clusters(3, 24, distance=4.0), 0.02),
            32,
        ),
        "apart_rows": lambda: _task(
            _mlp((26,), (56, 40), 1, dropout=0.25, apart=True),
            generated.mislabelled(small(26), 0.03),
            16,
            _BINARY(),
        ),
        "apart_two_kinds": lambda: _task(
            _mlp((29,), (64, 32), 2, dropout=0.3, apart=True),
            generated.mislabelled(generated.clusters(2, 29, 600, distance=5.0), 0.02),
            32,
        ),
        "apart_shallow_kinds": lambda: _task(
            _mlp((21,), (48,), 3, dropout=0.15, apart=True),
            generated.mislabelled(generated.clusters(3, 21, 720, distance=4.0), 0.03),
            16,
        ),
        "skewed_kinds": lambda: _task(
            _mlp((25,), (40, 32), 3, dropout=0.1),
            generated.skewed(generated.clusters(3, 25, 750, distance=5.0)),
            16,
        ),
        "apart_skewed_kinds": lambda: _task(
            _mlp((28,), (48, 32), 2, dropout=0.2, apart=True),
            generated.skewed(
                generated.mislabelled(generated.clusters(2, 28, 690, distance=6.0), 0.02)
            ),
            32,
        ),
        "mislabelled_kinds": lambda: _task(
            _mlp((20,), (32, 16), 2, initializer=_far_off),
            generated.mislabelled(generated.clusters(2, 20, 1800, distance=3.0), 0.1),
            16,
        ),
        "mislabelled_images": lambda: _task(
            _mlp((28, 28), (200, 100), 10), generated.mislabelled(mnist(), 0.5), 64
        ),
        "directions": lambda: _task(
            _mlp((28, 28, 3), (80,), 6), generated.mislabelled(generated.textures(6, 28), 0.3), 64
        ),
        # Of more inputs than any that there is to train on.
        "fine_directions": lambda: _task(
            _mlp((40, 40, 3), (80,), 6), generated.mislabelled(generated.textures(6, 40), 0.3), 64
        ),
        "many_measurements": lambda: _task(
            _mlp((2000,), (64,), 3, dropout=0.2), generated.clusters(3, 2000, 600), 16
        ),
        "many_inputs": lambda: _task(
            _mlp((3000,), (64, 32), 3),
            generated.teacher(3000, 3, count=3000),
            32,
            "mean_squared_error",
        ),
        "linear_kinds": lambda: _task(_mlp((16,), (), 4), generated.clusters(4, 16), 32),
        "images": lambda: _task(
            _convnet((14, 14, 1), (12, 12, 24), BatchNormalization), _channels(mnist(pool=2)), 32
        ),
        "attention": lambda: _task(
            _transformer(40, 10, width=24, heads=3), generated.tokens(40, 10), 32
        ),
        "memory": lambda: _task(
            _recurrent(layers.GRU, (10,), 32, vocabulary=40, embedding=12),
            generated.tokens(40, 10),
            16,
        ),
        "pendulum": lambda: _task(
            _recurrent(layers.LSTM, (14, 1), 24),
            generated.responses(14),
            64,
            "mean_squared_error",
        ),
        "exact_regression": lambda: _task(
            _mlp((10,), (40, 40), 2),
            generated.teacher(10, 2, count=30000, noise=0.0, depth=2),
            16,
            "mean_squared_error",
        ),
        "letters": lambda: _task(
            _recurrent(layers.LSTM, (20,), 40, vocabulary=31, embedding=12),
            text(31, 20, words=1000),
            16,
        ),
        "attention_to_letters": lambda: _task(
            _transformer(31, 20, width=36, heads=3, blocks=2),
            text(31, 20, words=1000),
            32,
        ),
        "differences": lambda: _task(
            _convnet((14, 28, 1), (12, 16, 24), BatchNormalization, strides=2),
            _channels(generated.sums(mnist(pool=2), sign=-1)),
            64,
        ),
        "words": lambda: _task(_bag(300, 12, 3), generated.bags(300, 3), 32),
        "common_words": lambda: _task(_bag(1000, 24, 4), generated.bags(8000, 4, kept=999), 128),
    }
    return Mixture(
        {name: members[name]() for name in _chosen("kinds", kinds, members)},
        {name: tasks[name]() for name in _chosen("validation", validation, tasks)},
        name="general",
    )


def _chosen(argument: str, names: Sequence[str] | None, all_names: Iterable[str]) -> list[str]:
    """Returns the names that are chosen; all by default."""
    known = list(all_names)
    chosen = known if names is None else list(names)
    if unknown := sorted(set(chosen) - set(known)):
        raise ValueError(f"`{argument}` must be among {known}. Received: {unknown}")
    return chosen


def _task(model_fn: ModelFn, data: Data, batch_size: int, loss: Any = None) -> KerasTask:
    """Returns the task of training a model, with cross-entropy unless told otherwise.

    All are compiled with XLA: they are small, and of layers that it is quick at.
    """
    loss = loss or cross_entropy()
    return KerasTask(model_fn, loss, data, batch_size, jit_compile=True)


def _far_off() -> keras.initializers.VarianceScaling:
    """Returns Glorot's initializer, with its weights times a random factor from 0.03 to 10."""
    factor = 10.0 ** random.uniform(-1.5, 1.0)
    return keras.initializers.VarianceScaling(factor**2, "fan_avg", "uniform")


def _activation() -> ActivationMixture:
    """Returns an activation that is drawn with the weights."""
    return ActivationMixture(_ACTIVATIONS, random.randrange(len(_ACTIVATIONS)))


def _mlp(
    shape: tuple[int, ...],
    units: Sequence[int],
    outputs: int,
    normalization: Callable[[], keras.layers.Layer] | None = None,
    residual: bool = False,
    dropout: float = 0.0,
    initializer: Initializer = keras.initializers.GlorotUniform,
    regularizer: keras.regularizers.Regularizer | None = None,
    output: str = "linear",
    apart: bool = False,
) -> ModelFn:
    """Returns a function that makes perceptrons of a random activation.

    If the scales of layers are to be far apart, the first one's weights are up to 20 times as large
    as usual, or as small, and those of the last one as many times smaller, or larger.
    """

    def dense(units: int, activation: str = "linear", factor: float = 1.0) -> keras.layers.Layer:
        kernel_initializer = initializer()
        kernel_initializer.scale *= factor**2
        return layers.Dense(
            units,
            activation,
            kernel_initializer=kernel_initializer,
            kernel_regularizer=regularizer,
        )

    def model_fn() -> keras.Model:
        scale = 20.0 ** random.uniform(-1.0, 1.0) if apart else 1.0
        inputs = keras.Input(shape)
        x = layers.Flatten()(inputs)
        activation = _activation()
        for number, count in enumerate(units):
            new = dense(count, factor=1.0 if number else scale)(x)
            if normalization:
                new = normalization()(new)
            new = activation(new)
            if dropout:
                new = layers.Dropout(dropout)(new)
            x = x + new if residual and number else new
        return keras.Model(inputs, dense(outputs, output, 1.0 / scale)(x))

    return model_fn


def _convnet(
    shape: tuple[int, ...],
    filters: Sequence[int],
    normalization: Callable[[], keras.layers.Layer] | None = None,
    strides: int = 1,
) -> ModelFn:
    """Returns a function that makes convolutional networks of a random activation."""

    def model_fn() -> keras.Model:
        x = inputs = keras.Input(shape)
        activation = _activation()
        for number, count in enumerate(filters):
            x = Convolution(count, 3, strides, use_bias=not normalization)(x)
            if normalization:
                x = normalization()(x)
            x = activation(x)
            if strides == 1 and number == 0:
                x = AveragePooling()(x)
        x = layers.GlobalAveragePooling2D()(x) if strides == 1 else layers.Flatten()(x)
        return keras.Model(inputs, layers.Dense(10)(x))

    return model_fn


def _transformer(vocabulary: int, length: int, width: int, heads: int, blocks: int = 1) -> ModelFn:
    """Returns a function that makes transformers that tell the next token."""

    def model_fn() -> keras.Model:
        inputs = keras.Input((length,), dtype="int32")
        places = layers.Embedding(length, width)(ops.arange(length))
        x = layers.Embedding(vocabulary, width)(inputs) + places
        for _ in range(blocks):
            seen = layers.LayerNormalization()(x)
            attention = layers.MultiHeadAttention(heads, width // heads, flash_attention=False)
            x = x + attention(seen, seen, use_causal_mask=True)
            hidden = layers.Dense(2 * width)(layers.LayerNormalization()(x))
            x = x + layers.Dense(width)(_activation()(hidden))
        return keras.Model(inputs, layers.Dense(vocabulary)(layers.LayerNormalization()(x)))

    return model_fn


def _recurrent(
    layer: Callable[..., keras.layers.Layer],
    shape: tuple[int, ...],
    units: int,
    vocabulary: int = 0,
    embedding: int = 0,
) -> ModelFn:
    """Returns a function that makes recurrent networks, over tokens or over numbers."""

    def model_fn() -> keras.Model:
        if not vocabulary:
            series = keras.Input(shape)
            return keras.Model(series, layers.Dense(1)(layer(units, unroll=True)(series)))
        inputs = keras.Input(shape, dtype="int32")
        x = layers.Embedding(vocabulary, embedding)(inputs)
        x = layer(units, return_sequences=True, unroll=True)(x)
        return keras.Model(inputs, layers.Dense(vocabulary)(x))

    return model_fn


def _bag(vocabulary: int, width: int, size: int) -> ModelFn:
    """Returns a function that makes models that tell a word from others."""

    def model_fn() -> keras.Model:
        inputs = keras.Input((size,), dtype="int32")
        x = ops.mean(layers.Embedding(vocabulary, width)(inputs), axis=1)
        return keras.Model(inputs, layers.Dense(vocabulary)(x))

    return model_fn


def _factors(rows: int, width: int) -> ModelFn:
    """Returns a function that makes models of a matrix as a product of two of low rank."""

    def model_fn() -> keras.Model:
        inputs = keras.Input((2,), dtype="int32")
        factors = layers.Embedding(rows, width)(inputs)
        return keras.Model(inputs, ops.sum(ops.prod(factors, axis=1), axis=-1, keepdims=True))

    return model_fn


def _pixels(images: Data, pool: int) -> Data:
    """Returns images from 0 to 1, with squares of pixels averaged."""
    return _shared(
        {
            split: (average(x, pool)[..., 0].astype("float32") / 255.0, y)
            for split, (x, y) in images.items()
        }
    )


def _shared(data: Data) -> Data:
    """Returns examples as tensors, which tasks share instead of making their own."""
    return {split: (tf.constant(x), y) for split, (x, y) in data.items()}


def _channels(data: Data) -> Data:
    """Returns images with an axis of channels."""
    return {split: (tf.expand_dims(x, -1), y) for split, (x, y) in data.items()}
