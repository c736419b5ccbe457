"""Architectures of the general mixture, and the tasks that train them.

An architecture makes a model for given inputs and outputs, which draws its initial weights and, in
most cases, its activation function.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from l2l_keras.tasks.keras_task import KerasTask
from l2l_keras.tasks.layers import ActivationMixture, AveragePooling, Convolution
from l2l_keras.tasks.paper.images import cross_entropy

# From the shape of an example and the number of outputs to a model.
Architecture = Callable[[tuple[int, ...], int], keras.Model]
MakeLayer = Callable[..., layers.Layer]
MakeInitializer = Callable[[], keras.initializers.VarianceScaling]

_ACTIVATIONS = ("relu", "tanh", "sigmoid", "silu", "elu")


def badly_scaled() -> keras.initializers.VarianceScaling:
    """Returns Glorot's initializer, with weights scaled by a random factor from 0.03 to 10."""
    factor = 10.0 ** random.uniform(-1.5, 1.0)
    return keras.initializers.VarianceScaling(factor**2, "fan_avg", "uniform")


def _random_activation() -> ActivationMixture:
    return ActivationMixture(_ACTIVATIONS, random.randrange(len(_ACTIVATIONS)))


def mlp(
    *units: int,
    norm: MakeLayer | None = None,
    residual: bool = False,
    dropout: float = 0.0,
    init: MakeInitializer = keras.initializers.GlorotUniform,
    regularizer: keras.regularizers.Regularizer | None = None,
    output: str = "linear",
    unbalanced: bool = False,
) -> Architecture:
    """Returns multilayer perceptrons with the given hidden `units`.

    If `residual`, layers' inputs are added to their outputs. If `unbalanced`, the first kernel is
    scaled by a random factor from 1/20 to 20, and the last one by its inverse.
    """

    def dense(units: int, activation: str = "linear", factor: float = 1.0) -> layers.Dense:
        kernel_initializer = init()
        kernel_initializer.scale *= factor**2
        return layers.Dense(
            units, activation, kernel_initializer=kernel_initializer, kernel_regularizer=regularizer
        )

    def make(shape: tuple[int, ...], outputs: int) -> keras.Model:
        scale = 20.0 ** random.uniform(-1.0, 1.0) if unbalanced else 1.0
        inputs = keras.Input(shape)
        x = layers.Flatten()(inputs)
        activation = _random_activation()
        for index, count in enumerate(units):
            hidden = dense(count, factor=1.0 if index else scale)(x)
            if norm:
                hidden = norm()(hidden)
            hidden = activation(hidden)
            if dropout:
                hidden = layers.Dropout(dropout)(hidden)
            x = x + hidden if residual and index else hidden
        return keras.Model(inputs, dense(outputs, output, 1.0 / scale)(x))

    return make


def convnet(
    filters: Sequence[int], norm: MakeLayer | None = None, strides: int = 1
) -> Architecture:
    """Returns networks of 3×3 convolutions of gray images, one for each entry of `filters`.

    With `strides` of 1, the first and the last feature maps are pooled.
    """

    def make(shape: tuple[int, ...], outputs: int) -> keras.Model:
        inputs = keras.Input(shape)
        x = layers.Reshape((*shape, 1))(inputs)
        activation = _random_activation()
        for index, count in enumerate(filters):
            x = Convolution(count, 3, strides, use_bias=not norm)(x)
            if norm:
                x = norm()(x)
            x = activation(x)
            if strides == 1 and index == 0:
                x = AveragePooling()(x)
        x = layers.GlobalAveragePooling2D()(x) if strides == 1 else layers.Flatten()(x)
        return keras.Model(inputs, layers.Dense(outputs)(x))

    return make


def transformer(width: int, heads: int, blocks: int = 1) -> Architecture:
    """Returns causal transformers that predict the next token, with embeddings of size `width`."""

    def make(shape: tuple[int, ...], vocabulary: int) -> keras.Model:
        (length,) = shape
        inputs = keras.Input(shape, dtype="int32")
        positions = layers.Embedding(length, width)(ops.arange(length))
        x = layers.Embedding(vocabulary, width)(inputs) + positions
        for _ in range(blocks):
            normalized = layers.LayerNormalization()(x)
            attention = layers.MultiHeadAttention(heads, width // heads, flash_attention=False)
            x = x + attention(normalized, normalized, use_causal_mask=True)
            hidden = layers.Dense(2 * width)(layers.LayerNormalization()(x))
            x = x + layers.Dense(width)(_random_activation()(hidden))
        return keras.Model(inputs, layers.Dense(vocabulary)(layers.LayerNormalization()(x)))

    return make


def token_rnn(layer: MakeLayer, units: int, embedding: int) -> Architecture:
    """Returns GRUs or LSTMs that predict the next token."""

    def make(shape: tuple[int, ...], vocabulary: int) -> keras.Model:
        inputs = keras.Input(shape, dtype="int32")
        x = layers.Embedding(vocabulary, embedding)(inputs)
        x = layer(units, return_sequences=True, unroll=True)(x)
        return keras.Model(inputs, layers.Dense(vocabulary)(x))

    return make


def series_rnn(layer: MakeLayer, units: int) -> Architecture:
    """Returns GRUs or LSTMs that read a series of numbers."""

    def make(shape: tuple[int, ...], outputs: int) -> keras.Model:
        inputs = keras.Input(shape)
        return keras.Model(inputs, layers.Dense(outputs)(layer(units, unroll=True)(inputs)))

    return make


def bag_of_words(width: int) -> Architecture:
    """Returns models that predict a word from the mean embedding, of size `width`, of others."""

    def make(shape: tuple[int, ...], vocabulary: int) -> keras.Model:
        inputs = keras.Input(shape, dtype="int32")
        x = ops.mean(layers.Embedding(vocabulary, width)(inputs), axis=1)
        return keras.Model(inputs, layers.Dense(vocabulary)(x))

    return make


def matrix_factorization(rows: int, rank: int) -> Architecture:
    """Returns models of ratings as inner products of two of `rows` embeddings, of size `rank`."""

    def make(shape: tuple[int, ...], outputs: int) -> keras.Model:
        inputs = keras.Input(shape, dtype="int32")
        factors = layers.Embedding(rows, rank)(inputs)
        return keras.Model(inputs, ops.sum(ops.prod(factors, axis=1), axis=-1, keepdims=True))

    return make


def classifier(
    architecture: Architecture, data: Any, batch_size: int, classes: int | None = None
) -> KerasTask:
    """Returns a task of int labels; by default, there are 1 plus the largest label `classes`."""
    classes = classes or 1 + max(int(np.max(y)) for _, y in data.values())
    return _task(architecture, data, batch_size, cross_entropy(), classes)


def regressor(
    architecture: Architecture, data: Any, batch_size: int, loss: Any = "mean_squared_error"
) -> KerasTask:
    """Returns a task with float targets `[examples, outputs]`."""
    return _task(architecture, data, batch_size, loss, data["train"][1].shape[-1])


logistic = functools.partial(regressor, loss=keras.losses.BinaryCrossentropy(from_logits=True))
"""As `regressor`, with targets from 0 to 1: the loss is the binary cross-entropy of logits."""


def _task(
    architecture: Architecture, data: Any, batch_size: int, loss: Any, outputs: int
) -> KerasTask:
    """Returns a task that is compiled with XLA, which is fast for small models of these layers."""
    shape = tuple(data["train"][0].shape[1:])
    return KerasTask(lambda: architecture(shape, outputs), loss, data, batch_size, jit_compile=True)
