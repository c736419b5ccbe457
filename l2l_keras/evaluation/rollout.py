"""Runs of an optimizer on optimizees of a task, one after another."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from l2l_keras.meta import InnerLoop
from l2l_keras.rules.base import UpdateRule
from l2l_keras.tasks.base import Nest, Split, Task, Tensor, Weight


class Rollout:
    """Minimises one optimizee after another with one Keras optimizer, each from a fresh start.

    All steps are one compiled loop over the optimizer's own `apply`, compiled once, on
    construction: neither another seed nor another learning rate traces it again.

    Args:
        task: Where optimizees come from.
        optimizer: A fresh Keras optimizer; it is built here, on variables that have the paths and
            shapes of the task's `layout`.
        steps: Updates of a run.
        split: Which optimizees and data: `"train"`, `"validation"` or `"test"`.

    Raises:
        ValueError: If `steps` is not positive, or the optimizer is already built.
        RuntimeError: If Keras' backend is not TensorFlow.

    Example:
        >>> task = l2l_keras.tasks.Quadratic(functions=4)
        >>> rollout = l2l_keras.evaluation.Rollout(task, keras.optimizers.Adam(0.1), steps=5)
        >>> rollout(seed=0).shape, rollout(seed=1, learning_rate=0.01).shape
        ((4, 6), (4, 6))
    """

    def __init__(
        self,
        task: Task,
        optimizer: keras.optimizers.Optimizer,
        steps: int,
        split: Split = "test",
    ) -> None:
        if keras.config.backend() != "tensorflow":
            raise RuntimeError(
                "Comparisons need Keras' TensorFlow backend. "
                f"Received: keras.config.backend()={keras.config.backend()!r}"
            )
        if steps < 1:
            raise ValueError(f"`steps` must be positive. Received: {steps}")
        if optimizer.built:
            raise ValueError(
                "`optimizer` must be fresh: one that is built belongs to other variables. "
                f"Received: optimizer={optimizer.name!r}, built"
            )
        self.task = task
        self.optimizer = optimizer
        self.steps = steps
        self.split = split
        self._variables = [_variable(weight) for weight in task.layout]
        optimizer.build(self._variables)
        self._initial_values = [tf.identity(v.value) for v in optimizer.variables]
        self._loop = tf.function(self._steps, autograph=False, jit_compile=task.jit_compile)
        # The number of steps is an argument so that this compiles everything and runs nothing:
        # whoever measures the time of a run does not measure the compiler's.
        self._run(seed=0, learning_rate=None, steps=0)

    def __call__(
        self, seed: int, learning_rate: float | None = None, steps: int | None = None
    ) -> np.ndarray:
        """Minimises the optimizee of one seed.

        Args:
            seed: Seed of the optimizee and of its minibatches, a non-negative integer.
            learning_rate: Learning rate of this run; None for the optimizer's own.
            steps: Updates of this run, where they are fewer.

        Returns:
            Losses f(θ_0) to f(θ_steps), each on its own minibatch, one function a row: float32
            `[task.functions, steps + 1]`.

        Raises:
            ValueError: If `steps` is more than the updates of other runs, or less than 1.
        """
        steps = self.steps if steps is None else steps
        if not 1 <= steps <= self.steps:
            raise ValueError(f"`steps` must be from 1 to {self.steps}. Received: {steps}")
        return self._run(seed, learning_rate, steps)[:, : steps + 1]

    @property
    def parameters(self) -> np.ndarray:
        """Parameters that the last run ended with, float32 `[size]`."""
        return self._parameters().numpy()

    @property
    def traces(self) -> int:
        """How often the loop has been traced."""
        return self._loop.experimental_get_tracing_count()

    def _run(self, seed: int, learning_rate: float | None, steps: int) -> np.ndarray:
        parameters, state = self.task.sample(self.split, seed)
        for variable, value in zip(self.optimizer.variables, self._initial_values, strict=True):
            variable.assign(value)
        if learning_rate is not None:
            self.optimizer.learning_rate = learning_rate
        for variable, value in zip(self._variables, self.task.unflatten(parameters), strict=True):
            variable.assign(value)
        state = tf.nest.map_structure(tf.convert_to_tensor, state)
        curve = self._loop(state, tf.constant(seed, tf.int32), tf.constant(steps, tf.int32))
        return curve.numpy().T

    def _steps(self, state: Nest, seed: Tensor, steps: Tensor) -> Tensor:
        """Returns the losses `[self.steps + 1, functions]` of the first `steps` updates."""
        task = self.task

        def body(step: Tensor, state: Nest, losses: tf.TensorArray):
            batch = task.batch(self.split, tf.stack([seed, step]))
            loss, gradient, state = task.loss_and_gradient(self._parameters(), state, batch)
            # As `fit` does: it is where a guard sees losses.
            self.optimizer.scale_loss(tf.reduce_mean(loss))
            self.optimizer.apply(task.unflatten(gradient), self._variables)
            return step + 1, state, losses.write(step, loss)

        losses = tf.TensorArray(
            tf.float32, self.steps + 1, element_shape=(task.functions,), clear_after_read=False
        )
        _, state, losses = tf.while_loop(
            lambda step, *_: step < steps, body, (tf.constant(0), state, losses)
        )
        batch = task.batch(self.split, tf.stack([seed, steps]))
        loss, _ = task.loss(self._parameters(), state, batch)
        return losses.write(steps, loss).stack()

    def _parameters(self) -> Tensor:
        """Returns the variables as one vector."""
        return tf.concat([tf.reshape(tf.convert_to_tensor(v), [-1]) for v in self._variables], 0)


def _variable(weight: Weight) -> keras.Variable:
    """Returns a variable of a weight's path and shape."""
    *scopes, name = weight.path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(tf.zeros(weight.shape), dtype="float32", name=name)


class RuleRollout:
    """Minimises one optimizee after another with a rule, as meta-training does.

    To `LearnedOptimizer`, all coordinates are those of one function; here, a coupled rule steps
    through each of a task's functions on its own.

    Args:
        task: Where optimizees come from.
        rule: The rule, or groups of rules; see `InnerLoop`.
        steps: Updates of a run.
        split: Which optimizees and data: `"train"`, `"validation"` or `"test"`.

    Example:
        >>> task = l2l_keras.tasks.Quadratic(functions=4)
        >>> rule = l2l_keras.rules.GlobalAveragingLSTM((4,), 2, seed=0)
        >>> RuleRollout(task, rule, steps=5)(seed=0).shape
        (4, 6)
    """

    def __init__(
        self,
        task: Task,
        rule: UpdateRule | Mapping[str, UpdateRule],
        steps: int,
        split: Split = "test",
    ) -> None:
        self.task = task
        self.steps = steps
        self.split = split
        self._inner_loop = InnerLoop(rule, task)
        self._loop = tf.function(self._steps, autograph=False)
        self._run(seed=0, steps=0)  # Compiles everything, as in `Rollout`.

    def __call__(self, seed: int) -> np.ndarray:
        """Minimises the optimizee of one seed; see `Rollout`."""
        return self._run(seed, self.steps)

    def _run(self, seed: int, steps: int) -> np.ndarray:
        parameters, state = self.task.sample(self.split, seed)
        state = tf.nest.map_structure(tf.convert_to_tensor, state)
        seed, steps = tf.constant(seed, tf.int32), tf.constant(steps, tf.int32)
        return self._loop(parameters, state, seed, steps).numpy().T

    def _steps(self, parameters: Tensor, state: Nest, seed: Tensor, steps: Tensor) -> Tensor:
        """Returns the losses `[steps + 1, functions]`."""

        def draw(step: int | Tensor) -> Nest:
            return self.task.batch(self.split, tf.stack([seed, step]))

        return self._inner_loop.rollout(parameters, state, draw, steps)
