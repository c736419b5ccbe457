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

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import tensorflow as tf

from l2l_keras.rules import SplitRule, UpdateRule
from l2l_keras.tasks.base import Task

Tensor = Any
Nest = Any
MetaLoss = Callable[[Tensor], Tensor]
Draw = Callable[[Tensor], Nest]


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


class Trace(NamedTuple):
    """What is kept of a window for its meta-gradient: `tf.TensorArray`s, step by step.

    Attributes:
        losses: f(θ_1) … f(θ_T).
        gradients: ∇f(θ_0) … ∇f(θ_T).
        caches: For each chunk that is kept, what the rule's derivative needs of every step.
        states: For each chunk whose states are kept, those before the first step and after every
            step.
        optimizee: With second derivatives, (θ_t, the optimizee's state in which it is judged)
            after every step; otherwise nothing.
    """

    losses: Any
    gradients: Any
    caches: list[Nest]
    states: list[Nest]
    optimizee: Nest


class Chunks:
    """Cuts vectors into equal chunks of coordinates, the last one filled up with zeros.

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
        """Cuts a float32 `[..., size]` vector into `count` vectors `[..., length]`."""
        if self.count == 1:
            return [vector]
        padding = [[0, 0]] * (len(vector.shape) - 1) + [[0, self._padding]]
        return tf.split(tf.pad(vector, padding), self.count, axis=-1)

    def join(self, vectors: Sequence[Tensor]) -> Tensor:
        """Undoes `split` of a vector `[size]`."""
        if self.count == 1:
            return vectors[0]
        return tf.concat(vectors, axis=0)[: self.size]


class InnerLoop:
    """The inner loop of one rule on one task, compiled piece by piece.

    The rule's arithmetic is compiled with XLA, the optimizee's as the task asks for: on a CPU, XLA
    makes the rule twice as fast and convolutions several times slower. Steps are a loop of the
    graph, which does not grow with their number.

    Args:
        rule: The update rule.
        task: The task.
        chunk_size: Largest number of coordinates that the rule updates at once. Defaults to 4096.
        cache_bytes: Bytes that may be kept of a window for its first-order meta-gradient: the
            rule's states and its caches, or, where that is too much, the caches. Chunks of
            coordinates whose caches do not fit are computed again, one after the other. With
            second derivatives, all of it is kept. Defaults to 128 MiB.

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
        self._loss_and_gradient = _compile(task.loss_and_gradient, task.jit_compile)
        self._hessian_vector_product = _compile(task.hessian_vector_product, task.jit_compile)
        self._rule_step = _compile(self._with_weights(rule.step))
        self._rule_forward = _compile(self._with_weights(self._forward))
        self._rule_replay = _compile(self._with_weights(self._replay))
        self._rule_backward = _compile(self._backward)
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
        losses, inner, _ = self._inner_step(self._pack(), inner, batch, scale, kept=0)
        return losses, inner

    def meta_gradient(
        self,
        inner: Inner,
        draw: Draw,
        unroll: int,
        meta_loss: MetaLoss,
        scale: Tensor | None = None,
        second_derivatives: bool = False,
    ) -> tuple[Tensor, list[Tensor], Tensor, Inner]:
        """Computes a window and its meta-gradient.

        With second derivatives, the way in which earlier updates change later gradients counts too.
        The optimizee's state, such as the averages of batch normalisation, counts as given.

        Args:
            inner: Where the loop stands.
            draw: Maps the number of an inner step of the window, an int32 scalar from 0 to
                `unroll - 1`, to the minibatch on which the optimizee is judged after that step.
                Called more than once for a step.
            unroll: Inner steps in the window.
            meta_loss: Maps losses `[unroll, functions]` to the scalar meta-loss.
            scale: As in `step`.
            second_derivatives: Whether to keep ∂g_t/∂φ. Defaults to False.

        Returns:
            `(meta_loss, meta_gradient, losses, inner)`: the scalar; its derivative with respect to
            the rule's trainable variables; f(θ_1) … f(θ_T), float32 `[unroll, functions]`; and
            where the loop stands.
        """
        weights = self._pack()
        trace, after = self._run(weights, inner, draw, unroll, scale, second_derivatives)
        losses = trace.losses.stack()
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(losses)
            value = meta_loss(losses)
        # The derivative with respect to each loss, spread over the coordinates of its function.
        factors = tape.gradient(value, losses)
        if self.task.functions > 1:
            factors = tf.repeat(factors, self.task.size // self.task.functions, axis=1)
        if second_derivatives:
            d_weights = self._whole_derivative(weights, inner, trace, draw, factors, scale)
        else:
            d_weights = self._first_order(weights, inner, trace, factors, scale)
        return value, self._unpack(d_weights), losses, after

    @property
    def _indices(self) -> range:
        return range(self.chunks.count)

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
        self, gradient: Tensor, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """Computes the rule's step, and a cache of what its derivative needs."""
        if not isinstance(self.rule, SplitRule):
            return *self.rule.step(gradient, state), ()
        network_state, feature_state = self.rule.split_state(state)
        features, feature_state = self.rule.features(gradient, feature_state)
        update, network_state, cache = self.rule.forward(features, network_state)
        return update, (*network_state, *feature_state), cache

    def _replay(
        self, gradient: Tensor, state: tuple[Tensor, ...], cache: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """Computes the state after the rule's step again."""
        if not isinstance(self.rule, SplitRule):
            return self.rule.step(gradient, state)[1]
        network_state, feature_state = self.rule.split_state(state)
        _, feature_state = self.rule.features(gradient, feature_state)
        return (*self.rule.replay(network_state, cache), *feature_state)

    def _backward(
        self,
        weights: Tensor,
        gradient: Tensor,
        state: tuple[Tensor, ...],
        new_state: tuple[Tensor, ...],
        cache: tuple[Tensor, ...],
        d_update: Tensor,
        d_new_state: tuple[Tensor, ...],
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        """Computes the vector-Jacobian product of the rule's step.

        Returns the derivatives with respect to φ, to the gradient (None unless asked for) and to
        the state. Without that of the gradient, those of the features' state stay as they are.
        """
        given = (gradient, state, new_state, cache, d_update, d_new_state, with_gradient)
        if isinstance(self.rule, SplitRule):
            return self._with_weights(self._split_backward)(weights, *given)
        sources = (weights, gradient, state)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = self._with_weights(self.rule.step)(*sources)
        d_weights, d_gradient, d_state = tape.gradient(
            outputs,
            sources,
            (d_update, d_new_state),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return d_weights, d_gradient if with_gradient else None, d_state

    def _split_backward(
        self,
        gradient: Tensor,
        state: tuple[Tensor, ...],
        new_state: tuple[Tensor, ...],
        cache: tuple[Tensor, ...],
        d_update: Tensor,
        d_new_state: tuple[Tensor, ...],
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor | None, tuple[Tensor, ...]]:
        """As `_backward`: through the network by its own derivative, through features by a tape."""
        network_state, feature_state = self.rule.split_state(state)
        new_network_state, _ = self.rule.split_state(new_state)
        d_new_network_state, d_feature_state = self.rule.split_state(d_new_state)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch((gradient, feature_state))
            features = self.rule.features(gradient, feature_state)
        d_weights, d_features, d_network_state = self.rule.backward(
            features[0],
            network_state,
            new_network_state,
            cache,
            d_update,
            d_new_network_state,
            with_features=with_gradient,
        )
        d_gradient = None
        if with_gradient:
            d_gradient, d_feature_state = tape.gradient(
                features,
                (gradient, feature_state),
                (d_features, d_feature_state),
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
        return _pack(d_weights), d_gradient, (*d_network_state, *d_feature_state)

    def _step(
        self, weights: Tensor, inner: Inner, batch: Nest, scale: Tensor | None, kept: int
    ) -> tuple[Tensor, Inner, list[tuple[Tensor, ...]]]:
        """Computes one inner step, and the caches of the first `kept` chunks."""
        updates, rule_state, caches = [], [], []
        gradients = self.chunks.split(_scaled(inner.gradient, scale))
        for k, (gradient, state) in enumerate(zip(gradients, inner.rule_state, strict=True)):
            if k < kept:
                update, state, cache = self._rule_forward(weights, gradient, state)
                caches.append(cache)
            else:
                update, state = self._rule_step(weights, gradient, state)
            updates.append(update)
            rule_state.append(state)
        parameters = inner.parameters + _scaled(self.chunks.join(updates), scale)
        losses, gradient, task_state = self._loss_and_gradient(parameters, inner.task_state, batch)
        return losses, Inner(parameters, gradient, rule_state, task_state), caches

    def _run(
        self,
        weights: Tensor,
        inner: Inner,
        draw: Draw,
        unroll: int,
        scale: Tensor | None,
        second_derivatives: bool,
    ) -> tuple[Trace, Inner]:
        """Computes a window's steps, and keeps what its meta-gradient needs."""
        state, cache = self._specs()
        kept, with_states = self._kept_chunks(unroll)
        if second_derivatives:
            kept = self.chunks.count
        kept_states = list(inner.rule_state) if with_states else []
        kept_of_optimizee = (inner.parameters, inner.task_state) if second_derivatives else ()
        trace = Trace(
            losses=_arrays(tf.TensorSpec((self.task.functions,)), unroll),
            gradients=_write(_arrays(inner.gradient, unroll + 1), 0, inner.gradient),
            caches=[_arrays(cache, unroll) for _ in range(kept)],
            states=[_write(_arrays(state, unroll + 1), 0, s) for s in kept_states],
            optimizee=_arrays(kept_of_optimizee, unroll),
        )

        def body(t: Tensor, inner: Inner, trace: Trace) -> tuple[Inner, Trace]:
            task_state = inner.task_state
            losses, inner, caches = self._inner_step(weights, inner, draw(t), scale, kept=kept)
            kept_states = list(inner.rule_state) if with_states else []
            kept_of_optimizee = (inner.parameters, task_state) if second_derivatives else ()
            trace = Trace(
                losses=trace.losses.write(t, losses),
                gradients=trace.gradients.write(t + 1, inner.gradient),
                caches=_write(trace.caches, t, caches),
                states=_write(trace.states, t + 1, kept_states),
                optimizee=_write(trace.optimizee, t, kept_of_optimizee),
            )
            return inner, trace

        inner, trace = _loop(range(unroll), body, (inner, trace))
        return trace, inner

    def _specs(self) -> tuple[tuple, tuple]:
        """Returns the shapes of a chunk's state and cache."""
        gradient = tf.TensorSpec((self.chunks.length,))
        state = tuple(tf.TensorSpec((rows, self.chunks.length)) for rows in self.rule.state_rows)
        weights = tf.TensorSpec(self._pack().shape)
        forward = self._rule_forward.get_concrete_function(weights, gradient, state)
        return forward.structured_outputs[1:]

    def _kept_chunks(self, unroll: int) -> tuple[int, bool]:
        """Returns how many chunks' caches are kept over a window, and whether all states are."""
        state, cache = (
            unroll * sum(math.prod(t.shape) * t.dtype.size for t in specs)
            for specs in self._specs()
        )
        if self.chunks.count * (state + cache) <= self._cache_bytes:
            return self.chunks.count, True
        return min(self.chunks.count, self._cache_bytes // max(1, cache)), False

    def _first_order(
        self,
        weights: Tensor,
        inner: Inner,
        trace: Trace,
        factors: Tensor,
        scale: Tensor | None,
    ) -> Tensor:
        """Computes a first-order meta-gradient, chunk by chunk."""
        gradients = _scaled(trace.gradients.stack(), scale)
        d_losses = self.chunks.split(factors * gradients[1:])
        gradients = self.chunks.split(gradients)
        parts: list[Tensor] = []
        for k in self._indices:
            # One chunk after the other: the executor would otherwise compute all of them again at
            # once, and keep them.
            with tf.control_dependencies(parts[-1:]):
                chunk_gradients, chunk_d_losses = tf.identity(gradients[k]), d_losses[k]
            caches, states = self._steps_of(weights, inner, trace, k, chunk_gradients)
            parts.append(
                self._back_propagate(weights, chunk_gradients, chunk_d_losses, caches, states)
            )
        return tf.add_n(parts)

    def _steps_of(
        self, weights: Tensor, inner: Inner, trace: Trace, k: int, gradients: Tensor
    ) -> tuple[Nest, Nest]:
        """Returns a chunk's caches and states, and computes again what was not kept of them."""
        if k < len(trace.states):
            return trace.caches[k], trace.states[k]
        unroll = gradients.shape[0] - 1
        state_specs, cache_specs = self._specs()
        state = inner.rule_state[k]
        states = _write(_arrays(state_specs, unroll + 1), 0, state)
        if k < len(trace.caches):
            caches = trace.caches[k]

            def replay(t: Tensor, state: tuple, states: Nest) -> tuple:
                state = self._rule_replay(weights, gradients[t], state, _read(caches, t))
                return state, _write(states, t + 1, state)

            return caches, _loop(range(unroll), replay, (state, states))[1]

        def forward(t: Tensor, state: tuple, caches: Nest, states: Nest) -> tuple:
            _, state, cache = self._rule_forward(weights, gradients[t], state)
            return state, _write(caches, t, cache), _write(states, t + 1, state)

        start = (state, _arrays(cache_specs, unroll), states)
        return _loop(range(unroll), forward, start)[1:]

    def _back_propagate(
        self, weights: Tensor, gradients: Tensor, d_losses: Tensor, caches: Nest, states: Nest
    ) -> Tensor:
        """Back-propagates through a chunk's steps, given the optimizee's gradients."""

        def body(t: Tensor, d_weights: Tensor, d_update: Tensor, d_state: tuple) -> tuple:
            d_update = d_update + d_losses[t]
            d_step, _, d_state = self._rule_backward(
                weights,
                gradients[t],
                _read(states, t),
                _read(states, t + 1),
                _read(caches, t),
                d_update,
                d_state,
                with_gradient=False,
            )
            return d_weights + d_step, d_update, d_state

        d_state = self.rule.initial_state(self.chunks.length)
        start = (tf.zeros_like(weights), tf.zeros_like(d_losses[0]), d_state)
        return _loop(range(d_losses.shape[0])[::-1], body, start)[0]

    def _whole_derivative(
        self,
        weights: Tensor,
        inner: Inner,
        trace: Trace,
        draw: Draw,
        factors: Tensor,
        scale: Tensor | None,
    ) -> Tensor:
        """Computes a meta-gradient with second derivatives, step by step."""
        gradients = self.chunks.split(_scaled(trace.gradients.stack(), scale))
        steps = [self._steps_of(weights, inner, trace, k, gradients[k]) for k in self._indices]

        def body(
            t: Tensor, d_weights: Tensor, d_parameters: Tensor, d_gradient: Tensor, d_states: list
        ) -> tuple:
            # Up to here, `d_gradient` is that of the gradient after step t, used in step t + 1.
            parameters, task_state = _read(trace.optimizee, t)
            d_parameters += factors[t] * trace.gradients.read(t + 1)
            d_parameters += self._hessian_vector_product(
                parameters, task_state, draw(t), d_gradient
            )
            d_updates = self.chunks.split(_scaled(d_parameters, scale))
            parts, d_gradients, new_d_states = [], [], []
            for k, (caches, states) in enumerate(steps):
                d_step, d_chunk, d_state = self._rule_backward(
                    weights,
                    gradients[k][t],
                    _read(states, t),
                    _read(states, t + 1),
                    _read(caches, t),
                    d_updates[k],
                    d_states[k],
                    with_gradient=True,
                )
                parts.append(d_step)
                d_gradients.append(d_chunk)
                new_d_states.append(d_state)
            d_gradient = _scaled(self.chunks.join(d_gradients), scale)
            return tf.add_n([d_weights, *parts]), d_parameters, d_gradient, new_d_states

        zeros = tf.zeros((self.task.size,))
        d_states = [self.rule.initial_state(self.chunks.length) for _ in self._indices]
        start = (tf.zeros_like(weights), zeros, zeros, d_states)
        return _loop(range(factors.shape[0])[::-1], body, start)[0]


def _compile(function: Callable, jit_compile: bool = True) -> Any:
    return tf.function(function, jit_compile=jit_compile, autograph=False)


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    """Returns tensors as one vector."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)


def _scaled(vector: Tensor, scale: Tensor | None) -> Tensor:
    return vector if scale is None else scale * vector


def _loop(steps: range, body: Callable, variables: tuple) -> tuple:
    """Runs `variables = body(step, *variables)` for the steps of a range, in a loop of graphs."""

    def turn(count: Tensor, *variables: Any) -> tuple:
        return count + 1, *body(steps.start + steps.step * count, *variables)

    return tf.while_loop(
        lambda count, *_: count < len(steps), turn, (0, *variables), parallel_iterations=1
    )[1:]


def _arrays(like: Nest, steps: int) -> Nest:
    """Returns arrays of tensors such as these, one for each of a number of steps."""
    return tf.nest.map_structure(
        lambda t: tf.TensorArray(t.dtype, steps, element_shape=t.shape, clear_after_read=False),
        like,
    )


def _write(arrays: Nest, step: Any, values: Nest) -> Nest:
    return tf.nest.map_structure(lambda array, value: array.write(step, value), arrays, values)


def _read(arrays: Nest, step: Tensor) -> Nest:
    return tf.nest.map_structure(lambda array: array.read(step), arrays)
