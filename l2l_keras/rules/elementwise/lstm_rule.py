"""The base class of rules that are one LSTM, shared by all elements."""

from __future__ import annotations

from typing import NamedTuple

from keras import ops

from l2l_keras.rules.base import SplitRule, State, Tensor
from l2l_keras.rules.elementwise import lstm
from l2l_keras.rules.elementwise.lstm_network import LSTMNetwork


class Features(NamedTuple):
    """Features of gradients: inputs of the LSTM, and factors of its outputs."""

    inputs: Tensor  # [inputs, n]
    gains: Tensor  # [outputs, n], or [outputs, 1] if they are the same for all elements


class LSTMRule(SplitRule):
    """Base class of rules that map features of each element through one shared LSTM.

    The update of an element is `Σ_k gain_k * output_k`, with the outputs of the network. A subclass
    computes its inputs and the gains (`features`).
    """

    def __init__(self, network: LSTMNetwork, name: str | None) -> None:
        super().__init__(name=name)
        network.build(self.add_weight)
        self._lstm = network
        self.units = network.units
        self.forget_bias = network.forget_bias
        self.seed = network.seed

    @property
    def network_rows(self) -> tuple[int, ...]:
        """`(units, units)` for each layer's hidden and cell state."""
        return self._lstm.rows

    def network(self, features: Features, state: State) -> tuple[Tensor, State]:
        """See `SplitRule.network`."""
        outputs, state, _ = self._lstm.forward(features.inputs, state)
        return ops.sum(features.gains * outputs, axis=0), state

    def forward(self, features: Features, state: State) -> tuple[Tensor, State, State]:
        """See `SplitRule.forward`; the cache is the gates of the LSTM."""
        outputs, state, activations = self._lstm.forward(features.inputs, state)
        update = ops.sum(features.gains * outputs, axis=0)
        return update, state, tuple(lstm.pack(layer) for layer in activations)

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
        """See `SplitRule.backward`."""
        outputs = self._lstm.outputs(new_state)
        d_weights, d_inputs, d_state = self._lstm.backward(
            features.inputs,
            state,
            new_state,
            tuple(lstm.unpack(layer) for layer in cache),
            outputs,
            features.gains * d_update,
            d_new_state,
            with_inputs=with_features,
        )
        d_features = Features(d_inputs, d_update * outputs) if with_features else None
        return d_weights, d_features, d_state

    def diagnose(self, state: Tensor) -> dict[str, Tensor]:
        """See `UpdateRule.diagnose`: the share of saturated cells."""
        return {"saturated cells": self._lstm.saturation(state[: sum(self.network_rows)])}
