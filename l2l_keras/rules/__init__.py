"""Update rules: the networks that turn gradients into updates."""

from l2l_keras.rules.base import SplitRule, UpdateRule
from l2l_keras.rules.coordinatewise_lstm import CoordinatewiseLSTM
from l2l_keras.rules.global_averaging_lstm import GlobalAveragingLSTM
from l2l_keras.rules.momentum_lstm import MomentumLSTM
from l2l_keras.rules.ntm_bfgs import NTMBFGS
from l2l_keras.rules.rnnprop import RNNprop
from l2l_keras.rules.tensors import Tensors
from l2l_keras.rules.tensorwise_lstm import TensorwiseLSTM
from l2l_keras.rules.tensorwise_rule import TensorwiseRule

__all__ = [
    "NTMBFGS",
    "CoordinatewiseLSTM",
    "GlobalAveragingLSTM",
    "MomentumLSTM",
    "RNNprop",
    "SplitRule",
    "Tensors",
    "TensorwiseLSTM",
    "TensorwiseRule",
    "UpdateRule",
]
