"""What the rules that are an LSTM over every coordinate share."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from l2l_keras.rules import lstm
from l2l_keras.rules.base import State, Tensor, UpdateRule


class LSTMRule(UpdateRule):
    """Base class of rules that map features of each coordinate through one shared LSTM.

    A subclass says what the features are (`_features`), which must not depend on φ, and whether
    the output is bounded. The state is `(h, c)` of every layer, then whatever the features keep.

    Args:
        features: Number of features of a coordinate.
        feature_state_rows: Rows of the arrays that the features keep from step to step.
        units: Units of each LSTM layer, first layer first.
        output_scale: Factor of the output.
        bounded: Whether the output goes through a tanh first.
        forget_bias: Initial bias of the forget gates.
        seed: Seed of the initial weights, an integer or None for fresh ones.
        name: Name of the layer.

    Raises:
        ValueError: If `units` is not a non-empty sequence of positive integers.
    """

    def __init__(
        self,
        features: int,
        feature_state_rows: tuple[int, ...],
        units: Sequence[int],
        output_scale: float,
        bounded: bool,
        forget_bias: float,
        seed: int | None,
        name: str | None,
    ) -> None:
        units = tuple(units)
        if not units or any(not isinstance(u, int) or u < 1 for u in units):
            raise ValueError(
                f"`units` must be a non-empty sequence of positive integers. Received: {units}"
            )
        super().__init__(name=name)
        self.units = units
        self.output_scale = float(output_scale)
        self.forget_bias = float(forget_bias)
        self.seed = seed
        self._feature_state_rows = feature_state_rows
        self._bounded = bounded
        seeds = iter([None] * 99 if seed is None else range(99 * seed, 99 * seed + 99))
        self._layer_weights = []
        for layer, (inputs, layer_units) in enumerate(zip((features, *units), units, strict=False)):
            self._layer_weights.append(
                lstm.LSTMWeights(
                    kernel=self.add_weight(
                        shape=(4 * layer_units, inputs),
                        initializer=keras.initializers.GlorotUniform(next(seeds)),
                        name=f"kernel_{layer}",
                    ),
                    recurrent_kernel=self.add_weight(
                        shape=(4 * layer_units, layer_units),
                        initializer=keras.initializers.Orthogonal(seed=next(seeds)),
                        name=f"recurrent_kernel_{layer}",
                    ),
                    bias=self.add_weight(
                        shape=(4 * layer_units,),
                        initializer=_forget_gate_bias(self.forget_bias),
                        name=f"bias_{layer}",
                    ),
                )
            )
        self._output_kernel = self.add_weight(
            shape=(1, units[-1]),
            initializer=keras.initializers.GlorotUniform(next(seeds)),
            name="output_kernel",
        )
        self._output_bias = self.add_weight(shape=(1,), initializer="zeros", name="output_bias")
        self.built = True

    @property
    def state_rows(self) -> tuple[int, ...]:
        """`(units, units)` for each layer's hidden and cell state, then the features' own rows."""
        layers = tuple(units for layer_units in self.units for units in (layer_units, layer_units))
        return layers + self._feature_state_rows

    @property
    def differentiates_itself(self) -> bool:
        """True."""
        return True

    @abc.abstractmethod
    def _features(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """Computes what the LSTM sees, independent of φ.

        Args:
            gradient: float32 `[n]`.
            state: What the features keep, float32 `[rows, n]` arrays.

        Returns:
            `(features, state)`, the features float32 `[features, n]`.
        """

    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """Computes one update; see `UpdateRule.step`."""
        update, state, _ = self.forward(gradient, state)
        return update, state

    def forward(self, gradient: Tensor, state: State) -> tuple[Tensor, State, State]:
        """Computes one update and the gates' activations; see `UpdateRule.forward`."""
        layers = 2 * len(self.units)
        features, feature_state = self._features(gradient, state[layers:])
        state, activations = lstm.stack_forward(self._tensors(), features, state[:layers])
        update = self.output_scale * self._output(state[-2])[0]
        return update, (*state, *feature_state), (features, *activations)

    def backward(
        self, state: State, new_state: State, cache: State, d_update: Tensor, d_new_state: State
    ) -> tuple[list[Tensor], State]:
        """Computes the vector-Jacobian product of one step; see `UpdateRule.backward`."""
        layers = 2 * len(self.units)
        features, *activations = cache
        hidden = new_state[layers - 2]
        d_output = self.output_scale * ops.expand_dims(d_update, 0)
        if self._bounded:
            d_output = d_output * (1.0 - ops.square(self._output(hidden)))
        d_layers, d_state = lstm.stack_backward(
            self._tensors(),
            features,
            state[:layers],
            new_state[:layers],
            tuple(activations),
            ops.transpose(ops.convert_to_tensor(self._output_kernel)) * d_output,
            d_new_state[:layers],
        )
        d_output_kernel = ops.matmul(d_output, ops.transpose(hidden))
        d_weights = [d for layer in d_layers for d in layer]
        # Features do not depend on φ, nor do later ones on what they keep in a way that counts.
        d_feature_state = tuple(ops.zeros_like(s) for s in state[layers:])
        return (
            [*d_weights, d_output_kernel, ops.sum(d_output, axis=1)],
            (*d_state, *d_feature_state),
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that all these rules have."""
        return {
            "units": list(self.units),
            "output_scale": self.output_scale,
            "forget_bias": self.forget_bias,
            "seed": self.seed,
            "name": self.name,
        }

    def _output(self, hidden: Tensor) -> Tensor:
        """Maps the last hidden state `[units, n]` to the unscaled update `[1, n]`."""
        output = ops.matmul(self._output_kernel, hidden) + self._output_bias
        return ops.tanh(output) if self._bounded else output

    def _tensors(self) -> list[lstm.LSTMWeights]:
        """Returns the layers' weights as tensors."""
        return [
            lstm.LSTMWeights(*(ops.convert_to_tensor(w) for w in layer))
            for layer in self._layer_weights
        ]


def _forget_gate_bias(value: float):
    """Returns an initializer of a layer's bias: `value` for the forget gates, zero for others."""

    def initialize(shape: tuple[int, ...], dtype: Any = None) -> Tensor:
        units = shape[0] // 4
        zeros = ops.zeros((units,), dtype)
        return ops.concatenate([zeros, ops.full((units,), value, dtype), zeros, zeros])

    return initialize
