"""A stack of LSTM layers over many elements: one step, and its derivative.

Elements are the last axis (`[units, n]`), so that every gate is one contiguous block of rows. The
derivative is written by hand, since it decides the speed and the memory of meta-training: of each
step, it needs only the gates' activations, and it costs two matrix products a layer.

Source: Hochreiter and Schmidhuber (1997), with forget gates (Gers et al., 2000).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import keras
from keras import ops

Tensor = Any
State = tuple[Tensor, ...]


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


def forward(
    weights: list[LSTMWeights], inputs: Tensor, state: State, averaged_units: int = 0
) -> tuple[State, State]:
    """Computes one step of a stack of layers.

    Args:
        weights: The layers' weights, first layer first.
        inputs: `[inputs, n]`.
        state: `(h, c)` of the first layer, then of the second and so on, each `[units, n]`.
        averaged_units: How many units of each layer put out their mean over elements. Defaults to
            0.

    Returns:
        `(state, activations)`: the next state, and each layer's activations of the gates,
        `[4 * units, n]` in [-1, 1]. The stack's output is the last layer's hidden state.
    """
    new_state: list[Tensor] = []
    all_activations = []
    for layer, layer_weights in enumerate(weights):
        h, c = state[2 * layer : 2 * layer + 2]
        h, c, activations = _cell_forward(layer_weights, inputs, h, c)
        inputs = _average_first(h, averaged_units)
        new_state += [inputs, c]
        all_activations.append(activations)
    return tuple(new_state), tuple(all_activations)


def replay(activations: State, state: State, averaged_units: int = 0) -> State:
    """Computes the state after one step of a stack of layers again, without matrix products.

    Args:
        activations: As returned by `forward`.
        state: The state before the step.
        averaged_units: As in `forward`.

    Returns:
        The state after the step.
    """
    new_state: list[Tensor] = []
    for layer_activations, c in zip(activations, state[1::2], strict=True):
        h, c = _next_state(layer_activations, c)
        new_state += [_average_first(h, averaged_units), c]
    return tuple(new_state)


def backward(
    weights: list[LSTMWeights],
    inputs: Tensor,
    state: State,
    new_state: State,
    activations: State,
    d_output: Tensor,
    d_new_state: State,
    with_inputs: bool,
    averaged_units: int = 0,
) -> tuple[list[LSTMWeights], Tensor | None, State]:
    """Computes the vector-Jacobian product of `forward`.

    Args:
        weights: The layers' weights, first layer first.
        inputs: `[inputs, n]`, as given to `forward`.
        state: The state before the step.
        new_state: The state after it.
        activations: As returned by `forward`.
        d_output: Derivative with respect to the last layer's hidden state, `[units, n]`.
        d_new_state: Derivative with respect to `new_state`.
        with_inputs: Whether to compute the derivative with respect to `inputs`.
        averaged_units: As in `forward`.

    Returns:
        `(d_weights, d_inputs, d_state)`; `d_inputs` is None unless asked for.
    """
    d_weights: list[LSTMWeights] = []
    d_state: list[Tensor] = []
    d_above: Tensor | None = d_output
    for layer in reversed(range(len(weights))):
        h, c = state[2 * layer : 2 * layer + 2]
        d_h, d_c = d_new_state[2 * layer : 2 * layer + 2]
        d_layer, d_above, d_h, d_c = _cell_backward(
            weights[layer],
            inputs if layer == 0 else new_state[2 * layer - 2],
            h,
            c,
            new_state[2 * layer + 1],
            activations[layer],
            # A mean over elements is a symmetric linear map: its own transpose.
            _average_first(d_h + d_above, averaged_units),
            d_c,
            with_inputs=with_inputs or layer > 0,
        )
        d_weights.insert(0, d_layer)
        d_state = [d_h, d_c, *d_state]
    return d_weights, d_above, tuple(d_state)


def pack(activations: State) -> State:
    """Rounds activations of gates to 16-bit integers: half the memory, an error of 1.5e-5.

    A 16-bit float would have 16 times that error where a gate is open or closed.

    Args:
        activations: As returned by `forward`.

    Returns:
        As many int16 arrays of the same shapes.
    """
    return tuple(ops.cast(ops.round(layer * 32767.0), "int16") for layer in activations)


def unpack(packed: State) -> State:
    """Undoes `pack`, up to the rounding."""
    return tuple(ops.cast(layer, "float32") * (1.0 / 32767.0) for layer in packed)


def _cell_forward(
    weights: LSTMWeights, inputs: Tensor, h: Tensor, c: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Computes one step of one layer; returns `(h, c, activations)`."""
    scale = _gate_scale(h.shape[0])
    kernel = scale * ops.concatenate([weights.recurrent_kernel, weights.kernel], axis=1)
    bias = scale * ops.expand_dims(weights.bias, 1)
    activations = _tanh(ops.matmul(kernel, ops.concatenate([h, inputs])) + bias)
    return *_next_state(activations, c), activations


def _cell_backward(
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
    """Differentiates `_cell_forward`; returns `(d_weights, d_inputs, d_h, d_c)`."""
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


def _next_state(activations: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """Returns `(h, c)` after a step with given activations of the gates."""
    i, f, g, o = _gates(activations)
    c = f * c + i * g
    return o * _tanh(c), c


def _gates(activations: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the input, forget, candidate and output gate of `[4 * units, n]` activations."""
    units = activations.shape[0] // 4
    i, f, g, o = (activations[k * units : (k + 1) * units] for k in range(4))
    return 0.5 * i + 0.5, 0.5 * f + 0.5, g, 0.5 * o + 0.5


def _gate_scale(units: int) -> Tensor:
    """Returns `[4 * units, 1]` factors that make every gate a tanh: σ(x) = (1 + tanh(x/2)) / 2."""
    half = ops.full((units, 1), 0.5, "float32")
    return ops.concatenate([half, half, ops.ones((units, 1), "float32"), half])


def _average_first(hidden: Tensor, count: int) -> Tensor:
    """Averages the first `count` rows of `[units, n]` over elements."""
    if not count:
        return hidden
    mean = ops.mean(hidden[:count], axis=1, keepdims=True)
    return ops.concatenate([ops.broadcast_to(mean, hidden[:count].shape), hidden[count:]])


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
