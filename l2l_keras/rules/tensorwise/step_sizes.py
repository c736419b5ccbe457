"""How the step size of a tensor follows from the LSTM, steps, fan-in and the RMS of weights.

The LSTM sets a log rate r per tensor, relative to where it starts; the step size is
`_SCALE * exp(2 (r + _START))` times factors for steps, fan-in and small weights, below a limit.
"""

from __future__ import annotations

import math

import numpy as np
from keras import ops

from l2l_keras.rules.base import Tensor
from l2l_keras.rules.tensorwise.tensors import Tensors

# Step sizes start near Adam's default, 1e-3, and stay between _LOWEST and _HIGHEST.
_SCALE, _START, _LOWEST, _HIGHEST = 3e-3, -0.5, -4.0, 3.0
# Largest fall of a log rate in one step.
_LARGEST_FALL = 1.0
# The effect of a step on a unit grows with its inputs: step sizes fall from about _NARROW inputs
# on. Beyond _WIDEST, inputs are mostly bags of words, of which few are in use.
_NARROW, _WIDEST = 64.0, 4096.0

NEARLY_ZERO = 1e-3
"""Weights count as zero if their RMS, over that of Glorot's initializer, is less."""


def next_log_rate(log_rate: Tensor, target: Tensor, largest_rise: float) -> Tensor:
    """Moves log rates towards targets; log step sizes rise by `largest_rise` at most."""
    change = target - log_rate
    largest = ops.where(change > 0.0, largest_rise / 2.0, _LARGEST_FALL)
    log_rate = log_rate + largest * ops.tanh(change / largest)
    return ops.clip(log_rate, _LOWEST - _START, _HIGHEST - _START)


def step_size(log_rate: Tensor, steps: Tensor, exponent: float, decay_steps: float) -> Tensor:
    """Returns step sizes `∝ exp(2 log_rate) * (1 + steps / decay_steps) ** -exponent`."""
    decay = exponent * ops.log(1.0 + steps / decay_steps)
    return _SCALE * ops.exp(2.0 * (log_rate + _START) - decay)


def fan_in_factor(tensors: Tensors, exponent: float) -> Tensor:
    """Returns `(1 + fan_in / 64) ** -exponent` of each tensor, `[1, T]`."""
    fan_in = np.minimum(_fan_ins(tensors), _WIDEST)
    return ops.convert_to_tensor((1.0 + fan_in / _NARROW) ** -exponent, "float32")


def wide_fan_in_factor(fraction_in_use: Tensor, tensors: Tensors, wide_fan_in: float) -> Tensor:
    """Returns `(1 + (n / wide_fan_in) ** 2) ** -0.25` of each tensor, `[1, T]`.

    The number n of inputs in use is the fan-in times the fraction of non-zero gradients, `[1, T]`.
    """
    ratio = fraction_in_use * ops.convert_to_tensor(_fan_ins(tensors) / wide_fan_in, "float32")
    return (1.0 + ops.square(ratio)) ** -0.25


def glorot_rms(tensors: Tensors) -> Tensor:
    """Returns the RMS of weights from Glorot's initializer, `[1, T]`."""
    fan_outs = [math.prod(s[:-2]) * s[-1] if len(s) > 1 else 1 for s in tensors.shapes]
    # At least 1: a variable without elements may have neither inputs nor outputs.
    fans = np.maximum(_fan_ins(tensors) + np.array([fan_outs], "float64"), 1.0)
    return ops.convert_to_tensor(np.sqrt(2.0 / fans), "float32")


def small_weights_factor(
    relative_rms: Tensor, began_as_zeros: Tensor, tensors: Tensors, exponent: float
) -> Tensor:
    """Returns `min(1, relative_rms / its geometric mean) ** exponent` of layers, `[1, T]`.

    Tensors that began as zeros, or have fan-in 1, are not layers: their factor is 1.
    """
    kernels = ops.convert_to_tensor(_fan_ins(tensors) > 1.0)
    layers = ops.cast(ops.logical_and(kernels, began_as_zeros < 0.5), "float32")
    logs = ops.log(ops.maximum(relative_rms, NEARLY_ZERO))
    mean = ops.sum(layers * logs) / ops.maximum(ops.sum(layers), 1.0)
    return ops.exp(exponent * layers * ops.minimum(logs - mean, 0.0))


def limited(step_size: Tensor, direction_rms: Tensor, largest: Tensor) -> Tensor:
    """Reduces step sizes smoothly, so that the RMS of each update stays below the largest."""
    ratio = step_size * direction_rms / largest
    return step_size / ops.sqrt(1.0 + ops.square(ratio))


def _fan_ins(tensors: Tensors) -> np.ndarray:
    """Returns the fan-ins, `[1, T]`."""
    return np.array([tensors.fan_ins], "float64")
