"""A rule's step and its derivative, compiled for meta-training."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from l2l_keras.rules import SplitRule, Tensors, TensorwiseRule, UpdateRule
from l2l_keras.rules.base import Shape, State
from l2l_keras.tasks.base import Nest, Tensor


class CompiledRule:
    """The step of a rule and its derivative, as compiled functions of φ.

    φ, `weights`, is one vector, since XLA's launch time grows with the number of arguments.
    `parameters` are `()` unless `sees_parameters`. With `problems`, all other arrays have a first
    axis of functions, on each of which the rule steps separately.

    - `step` maps `(weights, gradient, state, parameters)` to `(update, state)`.
    - `forward` maps the same to `(update, state, cache)`.
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
        self.backward = _compile(self._sum_backward)

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
        return self.rule.step(gradient, state)

    def _forward(
        self, gradient: Tensor, state: State, parameters: Tensor
    ) -> tuple[Tensor, State, State]:
        return *self._step(gradient, state, parameters), (parameters,)

    def _backward(self, *args: Any) -> tuple[Tensor, Tensor, State]:
        """As `backward`, for one problem and with the rule's own weights."""
        gradient, state, _, cache, d_update, d_new_state, with_gradient = args
        sources = ([v.value for v in self.rule.trainable_variables], gradient, state)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
            outputs = self._step(gradient, state, *cache)
        d_weights, d_gradient, d_state = _gradient(tape, outputs, sources, (d_update, d_new_state))
        return _pack(d_weights), d_gradient if with_gradient else (), d_state

    def _over_problems(self, function: Callable) -> Callable:
        """Returns `function` with the packed φ before its arguments, vectorized over problems."""

        def call(weights: Tensor, *args: Any) -> Any:
            variables = zip(self.rule.trainable_variables, self.unpack(weights), strict=True)
            with keras.StatelessScope(state_mapping=variables):
                return function(*args)

        def call_on_each(weights: Tensor, *args: Any) -> Any:
            return tf.vectorized_map(lambda args: call(weights, *args), args)

        return call_on_each if self._problems else call

    def _sum_backward(
        self, weights: Tensor, *arrays: Any, with_gradient: bool
    ) -> tuple[Tensor, Tensor, State]:
        backward = self._over_problems(lambda *args: self._backward(*args, with_gradient))
        d_weights, *others = backward(weights, *arrays)
        return tf.reduce_sum(d_weights, axis=0) if self._problems else d_weights, *others


class CompiledSplitRule(CompiledRule):
    """A rule whose network has a hand-written derivative; its features' is that of a tape."""

    rule: SplitRule

    def _forward(
        self, gradient: Tensor, state: State, parameters: Tensor
    ) -> tuple[Tensor, State, State]:
        network_state, feature_state = self.rule.split_state(state)
        features, feature_state = self.rule.features(gradient, feature_state)
        update, network_state, cache = self.rule.forward(features, network_state)
        return update, (*network_state, *feature_state), cache

    def _backward(self, *args: Any) -> tuple[Tensor, Tensor, State]:
        gradient, state, new_state, cache, d_update, d_new_state, with_gradient = args
        network_state, feature_state = self.rule.split_state(state)
        new_network_state, _ = self.rule.split_state(new_state)
        d_new_network_state, d_feature_state = self.rule.split_state(d_new_state)
        sources = (gradient, feature_state)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(sources)
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
            derivatives = (d_features, d_feature_state)
            d_gradient, d_feature_state = _gradient(tape, features, sources, derivatives)
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


def _gradient(tape: tf.GradientTape, outputs: Nest, sources: Nest, derivatives: Nest) -> Nest:
    """Returns derivatives with respect to sources, given those with respect to outputs."""
    zero = tf.UnconnectedGradients.ZERO
    return tape.gradient(outputs, sources, derivatives, unconnected_gradients=zero)
