"""Momentum and Adam, with an LSTM that sets their step sizes for each element and step."""

from __future__ import annotations

from collections.abc import Sequence

import keras
from keras import ops

from l2l_keras import arguments
from l2l_keras.rules import moments
from l2l_keras.rules.base import State, Tensor
from l2l_keras.rules.elementwise.lstm_network import EXPONENTIAL, LSTMNetwork, near_zero
from l2l_keras.rules.elementwise.lstm_rule import Features, LSTMRule
from l2l_keras.rules.elementwise.preprocessing import log_sign


@keras.saving.register_keras_serializable(package="l2l_keras")
class MomentumLSTM(LSTMRule):
    """An LSTM that scales two classical updates of every element.

    The update is `-exp(o_1) * rate * n - exp(o_2) * adaptive_rate * m̂ / √v̂`. The first direction n
    is Nesterov's momentum, in proportion to gradients; the second is Adam's, of about the same size
    for all elements. The LSTM's outputs o are near zero before meta-training: the rule starts as
    these two optimizers at the given rates, and learns when and where to take larger or smaller
    steps. Exponents are limited to [-6, 4].

    The LSTM sees gradient and momentum m̂, each on a log scale (as in `CoordinatewiseLSTM`) and
    relative to the RMS √v̂ of the element's gradients (as in `RNNprop`).

    Args:
        units: Units of each LSTM layer, first layer first. Defaults to (16,).
        rate: Learning rate of Nesterov's momentum where o_1 is zero. Defaults to 1.
        adaptive_rate: Learning rate of Adam's direction where o_2 is zero. Defaults to 0.01.
        momentum: Decay of the sum of gradients. Defaults to 0.9.
        beta_2: Decay of the average v of their squares. Defaults to 0.95.
        epsilon: Added to √v̂. Defaults to 1e-8.
        forget_bias: Initial bias of the forget gates. Defaults to 1.
        seed: Seed of the initial weights, an integer or None for fresh ones.
        name: Name of the layer.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> rule = l2l_keras.rules.MomentumLSTM(seed=0)
        >>> state = rule.initial_state(3)
        >>> update, state = rule.step(keras.ops.array([1.0, 0.0, -2.0]), state)
        >>> update.shape
        TensorShape([3])

    Source: Wichrowska et al., "Learned optimizers that scale and generalize" (2017), where an RNN
    sets the step sizes of momentum, on a log scale; Harrison et al., "A closer look at learned
    optimization" (2022), where the learned update starts from a classical one.
    """

    feature_rows = moments.ROWS

    def __init__(
        self,
        units: Sequence[int] = (16,),
        rate: float = 1.0,
        adaptive_rate: float = 0.01,
        momentum: float = 0.9,
        beta_2: float = 0.95,
        epsilon: float = 1e-8,
        forget_bias: float = 1.0,
        seed: int | None = None,
        name: str | None = None,
    ) -> None:
        self.rate = float(rate)
        self.adaptive_rate = float(adaptive_rate)
        self.momentum = arguments.decay("momentum", momentum)
        self.beta_2 = arguments.decay("beta_2", beta_2)
        self.epsilon = float(epsilon)
        network = LSTMNetwork(6, 2, units, EXPONENTIAL, near_zero, forget_bias, seed)
        super().__init__(network, name)

    def features(self, gradient: Tensor, state: State) -> tuple[Features, State]:
        """See `SplitRule.features`."""
        g = ops.expand_dims(gradient, 0)
        mean, rms, state = moments.update(g, state, self.momentum, self.beta_2, self.epsilon)
        # SGD's momentum is the sum of gradients, not their average.
        momentum = state[0] / (1.0 - self.momentum)
        inputs = [log_sign(gradient), log_sign(mean[0]), g / rms, mean / rms]
        gains = [-self.rate * (g + self.momentum * momentum), -self.adaptive_rate * mean / rms]
        return Features(ops.concatenate(inputs), ops.concatenate(gains)), state
