"""The base class of rules that are one LSTM, shared by all elements."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from l2l_keras.rules.base import SplitRule, State, Tensor
from l2l_keras.rules.elementwise import lstm
from l2l_keras.rules.elementwise.lstm_network import Activation, LSTMNetwork


class Features(NamedTuple):
    """Features of gradients.

    Attributes:
        inputs: Inputs of the LSTM, float32 `[inputs, n]`.
        gains: Factors of the LSTM's outputs, float32 `[outputs, n]`; `[outputs, 1]` if they are the
            same for all elements.
    """

    inputs: Tensor
    gains: Tensor


class LSTMRule(SplitRule):
    """Base class of rules that map features of each element through one shared LSTM.

    The update of an element is `Σ_k gain_k * activation(w_k · h + b_k)`, h the last layer's hidden
    state after the element's inputs. A subclass computes inputs and gains (`features`).

    Args:
        inputs: Number of inputs of an element.
        outputs: Number of outputs of an element, one for each gain.
        units: Units of each LSTM layer, first layer first.
        activation: Activation of the outputs.
        output_initializer: Initializer of the weights w.
        forget_bias: Initial bias of the forget gates.
        seed: Seed of the initial weights, an integer or None for fresh ones.
        name: Name of the layer.

    Attributes:
        averaged_units: How many units of each layer put out their mean over elements.

    Raises:
        ValueError: If `units` is not a non-empty sequence of positive integers.
    """

    averaged_units = 0

    def __init__(
        self,
        inputs: int,
        outputs: int,
        units: Sequence[int],
        activation: Activation,
        output_initializer: Callable[[int | None], keras.initializers.Initializer],
        forget_bias: float,
        seed: int | None,
        name: str | None,
    ) -> None:
        super().__init__(name=name)
        self._lstm = LSTMNetwork(
            inputs, outputs, units, activation, output_initializer, forget_bias, seed
        )
        self.units = self._lstm.units
        self.forget_bias = float(forget_bias)
        self.seed = seed
        self.built = True

    @property
    def network_rows(self) -> tuple[int, ...]:
        """`(units, units)` for each layer's hidden and cell state."""
        return self._lstm.rows

    def network(self, features: Features, state: State) -> tuple[Tensor, State]:
        """Computes one update; see `SplitRule.network`."""
        outputs, state, _ = self._lstm.forward(features.inputs, state, self.averaged_units)
        return ops.sum(features.gains * outputs, axis=0), state

    def forward(self, features: Features, state: State) -> tuple[Tensor, State, State]:
        """Computes one update and caches the LSTM's gates; see `SplitRule.forward`."""
        outputs, state, activations = self._lstm.forward(
            features.inputs, state, self.averaged_units
        )
        update = ops.sum(features.gains * outputs, axis=0)
        return update, state, lstm.pack(activations)

    def replay(self, state: State, cache: State) -> State:
        """Computes the LSTM's next state from its gates; see `SplitRule.replay`."""
        return lstm.replay(lstm.unpack(cache), state, self.averaged_units)

    def backward(
        self,
        features: Features,
        state: State,
        new_state: State,
        cache: State,
        d_update: Tensor,
        d_new_state: State,
        with_features: bool,
    ) -> tuple[list[Tensor], Features | None, State]:
        """Computes the vector-Jacobian product of one step; see `SplitRule.backward`."""
        outputs = self._lstm.outputs(new_state)
        d_weights, d_inputs, d_state = self._lstm.backward(
            features.inputs,
            state,
            new_state,
            lstm.unpack(cache),
            outputs,
            features.gains * d_update,
            d_new_state,
            with_inputs=with_features,
            averaged_units=self.averaged_units,
        )
        d_features = Features(d_inputs, d_update * outputs) if with_features else None
        return d_weights, d_features, d_state

    def diagnose(self, state: Tensor) -> dict[str, Tensor]:
        """Returns the share of saturated cells; see `UpdateRule.diagnose`."""
        return {"saturated cells": self._lstm.saturation(state[: sum(self.network_rows)])}

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that all LSTM rules have."""
        return {
            "units": list(self.units),
            "forget_bias": self.forget_bias,
            "seed": self.seed,
            "name": self.name,
        }
