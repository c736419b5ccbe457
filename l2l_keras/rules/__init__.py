"""Update rules: the networks that turn gradients into updates."""

from l2l_keras.rules.base import SplitRule, UpdateRule
from l2l_keras.rules.elementwise.coordinatewise_lstm import CoordinatewiseLSTM
from l2l_keras.rules.elementwise.global_averaging_lstm import GlobalAveragingLSTM
from l2l_keras.rules.elementwise.momentum_lstm import MomentumLSTM
from l2l_keras.rules.elementwise.rnnprop import RNNprop
from l2l_keras.rules.ntm_bfgs import NTMBFGS
from l2l_keras.rules.tensorwise.base import TensorwiseRule
from l2l_keras.rules.tensorwise.tensors import Tensors
from l2l_keras.rules.tensorwise.tensorwise_lstm import TensorwiseLSTM

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
