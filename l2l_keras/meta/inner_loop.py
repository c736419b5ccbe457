"""The inner loop: a rule, or several, that optimize one optimizee after another.

An inner step computes an update u_t = m(g_t, h_t; φ) of the gradient g_t = ∇f(θ_t), and the loss
and gradient at θ_{t+1} = θ_t + u_t. That gradient is carried into the next step, so that each step
differentiates the optimizee once, outside of any tape over φ.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from l2l_keras import arguments, parameter_groups
from l2l_keras.meta import graph_loops
from l2l_keras.meta.partition import divide
from l2l_keras.meta.rule_vjp import CompiledRule, compile_rule
from l2l_keras.rules import UpdateRule
from l2l_keras.rules.base import State
from l2l_keras.schedules import Schedule
from l2l_keras.tasks.base import Nest, Task, Tensor

Draw = Callable[[Tensor], Nest]


class InnerState(NamedTuple):
    """State of an inner loop.

    Attributes:
        parameters: θ_t, float32 `[size]`.
        gradient: ∇f(θ_t), float32 `[size]`.
        rule_state: The rules' state, one tuple of `[rows, elements]` arrays for every piece of the
            parameters.
        task_state: The optimizee's state.
        unconstrained: θ_t before the task's constraints; () for tasks without.
    """

    parameters: Tensor
    gradient: Tensor
    rule_state: Sequence[State]
    task_state: Nest
    unconstrained: Nest


class Steps(NamedTuple):
    """The inner steps of a window.

    Attributes:
        unroll: Number of steps.
        draw: Maps the number of a step, an int32 scalar from 0 to `unroll - 1`, to the minibatch
            for the loss and gradient after that step. May be called more than once for a step.
        scale: Factors s of a reparametrization θ = s · θ', float32 `[size]`, or None. The rule then
            optimizes f(s · θ') over θ'.
        rate: Maps the number of a step, or an array of them, to the learning rate that multiplies
            its update; or None: it is 1.
        draw_held_out: Maps the number of a step to a minibatch of examples held out, whose losses
            are those of the window; or None: they are the losses that the optimizee minimizes.
    """

    unroll: int
    draw: Draw
    scale: Tensor | None = None
    draw_held_out: Draw | None = None
    rate: Callable[[Tensor], Tensor] | None = None

    def rate_at(self, t: Tensor) -> Tensor | None:
        """Returns the learning rate of a step, or of several; None for 1."""
        return None if self.rate is None else self.rate(t)


class Piece(NamedTuple):
    """Parameters of one group that its rule updates at once, `[n]` or `[functions, n]`."""

    group: int
    rule: CompiledRule
    shape: tuple[int, ...]


class InnerLoop:
    """The inner loop of one rule, or several, on one task.

    The rules' arithmetic is compiled with XLA, the optimizee's as the task asks for: on a CPU, XLA
    makes rules twice as fast and convolutions several times slower.

    Args:
        rule: The update rule; or a dictionary of parameter groups, `{pattern: rule}`, as
            `LearnedOptimizer` takes it, matched with the paths in the task's `layout`.
        task: The task.
        chunk_size: Largest number of elements that a rule of scope `"element"` updates at once.
            Defaults to 4096.

    Attributes:
        rules: The rules, in the order of their groups.
        partition: How the parameters are divided into pieces.
        pieces: The pieces.
        jit_compile: Whether to compile whole windows and rollouts with XLA: worthwhile if neither
            the rules nor the optimizee have much to compute in a step.
        cached_step: Maps `(weights, inner, batch, scale, rate, cached)` to `(losses, inner,
            caches)`, as `step` with given φ; with the caches of the first `cached` pieces.
        held_out_loss: `Task.held_out_loss`, compiled.
        held_out_loss_and_gradient: The same with its gradient, `(losses, gradient)`.

    Raises:
        ValueError: If `chunk_size` is not positive, a group has no parameters, or the parameters of
            several functions are divided into groups.

    Example:
        >>> task = l2l_keras.tasks.Quadratic(functions=2)
        >>> loop = l2l_keras.meta.InnerLoop(l2l_keras.rules.RNNprop(seed=0), task)
        >>> parameters, state = task.sample("train", seed=0)
        >>> loop.rollout(parameters, state, draw=lambda step: (), steps=3).shape
        TensorShape([4, 2])
    """

    def __init__(
        self, rule: UpdateRule | Mapping[str, UpdateRule], task: Task, chunk_size: int = 4096
    ) -> None:
        arguments.count("chunk_size", chunk_size)
        self.task = task
        self.rules = parameter_groups.only_rules(rule)
        self.partition, tensors = divide(rule, task, chunk_size)
        self._compiled = [
            compile_rule(r, own, problems=task.functions > 1 and r.scope != "element")
            for r, own in zip(self.rules, tensors, strict=True)
        ]
        self.pieces = [
            Piece(group, self._compiled[group], shape)
            for group, shape in zip(self.partition.owners, self.partition.shapes, strict=True)
        ]
        # Tensorwise rules are so cheap that launching their programs would take longer than
        # running them.
        self.jit_compile = task.jit_compile and all(r.scope == "tensor" for r in self.rules)
        self.hessian_vector_product = _compile(task.hessian_vector_product, task.jit_compile)
        self._loss_and_gradient = _compile(task.loss_and_gradient, task.jit_compile)
        self.cached_step = _compile(self._step, task.jit_compile)
        self.held_out_loss = _compile(task.held_out_loss, task.jit_compile)
        self.held_out_loss_and_gradient = _compile(
            self._held_out_loss_and_gradient, task.jit_compile
        )

    def start(self, parameters: Tensor, task_state: Nest, batch: Nest) -> tuple[Tensor, InnerState]:
        """Starts an inner loop.

        Args:
            parameters: θ_0, float32 `[size]`.
            task_state: The optimizee's state.
            batch: The first minibatch.

        Returns:
            `(losses, inner)`: f(θ_0), float32 `[functions]`, and the state of the loop.
        """
        losses, gradient, task_state = self._loss_and_gradient(parameters, task_state, batch)
        unconstrained = parameters if self.task.constrained else ()
        return losses, InnerState(
            parameters, gradient, self.initial_states(), task_state, unconstrained
        )

    def step(
        self,
        inner: InnerState,
        batch: Nest,
        scale: Tensor | None = None,
        rate: Tensor | None = None,
    ) -> tuple[Tensor, InnerState]:
        """Computes one inner step.

        Args:
            inner: The state of the loop.
            batch: The minibatch for the loss and gradient after the step.
            scale: See `Steps`.
            rate: The learning rate, a scalar. Defaults to None, for 1.

        Returns:
            `(losses, inner)`: f(θ_{t+1}), float32 `[functions]`, and the next state.
        """
        losses, inner, _ = self.cached_step(self.pack(), inner, batch, scale, rate, cached=0)
        return losses, inner

    def rollout(
        self,
        parameters: Tensor,
        task_state: Nest,
        draw: Draw,
        steps: int | Tensor,
        schedule: Schedule | None = None,
    ) -> Tensor:
        """Runs an inner loop from its start.

        Args:
            parameters: θ_0, float32 `[size]`.
            task_state: The optimizee's state.
            draw: Maps a number of steps to the minibatch for the loss and gradient after so many;
                0 to the first minibatch.
            steps: Number of steps.
            schedule: The learning rate; see `MetaModel`. Defaults to None, for 1.

        Returns:
            f(θ_0) … f(θ_steps), float32 `[steps + 1, functions]`.
        """
        start, inner = self.start(parameters, task_state, draw(0))
        rate = rates(schedule, steps)
        later, _ = self.window(
            self.pack(), inner, Steps(steps, lambda step: draw(step + 1), rate=rate)
        )
        return tf.concat([start[None], later], axis=0)

    def window(
        self, weights: list[Tensor], inner: InnerState, steps: Steps
    ) -> tuple[Tensor, InnerState]:
        """Computes a window's losses, `[T, functions]`, and the next state, with given φ."""

        def body(t: Tensor, inner: InnerState, losses: tf.TensorArray) -> tuple:
            batch = steps.draw(t)
            step_losses, inner, _ = self.cached_step(
                weights, inner, batch, steps.scale, steps.rate_at(t), cached=0
            )
            if steps.draw_held_out:
                optimizee = (inner.parameters, inner.task_state)
                step_losses = self.held_out_loss(*optimizee, steps.draw_held_out(t))
            return inner, losses.write(t, step_losses)

        losses = graph_loops.new_arrays(tf.TensorSpec((self.task.functions,)), steps.unroll)
        inner, losses = graph_loops.run(steps.unroll, body, (inner, losses))
        return losses.stack(), inner

    def _step(
        self,
        weights: list[Tensor],
        inner: InnerState,
        batch: Nest,
        scale: Tensor | None,
        rate: Tensor | None,
        cached: int,
    ) -> tuple[Tensor, InnerState, list[State]]:
        update, rule_state, caches = self.propose(weights, inner, scale, cached)
        losses, inner = self.advance(inner, update, rule_state, batch, scale, rate)
        return losses, inner, caches

    def propose(
        self, weights: list[Tensor], inner: InnerState, scale: Tensor | None, cached: int
    ) -> tuple[Tensor, list[State], list[State]]:
        """Computes the update of θ', the rules' states and the caches of the first pieces."""
        updates, rule_state, caches = [], [], []
        gradients = self.partition.split(scaled(inner.gradient, scale))
        parameters = self.partition.split(
            inner.parameters if scale is None else inner.parameters / scale
        )
        for k, piece in enumerate(self.pieces):
            seen = parameters[k] if piece.rule.sees_parameters else ()
            arguments = (weights[piece.group], gradients[k], inner.rule_state[k], seen)
            if k < cached:
                update, state, cache = piece.rule.forward(*arguments)
                caches.append(cache)
            else:
                update, state = piece.rule.step(*arguments)
            updates.append(update)
            rule_state.append(state)
        return self.partition.join(updates), rule_state, caches

    def advance(
        self,
        inner: InnerState,
        update: Tensor,
        rule_state: list[State],
        batch: Nest,
        scale: Tensor | None,
        rate: Tensor | None,
    ) -> tuple[Tensor, InnerState]:
        """Adds an update of θ', times the rate; returns the losses and the next state."""
        parameters = inner.parameters + scaled(scaled(update, rate), scale)
        unconstrained: Nest = ()
        if self.task.constrained:
            unconstrained, parameters = parameters, self.task.constrain(parameters)
        losses, gradient, task_state = self._loss_and_gradient(parameters, inner.task_state, batch)
        return losses, InnerState(parameters, gradient, rule_state, task_state, unconstrained)

    def _held_out_loss_and_gradient(
        self, parameters: Tensor, task_state: Nest, batch: Nest
    ) -> tuple[Tensor, Tensor]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(parameters)
            losses = self.task.held_out_loss(parameters, task_state, batch)
        return losses, tape.gradient(losses, parameters)

    def before_constraints(
        self, unconstrained: Nest, derivative: Tensor, scale: Tensor | None
    ) -> Tensor:
        """Returns the derivative with respect to θ'_t before constraints, given that after them."""
        if not self.task.constrained:
            return derivative
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(unconstrained)
            parameters = self.task.constrain(unconstrained)
        derivative = derivative if scale is None else derivative / scale
        return scaled(tape.gradient(parameters, unconstrained, derivative), scale)

    def pack(self) -> list[Tensor]:
        """Returns φ, one vector for each rule."""
        return [compiled.pack() for compiled in self._compiled]

    def unpack(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Cuts vectors such as `pack` returns into the shapes of the rules' trainable variables."""
        return [
            part
            for compiled, vector in zip(self._compiled, vectors, strict=True)
            for part in compiled.unpack(vector)
        ]

    def sum_by_rule(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """Sums what pieces contribute to a derivative with respect to φ, for each rule."""
        owners = self.partition.owners
        return [
            tf.add_n([part for part, owner in zip(parts, owners, strict=True) if owner == group])
            for group in range(len(self.rules))
        ]

    def initial_states(self) -> list[State]:
        """Returns the rules' state before the first step, for each piece."""
        return [piece.rule.initial_state(piece.shape) for piece in self.pieces]


def scaled(vector: Tensor, scale: Tensor | None) -> Tensor:
    """Returns a vector times a factor, or a factor for each of its components, if there is one."""
    return vector if scale is None else scale * vector


def rates(
    schedule: Schedule | None, horizon: int | Tensor, first: int | Tensor = 0
) -> Callable[[Tensor], Tensor] | None:
    """Returns the `rate` of `Steps` that begin after the first steps of a run of so many."""
    if schedule is None:
        return None
    return lambda t: schedule(
        tf.minimum(tf.cast(first + t, "float32") / tf.cast(horizon, "float32"), 1.0)
    )


def _compile(function: Callable, jit_compile: bool) -> Any:
    return tf.function(function, jit_compile=jit_compile, autograph=False)
