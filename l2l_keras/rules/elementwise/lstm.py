"""A stack of LSTM layers over many coordinates: its forward step and its derivative.

Coordinates are the last axis (`[units, n]`), so that every gate is one contiguous block of rows.
The derivative is written by hand, since it decides the speed and the memory of meta-training: it
keeps the gates' activations only, in 16 bits, and leaves each layer two matrix products.

Source: Hochreiter and Schmidhuber (1997), with forget gates (Gers et al., 2000).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any
Share = Callable[[Tensor], Tensor]
"""What becomes of a layer's hidden state before it goes out: a symmetric linear map, such as an
average over coordinates, which is therefore its own derivative, transposed."""


def keep(hidden: Tensor) -> Tensor:
    """Returns a hidden state as it is: coordinates share nothing."""
    return hidden


class LSTMWeights(NamedTuple):
    """Weights of one layer; gates in the order input, forget, candidate, output.

    Attributes:
        kernel: `[4 * units, inputs]`.
        recurrent_kernel: `[4 * units, units]`.
        bias: `[4 * units]`.
    """

    kernel: Tensor
    recurrent_kernel: Tensor
    bias: Tensor


# tanh(x) is x · P(x²) / Q(x²) within 5e-7 up to |x| = 8, and ±1 within 3e-7 beyond: the rounding of
# float32. Minimax coefficients, the constant first.
_NUMERATOR = (0.9999990651, 0.1269978879, 2.6845020177e-3, 7.083495e-6, -6.020063e-9)
_DENOMINATOR = (1.0, 0.4603278156, 2.27974204e-2, 1.9529990521e-4)


def _tanh(x: Tensor) -> Tensor:
    """Computes tanh in half the operations that XLA needs for its own."""
    if keras.backend.backend() == "torch":
        return _eager_tanh(x)
    x = ops.clip(x, -8.0, 8.0)
    y = x * x
    return x * _polynomial(_NUMERATOR, y) / _polynomial(_DENOMINATOR, y)


def _eager_tanh(x: Tensor) -> Tensor:
    """Computes tanh on PyTorch, whose own is slow, in few passes over memory."""
    import torch

    one = x.new_ones(())
    return torch.lerp(-one, one, torch.sigmoid(2.0 * x))


def _polynomial(coefficients: tuple[float, ...], x: Tensor) -> Tensor:
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def _gate_scale(units: int) -> Tensor:
    """Returns `[4 * units, 1]` factors that make every gate a tanh: σ(x) = (1 + tanh(x/2)) / 2."""
    half = ops.full((units, 1), 0.5, "float32")
    return ops.concatenate([half, half, ops.ones((units, 1), "float32"), half])


def _split(activations: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the input, forget, candidate and output gate of `[4 * units, n]` activations."""
    units = activations.shape[0] // 4
    i, f, g, o = (activations[k * units : (k + 1) * units] for k in range(4))
    return 0.5 * i + 0.5, 0.5 * f + 0.5, g, 0.5 * o + 0.5


def pack(activations: Tensor) -> Tensor:
    """Returns activations in [-1, 1] as 16-bit integers: an error of 1.5e-5, at half the memory.

    A float of 16 bits would be wrong by 16 times that where a gate is open or closed.

    Args:
        activations: float32, as returned by `cell_forward`.

    Returns:
        The gates as `cell_replay` and `cell_backward` take them, int16.
    """
    return ops.cast(ops.round(activations * 32767.0), "int16")


def _unpack(packed: Tensor) -> Tensor:
    return ops.cast(packed, "float32") * (1.0 / 32767.0)


def _next_state(activations: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Returns `(h, c)` after a step of the gates' activations."""
    i, f, g, o = _split(activations)
    c = f * c + i * g
    return o * _tanh(c), c


def cell_forward(
    weights: LSTMWeights, inputs: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes one step of one layer.

    Args:
        weights: The layer's weights.
        inputs: `[inputs, n]`.
        h: Hidden state, `[units, n]`.
        c: Cell state, `[units, n]`.

    Returns:
        `(h, c, activations)`: the next states, and the gates' activations, float32
        `[4 * units, n]`.
    """
    scale = _gate_scale(h.shape[0])
    kernel = scale * ops.concatenate([weights.recurrent_kernel, weights.kernel], axis=1)
    bias = scale * ops.expand_dims(weights.bias, 1)
    activations = _tanh(ops.matmul(kernel, ops.concatenate([h, inputs])) + bias)
    return *_next_state(activations, c), activations


def cell_replay(gates: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Computes the states of one step of one layer again, without its products.

    Args:
        gates: As returned by `pack`, int16 `[4 * units, n]`.
        c: Cell state that entered the step, `[units, n]`.

    Returns:
        `(h, c)`, the next states, up to the rounding of the gates.
    """
    return _next_state(_unpack(gates), c)


def cell_backward(
    weights: LSTMWeights,
    inputs: Tensor,
    h: Tensor,
    c: Tensor,
    new_c: Tensor,
    gates: Tensor,
    d_h: Tensor,
    d_c: Tensor,
    with_inputs: bool,
) -> tuple[LSTMWeights, Tensor | None, Tensor, Tensor]:
    """Computes the vector-Jacobian product of `cell_forward`.

    Args:
        weights: The layer's weights.
        inputs: `[inputs, n]`, as given to `cell_forward`.
        h: Hidden state that entered the step, `[units, n]`.
        c: Cell state that entered the step, `[units, n]`.
        new_c: Cell state that left it, `[units, n]`.
        gates: As returned by `pack`, int16 `[4 * units, n]`.
        d_h: Derivative with respect to the hidden state that left the step, `[units, n]`.
        d_c: The same with respect to `new_c`.
        with_inputs: Whether to compute the derivative with respect to `inputs`.

    Returns:
        `(d_weights, d_inputs, d_h, d_c)`; `d_inputs` is None unless asked for.
    """
    units, n = h.shape
    i, f, g, o = _split(_unpack(gates))
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


def stack_forward(
    weights: list[LSTMWeights], inputs: Tensor, state: tuple[Tensor, ...], share: Share = keep
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Computes one step of a stack of layers.

    Args:
        weights: The layers' weights, first layer first.
        inputs: `[inputs, n]`.
        state: `(h, c)` of the first layer, then of the second and so on, each `[units, n]`.
        share: Applied to the hidden state of every layer. Defaults to nothing.

    Returns:
        `(state, activations)`: the next state and every layer's activations of the gates. The
        stack's output is the last layer's hidden state.
    """
    new_state: list[Tensor] = []
    all_activations = []
    for layer, layer_weights in enumerate(weights):
        h, c = state[2 * layer : 2 * layer + 2]
        h, c, activations = cell_forward(layer_weights, inputs, h, c)
        inputs = share(h)
        new_state += [inputs, c]
        all_activations.append(activations)
    return tuple(new_state), tuple(all_activations)


def stack_replay(
    gates: tuple[Tensor, ...], state: tuple[Tensor, ...], share: Share = keep
) -> tuple[Tensor, ...]:
    """Computes the state after one step of a stack of layers again, without its products.

    Args:
        gates: Every layer's, as returned by `pack`.
        state: The state that entered the step.
        share: As given to `stack_forward`.

    Returns:
        The next state, up to the rounding of the gates.
    """
    new_state: list[Tensor] = []
    for layer_gates, c in zip(gates, state[1::2], strict=True):
        h, c = cell_replay(layer_gates, c)
        new_state += [share(h), c]
    return tuple(new_state)


def stack_backward(
    weights: list[LSTMWeights],
    inputs: Tensor,
    state: tuple[Tensor, ...],
    new_state: tuple[Tensor, ...],
    gates: tuple[Tensor, ...],
    d_output: Tensor,
    d_new_state: tuple[Tensor, ...],
    with_inputs: bool,
    share: Share = keep,
) -> tuple[list[LSTMWeights], Tensor | None, tuple[Tensor, ...]]:
    """Computes the vector-Jacobian product of `stack_forward`.

    Args:
        weights: The layers' weights, first layer first.
        inputs: `[inputs, n]`, as given to `stack_forward`.
        state: The state that entered the step.
        new_state: The state that left it.
        gates: Every layer's, as returned by `pack`.
        d_output: Derivative with respect to the last layer's hidden state, `[units, n]`.
        d_new_state: Derivative with respect to `new_state`.
        with_inputs: Whether to compute the derivative with respect to `inputs`.
        share: As given to `stack_forward`.

    Returns:
        `(d_weights, d_inputs, d_state)`; `d_inputs` is None unless asked for.
    """
    d_weights: list[LSTMWeights] = []
    d_state: list[Tensor] = []
    d_above: Tensor | None = d_output
    for layer in reversed(range(len(weights))):
        h, c = state[2 * layer : 2 * layer + 2]
        d_h, d_c = d_new_state[2 * layer : 2 * layer + 2]
        d_layer, d_above, d_h, d_c = cell_backward(
            weights[layer],
            inputs if layer == 0 else new_state[2 * layer - 2],
            h,
            c,
            new_state[2 * layer + 1],
            gates[layer],
            share(d_h + d_above),
            d_c,
            with_inputs=with_inputs or layer > 0,
        )
        d_weights.insert(0, d_layer)
        d_state = [d_h, d_c, *d_state]
    return d_weights, d_above, tuple(d_state)
