"""An LSTM with an external memory matrix, used as BFGS uses its inverse Hessian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from l2l_keras.rules.base import State, Tensor, UpdateRule
from l2l_keras.rules.elementwise.global_averaging_lstm import average_first, check_averaged_units
from l2l_keras.rules.elementwise.lstm_network import LINEAR, LSTMNetwork
from l2l_keras.rules.elementwise.preprocessing import get_preprocessing

# What a gate is where the controller's output is zero: as good as open.
_OPEN = 2.0
# The update of symmetric rank one divides by what may be zero.
_MOST_SYMMETRIC = 0.9


@keras.saving.register_keras_serializable(package="l2l_keras")
class NTMBFGS(UpdateRule):
    """An LSTM with global averaging cells that reads and writes a memory matrix M.

    At each step, M learns what the last update u did to the gradient: it is corrected by a matrix
    of rank one towards `M y = u`, y being the change of the gradient, as quasi-Newton methods learn
    an inverse Hessian. It is then read by its product with the gradient:

        M ← M + w · e vᵀ / (vᵀ y),  e = u - M y,  v = (1 - a) y/|y| + a e/|e| · sign(eᵀ y)
        θ ← θ + output_scale · o - r ∘ M∇

    The LSTM, the controller, sees the gradient and `M∇` of each coordinate. Its outputs, after a
    sigmoid but for o, are: the coordinate's own update o; how far to follow the memory, r, from 0
    to 2; how much to write, w; and in which direction, a: from Broyden's second update (0) to
    nearly that of symmetric rank one (1). The last two are averaged over coordinates. M starts as
    zero: what was never seen is left to the LSTM.

    The full memory holds a number for each pair of coordinates. Of low rank, it is the sum of the
    last so many updates.

    The rule is coupled: it updates all of a model's coordinates at once. It subtracts gradients of
    successive steps, and so needs its state in float32.

    Args:
        units: Units of each LSTM layer, first layer first. Defaults to (20, 20).
        averaged_units: Global averaging cells of each layer. Defaults to 5.
        memory_rank: Rank of the memory, or None (the default) for a full one.
        preprocessing: What the LSTM sees of a number; see `CoordinatewiseLSTM`.
        output_scale: Factor of the update that is the LSTM's own. Defaults to 0.1.
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

    Source: Andrychowicz et al. (2016), appendix B. There, the controller makes all vectors that are
    read and written; here, they are those of quasi-Newton methods (Broyden, "A class of methods for
    solving nonlinear simultaneous equations", 1965; Nocedal and Wright, "Numerical optimization",
    section 6.2), and the controller sets how they are used.
    """

    scope = "model"
    coupled = True

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
        if memory_rank is not None and (not isinstance(memory_rank, int) or memory_rank < 1):
            raise ValueError(
                f"`memory_rank` must be a positive integer or None. Received: {memory_rank!r}"
            )
        super().__init__(name=name)
        self.memory_rank = memory_rank
        self.preprocessing = preprocessing
        self.output_scale = float(output_scale)
        self.forget_bias = float(forget_bias)
        self.seed = seed
        self._preprocess, inputs = get_preprocessing(preprocessing)
        self._controller = LSTMNetwork(
            inputs=2 * inputs,
            outputs=4,
            units=units,
            activation=LINEAR,
            output_initializer=keras.initializers.GlorotUniform,
            forget_bias=self.forget_bias,
            seed=seed,
        )
        self.units = self._controller.units
        self.averaged_units = check_averaged_units(averaged_units, self.units)
        self.built = True

    @property
    def state_rows(self) -> tuple[int, ...]:
        """The last gradient and update, a memory of low rank, and the controller's state."""
        if self.memory_rank is None:
            raise ValueError(
                "The rows of a full memory are as many as coordinates: see `state_rows_for`."
            )
        return (1, 1, self.memory_rank, self.memory_rank, *self._controller.rows)

    def state_rows_for(self, n: int) -> tuple[int, ...]:
        """Returns the rows of each state array; see `UpdateRule.state_rows_for`."""
        if self.memory_rank is None:
            return (1, 1, n, *self._controller.rows)
        return self.state_rows

    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """Computes one update; see `UpdateRule.step`."""
        last_gradient, last_update, *rest = state
        arrays = 1 if self.memory_rank is None else 2
        memory, controller_state = tuple(rest[:arrays]), tuple(rest[arrays:])
        inputs = [self._preprocess(gradient), self._preprocess(self._read(memory, gradient))]
        outputs, controller_state, _ = self._controller.forward(
            ops.concatenate(inputs),
            controller_state,
            lambda hidden: average_first(hidden, self.averaged_units),
        )
        own, follow = outputs[0], 2.0 * ops.sigmoid(outputs[1])
        write = ops.sigmoid(ops.mean(outputs[2]) + _OPEN)
        symmetric = _MOST_SYMMETRIC * ops.sigmoid(ops.mean(outputs[3]))
        memory = self._write(memory, gradient - last_gradient[0], last_update[0], write, symmetric)
        update = self.output_scale * own - follow * self._read(memory, gradient)
        return update, (gradient[None], update[None], *memory, *controller_state)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "units": list(self.units),
            "averaged_units": self.averaged_units,
            "memory_rank": self.memory_rank,
            "preprocessing": self.preprocessing,
            "output_scale": self.output_scale,
            "forget_bias": self.forget_bias,
            "seed": self.seed,
            "name": self.name,
        }

    def _read(self, memory: State, vector: Tensor) -> Tensor:
        """Returns the product of the memory with a vector `[n]`."""
        if self.memory_rank is None:
            return ops.matmul(memory[0], vector)
        left, right = memory
        return ops.matmul(ops.matmul(right, vector), left)

    def _write(
        self, memory: State, y: Tensor, u: Tensor, amount: Tensor, symmetric: Tensor
    ) -> State:
        """Corrects the memory towards `M y = u`.

        For an `amount` of 1, it holds afterwards, but for the update that a full memory of low rank
        forgets.
        """
        # What an update did to the gradient counts as given, as the gradient itself does:
        # back-propagation through quasi-Newton steps explodes. φ is judged by how it uses them.
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
    """Returns 1/|v|; of a vector that is next to nothing, a large number with derivative zero."""
    return ops.rsqrt(ops.maximum(ops.sum(ops.square(vector)), 1e-20))
