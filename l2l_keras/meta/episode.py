"""Episodes: one training optimizee after another, optimized window by window."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from l2l_keras.meta.estimators import Carry, Estimator
from l2l_keras.meta.inner_loop import InnerLoop, InnerState, Steps
from l2l_keras.meta.windows import Windows
from l2l_keras.tasks.base import Nest, Tensor


class Episode:
    """Optimizes one training optimizee after another, and estimates meta-gradients.

    All state is in variables, so that it can be backed up. `add_variable` makes one, zero at first,
    from a shape and the name of a dtype. `window` computes a window and moves on; it ends the
    episode if the window's end is not finite. It returns the meta-loss, whether that and the
    meta-gradient are finite, and the meta-gradient, shaped as the rules' trainable variables.
    """

    def __init__(
        self, loop: InnerLoop, estimator: Estimator, windows: Windows, add_variable: Callable
    ) -> None:
        self._loop = loop
        self._estimator = estimator
        self._windows = windows
        task, key = loop.task, tf.zeros((2,), tf.int32)
        initial, inner = loop.start(*task.sample("train", 0), task.batch("train", key))
        self._carry = tf.nest.map_structure(
            lambda t: add_variable(shape=t.shape, dtype=t.dtype.name),
            estimator.begin(loop, inner, key),
        )
        self._initial_losses = add_variable(shape=initial.shape, dtype="float32")
        self._scale = None
        if windows.random_scale:
            self._scale = add_variable(shape=(task.size,), dtype="float32")
        self._seed, self._step, self._horizon = (
            add_variable(shape=(), dtype="int32") for _ in range(3)
        )
        # One program if neither the rule nor the optimizee has much to compute in a step.
        compiled = functools.partial(tf.function, jit_compile=loop.jit_compile, autograph=False)
        self._estimate = compiled(self._estimate_window)
        self._warm_up = compiled(self._take_steps)
        self._start = tf.function(self._start_optimizee, autograph=False)
        self.window = tf.function(self._compute_window, autograph=False)
        # If optimizees come again: to draw one can take as long as a window.
        self._draw = functools.lru_cache(maxsize=64)(functools.partial(task.sample, "train"))

    @property
    def over(self) -> bool:
        """Whether the optimizee has had all of its steps."""
        return int(self._step) >= int(self._horizon)

    def begin(self, optimizee: int, seed: int, horizon: int) -> None:
        """Begins with the next optimizee, given its seed, that of its minibatches and its steps."""
        self._start(*self._draw(optimizee), tf.constant(seed), tf.constant(horizon))

    def _start_optimizee(
        self, parameters: Tensor, task_state: Nest, seed: Tensor, horizon: Tensor
    ) -> None:
        losses, inner = self._loop.start(parameters, task_state, self._batch(seed, 0))
        key = tf.stack([seed, 0])
        scale = self._windows.draw_scale(self._loop.task, key)
        if self._scale is not None:
            self._scale.assign(scale)
        step = tf.constant(0)
        if self._windows.staggered:
            step = tf.random.stateless_uniform((), key, 0, self._windows.unroll, tf.int32)
            inner = self._warm_up(inner, scale, seed, step)
        _assign(self._carry, self._estimator.begin(self._loop, inner, key))
        self._initial_losses.assign(losses)
        self._seed.assign(seed)
        self._step.assign(step)
        self._horizon.assign(horizon)

    def _take_steps(
        self, inner: InnerState, scale: Tensor | None, seed: Tensor, steps: Tensor
    ) -> InnerState:
        """Computes inner steps that are not differentiated."""

        def body(step: Tensor, inner: InnerState) -> tuple[Tensor, InnerState]:
            return step + 1, self._loop.step(inner, self._batch(seed, step), scale)[1]

        condition = lambda step, _: step <= steps  # noqa: E731
        return tf.while_loop(condition, body, (1, inner), parallel_iterations=1)[1]

    def _compute_window(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        carry = tf.nest.map_structure(_value, self._carry)
        scale = None if self._scale is None else _value(self._scale)
        seed, step, horizon = map(_value, (self._seed, self._step, self._horizon))
        value, meta_gradient, new_carry = self._estimate(
            carry, scale, _value(self._initial_losses), seed, step, horizon
        )
        # Not of the components: their norm can overflow although none of them does.
        norm = tf.linalg.global_norm(meta_gradient)
        finite = tf.math.is_finite(value) & tf.math.is_finite(norm)
        # If the meta-gradient alone overflows, the episode continues.
        alive = tf.math.is_finite(value) & _all_finite(new_carry)
        moved = tf.nest.map_structure(lambda new, old: tf.where(alive, new, old), new_carry, carry)
        _assign(self._carry, moved)
        self._step.assign(tf.where(alive, step + self._windows.unroll, horizon))
        return value, finite, self._windows.clip(meta_gradient, norm)

    def _estimate_window(
        self, carry: Carry, scale: Any, initial: Tensor, seed: Tensor, step: Tensor, horizon: Tensor
    ) -> tuple[Tensor, list[Tensor], Carry]:
        unroll = self._windows.unroll
        numbers = step + tf.range(1, unroll + 1)
        progress = tf.minimum(tf.cast(numbers / horizon, "float32"), 1.0)
        return self._estimator.window(
            self._loop,
            carry,
            Steps(unroll, lambda t: self._batch(seed, numbers[t]), scale),
            lambda losses: self._windows.loss(losses, initial, progress),
            tf.stack([seed, -1 - step]),
        )

    def _batch(self, seed: Tensor, step: Tensor) -> Nest:
        return self._loop.task.batch("train", tf.stack([seed, step]))


def _value(variable: Any) -> Tensor:
    return tf.convert_to_tensor(variable.value)


def _all_finite(tensors: Nest) -> Tensor:
    """Returns whether all numbers are finite, a boolean scalar."""
    floats = [part for part in tf.nest.flatten(tensors) if part.dtype.is_floating]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(part)) for part in floats])


def _assign(variables: Nest, values: Nest) -> None:
    """Assigns a nested structure of tensors to one of variables."""
    tf.nest.map_structure(lambda variable, value: variable.assign(value), variables, values)
