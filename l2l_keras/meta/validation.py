"""Validation in meta-training: whole episodes with φ frozen."""

from __future__ import annotations

import functools
import math

import keras
import tensorflow as tf

from l2l_keras.meta.inner_loop import InnerLoop
from l2l_keras.tasks.base import Nest, Tensor, split_seed


class Validation:
    """Runs validation episodes of `horizon` inner steps, on the same optimizees at every call."""

    def __init__(self, loop: InnerLoop, horizon: int) -> None:
        self._loop = loop
        self._horizon = horizon
        self._sample = functools.cache(functools.partial(loop.task.sample, "validation"))
        self._episode = tf.function(
            self._run_episode, jit_compile=loop.jit_compile, autograph=False
        )

    def __call__(self, seed: int) -> tuple[Tensor, Tensor]:
        """Returns the mean loss of the episode of a seed, and that of its last tenth."""
        key = tf.constant(split_seed("validation", seed), tf.int32)
        return self._episode(*self._sample(seed), key)

    def _run_episode(
        self, parameters: Tensor, task_state: Nest, seed: Tensor
    ) -> tuple[Tensor, Tensor]:
        losses = self._loop.rollout(
            parameters,
            task_state,
            lambda step: self._loop.task.batch("validation", tf.stack([seed, step])),
            self._horizon,
        )
        losses = tf.reduce_mean(losses[1:], axis=1)
        last = math.ceil(self._horizon / 10)
        return tf.reduce_mean(losses), tf.reduce_mean(losses[-last:])


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
