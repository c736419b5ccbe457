"""Runs of an optimizer on optimizees of a task.

A *run* is one function minimized by one optimizer, from a fresh start. Runs of different optimizers
are paired: the same seed gives the same optimizee and, step by step, the same minibatches.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf

from l2l_keras.meta import InnerLoop
from l2l_keras.rules.base import UpdateRule
from l2l_keras.schedules import Schedule
from l2l_keras.tasks.base import Nest, Split, Task, Tensor, Weight

Rules = UpdateRule | Mapping[str, UpdateRule]

_WARM_UP_STEPS = 10
"""Steps before runs whose time counts: programs are compiled when they are first needed."""


class Run(NamedTuple):
    """One run of an optimizer.

    Attributes:
        losses: Losses, each on its own minibatch, float32 `[task.functions, steps + 1]`.
        seconds: Wall time of its steps.
        looks: What `Task.evaluate` returned, after each number of steps that was asked for.
    """

    losses: np.ndarray
    seconds: float
    looks: Sequence[Mapping[str, float]]


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
        schedule: Factor of the learning rate, a function of the share of a run that is over.
            Defaults to None, for a constant rate.

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
        schedule: Schedule | None = None,
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
        self._schedule = schedule
        self._variables = [_variable(weight) for weight in task.layout]
        optimizer.build(self._variables)
        self._initial_values = [tf.identity(v.value) for v in optimizer.variables]
        self._loop = tf.function(self._losses, autograph=False, jit_compile=task.jit_compile)
        # Compiles everything: the time of a run is free of compilation.
        self.run(seed=0, steps=min(steps, _WARM_UP_STEPS))

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
        return self.run(seed, learning_rate, steps).losses

    def run(
        self,
        seed: int,
        learning_rate: float | None = None,
        steps: int | None = None,
        looks: Sequence[int] = (),
        stops: Mapping[int, Callable[[], None]] | None = None,
    ) -> Run:
        """Minimizes the optimizee of one seed, and looks at examples held out on the way.

        Args:
            seed: See `__call__`.
            learning_rate: See `__call__`.
            steps: See `__call__`.
            looks: Increasing numbers of steps after which to evaluate the optimizee; only for tasks
                that hold examples out.
            stops: What to call after numbers of steps. Defaults to nothing.
        """
        stops = stops or {}
        steps = self.steps if steps is None else steps
        if not 1 <= steps <= self.steps:
            raise ValueError(f"`steps` must be from 1 to {self.steps}. Received: steps={steps}")
        parameters, state = self.task.sample(self.split, seed)
        for variable, value in zip(self.optimizer.variables, self._initial_values, strict=True):
            variable.assign(value)
        if learning_rate is not None:
            self.optimizer.learning_rate = learning_rate
        rate = tf.convert_to_tensor(self.optimizer.learning_rate)
        self._assign(parameters)
        state = tf.nest.map_structure(tf.convert_to_tensor, state)
        losses, found = np.empty((steps + 1, self.task.functions), np.float32), []
        seconds, done = 0.0, 0
        for end in sorted({*looks, *stops, steps}):
            start = time.perf_counter()
            bounds = [tf.constant(number) for number in (seed, done, end, steps)]
            own, state = self._loop(state, rate, *bounds)
            losses[done : end + 1] = own.numpy()[: end - done + 1]
            seconds += time.perf_counter() - start
            if end in looks:
                found.append(self.task.evaluate(self.split, self._parameters(), state))
            if end in stops:
                stops[end]()
            done = end
        return Run(losses.T, seconds, found)

    @property
    def state_bytes(self) -> int:
        """Size of the optimizer's state."""
        variables = self.optimizer.variables
        return sum(math.prod(v.shape) * tf.as_dtype(v.dtype).size for v in variables)

    @property
    def parameters(self) -> np.ndarray:
        """Final parameters of the last run, float32 `[size]`."""
        return self._parameters().numpy()

    def _losses(
        self, state: Nest, rate: Tensor, seed: Tensor, first: Tensor, end: Tensor, steps: Tensor
    ) -> tuple[Tensor, Nest]:
        """Takes the steps from `first` to `end` of `steps`.

        Returns losses `[self.steps + 1, functions]`, of which the first `end - first + 1` are set,
        and the next state.
        """
        task = self.task

        def body(step: Tensor, state: Nest, losses: tf.TensorArray):
            batch = task.batch(self.split, tf.stack([seed, step]))
            loss, gradient, state = task.loss_and_gradient(self._parameters(), state, batch)
            if self._schedule is not None:
                factor = self._schedule(tf.cast(step / steps, rate.dtype))
                self.optimizer.learning_rate.assign(rate * factor)
            # As `fit` does: this is where a guard sees losses.
            self.optimizer.scale_loss(tf.reduce_mean(loss))
            self.optimizer.apply(task.unflatten(gradient), self._variables)
            if task.constrained:
                self._assign(task.constrain(self._parameters()))
            return step + 1, state, losses.write(step - first, loss)

        losses = tf.TensorArray(tf.float32, self.steps + 1, element_shape=(task.functions,))
        _, state, losses = tf.while_loop(lambda step, *_: step < end, body, (first, state, losses))
        batch = task.batch(self.split, tf.stack([seed, end]))
        loss, _ = task.loss(self._parameters(), state, batch)
        return losses.write(end - first, loss).stack(), state

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

    def __init__(
        self,
        task: Task,
        rule: Rules,
        steps: int,
        split: Split = "test",
        schedule: Schedule | None = None,
    ) -> None:
        self.task = task
        self.steps = steps
        self.split = split
        self._schedule = schedule
        self._inner_loop = InnerLoop(rule, task)
        self._loop = tf.function(self._losses, autograph=False)
        self.run(seed=0, steps=min(steps, _WARM_UP_STEPS))  # Compiles everything, as in `Rollout`.

    def __call__(self, seed: int) -> np.ndarray:
        """See `Rollout.__call__`."""
        return self.run(seed).losses

    def run(self, seed: int, steps: int | None = None) -> Run:
        """See `Rollout.run`."""
        parameters, state = self.task.sample(self.split, seed)
        state = tf.nest.map_structure(tf.convert_to_tensor, state)
        steps = self.steps if steps is None else steps
        start = time.perf_counter()
        losses = self._loop(parameters, state, tf.constant(seed), tf.constant(steps)).numpy().T
        return Run(losses, time.perf_counter() - start, ())

    def _losses(self, parameters: Tensor, state: Nest, seed: Tensor, steps: Tensor) -> Tensor:
        """Returns losses `[steps + 1, functions]`."""

        def draw(step: int | Tensor) -> Nest:
            return self.task.batch(self.split, tf.stack([seed, step]))

        return self._inner_loop.rollout(parameters, state, draw, steps, self._schedule)
