"""What the rules that are an LSTM over every coordinate share."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from l2l_keras.rules import lstm
from l2l_keras.rules.base import SplitRule, State, Tensor


class Features(NamedTuple):
    """What an LSTM rule makes of gradients.

    Attributes:
        inputs: What the LSTM sees, float32 `[inputs, n]`.
        gains: Factors of the LSTM's outputs, float32 `[outputs, n]` or, where they are the same for
            all coordinates, `[outputs, 1]`.
    """

    inputs: Tensor
    gains: Tensor


class Activation(NamedTuple):
    """An activation function of outputs.

    Attributes:
        function: The function.
        derivative: Its derivative as a function of its value.
    """

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


# Factors from e^-6 to e^4: a step below is nothing, one beyond is wild.
_SMALLEST, _LARGEST = math.exp(-6.0), math.exp(4.0)


def _exponential(x: Tensor) -> Tensor:
    return ops.clip(ops.exp(x), _SMALLEST, _LARGEST)


def _exponential_derivative(y: Tensor) -> Tensor:
    return ops.where(ops.logical_and(y > _SMALLEST, y < _LARGEST), y, 0.0)


LINEAR = Activation(lambda x: x, ops.ones_like)
TANH = Activation(ops.tanh, lambda y: 1.0 - ops.square(y))
EXPONENTIAL = Activation(_exponential, _exponential_derivative)


class LSTMRule(SplitRule):
    """Base class of rules that map features of each coordinate through one shared LSTM.

    The update of a coordinate is `Σ_k gain_k * activation(w_k · h + b_k)`, h the last layer's
    hidden state after it has seen the coordinate's inputs. A subclass says what inputs and gains
    are (`features`).

    Args:
        inputs: Number of inputs of a coordinate.
        outputs: Number of outputs of a coordinate, one for each gain.
        units: Units of each LSTM layer, first layer first.
        activation: Activation of the outputs.
        output_initializer: Initializer of the weights w.
        forget_bias: Initial bias of the forget gates.
        seed: Seed of the initial weights, an integer or None for fresh ones.
        name: Name of the layer.

    Raises:
        ValueError: If `units` is not a non-empty sequence of positive integers.
    """

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
        units = tuple(units)
        if not units or any(not isinstance(u, int) or u < 1 for u in units):
            raise ValueError(
                f"`units` must be a non-empty sequence of positive integers. Received: {units}"
            )
        super().__init__(name=name)
        self.units = units
        self.forget_bias = float(forget_bias)
        self.seed = seed
        self._activation = activation
        seeds = iter([None] * 99 if seed is None else range(99 * seed, 99 * seed + 99))
        self._layer_weights = []
        for layer, (rows, layer_units) in enumerate(zip((inputs, *units), units, strict=False)):
            self._layer_weights.append(
                lstm.LSTMWeights(
                    kernel=self.add_weight(
                        shape=(4 * layer_units, rows),
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
            shape=(outputs, units[-1]),
            initializer=output_initializer(next(seeds)),
            name="output_kernel",
        )
        self._output_bias = self.add_weight(
            shape=(outputs,), initializer="zeros", name="output_bias"
        )
        self.built = True

    @property
    def network_rows(self) -> tuple[int, ...]:
        """`(units, units)` for each layer's hidden and cell state."""
        return tuple(units for layer_units in self.units for units in (layer_units, layer_units))

    def network(self, features: Features, state: State) -> tuple[Tensor, State]:
        """Computes one update; see `SplitRule.network`."""
        return self._network(features, state)[:2]

    def forward(self, features: Features, state: State) -> tuple[Tensor, State, State]:
        """Computes one update, and caches the LSTM's gates; see `SplitRule.forward`."""
        update, state, activations = self._network(features, state)
        return update, state, tuple(lstm.pack(layer) for layer in activations)

    def replay(self, state: State, cache: State) -> State:
        """Computes the LSTM's next state from its gates; see `SplitRule.replay`."""
        return lstm.stack_replay(cache, state)

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
        hidden = new_state[-2]
        outputs = self._outputs(hidden)
        d_outputs = features.gains * d_update * self._activation.derivative(outputs)
        d_layers, d_inputs, d_state = lstm.stack_backward(
            self._tensors(),
            features.inputs,
            state,
            new_state,
            cache,
            ops.matmul(ops.transpose(ops.convert_to_tensor(self._output_kernel)), d_outputs),
            d_new_state,
            with_inputs=with_features,
        )
        d_output_kernel = ops.matmul(d_outputs, ops.transpose(hidden))
        d_weights = [d for layer in d_layers for d in layer]
        d_weights += [d_output_kernel, ops.sum(d_outputs, axis=1)]
        d_features = Features(d_inputs, d_update * outputs) if with_features else None
        return d_weights, d_features, d_state

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments that all these rules have."""
        return {
            "units": list(self.units),
            "forget_bias": self.forget_bias,
            "seed": self.seed,
            "name": self.name,
        }

    def _network(self, features: Features, state: State) -> tuple[Tensor, State, State]:
        """Computes one update, the next state, and the LSTM's activations."""
        state, activations = lstm.stack_forward(self._tensors(), features.inputs, state)
        update = ops.sum(features.gains * self._outputs(state[-2]), axis=0)
        return update, state, activations

    def _outputs(self, hidden: Tensor) -> Tensor:
        """Maps the last hidden state `[units, n]` to the outputs `[outputs, n]`."""
        bias = ops.expand_dims(self._output_bias, 1)
        return self._activation.function(ops.matmul(self._output_kernel, hidden) + bias)

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
