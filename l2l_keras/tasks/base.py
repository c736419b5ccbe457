"""The interface of a task: a distribution of optimizees."""

from __future__ import annotations

import abc
import math
from typing import Any, Literal, NamedTuple

import tensorflow as tf

from l2l_keras import arguments

Tensor = Any
Nest = Any
Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class Weight(NamedTuple):
    """One of the arrays of an optimizee's parameters.

    Attributes:
        path: Its path, as of a Keras variable.
        shape: Its shape.

    Example:
        >>> l2l_keras.tasks.Quadratic(functions=2).layout
        (Weight(path='parameters', shape=(20,)),)
    """

    path: str
    shape: tuple[int, ...]


class Task(abc.ABC):
    """A task family: a distribution of optimizees, for meta-training and evaluation.

    An optimizee is a flat float32 vector of parameters `[size]` and a state: the coefficients of a
    quadratic, the moving averages of batch normalization, the seeds of dropout. The three splits
    share neither data nor initializations. A task may hold several independent functions, each of
    its own part of the parameters: the loss is then a vector, and every function follows the
    gradient of its own loss.

    Attributes:
        name: Name of the task.
        functions: Number of independent functions.
        jit_compile: Whether to compile the loss with XLA. Best for small dense models.
        constrained: Whether `constrain` changes parameters.
        holds_out: Whether there are examples that an optimizee does not train on, for
            `held_out_batch`, `held_out_loss` and `evaluate`.

    Example:
        Ravines (θ_1² + c θ_2²) / 2, each with a c of its own:

        >>> class Ravine(l2l_keras.tasks.Task):
        ...     name, size = "ravine", 2
        ...
        ...     def sample(self, split, seed):
        ...         key = ("train", "validation", "test").index(split), seed
        ...         logarithm = tf.random.stateless_uniform((), key, 0.0, 3.0)
        ...         return tf.ones((2,)), tf.stack([1.0, 10.0**logarithm])
        ...
        ...     def loss(self, parameters, state, batch):
        ...         return tf.reduce_sum(state * parameters**2, keepdims=True) / 2.0, state
        >>> optimizer = keras.optimizers.SGD(1e-3)
        >>> losses = l2l_keras.evaluation.run(Ravine(), optimizer, steps=20, seeds=[0])
        >>> bool(losses[0, -1] < losses[0, 0])
        True
    """

    name: str = "task"
    functions: int = 1
    jit_compile: bool = False
    constrained: bool = False
    holds_out: bool = False

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} of {self.size:,} parameters>"

    @property
    @abc.abstractmethod
    def size(self) -> int:
        """Number of parameters of an optimizee, over all functions."""

    @property
    def layout(self) -> tuple[Weight, ...]:
        """The arrays that the parameters consist of, in order. Defaults to one vector."""
        return (Weight("parameters", (self.size,)),)

    @abc.abstractmethod
    def sample(self, split: Split, seed: int) -> tuple[Tensor, Nest]:
        """Draws a fresh optimizee. The same split and seed give the same optimizee.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            seed: Non-negative integer.

        Returns:
            `(parameters, state)`: float32 `[size]`, and a nested structure of tensors.
        """

    def batch(self, split: Split, seed: Tensor) -> Nest:
        """Draws one minibatch. Pure; called inside compiled loops.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            seed: int32 `[2]`, a seed of TensorFlow's stateless random operations.

        Returns:
            A nested structure of tensors. Defaults to `()`, for tasks without data.
        """
        return ()

    @abc.abstractmethod
    def loss(self, parameters: Tensor, state: Nest, batch: Nest) -> tuple[Tensor, Nest]:
        """Computes the loss of every function. Pure; called inside compiled loops.

        Args:
            parameters: float32 `[size]`.
            state: As returned by `sample`.
            batch: As returned by `batch`.

        Returns:
            `(losses, state)`: float32 `[functions]`, and the next state.
        """

    def constrain(self, parameters: Tensor) -> Tensor:
        """Maps parameters `[size]` to allowed ones, after each update. Defaults to no change."""
        return parameters

    def held_out_batch(self, split: Split, seed: Tensor) -> Nest:
        """Draws a minibatch of the examples that are held out; like `batch`, if `holds_out`."""
        raise NotImplementedError

    def held_out_loss(self, parameters: Tensor, state: Nest, batch: Nest) -> Tensor:
        """Computes the loss of every function, float32 `[functions]`, on examples held out.

        Pure, like `loss`, but as in inference: without dropout, and with no next state.
        """
        raise NotImplementedError

    def evaluate(self, split: Split, parameters: Tensor, state: Nest) -> dict[str, float]:
        """Computes the loss and other metrics on all examples that a split holds out.

        Returns:
            Numbers by name, `"loss"` among them.
        """
        raise NotImplementedError

    def unflatten(self, vector: Tensor) -> list[Tensor]:
        """Splits a vector `[size]`, such as a gradient, into the arrays of `layout`."""
        parts = tf.split(vector, [math.prod(weight.shape) for weight in self.layout])
        return [tf.reshape(p, weight.shape) for p, weight in zip(parts, self.layout, strict=True)]

    def loss_and_gradient(
        self, parameters: Tensor, state: Nest, batch: Nest
    ) -> tuple[Tensor, Tensor, Nest]:
        """Computes what `loss` does, and the gradient `[size]`: `(losses, gradient, state)`."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            losses, state = self.loss(parameters, state, batch)
            total = tf.reduce_sum(losses)
        return losses, tape.gradient(total, parameters), state

    def hessian_vector_product(
        self, parameters: Tensor, state: Nest, batch: Nest, vector: Tensor
    ) -> Tensor:
        """Computes the product, `[size]`, of every function's Hessian with a vector `[size]`."""
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            _, gradient, _ = self.loss_and_gradient(parameters, state, batch)
        return tape.gradient(
            gradient,
            parameters,
            output_gradients=vector,
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )


def split_seed(split: Split, seed: int) -> int:
    """Maps a seed below 2**29 to one below 2**31, so that seeds of different splits differ."""
    split = arguments.one_of("split", split, SPLITS)
    return SPLITS.index(split) * 2**29 + arguments.seed("seed", seed)
