"""Runs of an optimizer on optimizees of a task.

A *run* is one function minimized by one optimizer, from a fresh start. Runs of different optimizers
are paired: the same seed gives the same optimizee and, step by step, the same minibatches.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from l2l_keras.meta import InnerLoop
from l2l_keras.rules.base import UpdateRule
from l2l_keras.tasks.base import Nest, Split, Task, Tensor, Weight

Rules = UpdateRule | Mapping[str, UpdateRule]


def run(
    task: Task,
    optimizer: keras.optimizers.Optimizer,
    steps: int,
    seeds: Sequence[int],
    split: Split = "test",
) -> np.ndarray:
    """Minimizes the optimizees of several seeds, each from a fresh start.

    Args:
        task: Where optimizees come from. Each function of a task is a run of its own:
            `Quadratic(functions=128)` gives 128 runs a seed.
        optimizer: A fresh Keras optimizer.
        steps: Updates of a run.
        seeds: Seeds of the optimizees and their minibatches.
        split: `"train"`, `"validation"` or `"test"`. Defaults to `"test"`.

    Returns:
        Losses f(θ_0) to f(θ_steps), float32 `[runs, steps + 1]` with
        `runs = len(seeds) * task.functions`, seed after seed.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> task = l2l_keras.tasks.Quadratic(functions=4)
        >>> optimizer = keras.optimizers.Adam(0.1)
        >>> l2l_keras.evaluation.run(task, optimizer, steps=5, seeds=range(3)).shape
        (12, 6)
    """
    seeds = checked_seeds("seeds", seeds)
    rollout = Rollout(task, optimizer, steps, split)
    return np.concatenate([rollout(seed) for seed in seeds])


def checked_seeds(argument: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """Returns seeds as a tuple, at least one."""
    seeds = tuple(int(seed) for seed in seeds)
    if not seeds:
        raise ValueError(f"`{argument}` must hold at least one seed. Received: {argument}={seeds}")
    return seeds


class Rollout:
    """Minimizes one optimizee after another with one Keras optimizer, each from a fresh start.

    All steps are one loop over the optimizer's `apply`, compiled once, on construction.

    Args:
        task, steps, split: See `run`.
        optimizer: A fresh Keras optimizer. It is built here, on variables that have the paths and
            shapes of the task's `layout`.

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
        self, task: Task, optimizer: keras.optimizers.Optimizer, steps: int, split: Split = "test"
    ) -> None:
        if keras.config.backend() != "tensorflow":
            raise RuntimeError(
                "Comparisons need Keras' TensorFlow backend. "
                f"Received: keras.config.backend()={keras.config.backend()!r}"
            )
        if steps < 1:
            raise ValueError(f"`steps` must be positive. Received: steps={steps}")
        if optimizer.built:
            raise ValueError(
                f"`optimizer` must be fresh. Received: optimizer={optimizer.name!r}, already built"
            )
        self.task = task
        self.optimizer = optimizer
        self.steps = steps
        self.split = split
        self._variables = [_variable(weight) for weight in task.layout]
        optimizer.build(self._variables)
        self._initial_values = [tf.identity(v.value) for v in optimizer.variables]
        self._loop = tf.function(self._losses, autograph=False, jit_compile=task.jit_compile)
        # Compiles everything, and takes no step: the time of a run is free of compilation.
        self._run(seed=0, learning_rate=None, steps=0)

    def __call__(
        self, seed: int, learning_rate: float | None = None, steps: int | None = None
    ) -> np.ndarray:
        """Minimizes the optimizee of one seed.

        Args:
            seed: Seed of the optimizee and its minibatches, a non-negative integer.
            learning_rate: Learning rate of this run. Defaults to the optimizer's own.
            steps: Updates of this run. Defaults to `self.steps`, and is at most that.

        Returns:
            Losses, each on its own minibatch: float32 `[task.functions, steps + 1]`.
        """
        steps = self.steps if steps is None else steps
        if not 1 <= steps <= self.steps:
            raise ValueError(f"`steps` must be from 1 to {self.steps}. Received: steps={steps}")
        return self._run(seed, learning_rate, steps)[:, : steps + 1]

    @property
    def parameters(self) -> np.ndarray:
        """Final parameters of the last run, float32 `[size]`."""
        return self._parameters().numpy()

    def _run(self, seed: int, learning_rate: float | None, steps: int) -> np.ndarray:
        parameters, state = self.task.sample(self.split, seed)
        for variable, value in zip(self.optimizer.variables, self._initial_values, strict=True):
            variable.assign(value)
        if learning_rate is not None:
            self.optimizer.learning_rate = learning_rate
        self._assign(parameters)
        state = tf.nest.map_structure(tf.convert_to_tensor, state)
        return self._loop(state, tf.constant(seed), tf.constant(steps)).numpy().T

    def _losses(self, state: Nest, seed: Tensor, steps: Tensor) -> Tensor:
        """Returns losses `[self.steps + 1, functions]`, of which the first `steps + 1` are set."""
        task = self.task

        def body(step: Tensor, state: Nest, losses: tf.TensorArray):
            batch = task.batch(self.split, tf.stack([seed, step]))
            loss, gradient, state = task.loss_and_gradient(self._parameters(), state, batch)
            # As `fit` does: this is where a guard sees losses.
            self.optimizer.scale_loss(tf.reduce_mean(loss))
            self.optimizer.apply(task.unflatten(gradient), self._variables)
            if task.constrained:
                self._assign(task.constrain(self._parameters()))
            return step + 1, state, losses.write(step, loss)

        losses = tf.TensorArray(tf.float32, self.steps + 1, element_shape=(task.functions,))
        _, state, losses = tf.while_loop(
            lambda step, *_: step < steps, body, (tf.constant(0), state, losses)
        )
        batch = task.batch(self.split, tf.stack([seed, steps]))
        loss, _ = task.loss(self._parameters(), state, batch)
        return losses.write(steps, loss).stack()

    def _assign(self, parameters: Tensor) -> None:
        for variable, value in zip(self._variables, self.task.unflatten(parameters), strict=True):
            variable.assign(value)

    def _parameters(self) -> Tensor:
        return tf.concat([tf.reshape(tf.convert_to_tensor(v), [-1]) for v in self._variables], 0)


def _variable(weight: Weight) -> keras.Variable:
    """Returns a variable of a weight's path and shape."""
    *scopes, name = weight.path.split("/")
    with contextlib.ExitStack() as stack:
        for scope in scopes:
            stack.enter_context(keras.name_scope(scope))
        return keras.Variable(tf.zeros(weight.shape), dtype="float32", name=name)


class RuleRollout:
    """As `Rollout`, with a rule and the loop of meta-training instead of a Keras optimizer.

    A rule that is not elementwise updates each of a task's functions on its own. To
    `LearnedOptimizer`, all parameters are those of one function.
    """

    def __init__(self, task: Task, rule: Rules, steps: int, split: Split = "test") -> None:
        self.task = task
        self.steps = steps
        self.split = split
        self._inner_loop = InnerLoop(rule, task)
        self._loop = tf.function(self._losses, autograph=False)
        self._run(seed=0, steps=0)  # Compiles everything, as in `Rollout`.

    def __call__(self, seed: int) -> np.ndarray:
        """See `Rollout.__call__`."""
        return self._run(seed, self.steps)

    def _run(self, seed: int, steps: int) -> np.ndarray:
        parameters, state = self.task.sample(self.split, seed)
        state = tf.nest.map_structure(tf.convert_to_tensor, state)
        return self._loop(parameters, state, tf.constant(seed), tf.constant(steps)).numpy().T

    def _losses(self, parameters: Tensor, state: Nest, seed: Tensor, steps: Tensor) -> Tensor:
        """Returns losses `[steps + 1, functions]`."""

        def draw(step: int | Tensor) -> Nest:
            return self.task.batch(self.split, tf.stack([seed, step]))

        return self._inner_loop.rollout(parameters, state, draw, steps)
