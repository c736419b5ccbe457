"""The paper's update rule with cells through which coordinates learn of each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from l2l_keras.rules.base import Tensor
from l2l_keras.rules.elementwise.coordinatewise_lstm import CoordinatewiseLSTM


@keras.saving.register_keras_serializable(package="l2l_keras")
class GlobalAveragingLSTM(CoordinatewiseLSTM):
    """A coordinatewise LSTM with global averaging cells.

    Some cells of each layer have their outgoing activations averaged over all coordinates at each
    step: what the next layer and the next step see of them is the same for all coordinates. That
    is enough to learn, say, a common step size, or clipping by the norm of all gradients.

    The rule is coupled: it updates all of a model's coordinates at once, in memory that grows with
    their number.

    Args:
        units: Units of each LSTM layer, first layer first. Defaults to (20, 20).
        averaged_units: How many units of each layer are averaged. Defaults to 5.
        preprocessing: See `CoordinatewiseLSTM`.
        output_scale: See `CoordinatewiseLSTM`.
        forget_bias: See `CoordinatewiseLSTM`.
        seed: See `CoordinatewiseLSTM`.
        name: Name of the layer.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> rule = l2l_keras.rules.GlobalAveragingLSTM(units=(20, 20), averaged_units=5, seed=0)
        >>> state = rule.initial_state(3)
        >>> update, state = rule.step(keras.ops.array([1.0, 0.0, -2.0]), state)
        >>> hidden = state[0].numpy()
        >>> bool((hidden[:5] == hidden[:5, :1]).all()), bool((hidden[5:] == hidden[5:, :1]).all())
        (True, False)

    Source: Andrychowicz et al. (2016), section 2.1 and appendix B.
    """

    scope = "model"
    coupled = True

    def __init__(
        self,
        units: Sequence[int] = (20, 20),
        averaged_units: int = 5,
        preprocessing: str = "log_sign",
        output_scale: float = 0.1,
        forget_bias: float = 1.0,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        super().__init__(units, preprocessing, output_scale, forget_bias, seed, name)
        self.averaged_units = check_averaged_units(averaged_units, self.units)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {**super().get_config(), "averaged_units": self.averaged_units}

    def _share(self, hidden: Tensor) -> Tensor:
        """Averages the first units over coordinates; see `lstm.Share`."""
        return average_first(hidden, self.averaged_units)


def check_averaged_units(averaged_units: int, units: Sequence[int]) -> int:
    """Returns the number of averaged units.

    Args:
        averaged_units: The number.
        units: Units of each layer.

    Raises:
        ValueError: If there are not that many in each layer.
    """
    if not isinstance(averaged_units, int) or not 0 <= averaged_units <= min(units):
        raise ValueError(
            f"`averaged_units` must be an integer from 0 to {min(units)}, the units of the "
            f"smallest layer. Received: {averaged_units}"
        )
    return averaged_units


def average_first(hidden: Tensor, count: int) -> Tensor:
    """Averages the first rows over coordinates.

    Args:
        hidden: `[units, n]`.
        count: How many rows to average.

    Returns:
        `[units, n]`, the first `count` rows the same for all coordinates.
    """
    mean = ops.mean(hidden[:count], axis=1, keepdims=True)
    return ops.concatenate([ops.broadcast_to(mean, hidden[:count].shape), hidden[count:]])
