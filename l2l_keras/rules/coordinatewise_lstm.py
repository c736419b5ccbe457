"""The paper's update rule: one small LSTM shared by all coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from l2l_keras.rules import lstm
from l2l_keras.rules.base import State, Tensor, UpdateRule
from l2l_keras.rules.preprocessing import PREPROCESSING


@keras.saving.register_keras_serializable(package="l2l_keras")
class CoordinatewiseLSTM(UpdateRule):
    """An LSTM applied to every coordinate on its own, with its own state.

    The update of a coordinate is `output_scale * (w · h + b)`, h the last layer's hidden state
    after it has seen the coordinate's (preprocessed) gradient.

    Args:
        units: Units of each LSTM layer, first layer first. Defaults to the paper's (20, 20).
        preprocessing: `"log_sign"` (the default; magnitudes on a log scale and signs) or `"none"`
            (the gradient itself, as in the paper's experiment on quadratics).
        output_scale: Factor of the output. Defaults to 0.1.
        forget_bias: Initial bias of the forget gates. Defaults to 1.
        seed: Seed of the initial weights, an integer or None for fresh ones.
        name: Name of the layer.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(units=(20, 20), seed=0)
        >>> state = rule.initial_state(3)
        >>> update, state = rule.step(keras.ops.array([1.0, 0.0, -2.0]), state)
        >>> update.shape
        TensorShape([3])

    Source: Andrychowicz et al. (2016), section 2.1 and appendix A.
    """

    def __init__(
        self,
        units: Sequence[int] = (20, 20),
        preprocessing: str = "log_sign",
        output_scale: float = 0.1,
        forget_bias: float = 1.0,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        units = tuple(units)
        if not units or any(not isinstance(u, int) or u < 1 for u in units):
            raise ValueError(
                f"`units` must be a non-empty sequence of positive integers. Received: {units}"
            )
        if preprocessing not in PREPROCESSING:
            raise ValueError(
                f"`preprocessing` must be one of {sorted(PREPROCESSING)}. "
                f"Received: {preprocessing!r}"
            )
        super().__init__(name=name)
        self.units = units
        self.preprocessing = preprocessing
        self.output_scale = float(output_scale)
        self.forget_bias = float(forget_bias)
        self.seed = seed
        self._preprocess, features = PREPROCESSING[preprocessing]
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
        """`(units, units)` for the hidden and the cell state of each layer."""
        return tuple(units for layer_units in self.units for units in (layer_units, layer_units))

    @property
    def differentiates_itself(self) -> bool:
        """True."""
        return True

    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """Computes one update; see `UpdateRule.step`."""
        update, state, _ = self.forward(gradient, state)
        return update, state

    def forward(self, gradient: Tensor, state: State) -> tuple[Tensor, State, State]:
        """Computes one update and the gates' activations; see `UpdateRule.forward`."""
        features = self._preprocess(gradient)
        state, activations = lstm.stack_forward(self._weights_now(), features, state)
        output = ops.matmul(self._output_kernel, state[-2]) + self._output_bias
        return self.output_scale * output[0], state, (features, *activations)

    def backward(
        self, state: State, new_state: State, cache: State, d_update: Tensor, d_new_state: State
    ) -> tuple[list[Tensor], State]:
        """Computes the vector-Jacobian product of one step; see `UpdateRule.backward`."""
        features, *activations = cache
        d_output = self.output_scale * ops.expand_dims(d_update, 0)
        hidden = new_state[-2]
        d_layers, d_state = lstm.stack_backward(
            self._weights_now(),
            features,
            state,
            new_state,
            tuple(activations),
            ops.transpose(ops.convert_to_tensor(self._output_kernel)) * d_output,
            d_new_state,
        )
        d_output_kernel = ops.matmul(d_output, ops.transpose(hidden))
        d_weights = [d for layer in d_layers for d in layer]
        return [*d_weights, d_output_kernel, ops.sum(d_output, axis=1)], d_state

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "units": list(self.units),
            "preprocessing": self.preprocessing,
            "output_scale": self.output_scale,
            "forget_bias": self.forget_bias,
            "seed": self.seed,
            "name": self.name,
        }

    def _weights_now(self) -> list[lstm.LSTMWeights]:
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
