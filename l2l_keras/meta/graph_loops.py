"""Loops of a graph, and the arrays that they fill step by step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import tensorflow as tf

Tensor = Any
Nest = Any


def run(steps: range, body: Callable, variables: tuple) -> tuple:
    """Runs `variables = body(step, *variables)` for every step of a range."""

    def iteration(count: Tensor, *variables: Any) -> tuple:
        return count + 1, *body(steps.start + steps.step * count, *variables)

    return tf.while_loop(
        lambda count, *_: count < len(steps), iteration, (0, *variables), parallel_iterations=1
    )[1:]


def bytes_of(like: Nest) -> int:
    """Returns the size of tensors of these shapes and types."""
    return sum(math.prod(t.shape) * t.dtype.size for t in tf.nest.flatten(like))


def new_arrays(like: Nest, steps: int) -> Nest:
    """Returns a `tf.TensorArray` of `steps` entries for each tensor or spec of a nest."""
    return tf.nest.map_structure(
        lambda t: tf.TensorArray(t.dtype, steps, element_shape=t.shape, clear_after_read=False),
        like,
    )


def write(arrays: Nest, step: Any, values: Nest) -> Nest:
    """Returns the arrays with the values of one step written."""
    return tf.nest.map_structure(lambda array, value: array.write(step, value), arrays, values)


def read(arrays: Nest, step: Tensor) -> Nest:
    """Returns the arrays' values of one step."""
    return tf.nest.map_structure(lambda array: array.read(step), arrays)
