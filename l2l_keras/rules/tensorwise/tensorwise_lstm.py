"""An LSTM for each tensor that sets how far to go, and along which momenta."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from l2l_keras.rules.base import Tensor
from l2l_keras.rules.elementwise.lstm_network import LINEAR, LSTMNetwork
from l2l_keras.rules.tensorwise.base import TensorwiseRule
from l2l_keras.rules.tensorwise.orthogonal import orthogonal_factor, whiten_rows
from l2l_keras.rules.tensorwise.tensors import Shape, Tensors

# Sizes of gradients below count as zero.
_TINY = 1e-12
# Layers that are wider look like this to the LSTM: what it has not seen it cannot judge.
_WIDE = 512
# Steps after which the LSTM shall be able to tell that they have passed.
_TIMES = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0)
# What a step does to a unit grows with its inputs. Rates fall with them from some _MANY on, and no
# further than for _MOST, which are more often the words of a bag, of which few are in use.
_MANY, _MOST = 64.0, 4096.0
# A rate is _RATE · exp(2 r): r starts at Adam's usual rate, stays in these bounds, and falls by no
# more than _FALL a step.
_RATE, _START, _LOWEST, _HIGHEST = 3e-3, -0.5, -4.0, 3.0
_FALL = 1.0
# Weights that are less than this part of their usual size count as zero.
_NO_SIZE = 1e-3
# Rows of a tensor's state besides the LSTM's: r - start, steps, how far the last one went, and, for
# a `size_exponent`, whether its parameters were zero at first.
_OWN_ROWS = 4


@keras.saving.register_keras_serializable(package="l2l_keras")
class TensorwiseLSTM(TensorwiseRule):
    """An LSTM cell for each tensor sets its step size and the mix of a handful of directions.

    The directions of a coordinate are its momenta m over the usual size √v of its gradient, the
    gradient over √v, the momenta over the usual size of the gradient in the whole tensor, and the
    orthogonal factors of momenta that are matrices, if wanted:

        update = -rate · Σ_k mix_k · direction_k

    The LSTM sees of a tensor what does not change with the scale of the loss: how large directions
    are and how they are aligned with each other and with the parameters, the size of the
    parameters and of its last update relative to them, its shape, its rate, how many steps have
    passed, and the mean hidden state of all tensors. It costs some ten thousand multiplications a
    tensor, and a coordinate costs about what it costs with Adam, and a float for each momentum and
    each average of squares. Rows that are whitened cost as much again, and orthogonal factors more:
    20 multiplications for each row of a matrix and coordinate, 5,000 at most.

    Args:
        units: Units of the LSTM. Defaults to 24.
        momenta: For each momentum, its decay and that of the average v of squares that it is
            divided by. Defaults to ((0.9, 0.99), (0.99, 0.99), (0.999, 0.999)).
        orthogonal: Which momenta's orthogonal factors are directions as well, by their places.
            Defaults to (), none.
        whitened_rows: Largest number of neighbouring rows of a matrix that updates are whitened
            over, so that what they have in common no longer drowns what sets them apart. Defaults
            to 0, none.
        half_whitened_rows: Of a tensor of so many rows, along all axes but the last, half of an
            update is whitened; of n rows, n² / (n² + half_whitened_rows²): what sets few of them
            apart is mostly noise. Defaults to 32.
        nominal: Part of the first momentum over √v, as Adam has it, that is not learned. Defaults
            to 1.
        weight_decay: Largest decay of parameters, as a factor of the rate; the LSTM sets how much
            of it there is. Defaults to 0, none.
        normalize_update: Whether to divide the mix by its root mean square in the tensor, so that
            the rate alone sets how far to go. Defaults to False.
        relative_scale: Whether the rate is relative to the root mean square of the tensor's
            parameters, or to 0.01 where that is less. Defaults to False.
        largest_step: What the root mean square of an update stays below, as a part of that of the
            tensor's parameters and `size_offset`: a step that replaces half of a tensor is none to
            come back from. None for no such limit. Defaults to 0.25.
        size_offset: What is added to the size of parameters there, so that those that are zero may
            move. Defaults to 0.05.
        largest_rise: By how much the logarithm of a rate grows in a step at most. A rate that may
            fall at once but has to grow slowly is the warm-up that makes wide and deep networks
            survive their first steps. Defaults to 0.4.
        fan_in_exponent: How rates, `largest_step` and `size_offset` fall with the number of inputs
            n of a unit, 4,096 at most, (1 + n / 64) ** -fan_in_exponent: a rule that has seen
            narrow layers then does to wide ones what it does to those. An embedding has one input,
            of however many words. Defaults to 0.5.
        wide_fan_in: From how many inputs in use, n, all of these fall faster, by
            (1 + (n / wide_fan_in) ** 2) ** -0.25: in the end, with a `fan_in_exponent` of 0.5, as
            1 / n. For layers wider than those of training. The part of inputs in use is that of
            weights whose gradient is not zero: of bags of words, those of the minibatch. None for
            no such fall. Defaults to None.
        size_exponent: How rates of small weights fall: with their size over what Glorot's
            initializer gives them, relative to the geometric mean of that over all layers, where it
            is less, to this power. What layers do together is a product: a step that layers of
            usual size hardly feel replaces a small one, before a large one that makes up for it.
            Weights that begin as zeros have to grow, and are left out, as are biases, gains and
            embeddings, which have one input. Defaults to 0, not at all.
        decay_exponent: How rates fall with the steps t of a tensor,
            (1 + t / decay_steps) ** -decay_exponent: after thousands of steps, those that are still
            as long are mostly noise. It is what an LSTM hardly learns whose training seldom lasts
            as long. Defaults to 0, not at all.
        decay_steps: After how many steps that begins to matter. Defaults to 2,000.
        seed: Seed of the initial weights, an integer or None for fresh ones.
        name: Name of the layer.

    Raises:
        ValueError: If an argument is not as described, a momentum's decay is greater than the
            square root of that of v: it could become any number of times √v; or there is a
            `weight_decay` where rows are whitened: it would be as well.

    Example:
        >>> rule = l2l_keras.rules.TensorwiseLSTM(seed=0)
        >>> state = rule.initial_state(3)
        >>> update, state = rule.step(keras.ops.array([1.0, 0.0, -2.0]), state)
        >>> [tuple(array.shape) for array in state]
        [(3,), (3,), (3,), (3,), (3,), (52, 1)]

    Source: Metz et al., "VeLO: training versatile learned optimizers by scaling up" (2022), has a
    network for each tensor that sets what a cheap one for each coordinate does; Wichrowska et al.,
    "Learned optimizers that scale and generalize" (2017), momenta on several time scales and what
    is scale-free.
    """

    def __init__(
        self,
        units: int = 24,
        momenta: Sequence[Sequence[float]] = ((0.9, 0.99), (0.99, 0.99), (0.999, 0.999)),
        orthogonal: Sequence[int] = (),
        whitened_rows: int = 0,
        half_whitened_rows: float = 32.0,
        nominal: float = 1.0,
        weight_decay: float = 0.0,
        normalize_update: bool = False,
        relative_scale: bool = False,
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
        self.momenta = _check_momenta(momenta)
        self.orthogonal = tuple(orthogonal)
        if not set(self.orthogonal) <= set(range(len(self.momenta))):
            raise ValueError(
                f"`orthogonal` must be places of the {len(self.momenta)} momenta. "
                f"Received: {orthogonal}"
            )
        self.whitened_rows = _check_count("whitened_rows", whitened_rows)
        self.half_whitened_rows = _check_positive("half_whitened_rows", half_whitened_rows)
        self.nominal = float(nominal)
        self.weight_decay = _check_not_negative("weight_decay", weight_decay)
        if self.weight_decay and self.whitened_rows:
            raise ValueError(
                "With `whitened_rows`, `weight_decay` must be 0. "
                f"Received: whitened_rows={whitened_rows}, weight_decay={weight_decay}"
            )
        self.normalize_update = bool(normalize_update)
        self.relative_scale = bool(relative_scale)
        self.largest_step = _check_positive_or_none("largest_step", largest_step)
        self.size_offset = _check_positive("size_offset", size_offset)
        self.largest_rise = _check_positive("largest_rise", largest_rise)
        self.fan_in_exponent = _check_not_negative("fan_in_exponent", fan_in_exponent)
        self.wide_fan_in = _check_positive_or_none("wide_fan_in", wide_fan_in)
        self.size_exponent = _check_not_negative("size_exponent", size_exponent)
        self.decay_exponent = _check_not_negative("decay_exponent", decay_exponent)
        self.decay_steps = _check_positive("decay_steps", decay_steps)
        self.seed = seed
        self._decays = tuple(sorted({decay for _, decay in self.momenta}))
        # Orthogonal factors, of each momentum two, of the gradient one, and the parameters.
        self._directions = len(self.orthogonal) + 2 * len(self.momenta) + 2
        pairs = list(itertools.combinations(range(self._directions), 2))
        self._pairs = np.zeros((len(pairs), self._directions, self._directions), "float32")
        for number, pair in enumerate(pairs):
            self._pairs[number][pair] = 1.0
        shape_features = _shape_features((), 1).size
        inputs = len(pairs) + self._directions + 3 + shape_features + len(_TIMES) + units
        self._network = LSTMNetwork(
            inputs=inputs,
            outputs=self._directions + 1,
            units=(units,),
            activation=LINEAR,
            output_initializer=_small,
            forget_bias=1.0,
            seed=seed,
        )
        self.built = True

    @property
    def element_rows(self) -> int:
        """A row for each momentum and each average of squares."""
        return len(self.momenta) + len(self._decays)

    @property
    def tensor_rows(self) -> int:
        """The LSTM's hidden and cell state, and what else is known of a tensor (`_OWN_ROWS`)."""
        return 2 * self.units + _OWN_ROWS

    @property
    def direction_count(self) -> int:
        """The directions that are not matrix directions, √v, and where the gradient is not zero."""
        return self._directions - self.matrix_direction_count + 1 + (self.wide_fan_in is not None)

    @property
    def matrix_direction_count(self) -> int:
        """The orthogonal factors."""
        return len(self.orthogonal)

    def advance(self, gradient: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
        """Updates momenta and averages of squares; see `TensorwiseRule.advance`."""
        square = ops.square(gradient)
        values = [(decay, gradient) for decay, _ in self.momenta]
        values += [(decay, square) for decay in self._decays]
        return [
            decay * old + (1.0 - decay) * value
            for old, (decay, value) in zip(state, values, strict=True)
        ]

    def directions(
        self, gradient: Tensor, state: Sequence[Tensor], parameters: Tensor
    ) -> list[Tensor]:
        """Relates momenta and gradient to their usual size; see `TensorwiseRule.directions`.

        Returns:
            The momenta over √v, the gradient over √v, the momenta, the parameters, and √v; with
            `wide_fan_in`, 1 where the gradient is not zero.
        """
        momenta = state[: len(self.momenta)]
        # Clipped: where the square of a gradient is zero in float32, the root has no derivative.
        squares = {
            decay: ops.maximum(v, _TINY**2)
            for decay, v in zip(self._decays, state[len(self.momenta) :], strict=True)
        }
        inverse = {decay: ops.rsqrt(v) for decay, v in squares.items()}
        first = self._first_decay
        relative = [m * inverse[decay] for m, (_, decay) in zip(momenta, self.momenta, strict=True)]
        usual = squares[first] * inverse[first]
        rows = [*relative, gradient * inverse[first], *momenta, parameters, usual]
        if self.wide_fan_in is not None:
            rows.append(ops.cast(ops.not_equal(gradient, 0.0), "float32"))
        return rows

    def matrix_directions(self, state: Sequence[Tensor], shape: Shape) -> list[Tensor]:
        """Computes orthogonal factors of momenta; see `TensorwiseRule.matrix_directions`.

        They are as large as momenta are over √v: where gradients come and go, or are next to
        nothing, what is left of a momentum is little of a direction.
        """
        factors = []
        for place in self.orthogonal:
            momentum, decay = state[place], self.momenta[place][1]
            v = state[len(self.momenta) + self._decays.index(decay)]
            relative = momentum * ops.rsqrt(ops.maximum(v, _TINY**2))
            size = ops.sqrt(ops.mean(ops.square(relative), axis=-1, keepdims=True))
            factors.append(size * orthogonal_factor(momentum, shape))
        return factors

    def refine(self, sums: Tensor, shape: Shape) -> Tensor:
        """Whitens rows, if wanted; see `TensorwiseRule.refine`."""
        if not self.whitened_rows:
            return sums
        rows = math.prod(shape[:-1])
        degree = rows**2 / (rows**2 + self.half_whitened_rows**2)
        return whiten_rows(sums, shape, self.whitened_rows, degree)

    def control(self, products: Tensor, state: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Lets the LSTM decide; see `TensorwiseRule.control`."""
        hidden, cell, own = ops.split(state, [self.units, 2 * self.units])
        rate, steps, ratio, zero = own[0:1], own[1:2] + 1.0, own[2:3], own[3:4]
        narrowness = self._narrowness(tensors)
        if self.wide_fan_in is not None:
            narrowness = narrowness * self._narrowness_in_use(products[-1:, -1], tensors)
            products = products[:-1, :-1]
        factors = self._factors(products, steps)
        inputs = self._inputs(products, factors, hidden, rate, steps, ratio, tensors)
        outputs, (hidden, cell), _ = self._network.forward(inputs, (hidden, cell))
        change = outputs[-1:] - rate
        most = ops.where(change > 0.0, self.largest_rise / 2.0, _FALL)
        rate = rate + most * ops.tanh(change / most)
        rate = ops.clip(rate, _LOWEST - _START, _HIGHEST - _START)
        mix = self._mix(outputs[:-1], factors)
        count = mix.shape[0]
        mean_square = ops.einsum("it,ijt,jt->t", mix, products[:count, :count], mix)[None]
        size = _root(mean_square)
        length = self.step_size(rate, steps) * narrowness
        own_size = _root(products[-2:-1, -2])
        if self.size_exponent:
            relative_size = own_size / self._usual_size(tensors)
            zero = ops.where(steps < 1.5, ops.cast(relative_size < _NO_SIZE, "float32"), zero)
            length = length * self._smallness(relative_size, zero, tensors)
        if self.relative_scale:
            length = length * 10.0 * ops.maximum(own_size, 0.01)
        if self.normalize_update:
            length = length / size
        if self.largest_step is not None:
            largest = self.largest_step * narrowness * (own_size + self.size_offset * narrowness)
            part = length * size / largest
            length = length / ops.sqrt(1.0 + ops.square(part))
        ratio = ops.log((length * size + 1e-6) / (own_size + 1e-3))
        new_state = ops.concatenate([hidden, cell, rate, steps, ratio, zero])
        return -length * mix, new_state

    def step_size(self, rate: Tensor, steps: Tensor) -> Tensor:
        """Returns the step size of a rate after so many steps, both as tensors' state has them."""
        decay = self.decay_exponent * ops.log(1.0 + steps / self.decay_steps)
        return _RATE * ops.exp(2.0 * (rate + _START) - decay)

    def diagnose(self, state: Tensor) -> dict[str, Tensor]:
        """Tells the step size of narrow layers, and how many cells are saturated.

        See `UpdateRule.diagnose`.
        """
        rate, steps = state[2 * self.units, 0], state[2 * self.units + 1, 0]
        return {
            "step size": self.step_size(rate, steps),
            "saturated cells": self._network.saturation(state[: 2 * self.units]),
        }

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "units": self.units,
            "momenta": [list(pair) for pair in self.momenta],
            "orthogonal": list(self.orthogonal),
            "whitened_rows": self.whitened_rows,
            "half_whitened_rows": self.half_whitened_rows,
            "nominal": self.nominal,
            "weight_decay": self.weight_decay,
            "normalize_update": self.normalize_update,
            "relative_scale": self.relative_scale,
            "largest_step": self.largest_step,
            "size_offset": self.size_offset,
            "largest_rise": self.largest_rise,
            "fan_in_exponent": self.fan_in_exponent,
            "wide_fan_in": self.wide_fan_in,
            "size_exponent": self.size_exponent,
            "decay_exponent": self.decay_exponent,
            "decay_steps": self.decay_steps,
            "seed": self.seed,
            "name": self.name,
        }

    @property
    def _first_decay(self) -> float:
        """Decay of the average of squares that the gradient is divided by."""
        return self.momenta[0][1]

    def _factors(self, products: Tensor, steps: Tensor) -> Tensor:
        """Returns what makes directions of the rows: bias corrections and scales, `[k, T]`."""

        def correction(decay: float) -> Tensor:
            return 1.0 - ops.exp(math.log(decay) * steps) if decay else ops.ones_like(steps)

        squares = {decay: correction(decay) for decay in self._decays}
        own = [correction(decay) for decay, _ in self.momenta]
        usual = ops.sqrt(squares[self._first_decay])
        size = _root(products[-1:, -1])
        # Where no gradient was ever seen, its usual size, about _TINY, is nothing to divide by.
        inverse = ops.where(size > 2.0 * _TINY, usual / size, 0.0)
        relative = [
            ops.sqrt(squares[decay]) / m for (_, decay), m in zip(self.momenta, own, strict=True)
        ]
        one = ops.ones_like(usual)
        matrices = [relative[place] for place in self.orthogonal]
        return ops.concatenate([*matrices, *relative, usual, *(inverse / m for m in own), one])

    def _narrowness(self, tensors: Tensors) -> Tensor:
        """Returns the factor of each tensor's rate that is due to its fan-in, `[1, T]`."""
        fan_in = np.minimum(_row(tensors.fan_ins), _MOST)
        factor = (1.0 + fan_in / _MANY) ** -self.fan_in_exponent
        return ops.convert_to_tensor(factor.astype("float32"))

    def _narrowness_in_use(self, part_in_use: Tensor, tensors: Tensors) -> Tensor:
        """Returns the factor due to `wide_fan_in`, `[1, T]`, from the part of weights in use."""
        ratio = part_in_use * ops.convert_to_tensor(
            _row(tensors.fan_ins) / self.wide_fan_in, "float32"
        )
        return (1.0 + ops.square(ratio)) ** -0.25

    def _usual_size(self, tensors: Tensors) -> Tensor:
        """Returns the size that Glorot's initializer gives weights, `[1, T]`."""
        fan_outs = [
            math.prod(shape[:-2]) * shape[-1] if len(shape) > 1 else 1 for shape in tensors.shapes
        ]
        # Of variables without elements, neither has to be one or more.
        usual = np.sqrt(2.0 / np.maximum(_row(tensors.fan_ins) + _row(fan_outs), 1.0))
        return ops.convert_to_tensor(usual.astype("float32"))

    def _smallness(self, relative_size: Tensor, zero: Tensor, tensors: Tensors) -> Tensor:
        """Returns the factor of each tensor's rate that is due to `size_exponent`, `[1, T]`."""
        layers = ops.convert_to_tensor(_row(tensors.fan_ins) > 1.0)
        counts = ops.cast(ops.logical_and(layers, zero < 0.5), "float32")
        logs = ops.log(ops.maximum(relative_size, _NO_SIZE))
        mean = ops.sum(counts * logs) / ops.maximum(ops.sum(counts), 1.0)
        return ops.exp(self.size_exponent * counts * ops.minimum(logs - mean, 0.0))

    def _inputs(
        self,
        products: Tensor,
        factors: Tensor,
        hidden: Tensor,
        rate: Tensor,
        steps: Tensor,
        ratio: Tensor,
        tensors: Tensors,
    ) -> Tensor:
        """Returns what the LSTM sees of each tensor, `[inputs, T]`."""
        directions, count = self._directions, len(tensors)
        products = products[:-1, :-1]
        roots = ops.stack([_root(products[k, k]) for k in range(directions)])
        inverse = 1.0 / ops.maximum(roots, _TINY)
        cosines = products * inverse[:, None] * inverse[None, :]
        cosines = ops.matmul(
            ops.convert_to_tensor(self._pairs.reshape(len(self._pairs), -1)),
            ops.reshape(cosines, (-1, count)),
        )
        shapes = [
            _shape_features(*own) for own in zip(tensors.shapes, tensors.fan_ins, strict=True)
        ]
        own_size = roots[-1:]
        root_of_fan_in = ops.convert_to_tensor(np.sqrt(_row(tensors.fan_ins)), "float32")
        times = ops.concatenate([steps / (steps + time) for time in _TIMES])
        mean_hidden = ops.broadcast_to(ops.mean(hidden, axis=1, keepdims=True), hidden.shape)
        return ops.concatenate(
            [
                cosines,
                0.5 * ops.log(roots[:-1] * factors[:-1] + 1e-3) + 0.5,
                0.5 * ops.log(own_size + 1e-3) + 1.0,
                0.5 * ops.log(own_size * root_of_fan_in + 1e-3),
                0.5 * rate - 0.5,
                0.25 * ratio + 1.0,
                ops.convert_to_tensor(np.stack(shapes, axis=1), "float32"),
                times,
                mean_hidden,
            ]
        )

    def _mix(self, outputs: Tensor, factors: Tensor) -> Tensor:
        """Returns the weights of the rows, but for the rate, `[k, T]`."""
        nominal = np.zeros((self._directions - 1, 1), "float32")
        nominal[self.matrix_direction_count] = self.nominal
        mix = (outputs[:-1] + ops.convert_to_tensor(nominal)) * factors[:-1]
        if not self.weight_decay:
            return mix
        return ops.concatenate([mix, self.weight_decay * ops.sigmoid(outputs[-1:])])


def _check_momenta(momenta: Sequence[Sequence[float]]) -> tuple[tuple[float, float], ...]:
    """Returns decays of momenta as tuples."""
    pairs = tuple(tuple(float(decay) for decay in pair) for pair in momenta)
    if not pairs or any(
        len(pair) != 2 or not 0.0 <= pair[0] < 1.0 or not pair[0] ** 2 <= pair[1] < 1.0
        for pair in pairs
    ):
        raise ValueError(
            "`momenta` must be pairs of decays in [0, 1), the first at most the root of the "
            f"second. Received: {momenta}"
        )
    return tuple((first, second) for first, second in pairs)


def _check_count(argument: str, value: int) -> int:
    """Returns an argument as an integer."""
    if not value >= 0 or value % 1 != 0:
        raise ValueError(f"`{argument}` must be an integer, 0 or more. Received: {value}")
    return int(value)


def _check_not_negative(argument: str, value: float) -> float:
    """Returns an argument as a float."""
    if not value >= 0.0:
        raise ValueError(f"`{argument}` must not be negative. Received: {value}")
    return float(value)


def _check_positive(argument: str, value: float) -> float:
    """Returns an argument as a float."""
    if not value > 0.0:
        raise ValueError(f"`{argument}` must be positive. Received: {value}")
    return float(value)


def _check_positive_or_none(argument: str, value: float | None) -> float | None:
    """Returns an argument as a float, if it is one."""
    if value is not None and not value > 0.0:
        raise ValueError(f"`{argument}` must be positive or None. Received: {value}")
    return None if value is None else float(value)


def _root(mean_square: Tensor) -> Tensor:
    """Returns a root mean square, with derivative zero where it is next to nothing."""
    return ops.sqrt(ops.maximum(mean_square, _TINY**2))


def _row(numbers: Sequence[int]) -> np.ndarray:
    """Returns a number for each tensor as a row, `[1, T]`."""
    return np.array([numbers], "float64")


def _shape_features(shape: Shape, fan_in: int) -> np.ndarray:
    """Returns what there is to know of a shape, numbers of about one."""
    fan_out, rank = max(1, shape[-1]) if shape else 1, len(shape)
    return np.array(
        [
            math.log(min(fan_in, _WIDE)) / 5.0,
            math.log(min(fan_out, _WIDE)) / 5.0,
            rank < 2,
            rank == 2,
            rank > 2,
        ],
        "float32",
    )


def _small(seed: int | None) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(stddev=0.02, seed=seed)
