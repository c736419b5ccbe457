"""Meta-gradients: how the meta-loss of a window changes with the meta-parameters φ.

A window is `unroll` inner steps. With g_t = ∇f(θ_t), u_t = m(g_t, h_t; φ) and
θ_{t+1} = θ_t + u_t, its meta-loss is a function of f(θ_1), …, f(θ_T): every update of the window
is judged, and no loss is counted in two windows. The gradient at θ_T is carried into the next
window, so that each inner step differentiates the optimizee once.

First-order meta-gradients drop ∂g_t/∂φ (the paper's choice). Then θ_t = θ_0 + Σ_{s<t} u_s and
∂L/∂u_s = Σ_{t>s} ∂L/∂f_t ∇f(θ_t), gradients that the inner loop has computed anyway. What is left
is the rule's own back-propagation through time, coordinate by coordinate: the optimizee is not
differentiated again. This is exact, not an approximation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from l2l_keras.rules import UpdateRule
from l2l_keras.tasks.base import Task

Tensor = Any
Nest = Any
MetaLoss = Callable[[Tensor], Tensor]


class Inner(NamedTuple):
    """Where an inner loop stands.

    Attributes:
        parameters: θ_t, float32 `[size]`.
        gradient: ∇f(θ_t), float32 `[size]`.
        rule_state: The rule's state, one tuple of `[rows, chunk]` arrays for every chunk of
            coordinates.
        task_state: The optimizee's state.
    """

    parameters: Tensor
    gradient: Tensor
    rule_state: Sequence[tuple[Tensor, ...]]
    task_state: Nest


class Chunks:
    """Cuts `[size]` vectors into equal chunks of coordinates, the last one filled up with zeros.

    A few thousand coordinates at a time stay in the processor's cache, and equal chunks need the
    rule compiled for one shape only.

    Args:
        size: Number of coordinates.
        limit: Largest number of coordinates in a chunk.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.count = math.ceil(size / limit)
        self.length = math.ceil(size / self.count)
        self._padding = self.count * self.length - size

    def split(self, vector: Tensor) -> list[Tensor]:
        """Cuts a float32 `[size]` vector into `count` vectors `[length]`."""
        if self.count == 1:
            return [vector]
        return tf.split(tf.pad(vector, [[0, self._padding]]), self.count)

    def join(self, vectors: Sequence[Tensor]) -> Tensor:
        """Undoes `split`."""
        if self.count == 1:
            return vectors[0]
        return tf.concat(vectors, axis=0)[: self.size]


class InnerLoop:
    """The inner loop of one rule on one task, compiled piece by piece.

    The rule's arithmetic is compiled with XLA, the optimizee's as the task asks for: on a CPU, XLA
    makes the rule twice as fast and convolutions several times slower.

    Args:
        rule: The update rule.
        task: The task.
        chunk_size: Largest number of coordinates that the rule updates at once. Defaults to 4096.
        cache_bytes: Bytes of a window's activations that may be kept for its meta-gradient;
            beyond that, chunks of coordinates are computed again, one after the other.
            Defaults to 128 MiB.

    Raises:
        ValueError: If `chunk_size` is not positive.
    """

    def __init__(
        self, rule: UpdateRule, task: Task, chunk_size: int = 4096, cache_bytes: int = 2**27
    ) -> None:
        if chunk_size < 1:
            raise ValueError(f"`chunk_size` must be positive. Received: {chunk_size}")
        self.rule = rule
        self.task = task
        self.chunks = Chunks(task.size, chunk_size)
        self._cache_bytes = cache_bytes
        self._loss_and_gradient = self._compile(task.loss_and_gradient, task.jit_compile)
        self._rule_step = self._compile(self._with_weights(rule.step))
        self._rule_forward = self._compile(self._with_weights(rule.forward))
        self._compiled_backward = self._compile(self._backward)
        self._compiled_forward = self._compile(self._forward, task.jit_compile)

    @staticmethod
    def _compile(function: Callable, jit_compile: bool = True) -> Any:
        return tf.function(function, jit_compile=jit_compile, autograph=False)

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
        rule_state = [self.rule.initial_state(self.chunks.length) for _ in self._indices]
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
        losses, inner, _ = self._compiled_forward(self._pack(), inner, batch, scale, cached=0)
        return losses, inner

    def meta_gradient(
        self, inner: Inner, batches: Sequence[Nest], meta_loss: MetaLoss, scale: Tensor | None
    ) -> tuple[Tensor, list[Tensor], Tensor, Inner]:
        """Computes a window and its first-order meta-gradient.

        Args:
            inner: Where the loop stands.
            batches: The window's minibatches, one for each inner step.
            meta_loss: Maps losses `[unroll, functions]` to the scalar meta-loss.
            scale: As in `step`.

        Returns:
            `(meta_loss, meta_gradient, losses, inner)`: the scalar; its derivative with respect to
            the rule's trainable variables; f(θ_1) … f(θ_T), float32 `[unroll, functions]`; and
            where the loop stands.
        """
        cached = self._cached_chunks(len(batches))
        weights = self._pack()
        inners, losses, caches = [inner], [], []
        for batch in batches:
            step_losses, inner, step_caches = self._compiled_forward(
                weights, inner, batch, scale, cached=cached
            )
            inners.append(inner)
            losses.append(step_losses)
            caches.append(step_caches)
        losses = tf.stack(losses)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(losses)
            value = meta_loss(losses)
        factors = self._per_coordinate(tape.gradient(value, losses))
        gradients = [self._scaled_gradients(i, scale) for i in inners]

        parts: list[Tensor] = []
        for k in self._indices:
            # One chunk after the other: the executor would otherwise compute all of them again at
            # once, and keep them.
            with tf.control_dependencies(parts[-1:]):
                chunk_gradients = [tf.identity(g[k]) for g in gradients]
            chunk_factors = [f[k] for f in factors]
            state = inners[0].rule_state[k]
            if not self.rule.differentiates_itself:
                parts.append(self._tape(weights, chunk_gradients, chunk_factors, state))
                continue
            if k < cached:
                trace = [
                    (before.rule_state[k], after.rule_state[k], step_caches[k])
                    for before, after, step_caches in zip(inners, inners[1:], caches, strict=False)
                ]
            else:
                trace = self._trace(weights, chunk_gradients[:-1], state)
            parts.append(self._back_propagate(weights, trace, chunk_gradients[1:], chunk_factors))
        return value, self._unpack(tf.add_n(parts)), losses, inner

    @property
    def _indices(self) -> range:
        return range(self.chunks.count)

    def _scaled_gradients(self, inner: Inner, scale: Tensor | None) -> list[Tensor]:
        gradient = inner.gradient if scale is None else scale * inner.gradient
        return self.chunks.split(gradient)

    def _pack(self) -> Tensor:
        """Returns φ as one vector: XLA's launch time grows with the number of arguments."""
        return _pack(self.rule.trainable_variables)

    def _unpack(self, vector: Tensor) -> list[Tensor]:
        """Undoes `_pack`."""
        shapes = [v.shape for v in self.rule.trainable_variables]
        parts = tf.split(vector, [math.prod(shape) for shape in shapes])
        return [tf.reshape(p, shape) for p, shape in zip(parts, shapes, strict=True)]

    def _with_weights(self, function: Callable) -> Callable:
        """Returns `function` with the packed φ as its first argument."""

        def call(weights: Tensor, *args: Any) -> Any:
            variables = self.rule.trainable_variables
            mapping = zip(variables, self._unpack(weights), strict=True)
            with keras.StatelessScope(state_mapping=mapping):
                return function(*args)

        return call

    def _forward(
        self, weights: Tensor, inner: Inner, batch: Nest, scale: Tensor | None, cached: int
    ) -> tuple[Tensor, Inner, list[Nest]]:
        """Computes one inner step, and the first `cached` chunks' caches."""
        updates, rule_state, caches = [], [], []
        gradients = self._scaled_gradients(inner, scale)
        for k, (gradient, state) in enumerate(zip(gradients, inner.rule_state, strict=True)):
            if k < cached:
                update, state, cache = self._rule_forward(weights, gradient, state)
                caches.append(cache)
            else:
                update, state = self._rule_step(weights, gradient, state)
            updates.append(update)
            rule_state.append(state)
        update = self.chunks.join(updates)
        parameters = inner.parameters + (update if scale is None else scale * update)
        losses, gradient, task_state = self._loss_and_gradient(parameters, inner.task_state, batch)
        return losses, Inner(parameters, gradient, rule_state, task_state), caches

    def _backward(
        self,
        weights: Tensor,
        step: tuple[Nest, Nest, Nest],
        gradient: Tensor,
        factor: Tensor,
        d_update: Tensor,
        d_state: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Back-propagates through one step of one chunk.

        `factor * gradient` is the derivative of the loss after the step; `d_update` that of all
        later losses.
        """
        d_update = d_update + factor * gradient
        backward = self._with_weights(self.rule.backward)
        d_weights, d_state = backward(weights, *step, d_update, d_state)
        return _pack(d_weights), d_update, d_state

    def _cached_chunks(self, unroll: int) -> int:
        """Returns how many chunks' caches may be kept over a window."""
        if not self.rule.differentiates_itself:
            return 0
        gradient = tf.TensorSpec((self.chunks.length,))
        state = tuple(tf.TensorSpec((r, self.chunks.length)) for r in self.rule.state_rows)
        weights = tf.TensorSpec(self._pack().shape)
        step = self._rule_forward.get_concrete_function(weights, gradient, state)
        _, states, caches = step.structured_outputs
        floats = sum(math.prod(t.shape) for t in tf.nest.flatten((states, caches)))
        return min(self.chunks.count, self._cache_bytes // (4 * floats * unroll))

    def _per_coordinate(self, factors: Tensor) -> list[list[Tensor]]:
        """Spreads factors `[unroll, functions]` over coordinates, by step and chunk."""
        if self.task.functions == 1:
            return [[f] * self.chunks.count for f in tf.unstack(factors[:, 0])]
        per_function = self.task.size // self.task.functions
        return [self.chunks.split(f) for f in tf.unstack(tf.repeat(factors, per_function, axis=1))]

    def _trace(
        self, weights: Tensor, gradients: Sequence[Tensor], state: tuple[Tensor, ...]
    ) -> list[tuple]:
        """Computes a chunk's steps again, keeping what `backward` needs."""
        trace = []
        for gradient in gradients:
            _, new_state, cache = self._rule_forward(weights, gradient, state)
            trace.append((state, new_state, cache))
            state = new_state
        return trace

    def _back_propagate(
        self,
        weights: Tensor,
        trace: Sequence[tuple],
        gradients: Sequence[Tensor],
        factors: Sequence[Tensor],
    ) -> Tensor:
        """Back-propagates through a chunk's steps with the rule's own derivative."""
        d_update = tf.zeros_like(gradients[0])
        d_state = tuple(tf.zeros_like(s) for s in trace[-1][1])
        parts = []
        for step, gradient, factor in zip(
            reversed(trace), reversed(gradients), reversed(factors), strict=True
        ):
            d_weights, d_update, d_state = self._compiled_backward(
                weights, step, gradient, factor, d_update, d_state
            )
            parts.append(d_weights)
        return tf.add_n(parts)

    def _tape(
        self,
        weights: Tensor,
        gradients: Sequence[Tensor],
        factors: Sequence[Tensor],
        state: tuple[Tensor, ...],
    ) -> Tensor:
        """Back-propagates through a chunk's steps with a tape."""
        later = [f * g for f, g in zip(factors, gradients[1:], strict=True)]
        d_updates = tf.unstack(tf.cumsum(tf.stack(later), reverse=True))
        step = self._with_weights(self.rule.step)
        updates = []
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(weights)
            for gradient in gradients[:-1]:
                update, state = step(weights, gradient, state)
                updates.append(update)
        return tape.gradient(
            updates, weights, d_updates, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )


def meta_gradient_by_tape(
    loop: InnerLoop,
    inner: Inner,
    batches: Sequence[Nest],
    meta_loss: MetaLoss,
    scale: Tensor | None = None,
    second_derivatives: bool = True,
) -> tuple[Tensor, list[Tensor], Tensor, Inner]:
    """Computes a window and its meta-gradient with one tape over everything.

    With second derivatives, the way in which earlier updates change later gradients counts too:
    the full derivative, at several times the price in time and memory. Without, this is what
    `InnerLoop.meta_gradient` computes, the plain way.

    Args:
        loop: The inner loop.
        inner: Where it stands.
        batches: The window's minibatches.
        meta_loss: Maps losses `[unroll, functions]` to the scalar meta-loss.
        scale: Factors of a reparametrisation θ = scale · θ', float32 `[size]`, or None.
        second_derivatives: Whether to keep ∂g_t/∂φ. Defaults to True.

    Returns:
        As `InnerLoop.meta_gradient`.
    """
    weights = [v.value for v in loop.rule.trainable_variables]
    parameters, gradient, rule_state, task_state = inner
    losses = []
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(weights)
        for batch in batches:
            if not second_derivatives:
                gradient = tf.stop_gradient(gradient)
            scaled = gradient if scale is None else scale * gradient
            results = [
                loop.rule.step(g, s)
                for g, s in zip(loop.chunks.split(scaled), rule_state, strict=True)
            ]
            updates, rule_state = zip(*results, strict=True)
            update = loop.chunks.join(updates)
            parameters = parameters + (update if scale is None else scale * update)
            step_losses, gradient, task_state = loop.task.loss_and_gradient(
                parameters, task_state, batch
            )
            losses.append(step_losses)
        losses = tf.stack(losses)
        value = meta_loss(losses)
    meta_gradient = tape.gradient(
        value, weights, unconnected_gradients=tf.UnconnectedGradients.ZERO
    )
    return value, meta_gradient, losses, Inner(parameters, gradient, list(rule_state), task_state)


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    """Returns tensors as one vector."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)
