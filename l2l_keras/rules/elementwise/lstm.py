"""One step of an LSTM layer over many elements, and its derivative.

Elements are the last axis (`[units, n]`), so that every gate is one contiguous block of rows. The
derivative is written by hand, since it decides the speed and the memory of meta-training: of each
step, it needs only the gates' activations, and it costs two matrix products a layer.

Source: Hochreiter and Schmidhuber (1997), with forget gates (Gers et al., 2000).
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import keras
from keras import ops

from l2l_keras.rules.base import Tensor


class LSTMWeights(NamedTuple):
    """Weights of one layer; gates in the order input, forget, candidate, output."""

    kernel: Tensor  # [4 * units, inputs]
    recurrent_kernel: Tensor  # [4 * units, units]
    bias: Tensor  # [4 * units]


def forward(
    weights: LSTMWeights, inputs: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Returns the next hidden and cell state, `[units, n]`, and the gates' activations.

    The activations are `[4 * units, n]`, in [-1, 1].
    """
    scale = _gate_scale(h.shape[0])
    kernel = scale * ops.concatenate([weights.recurrent_kernel, weights.kernel], axis=1)
    bias = scale * ops.expand_dims(weights.bias, 1)
    activations = _tanh(ops.matmul(kernel, ops.concatenate([h, inputs])) + bias)
    i, f, g, o = _gates(activations)
    c = f * c + i * g
    return o * _tanh(c), c, activations


def backward(
    weights: LSTMWeights,
    inputs: Tensor,
    h: Tensor,
    c: Tensor,
    new_c: Tensor,
    activations: Tensor,
    d_h: Tensor,
    d_c: Tensor,
    with_inputs: bool,
) -> tuple[LSTMWeights, Tensor | None, Tensor, Tensor]:
    """Computes the vector-Jacobian product of `forward`, from the derivatives of the next states.

    Returns `(d_weights, d_inputs, d_h, d_c)`; `d_inputs` is None unless `with_inputs`.
    """
    units, n = h.shape
    i, f, g, o = _gates(activations)
    tanh_c = _tanh(new_c)
    d_c = d_c + d_h * o * (1.0 - tanh_c * tanh_c)
    # σ' in terms of σ, halved: it is taken with respect to the scaled pre-activation.
    d_gates = (
        d_c * g * (2.0 * i * (1.0 - i)),
        d_c * c * (2.0 * f * (1.0 - f)),
        d_c * i * (1.0 - g * g),
        d_h * tanh_c * (2.0 * o * (1.0 - o)),
    )
    d_pre = ops.concatenate(d_gates)
    scale = _gate_scale(units)
    kernel = weights.recurrent_kernel
    if with_inputs:
        kernel = ops.concatenate([kernel, weights.kernel], axis=1)
    d_kernel = scale * ops.matmul(d_pre, ops.transpose(ops.concatenate([h, inputs])))
    d_bias = ops.squeeze(scale * ops.matmul(d_pre, ops.ones((n, 1), "float32")), 1)
    d_z = ops.matmul(ops.transpose(scale * kernel), d_pre)
    d_weights = LSTMWeights(d_kernel[:, units:], d_kernel[:, :units], d_bias)
    return d_weights, d_z[units:] if with_inputs else None, d_z[:units], d_c * f


def pack(activations: Tensor) -> Tensor:
    """Rounds activations of gates to int16: half the memory, with an error of 1.5e-5.

    A 16-bit float would have 16 times that error where a gate is open or closed.
    """
    return ops.cast(ops.round(activations * 32767.0), "int16")


def unpack(packed: Tensor) -> Tensor:
    """Undoes `pack`, up to the rounding."""
    return ops.cast(packed, "float32") * (1.0 / 32767.0)


def _gates(activations: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the input, forget, candidate and output gate of `[4 * units, n]` activations."""
    units = activations.shape[0] // 4
    i, f, g, o = (activations[k * units : (k + 1) * units] for k in range(4))
    return 0.5 * i + 0.5, 0.5 * f + 0.5, g, 0.5 * o + 0.5


def _gate_scale(units: int) -> Tensor:
    """Returns `[4 * units, 1]` factors that make every gate a tanh: σ(x) = (1 + tanh(x/2)) / 2."""
    half = ops.full((units, 1), 0.5, "float32")
    return ops.concatenate([half, half, ops.ones((units, 1), "float32"), half])


# tanh(x) is x · P(x²) / Q(x²) within 5e-7 up to |x| = 8, and ±1 within 3e-7 beyond: the rounding of
# float32. Minimax coefficients, the constant first.
_NUMERATOR = (0.9999990651, 0.1269978879, 2.6845020177e-3, 7.083495e-6, -6.020063e-9)
_DENOMINATOR = (1.0, 0.4603278156, 2.27974204e-2, 1.9529990521e-4)


def _tanh(x: Tensor) -> Tensor:
    """Computes tanh in half the operations that XLA needs for its own."""
    if keras.backend.backend() == "torch":
        import torch

        # PyTorch's own is slow; this makes few passes over memory.
        one = x.new_ones(())
        return torch.lerp(-one, one, torch.sigmoid(2.0 * x))
    x = ops.clip(x, -8.0, 8.0)
    y = x * x
    return x * _polynomial(_NUMERATOR, y) / _polynomial(_DENOMINATOR, y)


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    return functools.reduce(lambda value, c: value * x + c, reversed(coefficients))
