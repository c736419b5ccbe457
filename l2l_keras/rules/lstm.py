"""A stack of LSTM layers over many coordinates: its forward step and its derivative.

Coordinates are the last axis (`[units, n]`), so that every gate is one contiguous block of rows.
The derivative is written by hand, since it decides the speed of meta-training: it keeps the gates'
activations only, and leaves each layer two matrix products. Under XLA a `concatenate` of computed
blocks is evaluated element by element, with a branch for each: `slice_update` of the same blocks
is not (36 against 31 % of the speed of a matrix product on one core).

Source: Hochreiter and Schmidhuber (1997), with forget gates (Gers et al., 2000).
"""

from __future__ import annotations

from typing import Any, NamedTuple

from keras import ops

Tensor = Any


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


def _gate_scale(units: int) -> Tensor:
    """Returns `[4 * units, 1]` factors that make every gate a tanh: σ(x) = (1 + tanh(x/2)) / 2."""
    half = ops.full((units, 1), 0.5, "float32")
    return ops.concatenate([half, half, ops.ones((units, 1), "float32"), half])


def _split(activations: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Returns the input, forget, candidate and output gate of `[4 * units, n]` activations."""
    units = activations.shape[0] // 4
    i, f, g, o = (activations[k * units : (k + 1) * units] for k in range(4))
    return 0.5 * i + 0.5, 0.5 * f + 0.5, g, 0.5 * o + 0.5


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
        `(h, c, activations)`: the next states, and the gates as `cell_backward` takes them,
        `[4 * units, n]`.
    """
    scale = _gate_scale(h.shape[0])
    kernel = scale * ops.concatenate([weights.recurrent_kernel, weights.kernel], axis=1)
    bias = scale * ops.expand_dims(weights.bias, 1)
    activations = ops.tanh(ops.matmul(kernel, ops.concatenate([h, inputs])) + bias)
    i, f, g, o = _split(activations)
    c = f * c + i * g
    return o * ops.tanh(c), c, activations


def cell_backward(
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
    """Computes the vector-Jacobian product of `cell_forward`.

    Args:
        weights: The layer's weights.
        inputs: `[inputs, n]`, as given to `cell_forward`.
        h: Hidden state that entered the step, `[units, n]`.
        c: Cell state that entered the step, `[units, n]`.
        new_c: Cell state that left it, `[units, n]`.
        activations: As returned by `cell_forward`, `[4 * units, n]`.
        d_h: Derivative with respect to the hidden state that left the step, `[units, n]`.
        d_c: The same with respect to `new_c`.
        with_inputs: Whether to compute the derivative with respect to `inputs`.

    Returns:
        `(d_weights, d_inputs, d_h, d_c)`; `d_inputs` is None unless asked for.
    """
    units, n = h.shape
    i, f, g, o = _split(activations)
    tanh_c = ops.tanh(new_c)
    d_c = d_c + d_h * o * (1.0 - tanh_c * tanh_c)
    # σ' in terms of σ, halved: it is taken with respect to the scaled pre-activation.
    d_gates = (
        d_c * g * (2.0 * i * (1.0 - i)),
        d_c * c * (2.0 * f * (1.0 - f)),
        d_c * i * (1.0 - g * g),
        d_h * tanh_c * (2.0 * o * (1.0 - o)),
    )
    d_pre = ops.zeros((4 * units, n), "float32")
    for k, d_gate in enumerate(d_gates):
        d_pre = ops.slice_update(d_pre, (k * units, 0), d_gate)
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
    weights: list[LSTMWeights], inputs: Tensor, state: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    """Computes one step of a stack of layers.

    Args:
        weights: The layers' weights, first layer first.
        inputs: `[inputs, n]`.
        state: `(h, c)` of the first layer, then of the second and so on, each `[units, n]`.

    Returns:
        `(state, activations)`: the next state and every layer's activations. The stack's output
        is the last layer's hidden state.
    """
    new_state: list[Tensor] = []
    all_activations = []
    for layer, layer_weights in enumerate(weights):
        h, c = state[2 * layer : 2 * layer + 2]
        h, c, activations = cell_forward(layer_weights, inputs, h, c)
        new_state += [h, c]
        all_activations.append(activations)
        inputs = h
    return tuple(new_state), tuple(all_activations)


def stack_backward(
    weights: list[LSTMWeights],
    inputs: Tensor,
    state: tuple[Tensor, ...],
    new_state: tuple[Tensor, ...],
    activations: tuple[Tensor, ...],
    d_output: Tensor,
    d_new_state: tuple[Tensor, ...],
    with_inputs: bool,
) -> tuple[list[LSTMWeights], Tensor | None, tuple[Tensor, ...]]:
    """Computes the vector-Jacobian product of `stack_forward`.

    Args:
        weights: The layers' weights, first layer first.
        inputs: `[inputs, n]`, as given to `stack_forward`.
        state: The state that entered the step.
        new_state: The state that left it.
        activations: As returned by `stack_forward`.
        d_output: Derivative with respect to the last layer's hidden state, `[units, n]`.
        d_new_state: Derivative with respect to `new_state`.
        with_inputs: Whether to compute the derivative with respect to `inputs`.

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
            activations[layer],
            d_h + d_above,
            d_c,
            with_inputs=with_inputs or layer > 0,
        )
        d_weights.insert(0, d_layer)
        d_state = [d_h, d_c, *d_state]
    return d_weights, d_above, tuple(d_state)
