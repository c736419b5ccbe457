"""Loops of a graph, and the arrays that they fill step by step."""

from __future__ import annotations

import math
from collections.abc import Callable

import tensorflow as tf

from l2l_keras.tasks.base import Nest, Tensor


def run(steps: int | Tensor, body: Callable, variables: tuple) -> tuple:
    """Runs `variables = body(step, *variables)` for each step, counted from zero."""
    return tf.while_loop(
        lambda step, *_: step < steps,
        lambda step, *variables: (step + 1, *body(step, *variables)),
        (0, *variables),
        parallel_iterations=1,
    )[1:]


def run_backwards(steps: int, body: Callable, variables: tuple) -> tuple:
    """Runs `variables = body(step, *variables)` for each step, from the last one to 0."""
    return run(steps, lambda step, *variables: body(steps - 1 - step, *variables), variables)


def bytes_of(like: Nest) -> int:
    """Returns the size of tensors of these shapes and types."""
    return sum(math.prod(t.shape) * t.dtype.size for t in tf.nest.flatten(like))


def new_arrays(like: Nest, steps: int | Tensor) -> Nest:
    """Returns a `tf.TensorArray` of `steps` entries for each tensor or spec of a nest."""
    return tf.nest.map_structure(
        lambda t: tf.TensorArray(t.dtype, steps, element_shape=t.shape, clear_after_read=False),
        like,
    )


def write(arrays: Nest, step: int | Tensor, values: Nest) -> Nest:
    """Returns the arrays with the values of one step written."""
    return tf.nest.map_structure(lambda array, value: array.write(step, value), arrays, values)


def read(arrays: Nest, step: Tensor) -> Nest:
    """Returns the arrays' values of one step."""
    return tf.nest.map_structure(lambda array: array.read(step), arrays)
