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
State = tuple[Tensor, ...]


class CompiledRule:
    """The step of a rule and its derivative, as compiled functions of φ.

    φ is one vector: XLA's launch time grows with the number of arguments. The derivative is that of
    a tape, which computes the step again; see `CompiledSplitRule` for rules that bring their own.

    Args:
        rule: The update rule.
        problems: Whether a (coupled) rule steps through several problems side by side: all arrays
            but φ then have a first axis of problems.

    Attributes:
        sees_parameters: Whether the rule is to be shown the parameters.
    """

    sees_parameters = False

    def __init__(self, rule: UpdateRule, problems: bool = False) -> None:
        self.rule = rule
        self._problems = problems
        self._step_function = _compile(self._batched(self._step))
        self._forward_function = _compile(self._batched(self._forward))
        self._replay_function = _compile(self._batched(self._replay))
        self._backward_function = _compile(self._backward_of_problems)

    def pack(self) -> Tensor:
        """Returns φ as one vector."""
        return _pack(self.rule.trainable_variables)

    def unpack(self, vector: Tensor) -> list[Tensor]:
        """Undoes `pack`."""
        shapes = [v.shape for v in self.rule.trainable_variables]
        parts = tf.split(vector, [math.prod(shape) for shape in shapes])
        return [tf.reshape(p, shape) for p, shape in zip(parts, shapes, strict=True)]

    def initial_state(self, n: int) -> State:
        """Returns the state of n coordinates before the first step."""
        return self.rule.initial_state(n)

    def step(
        self, weights: Tensor, gradient: Tensor, state: State, parameters: Tensor
    ) -> tuple[Tensor, State]:
        """Computes the rule's step.

        Args:
            weights: φ, as returned by `pack`.
            gradient: As in `UpdateRule.step`.
            state: As in `UpdateRule.step`.
            parameters: The coordinates, `[n]`; `()` for a rule that is not to be shown them.

        Returns:
            `(update, state)`.
        """
        return self._step_function(weights, gradient, state, parameters)

    def forward(
        self, weights: Tensor, gradient: Tensor, state: State, parameters: Tensor
    ) -> tuple[Tensor, State, State]:
        """Computes the rule's step, and what its derivative needs besides.

        Args:
            weights: As in `step`.
            gradient: As in `step`.
            state: As in `step`.
            parameters: As in `step`.

        Returns:
            `(update, state, cache)`.
        """
        return self._forward_function(weights, gradient, state, parameters)

    def forward_specs(self, gradient: tf.TensorSpec, state: Nest) -> tuple[Nest, Nest]:
        """Returns the specs of the state and of the cache that `forward` returns.

        Args:
            gradient: Spec of the gradient.
            state: Specs of the state.
        """
        weights = tf.TensorSpec(self.pack().shape)
        parameters = gradient if self.sees_parameters else ()
        forward = self._forward_function.get_concrete_function(weights, gradient, state, parameters)
        return forward.structured_outputs[1:]

    def replay(self, weights: Tensor, gradient: Tensor, state: State, cache: State) -> State:
        """Computes the state after the rule's step again.

        Args:
            weights: As in `step`.
            gradient: As in `step`.
            state: The state that entered the step.
            cache: What `forward` returned for it.

        Returns:
            The state that left it.
        """
        return self._replay_function(weights, gradient, state, cache)

    def backward(
        self,
        weights: Tensor,
        gradient: Tensor,
        state: State,
        new_state: State,
        cache: State,
        d_update: Tensor,
        d_new_state: State,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor, State]:
        """Computes the vector-Jacobian product of the rule's step.

        Args:
            weights: As in `step`.
            gradient: As in `step`.
            state: The state that entered the step.
            new_state: The state that left it.
            cache: What `forward` returned for it.
            d_update: Derivative of the meta-loss with respect to the update.
            d_new_state: The same with respect to `new_state`.
            with_gradient: Whether to compute the derivative with respect to the gradient.

        Returns:
            `(d_weights, d_gradient, d_state)`: `d_gradient` is `()` unless asked for. Without it,
            the derivatives of what a rule's features keep stay as they are.
        """
        return self._backward_function(
            weights, gradient, state, new_state, cache, d_update, d_new_state, with_gradient
        )

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

    def _batched(self, function: Callable) -> Callable:
        """Returns `function` with φ as its first argument, over problems."""

        def call(weights: Tensor, *args: Any) -> Any:
            if not self._problems:
                return self._with_weights(function, weights, *args)
            return tf.vectorized_map(
                lambda args: self._with_weights(function, weights, *args), args
            )

        return call

    def _backward_of_problems(self, weights: Tensor, *args: Any) -> tuple[Tensor, Tensor, State]:
        *arrays, with_gradient = args
        if not self._problems:
            return self._backward(weights, *arrays, with_gradient)
        d_weights, d_gradient, d_state = tf.vectorized_map(
            lambda arrays: self._backward(weights, *arrays, with_gradient), tuple(arrays)
        )
        return tf.reduce_sum(d_weights, axis=0), d_gradient, d_state


class CompiledSplitRule(CompiledRule):
    """As `CompiledRule`: through the network by its own derivative, through features by a tape.

    Args:
        rule: The update rule.
    """

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

    def _split_backward(
        self,
        gradient: Tensor,
        state: State,
        new_state: State,
        cache: State,
        d_update: Tensor,
        d_new_state: State,
        with_gradient: bool,
    ) -> tuple[Tensor, Tensor, State]:
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
    """As `CompiledRule`, of a rule that knows which coordinates are whose, and sees the parameters.

    Args:
        rule: The update rule.
        tensors: What the coordinates (of a problem) belong to.
        problems: As in `CompiledRule`.
    """

    rule: TensorwiseRule
    sees_parameters = True

    def __init__(self, rule: TensorwiseRule, tensors: Tensors, problems: bool = False) -> None:
        super().__init__(rule, problems)
        self._tensors = tensors

    def initial_state(self, n: int) -> State:
        """Returns the state of n coordinates, and of their tensors, before the first step."""
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


def compile_rule(rule: UpdateRule, tensors: Tensors, problems: bool = False) -> CompiledRule:
    """Compiles a rule, with its own derivative where it brings one.

    Args:
        rule: The update rule.
        tensors: What the coordinates (of a problem) belong to, for rules that want to know.
        problems: As in `CompiledRule`.
    """
    if isinstance(rule, TensorwiseRule):
        return CompiledTensorwiseRule(rule, tensors, problems)
    if isinstance(rule, SplitRule):
        return CompiledSplitRule(rule, problems)
    return CompiledRule(rule, problems)


def _compile(function: Callable) -> Any:
    return tf.function(function, jit_compile=True, autograph=False)


def _pack(tensors: Sequence[Tensor]) -> Tensor:
    """Returns tensors as one vector."""
    return tf.concat([tf.reshape(t, [-1]) for t in tensors], axis=0)
