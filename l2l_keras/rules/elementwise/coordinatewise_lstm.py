"""The paper's update rule: one small LSTM, shared by all elements."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from l2l_keras.rules.base import State, Tensor
from l2l_keras.rules.elementwise.lstm_network import LSTMNetwork
from l2l_keras.rules.elementwise.lstm_rule import Features, LSTMRule
from l2l_keras.rules.elementwise.preprocessing import get_preprocessing


@keras.saving.register_keras_serializable(package="l2l_keras")
class CoordinatewiseLSTM(LSTMRule):
    """An LSTM applied to every element on its own, with a state of its own.

    The update of an element is `output_scale * (w · h + b)`, h the last layer's hidden state after
    the element's (preprocessed) gradient.

    Args:
        units: Units of each LSTM layer, first layer first. Defaults to the paper's (20, 20).
        preprocessing: `"log_sign"` (magnitudes on a log scale, and signs) or `"none"` (the gradient
            itself, as in the paper's experiment on quadratics). Defaults to `"log_sign"`.
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

    averaged_units = 0
    """How many units of each layer put out their mean over elements."""

    def __init__(
        self,
        units: Sequence[int] = (20, 20),
        preprocessing: str = "log_sign",
        output_scale: float = 0.1,
        forget_bias: float = 1.0,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        self.preprocessing = preprocessing
        self.output_scale = float(output_scale)
        self._preprocess, inputs = get_preprocessing(preprocessing)
        network = LSTMNetwork(
            inputs, 1, units, forget_bias=forget_bias, seed=seed, averaged_units=self.averaged_units
        )
        super().__init__(network, name)

    def features(self, gradient: Tensor, state: State) -> tuple[Features, State]:
        """See `SplitRule.features`."""
        gains = ops.full((1, 1), self.output_scale, "float32")
        return Features(self._preprocess(gradient), gains), state
