"""The interface of an update rule: a small network that turns gradients into updates."""

from __future__ import annotations

import abc
from typing import Any

import keras
from keras import ops

Tensor = Any
State = tuple[Tensor, ...]


class UpdateRule(keras.layers.Layer, abc.ABC):
    """Base class of all update rules m(∇, h; φ).

    A rule holds the meta-parameters φ as its trainable weights and offers one pure function,
    `step`. Meta-training unrolls the very function that `LearnedOptimizer` calls.

    Coordinates sit on the *last* axis: a gradient is a float32 vector `[n]`, a state is a tuple of
    float32 arrays `[rows, n]`, with `rows` from `state_rows`. A rule treats all coordinates alike
    and knows nothing of the variables that they come from.

    A subclass implements `state_rows`, `step` and `get_config`. One that also implements `forward`
    and `backward` is meta-trained through its own derivative rather than through a tape, at a
    fraction of the cost in time and memory.

    Args:
        name: Name of the layer.

    Source: Andrychowicz et al. (2016), section 2.
    """

    def __init__(self, name: str | None = None) -> None:
        # The state and φ stay in float32 whatever the precision of the model being trained:
        # a recurrent state in half precision drifts.
        super().__init__(name=name, dtype="float32")

    @property
    @abc.abstractmethod
    def state_rows(self) -> tuple[int, ...]:
        """Rows of each state array: floats kept for every coordinate."""

    @abc.abstractmethod
    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """Computes one update. Pure, of static shapes, in `keras.ops` only.

        Args:
            gradient: Gradient of every coordinate, float32 `[n]`.
            state: The rule's state, a tuple of float32 arrays `[rows, n]`.

        Returns:
            `(update, state)`: what to add to the coordinates, float32 `[n]`, and the next state.
        """

    @property
    def differentiates_itself(self) -> bool:
        """Whether the rule brings its own derivative (`forward` and `backward`)."""
        return False

    def forward(self, gradient: Tensor, state: State) -> tuple[Tensor, State, State]:
        """Computes `step`, and a cache of what `backward` needs besides both states.

        Args:
            gradient: As in `step`.
            state: As in `step`.

        Returns:
            `(update, state, cache)`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no derivative of its own.")

    def backward(
        self, state: State, new_state: State, cache: State, d_update: Tensor, d_new_state: State
    ) -> tuple[list[Tensor], State]:
        """Computes the vector-Jacobian product of one step.

        Args:
            state: The state that entered the step.
            new_state: The state that left it.
            cache: What `forward` returned for it.
            d_update: Derivative of the meta-loss with respect to the update, `[n]`.
            d_new_state: The same with respect to `new_state`.

        Returns:
            `(d_weights, d_state)`: the derivatives with respect to `trainable_variables`, in their
            order, and with respect to `state`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no derivative of its own.")

    def initial_state(self, n: int) -> State:
        """Returns the state of `n` coordinates before their first step (zeros).

        Args:
            n: Number of coordinates.

        Returns:
            A tuple of float32 arrays `[rows, n]`.
        """
        return tuple(ops.zeros((rows, n), "float32") for rows in self.state_rows)
