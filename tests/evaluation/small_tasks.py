"""Tasks on which tests of evaluation make runs in little time."""

import keras
import numpy as np
import tensorflow as tf

from l2l_keras.tasks import KerasTask, Quadratic, Task
from l2l_keras.tasks.base import split_seed


class NoisyMean(Task):
    """Finds the mean of noisy data. Its state, a count of steps, is part of the loss."""

    name = "noisy_mean"

    @property
    def size(self):
        return 3

    def sample(self, split, seed):
        key = tf.constant([split_seed(split, seed), 0], tf.int32)
        return tf.random.stateless_normal((3,), key), {"count": tf.constant(0.0)}

    def batch(self, split, seed):
        shift = {"train": 0.0, "validation": 1.0, "test": 2.0}[split]
        return shift + tf.random.stateless_normal((4, 3), seed)

    def loss(self, parameters, state, batch):
        error = tf.reduce_mean(tf.square(parameters - batch)) + 0.1 * state["count"]
        return error[tf.newaxis], {"count": state["count"] + 1.0}


def quadratic(dimension=3, functions=2):
    """Quadratics without XLA, which takes longer to compile than few steps take to run."""
    task = Quadratic(dimension=dimension, functions=functions)
    task.jit_compile = False
    return task


def network():
    """A small network, with kernels and biases."""

    def model_fn():
        return keras.Sequential(
            [keras.Input((3,)), keras.layers.Dense(2, "tanh"), keras.layers.Dense(1)]
        )

    x = np.random.default_rng(0).normal(size=(40, 3)).astype("float32")
    return KerasTask(model_fn, "mse", (x, x[:, :1] * x[:, 1:2]), batch_size=8)
