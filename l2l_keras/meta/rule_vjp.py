"""A rule's step and its derivative, compiled for meta-training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from l2l_keras.rules import SplitRule, Tensors, TensorwiseRule, UpdateRule

Tensor = Any
Nest = Any
Shape = tuple[int, ...]
State = tuple[Tensor, ...]


class CompiledRule:
    """The step of a rule and its derivative, as compiled functions of φ.

    φ, `weights`, is one vector, since XLA's launch time grows with the number of arguments.
    `parameters` are `()` unless `sees_parameters`. With `problems`, all other arrays have a first
    axis of functions, on each of which the rule steps separately.

    - `step` maps `(weights, gradient, state, parameters)` to `(update, state)`.
    - `forward` maps the same to `(update, state, cache)`.
    - `replay` maps `(weights, gradient, state, cache)` to the state after the step.
    - `backward` maps `(weights, gradient, state, new_state, cache, d_update, d_new_state,
      with_gradient)` to `(d_weights, d_gradient, d_state)`. Unless `with_gradient`, `d_gradient` is
      `()`, and the derivatives of the features' state are returned unchanged.
    """

    sees_parameters = False

    def __init__(self, rule: UpdateRule, tensors: Tensors, problems: bool) -> None:
        self.rule = rule
        self._tensors = tensors
        self._problems = problems
        self.step = _compile(self._over_problems(self._step))
        self.forward = _compile(self._over_problems(self._forward))
        self.replay = _compile(self._over_problems(self._replay))
        self.backward = _compile(self._backward_over_problems)

    def pack(self) -> Tensor:
        """Returns φ as one vector."""
        return _pack(self.rule.trainable_variables)

    def unpack(self, vector: Tensor) -> list[Tensor]:
        """Undoes `pack`."""
        shapes = [v.shape for v in self.rule.trainable_variables]
        parts = tf.split(vector, [math.prod(shape) for shape in shapes])
        return [tf.reshape(p, shape) for p, shape in zip(parts, shapes, strict=True)]

    def initial_state(self, shape: Shape) -> State:
        """Returns the state before the first step, for a gradient `[n]` or `[functions, n]`."""
        *problems, n = shape
        state = self._initial_state(n)
        if not problems:
            return state
        return tuple(tf.broadcast_to(part, (*problems, *part.shape)) for part in state)

    def specs(self, shape: Shape) -> tuple[Nest, Nest]:
        """Returns the specs of the state and of the cache for a gradient of a shape."""
        size = sum(math.prod(v.shape) for v in self.rule.trainable_variables)
        gradient = tf.TensorSpec(shape)
        state = tuple(tf.TensorSpec(part.shape) for part in self.initial_state(shape))
        forward = self.forward.get_concrete_function(
            tf.TensorSpec((size,)), gradient, state, gradient if self.sees_parameters else ()
        )
        return forward.structured_outputs[1:]

    def _initial_state(self, n: int) -> State:
        return self.rule.initial_state(n)

    def _step(self, gradient: Tensor, state: State, parameters: Tensor) -> tuple[Tensor, State]:
        del parameters
        return self.rule.step(gradient, state)

    def _forward(
        self, gradient: Tensor, state: State, parameters: Tensor
    ) -> tuple[Tensor, State, State]:
        return *self._step(gradient, state, parameters), (parameters,)

    def _replay(self, gradient: Tensor, state: State, cache: State) -> State:
        return self._step(gradient, state, *cache)[1]

    def _backward(self, weights: Tensor, *args: Any) -> tuple[Tensor, Tensor, State]:
        gradient, state, _, cache, d_update, d_new_state, with_gradient = args
        sources = (weights, gradient, state)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = self._with_weights(self._step, *sources, *cache)
        d_weights, d_gradient, d_state = tape.gradient(
            outputs,
            sources,
            (d_update, d_new_state),
            unconnected_gradients=tf.UnconnectedGradients.ZERO,
        )
        return d_weights, d_gradient if with_gradient else (), d_state

    def _with_weights(self, function: Callable, weights: Tensor, *args: Any) -> Any:
        """Calls a function with the packed φ in place of the rule's own."""
        variables = self.rule.trainable_variables
        mapping = zip(variables, self.unpack(weights), strict=True)
        with keras.StatelessScope(state_mapping=mapping):
            return function(*args)

    def _over_problems(self, function: Callable) -> Callable:
        """Returns `function` with φ as its first argument, vectorized over problems."""

        def call(weights: Tensor, *args: Any) -> Any:
            if not self._problems:
                return self._with_weights(function, weights, *args)
            return tf.vectorized_map(
                lambda args: self._with_weights(function, weights, *args), args
            )

        return call

    def _backward_over_problems(
        self, weights: Tensor, *arrays: Any, with_gradient: bool
    ) -> tuple[Tensor, Tensor, State]:
        if not self._problems:
            return self._backward(weights, *arrays, with_gradient)
        d_weights, d_gradient, d_state = tf.vectorized_map(
            lambda arrays: self._backward(weights, *arrays, with_gradient), arrays
        )
        return tf.reduce_sum(d_weights, axis=0), d_gradient, d_state


class CompiledSplitRule(CompiledRule):
    """A rule whose network has a hand-written derivative; its features' is that of a tape."""

    rule: SplitRule

    def _forward(
        self, gradient: Tensor, state: State, parameters: Tensor
    ) -> tuple[Tensor, State, State]:
        del parameters
        network_state, feature_state = self.rule.split_state(state)
        features, feature_state = self.rule.features(gradient, feature_state)
        update, network_state, cache = self.rule.forward(features, network_state)
        return update, (*network_state, *feature_state), cache

    def _replay(self, gradient: Tensor, state: State, cache: State) -> State:
        network_state, feature_state = self.rule.split_state(state)
        _, feature_state = self.rule.features(gradient, feature_state)
        return (*self.rule.replay(network_state, cache), *feature_state)

    def _backward(self, weights: Tensor, *args: Any) -> tuple[Tensor, Tensor, State]:
        return self._with_weights(self._split_backward, weights, *args)

    def _split_backward(self, *args: Any) -> tuple[Tensor, Tensor, State]:
        gradient, state, new_state, cache, d_update, d_new_state, with_gradient = args
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
        d_gradient: Any = ()
        if with_gradient:
            d_gradient, d_feature_state = tape.gradient(
                features,
                (gradient, feature_state),
                (d_features, d_feature_state),
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )
        return _pack(d_weights), d_gradient, (*d_network_state, *d_feature_state)


class CompiledTensorwiseRule(CompiledRule):
    """A rule of scope `"tensor"`, which knows the tensors and sees the parameters."""

    rule: TensorwiseRule
    sees_parameters = True

    def _initial_state(self, n: int) -> State:
        return self.rule.initial_state(n, len(self._tensors))

    def _step(
        self, gradient: Tensor, state: State, parameters: Tensor, matrices: Tensor | None = None
    ) -> tuple[Tensor, State]:
        return self.rule.step(gradient, state, parameters, self._tensors, matrices)

    def _forward(
        self, gradient: Tensor, state: State, parameters: Tensor
    ) -> tuple[Tensor, State, State]:
        matrices = self.rule.matrices(gradient, state[:-1], self._tensors)
        return *self._step(gradient, state, parameters, matrices), (parameters, matrices)


def compile_rule(rule: UpdateRule, tensors: Tensors, problems: bool) -> CompiledRule:
    """Compiles a rule, with its hand-written derivative if it has one; see `CompiledRule`."""
    if rule.scope == "tensor":
        return CompiledTensorwiseRule(rule, tensors, problems)
    if isinstance(rule, SplitRule):
        return CompiledSplitRule(rule, tensors, problems)
    return CompiledRule(rule, tensors, problems)


def _compile(function: Callable) -> Any:
    return tf.function(function, jit_compile=True, autograph=False)


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    """Returns tensors as one vector."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)
