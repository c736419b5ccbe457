"""Episodes: one training optimizee after another, optimized window by window."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import tensorflow as tf

from l2l_keras.meta import graph_loops
from l2l_keras.meta.estimators import Carry, Estimator
from l2l_keras.meta.inner_loop import InnerLoop, InnerState, Steps, rates
from l2l_keras.meta.windows import Windows
from l2l_keras.schedules import Schedule
from l2l_keras.tasks.base import Nest, Tensor


class EpisodeState(NamedTuple):
    """Where an episode is: the estimator's carry, f(θ_0), and three int32 scalars."""

    carry: Carry
    initial_losses: Tensor
    seed: Tensor
    step: Tensor
    horizon: Tensor


class Programs:
    """What is compiled for the episodes of a task, which share it.

    Functions take the variables of an episode's state, read and assign them.

    Args:
        loop: The inner loop.
        estimator: Estimates meta-gradients.
        windows: How episodes are cut.
        on_held_out: Whether meta-losses are of the examples that the task holds out.
        schedule: The learning rate; see `MetaModel`.

    Attributes:
        example: A state, for its shapes.
        start: Begins an episode in `(variables, parameters, task_state, seed, horizon)`.
        window: Computes a window of an episode, given its variables, and moves on; ends the episode
            if the window's end is not finite. Returns the meta-loss, whether that and the
            meta-gradient are finite, and the meta-gradient, shaped as the rules' trainable
            variables.
        draw: Draws a training optimizee by its seed.
    """

    def __init__(
        self,
        loop: InnerLoop,
        estimator: Estimator,
        windows: Windows,
        on_held_out: bool,
        schedule: Schedule | None = None,
    ) -> None:
        self._loop = loop
        self._estimator = estimator
        self._windows = windows
        self._on_held_out = on_held_out
        self._schedule = schedule
        task, key, zero = loop.task, tf.zeros((2,), tf.int32), tf.constant(0)
        losses, inner = loop.start(*task.sample("train", 0), task.batch("train", key))
        carry = estimator.begin(loop, inner, key)
        self.example = EpisodeState(carry, losses, zero, zero, zero)
        # One program if neither the rule nor the optimizee has much to compute in a step.
        compiled = functools.partial(tf.function, jit_compile=loop.jit_compile, autograph=False)
        self._estimate = compiled(self._estimate_window)
        self._warm_up = compiled(self._take_steps)
        self.start = tf.function(self._start_optimizee, autograph=False)
        self.window = tf.function(self._compute_window, autograph=False)
        # If optimizees come again: to draw one can take as long as a window.
        self.draw = functools.lru_cache(maxsize=64)(functools.partial(task.sample, "train"))

    def _start_optimizee(
        self,
        variables: EpisodeState,
        parameters: Tensor,
        task_state: Nest,
        seed: Tensor,
        horizon: Tensor,
    ) -> None:
        losses, inner = self._loop.start(parameters, task_state, self._batch(seed, 0))
        if self._on_held_out:
            batch = self._loop.task.held_out_batch("train", tf.stack([seed, 0]))
            losses = self._loop.held_out_loss(parameters, inner.task_state, batch)
        step, key = tf.constant(0), tf.stack([seed, 0])
        if self._windows.staggered:
            step = tf.random.stateless_uniform((), key, 0, self._windows.unroll, tf.int32)
            inner = self._warm_up(inner, self._scale(seed), seed, step, horizon)
        carry = self._estimator.begin(self._loop, inner, key)
        _assign(variables, EpisodeState(carry, losses, seed, step, horizon))

    def _take_steps(
        self,
        inner: InnerState,
        scale: Tensor | None,
        seed: Tensor,
        steps: Tensor,
        horizon: Tensor,
    ) -> InnerState:
        """Computes inner steps that are not differentiated."""
        rate = rates(self._schedule, horizon)

        def body(step: Tensor, inner: InnerState) -> tuple[InnerState]:
            own = None if rate is None else rate(step)
            return (self._loop.step(inner, self._batch(seed, step + 1), scale, own)[1],)

        return graph_loops.run(steps, body, (inner,))[0]

    def _compute_window(self, variables: EpisodeState) -> tuple[Tensor, Tensor, list[Tensor]]:
        state = tf.nest.map_structure(tf.convert_to_tensor, variables)
        value, meta_gradient, carry = self._estimate(state, self._scale(state.seed))
        # Not of the components: their norm can overflow although none of them does.
        norm = tf.linalg.global_norm(meta_gradient)
        finite = tf.math.is_finite(value) & tf.math.is_finite(norm)
        # If the meta-gradient alone overflows, the episode continues.
        alive = tf.math.is_finite(value) & _all_finite(carry)
        moved = state._replace(carry=carry, step=state.step + self._windows.unroll)
        ended = state._replace(step=state.horizon)
        _assign(
            variables,
            tf.nest.map_structure(lambda new, old: tf.where(alive, new, old), moved, ended),
        )
        return value, finite, self._windows.clip(meta_gradient, norm)

    def _estimate_window(
        self, state: EpisodeState, scale: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Carry]:
        task, unroll = self._loop.task, self._windows.unroll
        numbers = state.step + tf.range(1, unroll + 1)

        def drawing(draw: Callable) -> Callable[[Tensor], Nest]:
            return lambda t: draw("train", tf.stack([state.seed, numbers[t]]))

        progress = tf.minimum(tf.cast(numbers / state.horizon, "float32"), 1.0)
        return self._estimator.window(
            self._loop,
            state.carry,
            Steps(
                unroll,
                drawing(task.batch),
                scale,
                drawing(task.held_out_batch) if self._on_held_out else None,
                rates(self._schedule, state.horizon, state.step),
            ),
            lambda losses: self._windows.loss(losses, state.initial_losses, progress),
            tf.stack([state.seed, -1 - state.step]),
        )

    def _scale(self, seed: Tensor) -> Tensor | None:
        """Returns the factors of the episode's reparametrization, the same in all its windows."""
        return self._windows.draw_scale(self._loop.task, tf.stack([seed, 0]))

    def _batch(self, seed: Tensor, step: Tensor) -> Nest:
        return self._loop.task.batch("train", tf.stack([seed, step]))


class Episode:
    """Optimizes one training optimizee after another, and estimates meta-gradients.

    All state is in variables, so that it can be backed up. `add_variable` makes one, zero at first,
    from a shape and the name of a dtype.
    """

    def __init__(self, programs: Programs, add_variable: Callable) -> None:
        self._programs = programs
        self._state = tf.nest.map_structure(
            lambda t: add_variable(shape=t.shape, dtype=t.dtype.name).value, programs.example
        )

    @property
    def over(self) -> bool:
        """Whether the optimizee has had all of its steps."""
        return int(self._state.step) >= int(self._state.horizon)

    def begin(self, optimizee: int, seed: int, horizon: int) -> None:
        """Begins with the next optimizee, given its seed, that of its minibatches and its steps."""
        drawn = self._programs.draw(optimizee)
        self._programs.start(self._state, *drawn, tf.constant(seed), tf.constant(horizon))

    def window(self) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Computes a window; see `Programs.window`."""
        return self._programs.window(self._state)


def _all_finite(tensors: Nest) -> Tensor:
    """Returns whether all numbers are finite, a boolean scalar."""
    floats = [part for part in tf.nest.flatten(tensors) if part.dtype.is_floating]
    return tf.reduce_all([tf.reduce_all(tf.math.is_finite(part)) for part in floats])


def _assign(variables: Nest, values: Nest) -> None:
    """Assigns a nested structure of tensors to one of variables."""
    tf.nest.map_structure(lambda variable, value: variable.assign(value), variables, values)
