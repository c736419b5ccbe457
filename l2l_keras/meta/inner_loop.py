"""Meta-gradients: how the meta-loss of a window changes with the meta-parameters φ.

A window is `unroll` inner steps. With g_t = ∇f(θ_t), u_t = m(g_t, h_t; φ) and
θ_{t+1} = θ_t + u_t, its meta-loss is a function of f(θ_1), …, f(θ_T): every update of the window
is judged, and no loss is counted in two windows. The gradient at θ_T is carried into the next
window, so that each inner step differentiates the optimizee once.

Nothing of the optimizee is kept for the meta-gradient but θ_t and g_t, which are small. Let
λ_t = ∂L/∂θ_t; then ∂L/∂u_{t-1} = λ_t, and what is left is the rule's own back-propagation through
time, coordinate by coordinate. Going backwards,

    λ_t = λ_{t+1} + ∂L/∂f_t · g_t + H_t · d_t,

with H_t the Hessian of the optimizee at θ_t and d_t the derivative of the meta-loss with respect to
the gradient that the rule saw there. First-order meta-gradients drop the last term, ∂g_t/∂φ (the
paper's choice): λ_t is then a sum of gradients that the inner loop has computed anyway, and the
optimizee is not differentiated again. The whole derivative costs one Hessian-vector product a
step. Both are exact, not approximations, but for the 16 bits in which LSTM rules keep their gates.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tensorflow as tf

from l2l_keras import parameter_groups
from l2l_keras.meta import loops
from l2l_keras.meta.partition import Chunks, Partition, Problems
from l2l_keras.meta.rule_vjp import CompiledRule, compile_rule
from l2l_keras.rules import Tensors, TensorwiseRule, UpdateRule
from l2l_keras.rules.tensorwise.tensors import fan_in
from l2l_keras.tasks.base import Task

Tensor = Any
Nest = Any
MetaLoss = Callable[[Tensor], Tensor]
Draw = Callable[[Tensor], Nest]
Teacher = Callable[[Tensor, Nest], tuple[Tensor, Nest]]
"""An optimizer to imitate: maps a gradient and its state to its update and next state."""


class Inner(NamedTuple):
    """Where an inner loop stands.

    Attributes:
        parameters: θ_t, float32 `[size]`.
        gradient: ∇f(θ_t), float32 `[size]`.
        rule_state: The rules' state, one tuple of `[rows, coordinates]` arrays for every piece of
            the coordinates.
        task_state: The optimizee's state.
    """

    parameters: Tensor
    gradient: Tensor
    rule_state: Sequence[tuple[Tensor, ...]]
    task_state: Nest


class Trace(NamedTuple):
    """What is kept of a window for its meta-gradient: `tf.TensorArray`s, step by step.

    Attributes:
        losses: f(θ_1) … f(θ_T).
        gradients: ∇f(θ_0) … ∇f(θ_T).
        caches: For each piece that is kept, what the rule's derivative needs of every step.
        states: For each piece whose states are kept, those before the first step and after every
            step.
        optimizee: With second derivatives, (θ_t, the optimizee's state in which it is judged)
            after every step; otherwise nothing.
    """

    losses: Any
    gradients: Any
    caches: list[Nest]
    states: list[Nest]
    optimizee: Nest


class InnerLoop:
    """The inner loop of one rule, or several, on one task, compiled piece by piece.

    The rules' arithmetic is compiled with XLA, the optimizee's as the task asks for: on a CPU, XLA
    makes rules twice as fast and convolutions several times slower. Steps are a loop of the
    graph, which does not grow with their number.

    Args:
        rule: The update rule; or a dictionary of parameter groups, `{pattern: rule}`, as
            `LearnedOptimizer` takes it, matched with the paths in the task's `layout`.
        task: The task.
        chunk_size: Largest number of coordinates that a rule updates at once. Defaults to 4096.
            A coupled rule updates all of its coordinates at once.
        cache_bytes: Bytes that may be kept of a window for its first-order meta-gradient: the
            rules' states and their caches, or, where that is too much, the caches. Pieces of the
            coordinates whose caches do not fit are computed again, one after the other. With
            second derivatives, all of it is kept. Defaults to 128 MiB.

    Attributes:
        rules: The rules, in the order of their groups.
        partition: How the coordinates are divided into what rules update at once.
        jit_compile: Whether to compile whole windows and rollouts with XLA: right where neither
            the rules nor the optimizee have much to compute in a step.

    Raises:
        ValueError: If `chunk_size` is not positive, a group has no coordinates, or coordinates of
            several functions are divided into groups.
    """

    def __init__(
        self,
        rule: UpdateRule | Mapping[str, UpdateRule],
        task: Task,
        chunk_size: int = 4096,
        cache_bytes: int = 2**27,
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"`chunk_size` must be positive. Received: {chunk_size}")
        self.task = task
        self.rules = parameter_groups.only_rules(rule)
        self.partition, tensors = _divide(rule, task, chunk_size)
        several = task.functions > 1
        self._compiled = [
            compile_rule(r, own, problems=several and r.coupled)
            for r, own in zip(self.rules, tensors, strict=True)
        ]
        # Rules so cheap that launching their programs would take longer than running them.
        self.jit_compile = task.jit_compile and all(
            isinstance(r, TensorwiseRule) for r in self.rules
        )
        self._cache_bytes = cache_bytes
        self._loss_and_gradient = _compile(task.loss_and_gradient, task.jit_compile)
        self._hessian_vector_product = _compile(task.hessian_vector_product, task.jit_compile)
        self._inner_step = _compile(self._step, task.jit_compile)

    def start(self, parameters: Tensor, task_state: Nest, batch: Nest) -> tuple[Tensor, Inner]:
        """Starts an inner loop.

        Args:
            parameters: θ_0, float32 `[size]`.
            task_state: The optimizee's state.
            batch: The first minibatch.

        Returns:
            `(losses, inner)`: f(θ_0), float32 `[functions]`, and where the loop stands.
        """
        losses, gradient, task_state = self._loss_and_gradient(parameters, task_state, batch)
        rule_state = self._initial_states()
        return losses, Inner(parameters, gradient, rule_state, task_state)

    def step(self, inner: Inner, batch: Nest, scale: Tensor | None = None) -> tuple[Tensor, Inner]:
        """Computes one inner step.

        Args:
            inner: Where the loop stands.
            batch: The minibatch on which the updated optimizee is judged and differentiated.
            scale: Factors of a reparametrisation θ = scale · θ', float32 `[size]`, or None.

        Returns:
            `(losses, inner)`: f(θ_{t+1}), float32 `[functions]`, and where the loop stands.
        """
        losses, inner, _ = self._inner_step(self.pack(), inner, batch, scale, kept=0)
        return losses, inner

    def rollout(
        self, parameters: Tensor, task_state: Nest, draw: Draw, steps: int | Tensor
    ) -> Tensor:
        """Runs an inner loop from its start.

        Args:
            parameters: θ_0, float32 `[size]`.
            task_state: The optimizee's state.
            draw: Maps the number of a step to the minibatch on which the optimizee is judged after
                it; 0 to that of the start.
            steps: Number of steps.

        Returns:
            f(θ_0) … f(θ_steps), float32 `[steps + 1, functions]`.
        """
        start, inner = self.start(parameters, task_state, draw(0))
        losses = tf.TensorArray("float32", steps + 1, element_shape=(self.task.functions,))

        def body(step: Tensor, inner: Inner, losses: tf.TensorArray) -> tuple:
            step_losses, inner = self.step(inner, draw(step + 1))
            return step + 1, inner, losses.write(step + 1, step_losses)

        return tf.while_loop(
            lambda step, *_: step < steps,
            body,
            (0, inner, losses.write(0, start)),
            parallel_iterations=1,
        )[2].stack()

    def window(
        self,
        weights: list[Tensor],
        inner: Inner,
        draw: Draw,
        unroll: int,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, Inner]:
        """Computes a window with given φ, and no meta-gradient.

        Args:
            weights: φ, as returned by `pack`.
            inner: Where the loop stands.
            draw: As in `meta_gradient`.
            unroll: Inner steps in the window.
            scale: As in `step`.

        Returns:
            `(losses, inner)`: f(θ_1) … f(θ_T), float32 `[unroll, functions]`, and where the loop
            stands.
        """

        def body(t: Tensor, inner: Inner, losses: tf.TensorArray) -> tuple[Inner, tf.TensorArray]:
            step_losses, inner, _ = self._inner_step(weights, inner, draw(t), scale, kept=0)
            return inner, losses.write(t, step_losses)

        losses = loops.new_arrays(tf.TensorSpec((self.task.functions,)), unroll)
        inner, losses = loops.run(range(unroll), body, (inner, losses))
        return losses.stack(), inner

    def imitation(
        self,
        inner: Inner,
        teacher: Teacher,
        teacher_state: Nest,
        draw: Draw,
        unroll: int,
        scale: Tensor | None = None,
    ) -> tuple[Tensor, list[Tensor], Inner, Nest]:
        """Computes a window in which a teacher steps, and how far the rules' updates are from its.

        Args:
            inner: Where the loop stands.
            teacher: Maps a gradient `[size]` and its state to its update `[size]` and next state.
            teacher_state: The teacher's state.
            draw: As in `meta_gradient`.
            unroll: Inner steps in the window.
            scale: As in `step`.

        Returns:
            `(error, derivative, inner, teacher_state)`: the mean over steps of the squared distance
            of both updates, over the square of the teacher's norm; its derivative with respect to
            the rules' trainable variables; where the loop stands; and the teacher's next state.
        """
        weights = self.pack()

        def take_step(t: Tensor, inner: Inner, lesson: tuple, kept: int) -> tuple:
            teacher_state, error, d_updates = lesson
            update, rule_state, caches = self._propose(weights, inner, scale, kept)
            own, teacher_state = teacher(_scaled(inner.gradient, scale), teacher_state)
            difference = update - own
            weight = 1.0 / (unroll * (tf.reduce_sum(tf.square(own)) + 1e-30))
            error += weight * tf.reduce_sum(tf.square(difference))
            d_updates = d_updates.write(t, 2.0 * weight * difference)
            losses, inner = self._advance(inner, own, rule_state, draw(t), scale)
            return losses, inner, caches, (teacher_state, error, d_updates)

        lesson = (teacher_state, 0.0, loops.new_arrays(inner.gradient, unroll))
        trace, after, lesson = self._run(take_step, inner, lesson, unroll)
        teacher_state, error, d_updates = lesson
        gradients = _scaled(trace.gradients.stack(), scale)
        d_weights = self._first_order(weights, inner, trace, gradients, d_updates.stack())
        return error, self.unpack(d_weights), after, teacher_state

    def pack(self) -> list[Tensor]:
        """Returns φ, one vector a rule."""
        return [compiled.pack() for compiled in self._compiled]

    def unpack(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """Cuts vectors such as `pack` returns into the shapes of the rules' trainable variables."""
        return [
            part
            for compiled, vector in zip(self._compiled, vectors, strict=True)
            for part in compiled.unpack(vector)
        ]

    def meta_gradient(
        self,
        inner: Inner,
        draw: Draw,
        unroll: int,
        meta_loss: MetaLoss,
        scale: Tensor | None = None,
        second_derivatives: bool = False,
        clip_through_time: bool = False,
    ) -> tuple[Tensor, list[Tensor], Tensor, Inner]:
        """Computes a window and its meta-gradient.

        With second derivatives, the way in which earlier updates change later gradients counts too.
        They tell what is too large a step, and grow without bounds where steps are. The optimizee's
        state, such as the averages of batch normalisation, counts as given.

        Args:
            inner: Where the loop stands.
            draw: Maps the number of an inner step of the window, an int32 scalar from 0 to
                `unroll - 1`, to the minibatch on which the optimizee is judged after that step.
                Called more than once for a step.
            unroll: Inner steps in the window.
            meta_loss: Maps losses `[unroll, functions]` to the scalar meta-loss.
            scale: As in `step`.
            second_derivatives: Whether to keep ∂g_t/∂φ. Defaults to False.
            clip_through_time: Whether to clip the derivative with respect to the parameters, step
                by step backwards, to the norm that it would have without second derivatives.
                Defaults to False.

        Returns:
            `(meta_loss, meta_gradient, losses, inner)`: the scalar; its derivative with respect to
            the rules' trainable variables; f(θ_1) … f(θ_T), float32 `[unroll, functions]`; and
            where the loop stands.
        """
        weights = self.pack()

        def take_step(t: Tensor, inner: Inner, nothing: tuple, kept: int) -> tuple:
            return *self._inner_step(weights, inner, draw(t), scale, kept=kept), nothing

        trace, after, _ = self._run(take_step, inner, (), unroll, second_derivatives)
        losses = trace.losses.stack()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(losses)
            value = meta_loss(losses)
        # The derivative with respect to each loss, spread over the coordinates of its function.
        factors = tape.gradient(value, losses)
        if self.task.functions > 1:
            factors = tf.repeat(factors, self.task.size // self.task.functions, axis=1)
        if second_derivatives:
            d_weights = self._whole_derivative(
                weights, inner, trace, draw, factors, scale, clip_through_time
            )
        else:
            # Every loss after an update depends on it.
            gradients = _scaled(trace.gradients.stack(), scale)
            d_updates = loops.sums_to_the_end(factors * gradients[1:])
            d_weights = self._first_order(weights, inner, trace, gradients, d_updates)
        return value, self.unpack(d_weights), losses, after

    def _pieces(self) -> Iterator[tuple[int, int, CompiledRule]]:
        """Yields each piece's number, its group and the group's rule."""
        for piece, group in enumerate(self.partition.owners):
            yield piece, group, self._compiled[group]

    def _initial_state(self, piece: int) -> tuple[Tensor, ...]:
        """Returns a piece's state before the first step."""
        *problems, n = self.partition.shape(piece)
        state = self._compiled[self.partition.owners[piece]].initial_state(n)
        if not problems:
            return state
        return tuple(tf.broadcast_to(part, (*problems, *part.shape)) for part in state)

    def _initial_states(self) -> list[tuple[Tensor, ...]]:
        """Returns the state before the first step, for each piece."""
        return [self._initial_state(piece) for piece, _, _ in self._pieces()]

    def _step(
        self, weights: list[Tensor], inner: Inner, batch: Nest, scale: Tensor | None, kept: int
    ) -> tuple[Tensor, Inner, list[tuple[Tensor, ...]]]:
        """Computes one inner step, and the caches of the first `kept` pieces."""
        update, rule_state, caches = self._propose(weights, inner, scale, kept)
        losses, inner = self._advance(inner, update, rule_state, batch, scale)
        return losses, inner, caches

    def _propose(
        self, weights: list[Tensor], inner: Inner, scale: Tensor | None, kept: int
    ) -> tuple[Tensor, list[tuple[Tensor, ...]], list[tuple[Tensor, ...]]]:
        """Computes the rules' update of θ' = θ / s, their states, and the first `kept` caches."""
        updates, rule_state, caches = [], [], []
        gradients = self.partition.split(_scaled(inner.gradient, scale))
        positions = self.partition.split(
            inner.parameters if scale is None else inner.parameters / scale
        )
        for piece, group, compiled in self._pieces():
            position = positions[piece] if compiled.sees_parameters else ()
            arguments = (weights[group], gradients[piece], inner.rule_state[piece], position)
            if piece < kept:
                update, state, cache = compiled.forward(*arguments)
                caches.append(cache)
            else:
                update, state = compiled.step(*arguments)
            updates.append(update)
            rule_state.append(state)
        return self.partition.join(updates), rule_state, caches

    def _advance(
        self,
        inner: Inner,
        update: Tensor,
        rule_state: list[tuple[Tensor, ...]],
        batch: Nest,
        scale: Tensor | None,
    ) -> tuple[Tensor, Inner]:
        """Takes a step with an update of θ'."""
        parameters = inner.parameters + _scaled(update, scale)
        losses, gradient, task_state = self._loss_and_gradient(parameters, inner.task_state, batch)
        return losses, Inner(parameters, gradient, rule_state, task_state)

    def _run(
        self,
        take_step: Callable,
        inner: Inner,
        carry: Nest,
        unroll: int,
        second_derivatives: bool = False,
    ) -> tuple[Trace, Inner, Nest]:
        """Computes a window's steps, and keeps what its meta-gradient needs.

        Args:
            take_step: Maps (step, inner, carry, kept) to (losses, inner, the caches of the first
                `kept` pieces, carry).
            inner: Where the loop stands.
            carry: What else goes from step to step.
            unroll: Inner steps in the window.
            second_derivatives: As in `meta_gradient`.
        """
        specs = self._specs()
        kept, with_states = self._kept_pieces(unroll)
        if second_derivatives:
            kept = len(specs)
        kept_states = list(inner.rule_state) if with_states else []
        kept_of_optimizee = (inner.parameters, inner.task_state) if second_derivatives else ()
        trace = Trace(
            losses=loops.new_arrays(tf.TensorSpec((self.task.functions,)), unroll),
            gradients=loops.write(loops.new_arrays(inner.gradient, unroll + 1), 0, inner.gradient),
            caches=[loops.new_arrays(cache, unroll) for _, cache in specs[:kept]],
            states=[
                loops.write(loops.new_arrays(state, unroll + 1), 0, state) for state in kept_states
            ],
            optimizee=loops.new_arrays(kept_of_optimizee, unroll),
        )

        def body(t: Tensor, inner: Inner, carry: Nest, trace: Trace) -> tuple:
            task_state = inner.task_state
            losses, inner, caches, carry = take_step(t, inner, carry, kept)
            kept_states = list(inner.rule_state) if with_states else []
            kept_of_optimizee = (inner.parameters, task_state) if second_derivatives else ()
            trace = Trace(
                losses=trace.losses.write(t, losses),
                gradients=trace.gradients.write(t + 1, inner.gradient),
                caches=loops.write(trace.caches, t, caches),
                states=loops.write(trace.states, t + 1, kept_states),
                optimizee=loops.write(trace.optimizee, t, kept_of_optimizee),
            )
            return inner, carry, trace

        inner, carry, trace = loops.run(range(unroll), body, (inner, carry, trace))
        return trace, inner, carry

    def _spec(self, piece: int) -> tuple[Nest, Nest]:
        """Returns the shapes of a piece's state and cache."""
        group = self.partition.owners[piece]
        shape = self.partition.shape(piece)
        state = tuple(tf.TensorSpec(array.shape) for array in self._initial_state(piece))
        return self._compiled[group].forward_specs(tf.TensorSpec(shape), state)

    def _specs(self) -> list[tuple[Nest, Nest]]:
        """Returns the shapes of the state and of the cache of each piece."""
        return [self._spec(piece) for piece, _, _ in self._pieces()]

    def _kept_pieces(self, unroll: int) -> tuple[int, bool]:
        """Returns how many pieces' caches are kept over a window, and whether all states are."""
        states, caches = (
            [unroll * loops.bytes_of(part) for part in parts]
            for parts in zip(*self._specs(), strict=True)
        )
        if sum(states) + sum(caches) <= self._cache_bytes:
            return len(caches), True
        sums = itertools.accumulate(caches)
        kept = sum(total <= self._cache_bytes for total in sums)
        # The parameters that a rule saw cannot be computed again from gradients.
        seen = [piece + 1 for piece, _, compiled in self._pieces() if compiled.sees_parameters]
        return max([kept, *seen]), False

    def _first_order(
        self,
        weights: list[Tensor],
        inner: Inner,
        trace: Trace,
        gradients: Tensor,
        d_updates: Tensor,
    ) -> list[Tensor]:
        """Computes a first-order meta-gradient, piece by piece.

        Args:
            weights: φ, as returned by `pack`.
            inner: Where the loop stood before the window.
            trace: What was kept of it.
            gradients: ∇f of θ', float32 `[unroll + 1, size]`.
            d_updates: As in `_back_propagate`, of all coordinates.
        """
        gradient_pieces = self.partition.split(gradients)
        d_pieces = self.partition.split(d_updates)
        parts: list[Tensor] = []
        for piece, _, _ in self._pieces():
            # One piece after the other: the executor would otherwise compute all of them again at
            # once, and keep them.
            with tf.control_dependencies(parts[-1:]):
                own_gradients, own_d_updates = tf.identity(gradient_pieces[piece]), d_pieces[piece]
            caches, states = self._steps_of(weights, inner, trace, piece, own_gradients)
            parts.append(
                self._back_propagate(weights, piece, own_gradients, own_d_updates, caches, states)
            )
        return self._sums(parts)

    def _sums(self, parts: list[Tensor]) -> list[Tensor]:
        """Sums the derivatives that pieces contribute, for each rule."""
        return [
            tf.add_n(
                [
                    part
                    for part, owner in zip(parts, self.partition.owners, strict=True)
                    if owner == group
                ]
            )
            for group in range(len(self.rules))
        ]

    def _steps_of(
        self, weights: list[Tensor], inner: Inner, trace: Trace, k: int, gradients: Tensor
    ) -> tuple[Nest, Nest]:
        """Returns a piece's caches and states, and computes again what was not kept of them."""
        if k < len(trace.states):
            return trace.caches[k], trace.states[k]
        unroll = gradients.shape[0] - 1
        state_specs, cache_specs = self._spec(k)
        group = self.partition.owners[k]
        compiled, own_weights = self._compiled[group], weights[group]
        state = inner.rule_state[k]
        states = loops.write(loops.new_arrays(state_specs, unroll + 1), 0, state)
        if k < len(trace.caches):
            caches = trace.caches[k]

            def replay(t: Tensor, state: tuple, states: Nest) -> tuple:
                state = compiled.replay(own_weights, gradients[t], state, loops.read(caches, t))
                return state, loops.write(states, t + 1, state)

            return caches, loops.run(range(unroll), replay, (state, states))[1]

        def forward(t: Tensor, state: tuple, caches: Nest, states: Nest) -> tuple:
            _, state, cache = compiled.forward(own_weights, gradients[t], state, ())
            return state, loops.write(caches, t, cache), loops.write(states, t + 1, state)

        start = (state, loops.new_arrays(cache_specs, unroll), states)
        return loops.run(range(unroll), forward, start)[1:]

    def _back_propagate(
        self,
        weights: list[Tensor],
        piece: int,
        gradients: Tensor,
        d_updates: Tensor,
        caches: Nest,
        states: Nest,
    ) -> Tensor:
        """Back-propagates through a piece's steps, given the optimizee's gradients.

        Args:
            weights: φ, as returned by `pack`.
            piece: The piece's number.
            gradients: ∇f(θ_0) … of its coordinates.
            d_updates: Derivatives of the meta-loss with respect to its updates, all they do to
                later steps by way of the parameters included.
            caches: What the rule's derivative needs of every step.
            states: Its states before the first step and after every step.
        """
        group = self.partition.owners[piece]
        compiled, own_weights = self._compiled[group], weights[group]

        def body(t: Tensor, d_weights: Tensor, d_state: tuple) -> tuple:
            d_step, _, d_state = compiled.backward(
                own_weights,
                gradients[t],
                loops.read(states, t),
                loops.read(states, t + 1),
                loops.read(caches, t),
                d_updates[t],
                d_state,
                with_gradient=False,
            )
            return d_weights + d_step, d_state

        start = (tf.zeros_like(own_weights), self._initial_state(piece))
        return loops.run(range(d_updates.shape[0])[::-1], body, start)[0]

    def _whole_derivative(
        self,
        weights: list[Tensor],
        inner: Inner,
        trace: Trace,
        draw: Draw,
        factors: Tensor,
        scale: Tensor | None,
        clip_through_time: bool,
    ) -> list[Tensor]:
        """Computes a meta-gradient with second derivatives, step by step."""
        gradients = self.partition.split(_scaled(trace.gradients.stack(), scale))
        steps = [
            self._steps_of(weights, inner, trace, piece, gradients[piece])
            for piece, _, _ in self._pieces()
        ]

        def body(
            t: Tensor,
            d_weights: list,
            first_order: Tensor,
            d_parameters: Tensor,
            d_gradient: Tensor,
            d_states: list,
        ) -> tuple:
            # Up to here, `d_gradient` is that of the gradient after step t, used in step t + 1.
            parameters, task_state = loops.read(trace.optimizee, t)
            d_loss = factors[t] * trace.gradients.read(t + 1)
            d_parameters += d_loss
            d_parameters += self._hessian_vector_product(
                parameters, task_state, draw(t), d_gradient
            )
            if clip_through_time:
                first_order += d_loss
                d_parameters, d_states = _clip(first_order, d_parameters, d_states)
            d_updates = self.partition.split(_scaled(d_parameters, scale))
            parts, d_gradients, new_d_states = [], [], []
            for piece, group, compiled in self._pieces():
                caches, states = steps[piece]
                d_step, d_piece, d_state = compiled.backward(
                    weights[group],
                    gradients[piece][t],
                    loops.read(states, t),
                    loops.read(states, t + 1),
                    loops.read(caches, t),
                    d_updates[piece],
                    d_states[piece],
                    with_gradient=True,
                )
                parts.append(d_step)
                d_gradients.append(d_piece)
                new_d_states.append(d_state)
            d_gradient = _scaled(self.partition.join(d_gradients), scale)
            d_weights = [d + part for d, part in zip(d_weights, self._sums(parts), strict=True)]
            return d_weights, first_order, d_parameters, d_gradient, new_d_states

        zeros = tf.zeros((self.task.size,))
        start = ([tf.zeros_like(w) for w in weights], zeros, zeros, zeros, self._initial_states())
        return loops.run(range(factors.shape[0])[::-1], body, start)[0]


def _divide(
    rule: UpdateRule | Mapping[str, UpdateRule], task: Task, limit: int
) -> tuple[Partition, list[Tensors]]:
    """Divides a task's coordinates by groups, and those of a group into what its rule takes.

    Returns:
        How they are divided, and for each group what the coordinates of a function belong to.
    """
    groups = list(parameter_groups.members(rule))
    names = parameter_groups.assign(task.layout, groups)
    sizes = [math.prod(weight.shape) for weight in task.layout]
    owners = [groups.index(name) for name in names]
    if len(groups) > 1 and task.functions > 1:
        raise ValueError(
            "Parameter groups need a task of one function. "
            f"Received: {task.functions} functions, groups {groups}"
        )
    pieces: list[Chunks | Problems] = []
    tensors = []
    for group, member in enumerate(parameter_groups.only_rules(rule)):
        size = sum(n for n, owner in zip(sizes, owners, strict=True) if owner == group)
        if not size:
            raise ValueError(
                f"Every group must have variables of the task. Received: {groups[group]!r}, which "
                f"has none of {[weight.path for weight in task.layout]}"
            )
        if not member.coupled:
            pieces.append(Chunks(size, limit))
        elif task.functions > 1:
            pieces.append(Problems(size, task.functions))
        else:
            pieces.append(Chunks(size, limit=size))
        own = [w for w, owner in zip(task.layout, owners, strict=True) if owner == group]
        if task.functions == 1:
            tensors.append(Tensors([w.shape for w in own], [fan_in(*w) for w in own]))
        else:
            tensors.append(Tensors([(size // task.functions,)]))
    return Partition(sizes, owners, pieces), tensors


def _compile(function: Callable, jit_compile: bool) -> Any:
    return tf.function(function, jit_compile=jit_compile, autograph=False)


def _clip(first_order: Tensor, derivative: Tensor, rest: Nest) -> tuple[Tensor, Nest]:
    """Clips a derivative to the norm of another one, and scales the rest alike.

    One that is not finite is replaced, and the rest is forgotten.
    """
    largest, norm = tf.norm(first_order), tf.norm(derivative)
    finite = tf.math.is_finite(norm)
    factor = tf.where(finite, tf.math.divide_no_nan(largest, tf.maximum(norm, largest)), 0.0)
    clipped = tf.where(finite, factor * derivative, first_order)
    return clipped, tf.nest.map_structure(
        lambda part: tf.where(tf.math.is_finite(part), factor * part, 0.0), rest
    )


def _scaled(vector: Tensor, scale: Tensor | None) -> Tensor:
    return vector if scale is None else scale * vector
