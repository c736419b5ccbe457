"""Tests of the tasks' layers: they compute the same functions as Keras' layers."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from l2l_keras.tasks.layers import AveragePooling, BatchNormalization, Convolution


def images(seed=0, channels=3):
    return np.random.default_rng(seed).normal(size=(4, 8, 6, channels)).astype("float32")


@pytest.mark.parametrize(
    ("size", "strides", "use_bias"), [*itertools.product([1, 2, 3], [1, 2, 3], [True, False])]
)
def test_convolution(size, strides, use_bias):
    ours = Convolution(5, size, strides, use_bias)
    theirs = keras.layers.Conv2D(5, size, strides, "same", use_bias=use_bias)
    x = images()
    ours(x), theirs(x)
    assert [v.shape for v in ours.weights] == [v.shape for v in theirs.weights]
    weights = [np.random.default_rng(1).normal(size=v.shape) for v in theirs.weights]
    ours.set_weights(weights)
    theirs.set_weights(weights)
    np.testing.assert_allclose(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_average_pooling():
    expected = keras.layers.AveragePooling2D(2)(images())
    np.testing.assert_allclose(AveragePooling()(images()), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(16, 3), (4, 8, 6, 3)])
def test_batch_normalization_in_training(shape):
    x = np.random.default_rng(0).normal(2.0, 3.0, size=shape).astype("float32")
    ours, theirs = BatchNormalization(), keras.layers.BatchNormalization()
    ours(x), theirs(x)
    ours.set_weights([np.array([1.0, 2.0, 3.0]), np.array([0.5, 0.0, -0.5])])
    theirs.set_weights([*ours.get_weights(), np.zeros(3), np.ones(3)])
    np.testing.assert_allclose(ours(x), theirs(x, training=True), rtol=1e-4, atol=1e-5)


def test_second_derivatives_of_batch_normalization():
    """A constant added to all inputs changes neither the loss nor its gradient."""
    x = tf.constant(images()[:, 0, 0])
    layer = BatchNormalization()
    shift = tf.Variable([0.1, 0.2, 0.3])
    with tf.GradientTape() as outer:
        with tf.GradientTape() as inner:
            loss = tf.reduce_sum(tf.tanh(layer(x + shift)) ** 3)
        gradient = inner.gradient(loss, layer.gamma.value)
        value = tf.reduce_sum(gradient**2)
    assert float(value) > 1e-3
    np.testing.assert_allclose(outer.gradient(value, shift), 0.0, atol=1e-4)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
