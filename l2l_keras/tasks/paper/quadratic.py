"""Random quadratic functions, the paper's first experiment."""

from __future__ import annotations

import functools
import math

import tensorflow as tf

from l2l_keras import arguments
from l2l_keras.tasks.base import Nest, Split, Task, Tensor, split_seed


class Quadratic(Task):
    """f(θ) = ‖Wθ − y‖², with W `[dimension, dimension]` and y `[dimension]` from N(0, 1).

    Args:
        dimension: Parameters of one function. Defaults to 10.
        functions: Independent functions, each following its own gradient. Defaults to 128.
        initial_scale: Standard deviation of θ_0, or a pair `(low, high)` between which it is drawn
            log-uniformly for each function. Defaults to 0.01.
        condition: Condition number of the Hessian 2 WᵀW, the same for all functions: the singular
            values of W are replaced by a geometric progression of the same expected sum of
            squares, dimension². Defaults to none.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> task = l2l_keras.tasks.Quadratic(dimension=10, functions=4)
        >>> parameters, state = task.sample("train", seed=0)
        >>> losses, _ = task.loss(parameters, state, ())
        >>> losses.shape
        TensorShape([4])

    Source: Andrychowicz et al. (2016), section 3.1.
    """

    name = "quadratic"
    jit_compile = True

    def __init__(
        self,
        dimension: int = 10,
        functions: int = 128,
        initial_scale: float | tuple[float, float] = 0.01,
        condition: float | None = None,
    ) -> None:
        arguments.count("dimension", dimension)
        arguments.count("functions", functions)
        self.dimension = dimension
        self.functions = functions
        scales = (initial_scale,) * 2 if isinstance(initial_scale, (int, float)) else initial_scale
        valid = len(scales) == 2 and 0 < scales[0] <= scales[1]
        expected = "a positive number or a pair of them, the lower one first"
        arguments.check(valid, "initial_scale", expected, initial_scale)
        self.initial_scale = tuple(float(scale) for scale in scales)
        valid = condition is None or condition >= 1.0
        arguments.check(valid, "condition", "at least 1", condition)
        self.condition = condition

    @property
    def size(self) -> int:
        """`functions * dimension`."""
        return self.functions * self.dimension

    def sample(self, split: Split, seed: int) -> tuple[Tensor, Nest]:
        """Draws θ_0 and the state `(W, y)`; see `Task.sample`."""
        return self._draw(tf.constant([split_seed(split, seed), 0], tf.int32))

    @functools.partial(tf.function, autograph=False)
    def _draw(self, key: Tensor) -> tuple[Tensor, Nest]:
        keys = tf.random.split(key, 4)
        draw = tf.random.stateless_normal
        w = self._conditioned(draw((self.functions, self.dimension, self.dimension), keys[0]))
        y = draw((self.functions, self.dimension), keys[1])
        low, high = (math.log(scale) for scale in self.initial_scale)
        uniform = tf.random.stateless_uniform((self.functions, 1), keys[2])
        scale = tf.exp(low + (high - low) * uniform)
        parameters = scale * draw(y.shape, keys[3])
        return tf.reshape(parameters, (self.size,)), (w, y)

    def _conditioned(self, w: Tensor) -> Tensor:
        """Replaces the singular values of matrices by those of `condition`."""
        if self.condition is None:
            return w
        _, left, right = tf.linalg.svd(w)
        exponents = tf.linspace(0.0, 1.0, self.dimension)
        squares = tf.pow(float(self.condition), -exponents)
        values = self.dimension * tf.sqrt(squares / tf.reduce_sum(squares))
        return tf.matmul(left * values, right, transpose_b=True)

    def loss(self, parameters: Tensor, state: Nest, batch: Nest) -> tuple[Tensor, Nest]:
        """Computes ‖Wθ − y‖² of every function; see `Task.loss`."""
        return tf.reduce_sum(tf.square(self._residuals(parameters, state)), axis=1), state

    def loss_and_gradient(
        self, parameters: Tensor, state: Nest, batch: Nest
    ) -> tuple[Tensor, Tensor, Nest]:
        """Computes losses and 2 Wᵀ(Wθ − y); see `Task.loss_and_gradient`."""
        residuals = self._residuals(parameters, state)
        gradient = 2.0 * tf.linalg.matvec(state[0], residuals, transpose_a=True)
        losses = tf.reduce_sum(tf.square(residuals), axis=1)
        return losses, tf.reshape(gradient, (self.size,)), state

    def _residuals(self, parameters: Tensor, state: Nest) -> Tensor:
        w, y = state
        return tf.linalg.matvec(w, tf.reshape(parameters, y.shape)) - y
