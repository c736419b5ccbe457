"""What a rule has learned, looked at from outside: its updates as a function of gradients.

A rule that treats every coordinate by itself is a function of one coordinate's gradients, so a
whole grid of them goes through it at once, one coordinate each. A coupled one is given one problem
of a single coordinate after the other.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from keras import ops

from l2l_keras.rules.base import UpdateRule

# Steps of histories, and those for which answers to a single gradient are followed.
_HISTORY, _RESPONSE = 10, 30

Lines = tuple[np.ndarray, dict[str, np.ndarray]]
"""Places `[n]`, and values there by the name of a line, `[n]` each."""


def update_map(rule: UpdateRule, scale: float) -> Lines:
    """Computes updates as a function of the gradient, after several histories.

    Args:
        rule: A rule, which is shown a single coordinate.
        scale: Size s of a usual gradient.

    Returns:
        Gradients from -3 s to 3 s, and the updates by the name of a history.

    Example:
        >>> gradients, updates = update_map(l2l_keras.rules.RNNprop(seed=0), scale=0.1)
        >>> len(gradients), list(updates)[0]
        (121, 'first step')
    """
    gradients = scale * np.linspace(-3.0, 3.0, 121, dtype=np.float32)
    histories = {
        "first step": [],
        f"after {_HISTORY} gradients of 0": [0.0] * _HISTORY,
        f"after {_HISTORY} of s": [scale] * _HISTORY,
        f"after {_HISTORY} of -s": [-scale] * _HISTORY,
        f"after {_HISTORY} of s and -s in turn": [scale, -scale] * (_HISTORY // 2),
    }
    return gradients, {
        name: updates_after(rule, past, gradients) for name, past in histories.items()
    }


def impulse_map(rule: UpdateRule, scale: float) -> Lines:
    """Computes for how long a single gradient has its effect.

    Args:
        rule: As in `update_map`.
        scale: As in `update_map`.

    Returns:
        Steps since the gradient, and the updates then by the name of its size.

    Example:
        >>> steps, updates = impulse_map(l2l_keras.rules.RNNprop(seed=0), scale=0.1)
        >>> len(steps), list(updates)[0]
        (31, 'gradient 0.1 s')
    """
    sizes = {f"gradient {factor:g} s": factor * scale for factor in (0.1, 1.0, 3.0)}
    answers = impulse_responses(rule, list(sizes.values()), _RESPONSE)
    return np.arange(_RESPONSE + 1), dict(zip(sizes, answers, strict=True))


def updates_after(rule: UpdateRule, history: Any, gradients: Any) -> np.ndarray:
    """Computes what a rule proposes for gradients that come after others.

    Args:
        rule: A rule, which is shown a single coordinate.
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
        rule: A rule, which is shown a single coordinate.
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
    if rule.coupled and gradients.shape[1] > 1:
        columns = np.split(gradients, gradients.shape[1], axis=1)
        return np.concatenate([_updates(rule, column) for column in columns], axis=1)
    state = rule.initial_state(gradients.shape[1])
    updates = []
    for gradient in gradients:
        update, state = rule.step(ops.convert_to_tensor(gradient), state)
        updates.append(ops.convert_to_numpy(update))
    return np.stack(updates)
