"""What a rule has learned, looked at from outside: its updates as a function of gradients.

A rule that treats every coordinate by itself is a function of one coordinate's gradients, so a
whole grid of them goes through it at once, one coordinate each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from l2l_keras.rules.base import UpdateRule


def updates_after(rule: UpdateRule, history: Any, gradients: Any) -> np.ndarray:
    """Computes what a rule proposes for gradients that come after others.

    Args:
        rule: A rule that treats every coordinate by itself.
        history: Gradients that the coordinate has seen before, first one first, `[steps]`.
        gradients: Gradients that may come next, `[n]`.

    Returns:
        The update for each of them, float32 `[n]`.

    Raises:
        ValueError: If an argument is not of the shape described.

    Example:
        >>> rule, _ = l2l_keras.presets.load_preset("quadratic")
        >>> updates = l2l_keras.evaluation.updates_after(rule, [1.0, 1.0], [-2.0, 0.0, 2.0])
        >>> bool(updates[0] > updates[2])  # Against the gradient.
        True

    Source: Andrychowicz et al. (2016), appendix (the learned update as a function of the gradient).
    """
    history = _vector("history", history)
    gradients = _vector("gradients", gradients)
    before = np.broadcast_to(history[:, np.newaxis], (len(history), len(gradients)))
    return _updates(rule, np.concatenate([before, gradients[np.newaxis]]))[-1]


def impulse_responses(rule: UpdateRule, gradients: Any, steps: int) -> np.ndarray:
    """Computes how a rule answers to a single gradient, at once and later.

    Args:
        rule: A rule that treats every coordinate by itself.
        gradients: Gradients that come first, one for each response, `[n]`; only zeros follow.
        steps: How many steps to follow each.

    Returns:
        Updates t = 0 to `steps` steps after the gradient, less those where there never is one:
        float32 `[n, steps + 1]`.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> rule = l2l_keras.rules.MomentumLSTM(seed=0)
        >>> l2l_keras.evaluation.impulse_responses(rule, [0.1, 1.0], steps=5).shape
        (2, 6)
    """
    gradients = _vector("gradients", gradients)
    if steps < 0:
        raise ValueError(f"`steps` must not be negative. Received: {steps}")
    sequence = np.zeros((steps + 1, len(gradients) + 1), np.float32)
    sequence[0, :-1] = gradients
    updates = _updates(rule, sequence)
    return (updates[:, :-1] - updates[:, -1:]).T


def _vector(argument: str, values: Any) -> np.ndarray:
    """Returns values as a float32 vector, or raises where they are none."""
    vector = np.asarray(values, np.float32)
    if vector.ndim != 1:
        raise ValueError(f"`{argument}` must be a vector. Received: shape {vector.shape}")
    return vector


def _updates(rule: UpdateRule, gradients: np.ndarray) -> np.ndarray:
    """Returns the updates for a sequence of gradients, both `[steps, n]`."""
    state = rule.initial_state(gradients.shape[1])
    updates = []
    for gradient in gradients:
        update, state = rule.step(ops.convert_to_tensor(gradient), state)
        updates.append(ops.convert_to_numpy(update))
    return np.stack(updates)
