"""The interface of an update rule: a small network that turns gradients into updates."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

Tensor = Any
Nest = Any
State = tuple[Tensor, ...]


class UpdateRule(keras.layers.Layer, abc.ABC):
    """Base class of all update rules m(∇, h; φ).

    A rule holds the meta-parameters φ as its trainable weights and offers one pure function,
    `step`. Meta-training unrolls the very function that `LearnedOptimizer` calls.

    Coordinates sit on the *last* axis: a gradient is a float32 vector `[n]`, a state is a tuple of
    float32 arrays `[rows, n]`, with `rows` from `state_rows`. A rule treats all coordinates alike
    and knows nothing of the variables that they come from.

    Most rules are coordinatewise: what becomes of a coordinate depends on its own gradients only,
    and a step may be computed for a few thousand of them at a time. Where coordinates exchange
    information, the rule is `coupled`, and a step sees all coordinates of a problem.

    A subclass implements `state_rows`, `step` and `get_config`, or those of `SplitRule`, which is
    meta-trained at a fraction of the cost in time and memory.

    Args:
        name: Name of the layer.

    Attributes:
        scope: `"element"` (the default), `"tensor"` or `"model"`.
        coupled: Whether coordinates exchange information. Defaults to False.

    Source: Andrychowicz et al. (2016), section 2.
    """

    scope: Literal["element", "tensor", "model"] = "element"
    coupled: bool = False

    def __init__(self, name: str | None = None) -> None:
        # The state and φ stay in float32 whatever the precision of the model being trained:
        # a recurrent state in half precision drifts.
        super().__init__(name=name, dtype="float32")

    @property
    @abc.abstractmethod
    def state_rows(self) -> tuple[int, ...]:
        """Rows of each state array: floats kept for every coordinate."""

    def state_rows_for(self, n: int) -> tuple[int, ...]:
        """Returns the rows of each state array, where they depend on the number of coordinates.

        Args:
            n: Number of coordinates.

        Returns:
            `state_rows`, unless a (coupled) rule overrides this.
        """
        del n
        return self.state_rows

    @abc.abstractmethod
    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """Computes one update. Pure, of static shapes, in `keras.ops` only.

        Args:
            gradient: Gradient of every coordinate, float32 `[n]`.
            state: The rule's state, a tuple of float32 arrays `[rows, n]`.

        Returns:
            `(update, state)`: what to add to the coordinates, float32 `[n]`, and the next state.
        """

    def stateless_step(
        self, weights: Sequence[Tensor], gradient: Tensor, state: State
    ) -> tuple[Tensor, State]:
        """Computes one update with given weights instead of the rule's own.

        Args:
            weights: Tensors in place of `self.weights`, in their order.
            gradient: As in `step`.
            state: As in `step`.

        Returns:
            As `step`.
        """
        with keras.StatelessScope(state_mapping=zip(self.weights, weights, strict=True)):
            return self.step(gradient, state)

    def initial_state(self, n: int) -> State:
        """Returns the state of `n` coordinates before their first step (zeros).

        Args:
            n: Number of coordinates.

        Returns:
            A tuple of float32 arrays `[rows, n]`.
        """
        return tuple(ops.zeros((rows, n), "float32") for rows in self.state_rows_for(n))

    def diagnose(self, state: Tensor) -> dict[str, Tensor]:
        """Tells what there is to see in a state, in numbers for people to look at.

        Args:
            state: State of the coordinates of a variable, one array below the other, float32
                `[rows, n]`; of a tensorwise rule, that of the variable as a whole, `[rows, 1]`.

        Returns:
            Scalars by name. Defaults to none.
        """
        del state
        return {}


class SplitRule(UpdateRule):
    """Base class of rules in two parts: features, and a network that brings its own derivative.

    The features of a gradient do not depend on φ; the network maps them to the update. Each part
    has a state of its own. Meta-training back-propagates through the network by its own
    derivative rather than by a tape.

    A subclass implements `network_rows`, `feature_rows`, `features`, `forward`, `replay`,
    `backward` and `get_config`.

    Args:
        name: Name of the layer.
    """

    @property
    @abc.abstractmethod
    def network_rows(self) -> tuple[int, ...]:
        """Rows of each array of the network's state."""

    @property
    def feature_rows(self) -> tuple[int, ...]:
        """Rows of each array that the features keep from step to step. Defaults to none."""
        return ()

    @property
    def state_rows(self) -> tuple[int, ...]:
        """The network's state, then the features'."""
        return self.network_rows + self.feature_rows

    @abc.abstractmethod
    def features(self, gradient: Tensor, state: State) -> tuple[Nest, State]:
        """Computes what the network sees. Pure, in `keras.ops` only, and independent of φ.

        Args:
            gradient: Gradient of every coordinate, float32 `[n]`.
            state: What the features keep, a tuple of float32 arrays `[rows, n]`.

        Returns:
            `(features, state)`: a nested structure of float32 arrays, and the next state.
        """

    @abc.abstractmethod
    def forward(self, features: Nest, state: State) -> tuple[Tensor, State, State]:
        """Computes the update from the features. Pure, in `keras.ops` only.

        Args:
            features: As returned by `features`.
            state: The network's state, a tuple of float32 arrays `[rows, n]`.

        Returns:
            `(update, state, cache)`: float32 `[n]`; the next state; and what `backward` needs
            besides, a tuple of arrays. They are kept for all steps of a window: the smaller, the
            better.
        """

    def network(self, features: Nest, state: State) -> tuple[Tensor, State]:
        """Computes the update from the features, without a cache; see `forward`.

        Args:
            features: As in `forward`.
            state: As in `forward`.

        Returns:
            `(update, state)`.
        """
        return self.forward(features, state)[:2]

    @abc.abstractmethod
    def replay(self, state: State, cache: State) -> State:
        """Computes the next state again, from the cache: cheaper than by `forward`.

        Args:
            state: The network's state that entered the step.
            cache: What `forward` returned for the step.

        Returns:
            The state that left it.
        """

    @abc.abstractmethod
    def backward(
        self,
        features: Nest,
        state: State,
        new_state: State,
        cache: State,
        d_update: Tensor,
        d_new_state: State,
        with_features: bool,
    ) -> tuple[list[Tensor], Nest, State]:
        """Computes the vector-Jacobian product of `forward`.

        Args:
            features: As given to `forward`.
            state: The network's state that entered the step.
            new_state: The one that left it.
            cache: What `forward` returned for the step.
            d_update: Derivative of the meta-loss with respect to the update, `[n]`.
            d_new_state: The same with respect to `new_state`.
            with_features: Whether to compute the derivative with respect to the features.

        Returns:
            `(d_weights, d_features, d_state)`: the derivatives with respect to
            `trainable_variables`, in their order; to `features` (None unless asked for); and to
            `state`.
        """

    def split_state(self, state: State) -> tuple[State, State]:
        """Splits a state into the network's and the features'.

        Args:
            state: The rule's state.

        Returns:
            `(network_state, feature_state)`.
        """
        arrays = len(self.network_rows)
        return tuple(state[:arrays]), tuple(state[arrays:])

    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """Computes one update; see `UpdateRule.step`."""
        network_state, feature_state = self.split_state(state)
        features, feature_state = self.features(gradient, feature_state)
        update, network_state = self.network(features, network_state)
        return update, (*network_state, *feature_state)
