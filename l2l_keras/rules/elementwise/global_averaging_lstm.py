"""The paper's update rule, with cells that exchange information between elements."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from l2l_keras.rules.elementwise.coordinatewise_lstm import CoordinatewiseLSTM


@keras.saving.register_keras_serializable(package="l2l_keras")
class GlobalAveragingLSTM(CoordinatewiseLSTM):
    """A coordinatewise LSTM with global averaging cells.

    In each step, the outputs of some cells of each layer are averaged over all elements: the next
    layer and the next step see the same values of them everywhere. The rule can so learn a common
    step size, say, or clipping by the global norm of the gradients.

    A step computes all elements of a model at once (`scope` is `"model"`); its memory grows with
    their number.

    Args:
        units: Units of each LSTM layer, first layer first. Defaults to (20, 20).
        averaged_units: How many units of each layer are averaged, from 0 to the units of the
            smallest layer. Defaults to 5.
        preprocessing: `"log_sign"` (default) or `"none"`; see `CoordinatewiseLSTM`.
        output_scale: Factor of the output. Defaults to 0.1.
        forget_bias: Initial bias of the forget gates. Defaults to 1.
        seed: Seed of the initial weights, an integer or None for fresh ones.
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
        self.averaged_units = averaged_units
        super().__init__(units, preprocessing, output_scale, forget_bias, seed, name)
