"""What a tensorwise rule has learned, looked at from outside: how it answers to kinds of gradients.

Such a rule sees how the gradients of a tensor agree with each other over time, and decides how far
to go. It is shown a matrix whose gradients agree more or less, and may change their minds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
from keras import ops

from l2l_keras.rules import Tensors, TensorwiseRule

Parts = Callable[[int, int], tuple[float, float]]


class TensorResponse(NamedTuple):
    """How a rule answers to a sequence of gradients.

    Attributes:
        step_sizes: What the rule says of its step size, `[steps]`; NaN if it says nothing.
        sizes: Root mean squares of the updates, `[steps]`.
        cosines: Cosines of the angles between updates and the direction against what the gradient
            is without noise, or against the gradient where it is nothing but noise, `[steps]`.
    """

    step_sizes: np.ndarray
    sizes: np.ndarray
    cosines: np.ndarray


def tensor_responses(
    rule: TensorwiseRule, steps: int = 300, side: int = 32, seed: int = 0
) -> dict[str, TensorResponse]:
    """Computes how a rule answers to several sequences of gradients.

    Args:
        rule: The rule.
        steps: Steps of a sequence. Defaults to 300.
        side: The tensor is a matrix of so many rows and columns. Defaults to 32.
        seed: Seed of the matrix and the gradients. Defaults to 0.

    Returns:
        The responses, by what the gradients are.

    Raises:
        ValueError: If `steps` or `side` is not positive.

    Example:
        >>> rule = l2l_keras.rules.TensorwiseLSTM(seed=0)
        >>> responses = l2l_keras.evaluation.tensor_responses(rule, steps=3, side=4)
        >>> responses["the same in each step"].cosines.shape
        (3,)
    """
    if steps < 1 or side < 1:
        raise ValueError(
            f"`steps` and `side` must be positive. Received: steps={steps}, side={side}"
        )
    return {
        name: _response(rule, list(_gradients(parts, steps, side, seed)), side, seed)
        for name, parts in _SEQUENCES.items()
    }


def _gradients(
    parts: Parts, steps: int, side: int, seed: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields gradients, and what updates are compared with, both `[side²]`."""
    random = np.random.default_rng((seed, 1))
    signal = random.normal(size=side**2)
    for step in range(steps):
        share, noise = parts(step, steps)
        gradient = share * signal + noise * random.normal(size=signal.size)
        yield gradient.astype("float32"), signal if share else gradient


def _response(
    rule: TensorwiseRule, gradients: list[tuple[np.ndarray, np.ndarray]], side: int, seed: int
) -> TensorResponse:
    tensors = Tensors([(side, side)])
    parameters = np.random.default_rng((seed, 0)).normal(size=side**2) / np.sqrt(side)
    state = rule.initial_state(side**2, 1)
    rows = []
    for gradient, compared in gradients:
        theta = ops.convert_to_tensor(parameters.astype("float32"))
        update, state = rule.step(ops.convert_to_tensor(gradient), state, theta, tensors)
        move = ops.convert_to_numpy(update).astype("float64")
        parameters = parameters + move
        norm = np.linalg.norm(move)
        cosine = -(move @ compared) / max(norm * np.linalg.norm(compared), 1e-30)
        step_size = rule.diagnose(state[-1]).get("step size", np.nan)
        rows.append((float(step_size), norm / side, cosine))
    return TensorResponse(*np.array(rows).T)


# The parts of one matrix, and of a fresh one, in the gradient of a step, given how many there are.
_SEQUENCES: dict[str, Parts] = {
    "the same in each step": lambda step, steps: (1.0, 0.0),
    "the same, with three times as much noise": lambda step, steps: (1.0, 3.0),
    "one and its opposite in turn": lambda step, steps: ((-1.0) ** step, 0.0),
    "the same for a third of the steps, then noise": lambda step, steps: (
        (1.0, 0.0) if step < steps // 3 else (0.0, 1.0)
    ),
    "noise": lambda step, steps: (0.0, 1.0),
}
