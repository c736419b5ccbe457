"""One optimizee after another, optimised window by window for meta-training."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf

from l2l_keras.meta.estimators import Carry, Estimator
from l2l_keras.meta.inner_loop import InnerLoop
from l2l_keras.tasks.base import Nest, Tensor

RANDOM_SCALES = ("coordinate", "tensor")
"""What is rescaled by one random factor."""


class Windows(NamedTuple):
    """How episodes are cut into windows, and what is minimised over one.

    Attributes:
        unroll: Inner steps in a window.
        meta_loss: Maps losses `[unroll, functions]`, initial losses `[functions]` and t / T of the
            steps `[unroll]` to the meta-loss.
        random_scale: Largest |log s| of a random reparametrisation.
        random_scale_of: One of `RANDOM_SCALES`.
        clip: Largest norm of a window's meta-gradient, or None.
        staggered: Whether the first window begins after a random number of steps.
    """

    unroll: int
    meta_loss: Callable[[Tensor, Tensor, Tensor], Tensor]
    random_scale: float
    random_scale_of: str
    clip: float | None
    staggered: bool


class Episode:
    """Optimises one training optimizee after another with a rule, and differentiates it by φ.

    All that changes is in variables, so that it can be backed up.

    Args:
        loop: The inner loop of the rule on a task.
        estimator: Estimates the meta-gradients of windows.
        windows: How episodes are cut, and what is minimised.
        add_variable: Makes a variable, zero at first, from a shape and the name of a dtype.
    """

    def __init__(
        self,
        loop: InnerLoop,
        estimator: Estimator,
        windows: Windows,
        add_variable: Callable[..., Any],
    ) -> None:
        self.loop = loop
        self._estimator = estimator
        self._windows = windows
        task = loop.task
        initial, inner = loop.start(
            *task.sample("train", 0), task.batch("train", tf.zeros((2,), tf.int32))
        )
        self._carry = tf.nest.map_structure(
            lambda t: add_variable(shape=t.shape, dtype=t.dtype.name),
            estimator.begin(inner, tf.zeros((2,), tf.int32)),
        )
        self._initial_losses = add_variable(shape=initial.shape, dtype="float32")
        self._scale = None
        if windows.random_scale:
            self._scale = add_variable(shape=(task.size,), dtype="float32")
        self._seed, self._step, self._horizon = (
            add_variable(shape=(), dtype="int32") for _ in range(3)
        )
        # One program where neither the rule nor the optimizee has much to compute in a step.
        self._differentiate = tf.function(
            self._meta_gradient, jit_compile=loop.jit_compile, autograph=False
        )
        self._start = tf.function(self._start_optimizee, autograph=False)
        self._move_on = tf.function(self._compute_window, autograph=False)
        # For where the same optimizees come again: to draw one can take as long as a window.
        self._draw = functools.lru_cache(maxsize=64)(functools.partial(task.sample, "train"))
        self._warm_up = tf.function(self._steps, jit_compile=loop.jit_compile, autograph=False)

    @property
    def unroll(self) -> int:
        """Inner steps in a window."""
        return self._windows.unroll

    @property
    def over(self) -> bool:
        """Whether the optimizee has had all of its steps."""
        return int(self._step) >= int(self._horizon)

    def begin(self, optimizee: int, seed: int, horizon: int) -> None:
        """Begins with the next optimizee.

        Args:
            optimizee: Its seed.
            seed: Seed of its minibatches.
            horizon: How many steps it is to have, a multiple of a window's.
        """
        drawn = self._draw(optimizee)
        self._start(*drawn, tf.constant(seed), tf.constant(horizon))

    def window(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Computes a window, and moves on; or, if it ends in what is not finite, gives up.

        Returns:
            `(meta_loss, finite, meta_gradient)`: the meta-loss; whether all is finite; and the
            derivatives with respect to the rules' trainable variables.
        """
        return self._move_on()

    def _compute_window(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        carry = tf.nest.map_structure(lambda v: tf.convert_to_tensor(v.value), self._carry)
        scale = None if self._scale is None else tf.convert_to_tensor(self._scale.value)
        scalars = (tf.convert_to_tensor(v.value) for v in (self._seed, self._step, self._horizon))
        seed, step, horizon = scalars
        initial = tf.convert_to_tensor(self._initial_losses.value)
        value, meta_gradient, new_carry = self._differentiate(
            carry, scale, initial, seed, step, horizon
        )
        # Of the norm: one that overflows is no better than a component that does.
        norm = tf.linalg.global_norm(meta_gradient)
        finite = tf.math.is_finite(value) & tf.math.is_finite(norm)
        if self._windows.clip is not None:
            factor = self._windows.clip / tf.maximum(norm, self._windows.clip)
            meta_gradient = [factor * part for part in meta_gradient]
        # Where the meta-gradient alone overflows, the rule may well go on.
        alive = tf.math.is_finite(value) & _all_finite(new_carry)
        moved = tf.nest.map_structure(lambda new, old: tf.where(alive, new, old), new_carry, carry)
        _assign(self._carry, moved)
        self._step.assign(tf.where(alive, step + self._windows.unroll, horizon))
        return value, finite, meta_gradient

    def _start_optimizee(
        self, parameters: Tensor, task_state: Nest, seed: Tensor, horizon: Tensor
    ) -> None:
        losses, inner = self.loop.start(parameters, task_state, self._batch(seed, 0))
        key = tf.stack([seed, 0])
        scale = None
        if self._scale is not None:
            scale = tf.exp(self._log_scale(key))
            self._scale.assign(scale)
        step = tf.constant(0)
        if self._windows.staggered:
            step = tf.random.stateless_uniform((), key, 0, self._windows.unroll, tf.int32)
            inner = self._warm_up(inner, scale, seed, step)
        _assign(self._carry, self._estimator.begin(inner, key))
        self._initial_losses.assign(losses)
        self._seed.assign(seed)
        self._step.assign(step)
        self._horizon.assign(horizon)

    def _log_scale(self, key: Tensor) -> Tensor:
        """Draws the logarithm of the reparametrisation's factors, `[size]`."""
        task, limit = self.loop.task, self._windows.random_scale
        if self._windows.random_scale_of == "coordinate":
            return tf.random.stateless_uniform((task.size,), key, -limit, limit)
        sizes = [math.prod(weight.shape) for weight in task.layout]
        return tf.repeat(tf.random.stateless_uniform((len(sizes),), key, -limit, limit), sizes)

    def _batch(self, seed: Tensor, step: Tensor) -> Nest:
        return self.loop.task.batch("train", tf.stack([seed, step]))

    def _steps(self, inner: Any, scale: Tensor | None, seed: Tensor, steps: Tensor) -> Any:
        """Computes inner steps that are not differentiated."""

        def body(step: Tensor, inner: Any) -> tuple[Tensor, Any]:
            return step + 1, self.loop.step(inner, self._batch(seed, step), scale)[1]

        condition = lambda step, _: step <= steps  # noqa: E731
        return tf.while_loop(condition, body, (1, inner), parallel_iterations=1)[1]

    def _meta_gradient(
        self,
        carry: Carry,
        scale: Tensor | None,
        initial: Tensor,
        seed: Tensor,
        step: Tensor,
        horizon: Tensor,
    ) -> tuple[Tensor, list[Tensor], Carry]:
        steps = step + tf.range(1, self._windows.unroll + 1)
        progress = tf.minimum(tf.cast(steps / horizon, "float32"), 1.0)
        return self._estimator.window(
            carry,
            lambda t: self._batch(seed, steps[t]),
            lambda losses: self._windows.meta_loss(losses, initial, progress),
            scale,
            tf.stack([seed, -1 - step]),
        )


def _all_finite(tensors: Nest) -> Tensor:
    """Returns whether all numbers are finite, a boolean scalar."""
    floats = [part for part in tf.nest.flatten(tensors) if part.dtype.is_floating]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(part)) for part in floats])


def _assign(variables: Nest, values: Nest) -> None:
    """Assigns a nested structure of tensors to one of variables."""
    tf.nest.map_structure(lambda variable, value: variable.assign(value), variables, values)
