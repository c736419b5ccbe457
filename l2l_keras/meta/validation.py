"""Validation in meta-training: whole episodes with φ frozen."""

from __future__ import annotations

import functools
import math
from typing import Any

import keras
import tensorflow as tf

from l2l_keras.meta.inner_loop import InnerLoop, InnerState, Steps, rates
from l2l_keras.schedules import Schedule
from l2l_keras.tasks.base import Nest, Tensor, split_seed


class Validation:
    """Runs validation episodes of `horizon` inner steps, on the same optimizees at every call.

    Attributes:
        names: The names of results.
    """

    def __init__(self, loop: InnerLoop, horizon: int, schedule: Schedule | None = None) -> None:
        self._loop = loop
        self._horizon = horizon
        self._schedule = schedule
        self.names = ["loss", "final_loss"]
        if loop.task.holds_out:
            optimizee = loop.task.sample("validation", 0)
            self.names += self._held_out(*optimizee)
        self._sample = functools.cache(functools.partial(loop.task.sample, "validation"))
        self._episode = tf.function(
            self._run_episode, jit_compile=loop.jit_compile, autograph=False
        )

    def __call__(self, seed: int) -> dict[str, Any]:
        """Returns results of the episode of a seed.

        They are its mean loss and that of its last tenth; and the loss and metrics at its end, on
        examples that the task holds out.
        """
        key = tf.constant(split_seed("validation", seed), tf.int32)
        mean, final, end = self._episode(*self._sample(seed), key)
        results = {"loss": mean, "final_loss": final}
        if self._loop.task.holds_out:
            results |= self._held_out(end.parameters, end.task_state)
        return results

    def _held_out(self, parameters: Tensor, task_state: Nest) -> dict[str, float]:
        metrics = self._loop.task.evaluate("validation", parameters, task_state)
        return {f"held_out_{name}": value for name, value in metrics.items()}

    def _run_episode(
        self, parameters: Tensor, task_state: Nest, seed: Tensor
    ) -> tuple[Tensor, Tensor, InnerState]:
        def draw(step: int | Tensor) -> Nest:
            return self._loop.task.batch("validation", tf.stack([seed, step]))

        _, inner = self._loop.start(parameters, task_state, draw(0))
        rate = rates(self._schedule, self._horizon)
        steps = Steps(self._horizon, lambda step: draw(step + 1), rate=rate)
        losses, inner = self._loop.window(self._loop.pack(), inner, steps)
        losses = tf.reduce_mean(losses, axis=1)
        last = math.ceil(self._horizon / 10)
        return tf.reduce_mean(losses), tf.reduce_mean(losses[-last:]), inner


class MeanOfAny(keras.metrics.Mean):
    """The mean of values, NaN if there are none: a mean of zero would look like a perfect one."""

    def result(self) -> Tensor:
        """Returns the mean."""
        return keras.ops.where(self.count > 0.0, super().result(), math.nan)


class GeometricMean(keras.metrics.Mean):
    """The geometric mean of losses, for tasks whose losses cannot be added."""

    def update_state(self, values: Tensor, sample_weight: Tensor | None = None) -> None:
        """Adds losses, which must not be negative."""
        super().update_state(keras.ops.log(keras.ops.maximum(values, 1e-12)), sample_weight)

    def result(self) -> Tensor:
        """Returns the geometric mean of all losses so far."""
        return keras.ops.exp(super().result())


MEANS = {"arithmetic": keras.metrics.Mean, "geometric": GeometricMean}
"""How a mixture averages the losses of its validation optimizees, by `Mixture.validation_mean`."""
