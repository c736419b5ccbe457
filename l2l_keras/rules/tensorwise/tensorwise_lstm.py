"""An LSTM for each tensor that sets its step size, and how its momenta are mixed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from l2l_keras import arguments
from l2l_keras.rules.base import Shape, Tensor
from l2l_keras.rules.elementwise.lstm_network import LSTMNetwork, near_zero
from l2l_keras.rules.tensorwise import step_sizes
from l2l_keras.rules.tensorwise.base import TensorwiseRule
from l2l_keras.rules.tensorwise.features import input_count, lstm_inputs, rms
from l2l_keras.rules.tensorwise.momenta import Momenta
from l2l_keras.rules.tensorwise.orthogonal import orthogonal_factor, whiten_rows
from l2l_keras.rules.tensorwise.tensors import Tensors

# Arguments of earlier versions, with the values that still mean the same rule.
_REMOVED_ARGUMENTS = {"weight_decay": 0.0, "normalize_update": False, "relative_scale": False}


@keras.saving.register_keras_serializable(package="l2l_keras")
class TensorwiseLSTM(TensorwiseRule):
    """An LSTM cell for each tensor sets its step size and the mix of a few directions.

    With v a moving average of the squares of an element's gradients, the directions are the momenta
    over √v, the gradient over √v, the momenta over the RMS of √v in the whole tensor and, if
    `orthogonal` names any, the orthogonal factors of momenta:

        update = -step size · Σ_k mix_k · direction_k

    The LSTM sees nothing that depends on the scale of the loss: the RMS of the directions and of
    the parameters, the cosines between them, the last update relative to the parameters, the
    tensor's shape, its step size, the number of steps, and the mean hidden state of all tensors.

    The LSTM costs about ten thousand multiplications a tensor. A weight costs about as much as with
    Adam, and a float for each momentum and each average of squares. Whitening rows doubles this. An
    orthogonal factor costs a weight 20 multiplications for each row of its matrix, 5,000 at most.

    Args:
        units: Units of the LSTM. Defaults to 24.
        momenta: For each momentum, its decay and the decay of the v that it is divided by. Defaults
            to ((0.9, 0.99), (0.99, 0.99), (0.999, 0.999)).
        orthogonal: Indices of the momenta whose orthogonal factors are directions as well. Defaults
            to (), none.
        whitened_rows: Largest number of neighbouring rows of a matrix over which updates are
            whitened: otherwise, what rows share may hide how they differ. Defaults to 0, none.
        half_whitened_rows: The whitened fraction of an update is n² / (n² + half_whitened_rows²),
            with n rows, the product of all axes but the last: how a few differ is mostly noise.
            Defaults to 32.
        nominal: Weight of the first momentum over √v, Adam's direction, before the LSTM's output is
            added to it. Defaults to 1.
        largest_step: Limit of the RMS of an update, as a fraction of the RMS of the tensor's
            parameters plus `size_offset`: training rarely recovers from larger steps. None for no
            limit. Defaults to 0.25.
        size_offset: What is added to the RMS of parameters in that limit, so that zeros can move.
            Defaults to 0.05.
        largest_rise: Largest rise of the logarithm of a step size in one step. Step sizes that fall
            at once but rise slowly are a warm-up, which wide and deep networks need. Defaults to
            0.4.
        fan_in_exponent: Step sizes, `largest_step` and `size_offset` fall with the number n of
            inputs of a unit, 4,096 at most, as (1 + n / 64) ** -fan_in_exponent: wide layers then
            change as narrow ones in meta-training do. An embedding has one input. Defaults to 0.5.
        wide_fan_in: They also fall with the number n of inputs in use, as
            (1 + (n / wide_fan_in) ** 2) ** -0.25, for layers wider than those of meta-training.
            Inputs in use have gradients that are not zero. None (the default) for no such fall.
        size_exponent: Step sizes of small weights fall with their RMS over that of Glorot's
            initializer, relative to the geometric mean of this ratio over all layers if it is less,
            to this power. Layers multiply: a step that others hardly feel replaces a small one.
            Weights that begin as zeros have to grow and are left out, as are tensors of one input:
            biases, gains and embeddings. Defaults to 0, no fall.
        decay_exponent: Step sizes fall with a tensor's steps t, as
            (1 + t / decay_steps) ** -decay_exponent: after thousands of steps, most of an update is
            noise, and meta-training is too short to learn that. Defaults to 0, no fall.
        decay_steps: See `decay_exponent`. Defaults to 2,000.
        seed: Seed of the initial weights, an integer or None for fresh ones.
        name: Name of the layer.

    Raises:
        ValueError: If an argument is not as described, or if the decay of a momentum is greater
            than the square root of its v's: it could then be any multiple of √v.

    Example:
        >>> rule = l2l_keras.rules.TensorwiseLSTM(seed=0)
        >>> state = rule.initial_state(3)
        >>> update, state = rule.step(keras.ops.array([1.0, 0.0, -2.0]), state)
        >>> [tuple(array.shape) for array in state]
        [(3,), (3,), (3,), (3,), (3,), (52, 1)]

    Source: Metz et al., "VeLO: training versatile learned optimizers by scaling up" (2022), for the
    network of each tensor; Wichrowska et al., "Learned optimizers that scale and generalize"
    (2017), for momenta on several time scales and scale-free inputs.
    """

    def __init__(
        self,
        units: int = 24,
        momenta: Sequence[Sequence[float]] = ((0.9, 0.99), (0.99, 0.99), (0.999, 0.999)),
        orthogonal: Sequence[int] = (),
        whitened_rows: int = 0,
        half_whitened_rows: float = 32.0,
        nominal: float = 1.0,
        largest_step: float | None = 0.25,
        size_offset: float = 0.05,
        largest_rise: float = 0.4,
        fan_in_exponent: float = 0.5,
        wide_fan_in: float | None = None,
        size_exponent: float = 0.0,
        decay_exponent: float = 0.0,
        decay_steps: float = 2000.0,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(name=name)
        self.units = units
        self._momenta = Momenta(momenta)
        self.momenta = self._momenta.pairs
        self.orthogonal = tuple(orthogonal)
        valid = set(self.orthogonal) <= set(range(len(self.momenta)))
        expected = f"indices of the {len(self.momenta)} momenta"
        arguments.check(valid, "orthogonal", expected, orthogonal)
        valid = whitened_rows >= 0 and whitened_rows % 1 == 0
        arguments.check(valid, "whitened_rows", "an integer, 0 or more", whitened_rows)
        self.whitened_rows = int(whitened_rows)
        self.half_whitened_rows = arguments.positive("half_whitened_rows", half_whitened_rows)
        self.nominal = float(nominal)
        self.largest_step = arguments.positive_or_none("largest_step", largest_step)
        self.size_offset = arguments.positive("size_offset", size_offset)
        self.largest_rise = arguments.positive("largest_rise", largest_rise)
        self.fan_in_exponent = arguments.not_negative("fan_in_exponent", fan_in_exponent)
        self.wide_fan_in = arguments.positive_or_none("wide_fan_in", wide_fan_in)
        self.size_exponent = arguments.not_negative("size_exponent", size_exponent)
        self.decay_exponent = arguments.not_negative("decay_exponent", decay_exponent)
        self.decay_steps = arguments.positive("decay_steps", decay_steps)
        self.seed = seed
        # Orthogonal factors, two of each momentum, the gradient, and the parameters.
        self._directions = len(self.orthogonal) + 2 * len(self.momenta) + 2
        inputs = input_count(self._directions, units)
        # The output of the parameters, the last but one, is ignored; shipped weights have it.
        outputs = self._directions + 1
        self._network = LSTMNetwork(
            inputs, outputs, (units,), output_initializer=near_zero, seed=seed
        )
        self._network.build(self.add_weight)

    @property
    def element_rows(self) -> int:
        """A row for each momentum and each average of squares."""
        return self._momenta.rows

    @property
    def tensor_rows(self) -> int:
        """The LSTM's hidden and cell state, and four rows: see `control`."""
        return 2 * self.units + 4

    @property
    def direction_count(self) -> int:
        """The directions but the orthogonal factors, √v, and with `wide_fan_in` one array more."""
        return self._directions - self.matrix_direction_count + 1 + (self.wide_fan_in is not None)

    @property
    def matrix_direction_count(self) -> int:
        """The orthogonal factors."""
        return len(self.orthogonal)

    def advance(self, gradient: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
        """See `TensorwiseRule.advance`: updates momenta and averages of squares."""
        return self._momenta.advance(gradient, state)

    def directions(
        self, gradient: Tensor, state: Sequence[Tensor], parameters: Tensor
    ) -> list[Tensor]:
        """See `TensorwiseRule.directions`; the last row is 1 where the gradient is not zero."""
        relative, relative_gradient, root = self._momenta.directions(gradient, state)
        momenta = state[: len(self.momenta)]
        rows = [*relative, relative_gradient, *momenta, parameters, root]
        if self.wide_fan_in is not None:
            rows.append(ops.cast(ops.not_equal(gradient, 0.0), "float32"))
        return rows

    def matrix_directions(self, state: Sequence[Tensor], shape: Shape) -> list[Tensor]:
        """See `TensorwiseRule.matrix_directions`: orthogonal factors of momenta."""
        factors = []
        for index in self.orthogonal:
            # Scaled to the RMS of the momentum over √v, which vanishes with the gradients.
            squares = ops.square(self._momenta.relative(index, state))
            scale = ops.sqrt(ops.mean(squares, axis=-1, keepdims=True))
            factors.append(scale * orthogonal_factor(state[index], shape))
        return factors

    def refine(self, sums: Tensor, shape: Shape) -> Tensor:
        """See `TensorwiseRule.refine`: whitens rows."""
        if not self.whitened_rows:
            return sums
        rows = math.prod(shape[:-1])
        degree = rows**2 / (rows**2 + self.half_whitened_rows**2)
        return whiten_rows(sums, shape, self.whitened_rows, degree)

    def control(self, gram: Tensor, state: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """See `TensorwiseRule.control`."""
        hidden, cell, *own = ops.split(
            state, [self.units, *range(2 * self.units, self.tensor_rows)]
        )
        log_rate, steps, relative_step, began_as_zeros = own
        steps = steps + 1.0
        fan_in_factor = step_sizes.fan_in_factor(tensors, self.fan_in_exponent)
        if self.wide_fan_in is not None:
            fan_in_factor = fan_in_factor * step_sizes.wide_fan_in_factor(
                gram[-1:, -1], tensors, self.wide_fan_in
            )
            gram = gram[:-1, :-1]
        scales = self._scales(gram, steps)
        gram = gram[:-1, :-1]
        inputs = lstm_inputs(gram, scales, log_rate, relative_step, steps, hidden, tensors)
        outputs, (hidden, cell), _ = self._network.forward(inputs, (hidden, cell))
        nominal = np.zeros((self._directions - 1, 1), "float32")
        nominal[self.matrix_direction_count] = self.nominal
        mix = (outputs[:-2] + ops.convert_to_tensor(nominal)) * scales
        mix_rms = rms(ops.einsum("it,ijt,jt->t", mix, gram[:-1, :-1], mix)[None])
        weight_rms = rms(gram[-1:, -1])

        log_rate = step_sizes.next_log_rate(log_rate, outputs[-1:], self.largest_rise)
        step_size = self.step_size(log_rate, steps) * fan_in_factor
        if self.size_exponent:
            relative_rms = weight_rms / step_sizes.glorot_rms(tensors)
            is_zero = ops.cast(relative_rms < step_sizes.NEARLY_ZERO, "float32")
            began_as_zeros = ops.where(steps < 1.5, is_zero, began_as_zeros)
            step_size = step_size * step_sizes.small_weights_factor(
                relative_rms, began_as_zeros, tensors, self.size_exponent
            )
        if self.largest_step is not None:
            largest = weight_rms + self.size_offset * fan_in_factor
            largest = self.largest_step * fan_in_factor * largest
            step_size = step_sizes.limited(step_size, mix_rms, largest)
        relative_step = ops.log((step_size * mix_rms + 1e-6) / (weight_rms + 1e-3))
        state = ops.concatenate([hidden, cell, log_rate, steps, relative_step, began_as_zeros])
        return -step_size * mix, state

    def step_size(self, log_rate: Tensor, steps: Tensor) -> Tensor:
        """Returns the step size of narrow layers, of the shape of `log_rate` and `steps`."""
        return step_sizes.step_size(log_rate, steps, self.decay_exponent, self.decay_steps)

    def diagnose(self, state: Tensor) -> dict[str, Tensor]:
        """See `UpdateRule.diagnose`: the step size and the share of saturated cells."""
        log_rate, steps = state[2 * self.units, 0], state[2 * self.units + 1, 0]
        return {
            "step size": self.step_size(log_rate, steps),
            "saturated cells": self._network.saturation(state[: 2 * self.units]),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> TensorwiseLSTM:
        """Makes a rule from its configuration, or from one of an earlier version."""
        removed = _REMOVED_ARGUMENTS.items()
        return cls(**{key: value for key, value in config.items() if (key, value) not in removed})

    def _scales(self, gram: Tensor, steps: Tensor) -> Tensor:
        """Returns the factors of the directions in the mix, `[k, T]`."""
        relative, gradient, momenta = self._momenta.scales(rms(gram[-1:, -1]), steps)
        matrices = [relative[index] for index in self.orthogonal]
        return ops.concatenate([*matrices, *relative, gradient, *momenta])
