"""An LSTM with an external memory matrix, used as BFGS uses its inverse Hessian."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from l2l_keras import arguments
from l2l_keras.rules.base import State, Tensor, UpdateRule
from l2l_keras.rules.elementwise.lstm_network import LSTMNetwork
from l2l_keras.rules.elementwise.preprocessing import get_preprocessing

# Bias of the write gate: at first, it is nearly open.
_WRITE_BIAS = 2.0
# Below 1: the symmetric rank-one update divides by a number that may be zero.
_LARGEST_A = 0.9


@keras.saving.register_keras_serializable(package="l2l_keras")
class NTMBFGS(UpdateRule):
    """An LSTM with global averaging cells that reads and writes a memory matrix M.

    As quasi-Newton methods learn an inverse Hessian, each step corrects M by a matrix of rank one
    towards `M y = u`, with the last update u and the change y of the gradient after it. The step
    then reads M by its product with the gradient:

        M ← M + w · e vᵀ / (vᵀ y),  e = u - M y,  v = (1 - a) y/|y| + a e/|e| · sign(eᵀ y)
        θ ← θ + output_scale · o - r ∘ M∇

    The LSTM (the controller) sees the gradient and `M∇` of each element. Its outputs, all but o
    after a sigmoid, are: the element's own update o; how far to follow the memory, r, from 0 to 2;
    how much to write, w; and the direction to write in, a, from Broyden's second update (0) to
    nearly the symmetric rank-one update (1). w and a are averaged over elements. M starts as zero:
    where nothing was written, the update is the LSTM's.

    A full memory holds a number for each pair of elements, one of low rank the last updates. A step
    computes all elements of a model at once, with its state in float32.

    Args:
        units: Units of each LSTM layer, first layer first. Defaults to (20, 20).
        averaged_units: Global averaging cells of each layer. Defaults to 5.
        memory_rank: Rank of the memory, or None (the default) for a full one.
        preprocessing: How the LSTM sees a number; see `CoordinatewiseLSTM`.
        output_scale: Factor of the LSTM's own update o. Defaults to 0.1.
        forget_bias: Initial bias of the forget gates. Defaults to 1.
        seed: Seed of the initial weights, an integer or None for fresh ones.
        name: Name of the layer.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> rule = l2l_keras.rules.NTMBFGS(memory_rank=2, seed=0)
        >>> state = rule.initial_state(3)
        >>> update, state = rule.step(keras.ops.array([1.0, 0.0, -2.0]), state)
        >>> update.shape
        TensorShape([3])

    Source: Andrychowicz et al. (2016), appendix B. There, the controller computes all vectors that
    are read and written; here, quasi-Newton methods do (Broyden, "A class of methods for
    solving nonlinear simultaneous equations", 1965; Nocedal and Wright, "Numerical optimization",
    section 6.2), and the controller sets how they are used.
    """

    scope = "model"

    def __init__(
        self,
        units: Sequence[int] = (20, 20),
        averaged_units: int = 5,
        memory_rank: int | None = None,
        preprocessing: str = "log_sign",
        output_scale: float = 0.1,
        forget_bias: float = 1.0,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        valid = memory_rank is None or (isinstance(memory_rank, int) and memory_rank > 0)
        arguments.check(valid, "memory_rank", "a positive integer or None", memory_rank)
        super().__init__(name=name)
        self.memory_rank = memory_rank
        self.preprocessing = preprocessing
        self.output_scale = float(output_scale)
        self.forget_bias = float(forget_bias)
        self.seed = seed
        self._preprocess, inputs = get_preprocessing(preprocessing)
        self._controller = LSTMNetwork(
            2 * inputs, 4, units, forget_bias=forget_bias, seed=seed, averaged_units=averaged_units
        )
        self._controller.build(self.add_weight)
        self.units = self._controller.units
        self.averaged_units = averaged_units

    @property
    def state_rows(self) -> tuple[int, ...]:
        """The last gradient, the last update, a low-rank memory and the controller's state."""
        if self.memory_rank is None:
            raise ValueError("A full memory has a row for each element: use `state_rows_for`.")
        return (1, 1, self.memory_rank, self.memory_rank, *self._controller.rows)

    def state_rows_for(self, n: int) -> tuple[int, ...]:
        """See `UpdateRule.state_rows_for`."""
        if self.memory_rank is None:
            return (1, 1, n, *self._controller.rows)
        return self.state_rows

    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """See `UpdateRule.step`."""
        last_gradient, last_update, *rest = state
        arrays = 1 if self.memory_rank is None else 2
        memory, controller_state = tuple(rest[:arrays]), tuple(rest[arrays:])
        inputs = [self._preprocess(gradient), self._preprocess(self._read(memory, gradient))]
        outputs, controller_state, _ = self._controller.forward(
            ops.concatenate(inputs), controller_state
        )
        own, follow = outputs[0], 2.0 * ops.sigmoid(outputs[1])
        write = ops.sigmoid(ops.mean(outputs[2]) + _WRITE_BIAS)
        symmetric = _LARGEST_A * ops.sigmoid(ops.mean(outputs[3]))
        memory = self._write(memory, gradient - last_gradient[0], last_update[0], write, symmetric)
        update = self.output_scale * own - follow * self._read(memory, gradient)
        return update, (gradient[None], update[None], *memory, *controller_state)

    def _read(self, memory: State, vector: Tensor) -> Tensor:
        """Returns the product of the memory with a vector `[n]`."""
        if self.memory_rank is None:
            return ops.matmul(memory[0], vector)
        left, right = memory
        return ops.matmul(ops.matmul(right, vector), left)

    def _write(
        self, memory: State, y: Tensor, u: Tensor, amount: Tensor, symmetric: Tensor
    ) -> State:
        """Corrects the memory towards `M y = u`; an `amount` of 1 does so fully."""
        # The error is a constant, as the gradient is: back-propagation through quasi-Newton steps
        # explodes. φ learns how to use them.
        scale = _inverse_norm(y)
        y, u = scale * y, scale * u
        error = ops.stop_gradient(u - self._read(memory, y))
        direction = error * _inverse_norm(error)
        direction = direction * ops.sign(ops.sum(direction * y))
        right = (1.0 - symmetric) * y + symmetric * direction
        # At least 1 - a, unless the gradient has not changed: then all of v is zero.
        overlap = ops.sum(right * y)
        left = amount * overlap / (ops.square(overlap) + 1e-12) * error
        if self.memory_rank is None:
            return (memory[0] + left[:, None] * right[None, :],)
        lefts, rights = memory
        return (
            ops.concatenate([lefts[1:], left[None]]),
            ops.concatenate([rights[1:], right[None]]),
        )


def _inverse_norm(vector: Tensor) -> Tensor:
    """Returns 1/|v|; if |v| is nearly zero, a large number with derivative zero."""
    return ops.rsqrt(ops.maximum(ops.sum(ops.square(vector)), 1e-20))
