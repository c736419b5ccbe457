"""What the LSTM of `TensorwiseLSTM` sees of each tensor; nothing of it depends on the loss' scale.

The RMS of every direction, and the cosines between them, come from their Gram matrix.
"""

from __future__ import annotations

import functools
import itertools
import math

import numpy as np
from keras import ops

from l2l_keras.rules.base import Shape, Tensor
from l2l_keras.rules.tensorwise.tensors import Tensors

TINY = 1e-12
"""Gradients with a smaller RMS count as zero."""

# Fan-ins and fan-outs are clipped to the widest layers of meta-training.
_WIDEST = 512
_SHAPE_FEATURES = 5
# Time scales, in steps, on which the LSTM can tell how many steps have passed.
_TIME_SCALES = (1.0, 10.0, 30.0, 100.0, 300.0, 1000.0)


def input_count(directions: int, units: int) -> int:
    """Returns the number of rows of `lstm_inputs`; the parameters count as a direction."""
    pairs = directions * (directions - 1) // 2
    return pairs + directions + 3 + _SHAPE_FEATURES + len(_TIME_SCALES) + units


def lstm_inputs(
    gram: Tensor,
    scales: Tensor,
    log_rate: Tensor,
    relative_step: Tensor,
    steps: Tensor,
    hidden: Tensor,
    tensors: Tensors,
) -> Tensor:
    """Returns the inputs of the LSTM, `[inputs, T]`.

    `gram` holds the Gram matrices of directions, the parameters last, `[k + 1, k + 1, T]`; `scales`
    the factors of the directions but the parameters, `[k, T]`; `hidden` is `[units, T]`; the other
    arrays are `[1, T]`. `relative_step` is the log of the last update's RMS over the parameters'.
    """
    directions = gram.shape[0]
    roots = ops.stack([rms(gram[k, k]) for k in range(directions)])
    inverse = 1.0 / ops.maximum(roots, TINY)
    cosines = gram * inverse[:, None] * inverse[None, :]
    cosines = ops.reshape(cosines, (directions**2, len(tensors)))
    weights = roots[-1:]
    root_of_fan_in = ops.convert_to_tensor(np.sqrt([tensors.fan_ins]), "float32")
    shapes = [_shape_features(*x) for x in zip(tensors.shapes, tensors.fan_ins, strict=True)]
    return ops.concatenate(
        [
            ops.matmul(ops.convert_to_tensor(_pairs(directions)), cosines),
            0.5 * ops.log(roots[:-1] * scales + 1e-3) + 0.5,
            0.5 * ops.log(weights + 1e-3) + 1.0,
            0.5 * ops.log(weights * root_of_fan_in + 1e-3),
            0.5 * log_rate - 0.5,
            0.25 * relative_step + 1.0,
            ops.convert_to_tensor(np.array(shapes, "float32").T),
            *(steps / (steps + scale) for scale in _TIME_SCALES),
            ops.broadcast_to(ops.mean(hidden, axis=1, keepdims=True), hidden.shape),
        ]
    )


def rms(mean_square: Tensor) -> Tensor:
    """Returns the root of a mean square; at least `TINY`, where its derivative is zero."""
    return ops.sqrt(ops.maximum(mean_square, TINY**2))


@functools.lru_cache
def _pairs(directions: int) -> np.ndarray:
    """Returns the matrix that picks all pairs from a flat square matrix."""
    pairs = itertools.combinations(range(directions), 2)
    return np.eye(directions**2, dtype="float32")[[i * directions + j for i, j in pairs]]


def _shape_features(shape: Shape, fan_in: int) -> list[float]:
    """Returns features of a tensor's shape, between 0 and about 1."""
    fan_out, rank = max(1, shape[-1]) if shape else 1, len(shape)
    widths = [math.log(min(width, _WIDEST)) / 5.0 for width in (fan_in, fan_out)]
    return [*widths, rank < 2, rank == 2, rank > 2]
