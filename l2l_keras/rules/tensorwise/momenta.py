"""Momenta of gradients, and the moving averages of squares that they are divided by."""

from __future__ import annotations

from collections.abc import Sequence

from keras import ops

from l2l_keras import arguments
from l2l_keras.rules.base import Tensor
from l2l_keras.rules.moments import bias_correction
from l2l_keras.rules.tensorwise.features import TINY


class Momenta:
    """Momenta m of gradients, each with an average v of their squares, which they may share.

    The state is the momenta, then the averages of squares: `rows` arrays.
    """

    def __init__(self, pairs: Sequence[Sequence[float]]) -> None:
        self.pairs = tuple(tuple(float(decay) for decay in pair) for pair in pairs)
        valid = bool(self.pairs) and all(
            len(pair) == 2 and 0.0 <= pair[0] < 1.0 and pair[0] ** 2 <= pair[1] < 1.0
            for pair in self.pairs
        )
        expected = "pairs of decays in [0, 1), the first at most the root of the second"
        arguments.check(valid, "momenta", expected, pairs)
        self._decays = tuple(sorted({decay for _, decay in self.pairs}))
        self.rows = len(self.pairs) + len(self._decays)

    def advance(self, gradient: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
        """Updates all averages with a gradient of the shape of the state's arrays."""
        square = ops.square(gradient)
        values = [(decay, gradient) for decay, _ in self.pairs]
        values += [(decay, square) for decay in self._decays]
        return [
            decay * old + (1.0 - decay) * value
            for old, (decay, value) in zip(state, values, strict=True)
        ]

    def directions(
        self, gradient: Tensor, state: Sequence[Tensor]
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Returns the momenta over √v, the gradient over the first momentum's √v, and that √v."""
        # Clipped: where the square of a gradient is zero in float32, the root has no derivative.
        v = [ops.maximum(array, TINY**2) for array in state[len(self.pairs) :]]
        inverse = {decay: ops.rsqrt(array) for decay, array in zip(self._decays, v, strict=True)}
        momenta = state[: len(self.pairs)]
        relative = [m * inverse[decay] for m, (_, decay) in zip(momenta, self.pairs, strict=True)]
        first = self.pairs[0][1]
        return relative, gradient * inverse[first], v[self._decays.index(first)] * inverse[first]

    def relative(self, index: int, state: Sequence[Tensor]) -> Tensor:
        """Returns one momentum over its √v."""
        v = state[len(self.pairs) + self._decays.index(self.pairs[index][1])]
        return state[index] * ops.rsqrt(ops.maximum(v, TINY**2))

    def scales(self, root: Tensor, steps: Tensor) -> tuple[list[Tensor], Tensor, list[Tensor]]:
        """Returns factors of the momenta over √v, of the gradient over √v, and of the momenta.

        They correct biases, and divide momenta by the RMS of the tensor's gradient. The RMS of √v
        (`root`), the number of steps and the factors are `[1, T]`.
        """
        momenta = [bias_correction(decay, steps) for decay, _ in self.pairs]
        squares = {decay: ops.sqrt(bias_correction(decay, steps)) for decay in self._decays}
        first = squares[self.pairs[0][1]]
        # Without any gradient yet, √v is about TINY, which is nothing to divide by.
        inverse = ops.where(root > 2.0 * TINY, first / root, 0.0)
        pairs = zip(self.pairs, momenta, strict=True)
        relative = [squares[decay] / correction for (_, decay), correction in pairs]
        return relative, first, [inverse / correction for correction in momenta]
