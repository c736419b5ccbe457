"""Update rules: the networks that turn gradients into updates."""

from l2l_keras.rules.base import SplitRule, UpdateRule
from l2l_keras.rules.coordinatewise_lstm import CoordinatewiseLSTM
from l2l_keras.rules.momentum_lstm import MomentumLSTM
from l2l_keras.rules.rnnprop import RNNprop

__all__ = ["CoordinatewiseLSTM", "MomentumLSTM", "RNNprop", "SplitRule", "UpdateRule"]
