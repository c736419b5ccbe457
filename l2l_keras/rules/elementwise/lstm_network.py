"""The network of the LSTM rules: LSTM layers, and a dense layer of outputs."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from l2l_keras import arguments
from l2l_keras.rules.base import State, Tensor
from l2l_keras.rules.elementwise import lstm

AddWeight = Callable[..., Any]
"""`add_weight` of the layer that the network's weights belong to."""
Initializer = Callable[[int | None], keras.initializers.Initializer]


class Activation(NamedTuple):
    """An activation function, and its derivative as a function of its value."""

    function: Callable[[Tensor], Tensor]
    derivative: Callable[[Tensor], Tensor]


# Limits of exponential outputs: smaller factors have no effect, larger ones make steps diverge.
_SMALLEST, _LARGEST = math.exp(-6.0), math.exp(4.0)


LINEAR = Activation(lambda x: x, ops.ones_like)
TANH = Activation(ops.tanh, lambda y: 1.0 - ops.square(y))
EXPONENTIAL = Activation(
    lambda x: ops.clip(ops.exp(x), _SMALLEST, _LARGEST),
    lambda y: ops.where(ops.logical_and(y > _SMALLEST, y < _LARGEST), y, 0.0),
)


def near_zero(seed: int | None) -> keras.initializers.Initializer:
    """Returns an initializer of output kernels that leaves outputs near zero."""
    return keras.initializers.RandomNormal(stddev=0.02, seed=seed)


class LSTMNetwork:
    """Maps the inputs of each element to outputs `activation(W h + b)` by one shared LSTM.

    Its weights are those of a rule, which calls `build`: Keras does not look for the weights of a
    layer in a layer that is made within `compile`, as a rule is that is given by a preset's name.

    h is the last layer's hidden state. The first `averaged_units` units of each layer put out their
    mean over elements. `output_initializer` makes an initializer of W from a seed.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        units: Sequence[int],
        activation: Activation = LINEAR,
        output_initializer: Initializer = keras.initializers.GlorotUniform,
        forget_bias: float = 1.0,
        seed: int | None = None,
        averaged_units: int = 0,
    ) -> None:
        units = tuple(units)
        valid = bool(units) and all(isinstance(u, int) and u > 0 for u in units)
        arguments.check(valid, "units", "a non-empty sequence of positive integers", units)
        valid = isinstance(averaged_units, int) and 0 <= averaged_units <= min(units)
        expected = f"an integer from 0 to {min(units)} (units={units})"
        arguments.check(valid, "averaged_units", expected, averaged_units)
        self.units = units
        self.forget_bias = float(forget_bias)
        self.seed = seed
        self.averaged_units = averaged_units
        self._inputs, self._outputs = inputs, outputs
        self._activation = activation
        self._output_initializer = output_initializer

    def build(self, add_weight: AddWeight) -> None:
        """Creates the weights."""
        units, seed = self.units, self.seed
        seeds = iter([None] * 99 if seed is None else range(99 * seed, 99 * seed + 99))
        self._layer_weights = []
        rows_of_layers = (self._inputs, *units)
        for layer, (rows, layer_units) in enumerate(zip(rows_of_layers, units, strict=False)):
            kernel = add_weight(
                (4 * layer_units, rows),
                keras.initializers.GlorotUniform(next(seeds)),
                name=f"kernel_{layer}",
            )
            recurrent_kernel = add_weight(
                (4 * layer_units, layer_units),
                keras.initializers.Orthogonal(seed=next(seeds)),
                name=f"recurrent_kernel_{layer}",
            )
            bias_initializer = functools.partial(_initial_bias, forget_bias=self.forget_bias)
            bias = add_weight((4 * layer_units,), bias_initializer, name=f"bias_{layer}")
            self._layer_weights.append(lstm.LSTMWeights(kernel, recurrent_kernel, bias))
        self._output_kernel = add_weight(
            (self._outputs, units[-1]), self._output_initializer(next(seeds)), name="output_kernel"
        )
        self._output_bias = add_weight((self._outputs,), "zeros", name="output_bias")

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of the state: `(units, units)` for each layer's hidden and cell state."""
        return tuple(units for layer_units in self.units for units in (layer_units, layer_units))

    def saturation(self, state: Tensor) -> Tensor:
        """Returns the share of saturated cells, |c| > 2, of a state `[sum of rows, n]`."""
        *stops, _ = itertools.accumulate(self.rows)
        cells = ops.split(state, stops)[1::2]
        return ops.mean(ops.cast(ops.abs(ops.concatenate(cells)) > 2.0, "float32"))

    def forward(self, inputs: Tensor, state: State) -> tuple[Tensor, State, State]:
        """Returns the outputs `[outputs, n]`, the next state, and each layer's gate activations.

        The state is h and c of each layer, `[units, n]`.
        """
        new_state: list[Tensor] = []
        all_activations = []
        for weights, h, c in zip(self._tensors(), state[::2], state[1::2], strict=True):
            h, c, activations = lstm.forward(weights, inputs, h, c)
            inputs = self._average_first(h)
            new_state += [inputs, c]
            all_activations.append(activations)
        return self.outputs(tuple(new_state)), tuple(new_state), tuple(all_activations)

    def outputs(self, state: State) -> Tensor:
        """Returns the outputs `[outputs, n]` of the step that led to a state."""
        bias = ops.expand_dims(self._output_bias, 1)
        return self._activation.function(ops.matmul(self._output_kernel, state[-2]) + bias)

    def backward(
        self,
        inputs: Tensor,
        state: State,
        new_state: State,
        activations: State,
        outputs: Tensor,
        d_outputs: Tensor,
        d_new_state: State,
        with_inputs: bool,
    ) -> tuple[list[Tensor], Tensor | None, State]:
        """Computes the vector-Jacobian product of `forward`; see `SplitRule.backward`."""
        d_outputs = d_outputs * self._activation.derivative(outputs)
        d_weights = [ops.matmul(d_outputs, ops.transpose(new_state[-2])), ops.sum(d_outputs, 1)]
        output_kernel = ops.convert_to_tensor(self._output_kernel)
        d_above = ops.matmul(ops.transpose(output_kernel), d_outputs)
        weights = self._tensors()
        d_state: list[Tensor] = []
        for layer in reversed(range(len(weights))):
            h, c = state[2 * layer : 2 * layer + 2]
            d_h, d_c = d_new_state[2 * layer : 2 * layer + 2]
            d_layer, d_above, d_h, d_c = lstm.backward(
                weights[layer],
                inputs if layer == 0 else new_state[2 * layer - 2],
                h,
                c,
                new_state[2 * layer + 1],
                activations[layer],
                # A mean over elements is a symmetric linear map: its own transpose.
                self._average_first(d_h + d_above),
                d_c,
                with_inputs=with_inputs or layer > 0,
            )
            d_weights = [*d_layer, *d_weights]
            d_state = [d_h, d_c, *d_state]
        return d_weights, d_above, tuple(d_state)

    def _tensors(self) -> list[lstm.LSTMWeights]:
        """Returns the weights of the LSTM layers as tensors."""
        return [
            lstm.LSTMWeights(*(ops.convert_to_tensor(w) for w in layer))
            for layer in self._layer_weights
        ]

    def _average_first(self, hidden: Tensor) -> Tensor:
        """Averages the first `averaged_units` rows of `[units, n]` over elements."""
        if not self.averaged_units:
            return hidden
        first, others = hidden[: self.averaged_units], hidden[self.averaged_units :]
        mean = ops.mean(first, axis=1, keepdims=True)
        return ops.concatenate([ops.broadcast_to(mean, first.shape), others])


def _initial_bias(shape: tuple[int, ...], dtype: Any = None, *, forget_bias: float) -> Tensor:
    """Returns a layer's bias: `forget_bias` for forget gates, zero for other gates."""
    bias = np.repeat([0.0, forget_bias, 0.0, 0.0], shape[0] // 4)
    return ops.convert_to_tensor(bias, dtype)
