"""RNNprop: an LSTM that sees gradients and momenta relative to the RMS of gradients."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from l2l_keras import arguments
from l2l_keras.rules import moments
from l2l_keras.rules.base import State, Tensor
from l2l_keras.rules.elementwise.lstm_network import TANH, LSTMNetwork
from l2l_keras.rules.elementwise.lstm_rule import Features, LSTMRule


@keras.saving.register_keras_serializable(package="l2l_keras")
class RNNprop(LSTMRule):
    """An LSTM applied to every element, with Adam's moments as inputs instead of gradients.

    The inputs are `m̂ / √v̂` and `∇ / √v̂`, with m̂ and v̂ the bias-corrected moving averages of the
    gradient and of its square: they do not change when the loss or a parameter is rescaled. The
    update is `output_scale * tanh(w · h + b)`, h the last layer's hidden state: no step is longer
    than `output_scale`. Both help a rule that was trained on short runs of one network on longer
    runs of other networks.

    The paper has a small dense layer between features and LSTM; there is none here.

    Args:
        units: Units of each LSTM layer, first layer first. Defaults to (20, 20).
        output_scale: Largest update of an element. Defaults to the paper's 0.1.
        beta_1: Decay of the average of gradients. Defaults to the paper's 0.95.
        beta_2: Decay of the average of their squares. Defaults to the paper's 0.95.
        epsilon: Added to √v̂. Defaults to 1e-8.
        forget_bias: Initial bias of the forget gates. Defaults to 1.
        seed: Seed of the initial weights, an integer or None for fresh ones.
        name: Name of the layer.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> rule = l2l_keras.rules.RNNprop(seed=0)
        >>> state = rule.initial_state(3)
        >>> update, state = rule.step(keras.ops.array([1.0, 0.0, -2.0]), state)
        >>> update.shape
        TensorShape([3])

    Source: Lv, Jiang, Li: "Learning gradient descent: better generalization and longer horizons"
    (2017), section 4.
    """

    feature_rows = moments.ROWS

    def __init__(
        self,
        units: Sequence[int] = (20, 20),
        output_scale: float = 0.1,
        beta_1: float = 0.95,
        beta_2: float = 0.95,
        epsilon: float = 1e-8,
        forget_bias: float = 1.0,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        self.beta_1 = arguments.decay("beta_1", beta_1)
        self.beta_2 = arguments.decay("beta_2", beta_2)
        self.epsilon = float(epsilon)
        self.output_scale = float(output_scale)
        network = LSTMNetwork(2, 1, units, TANH, forget_bias=forget_bias, seed=seed)
        super().__init__(network, name)

    def features(self, gradient: Tensor, state: State) -> tuple[Features, State]:
        """See `SplitRule.features`."""
        g = ops.expand_dims(gradient, 0)
        mean, rms, state = moments.update(g, state, self.beta_1, self.beta_2, self.epsilon)
        inputs = ops.concatenate([mean / rms, g / rms])
        return Features(inputs, ops.full((1, 1), self.output_scale, "float32")), state
