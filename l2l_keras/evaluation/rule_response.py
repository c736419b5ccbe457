"""How a rule responds to gradients.

An elementwise rule is shown the gradients of many weights at once, a rule of scope "model" those of
one weight after the other, and a tensorwise rule a matrix whose gradients agree more or less.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from l2l_keras.rules import Tensors, TensorwiseRule
from l2l_keras.rules.base import UpdateRule

_HISTORY_STEPS, _IMPULSE_STEPS = 10, 30

Lines = tuple[np.ndarray, dict[str, np.ndarray]]
"""Values of x `[n]`, and values of y by the name of a line, `[n]` each."""


def update_map(rule: UpdateRule, scale: float) -> Lines:
    """Computes updates for gradients from -3 s to 3 s, s = `scale`, by the name of a history.

    Source: Andrychowicz et al. (2016), appendix.
    """
    gradients = scale * np.linspace(-3.0, 3.0, 121, dtype=np.float32)
    histories = {
        "first step": [],
        f"after {_HISTORY_STEPS} gradients of 0": [0.0] * _HISTORY_STEPS,
        f"after {_HISTORY_STEPS} of s": [scale] * _HISTORY_STEPS,
        f"after {_HISTORY_STEPS} of -s": [-scale] * _HISTORY_STEPS,
        f"after {_HISTORY_STEPS} of s and -s in turn": [scale, -scale] * (_HISTORY_STEPS // 2),
    }
    updates = {name: updates_after(rule, past, gradients) for name, past in histories.items()}
    return gradients, updates


def impulse_map(rule: UpdateRule, scale: float) -> Lines:
    """Computes updates by steps since a single gradient, and the name of its size."""
    sizes = {f"gradient {factor:g} s": factor * scale for factor in (0.1, 1.0, 3.0)}
    responses = impulse_responses(rule, list(sizes.values()), _IMPULSE_STEPS)
    return np.arange(_IMPULSE_STEPS + 1), dict(zip(sizes, responses, strict=True))


def updates_after(rule: UpdateRule, history: Any, gradients: Any) -> np.ndarray:
    """Returns the update for each of several gradients `[n]` after a history `[steps]`."""
    gradients = np.asarray(gradients, np.float32)
    before = np.repeat(np.asarray(history, np.float32)[:, np.newaxis], len(gradients), axis=1)
    return _updates(rule, np.concatenate([before, gradients[np.newaxis]]))[-1]


def impulse_responses(rule: UpdateRule, gradients: Any, steps: int) -> np.ndarray:
    """Returns the effect of each of several first gradients `[n]` that only zeros follow.

    It is the updates 0 to `steps` steps later, less those after zeros alone: `[n, steps + 1]`.
    """
    gradients = np.asarray(gradients, np.float32)
    sequence = np.zeros((steps + 1, len(gradients) + 1), np.float32)
    sequence[0, :-1] = gradients
    updates = _updates(rule, sequence)
    return (updates[:, :-1] - updates[:, -1:]).T


def _updates(rule: UpdateRule, gradients: np.ndarray) -> np.ndarray:
    """Returns the updates for a sequence of gradients, both `[steps, n]`."""
    if rule.scope != "element" and gradients.shape[1] > 1:
        weights = np.split(gradients, gradients.shape[1], axis=1)
        return np.concatenate([_updates(rule, own) for own in weights], axis=1)
    state = rule.initial_state(gradients.shape[1])
    updates = []
    for gradient in gradients:
        update, state = rule.step(ops.convert_to_tensor(gradient), state)
        updates.append(ops.convert_to_numpy(update))
    return np.stack(updates)


class TensorResponse(NamedTuple):
    """How a tensorwise rule responds to a sequence of gradients: an array `[steps]` of each number.

    The step size is NaN if the rule reports none. Sizes of updates are RMS. Cosines are of the
    angles between updates and descent: the direction against the gradient without its noise, or
    against a gradient that is nothing but noise.
    """

    step_sizes: np.ndarray
    sizes: np.ndarray
    cosines: np.ndarray


def tensor_responses(
    rule: TensorwiseRule, steps: int = 300, side: int = 32, seed: int = 0
) -> dict[str, TensorResponse]:
    """Returns how a tensorwise rule updates a square matrix, by a description of the gradients."""
    parameters = np.random.default_rng((seed, 0)).normal(size=side**2) / np.sqrt(side)
    random = np.random.default_rng((seed, 1))
    signal, noise = random.normal(size=side**2), random.normal(size=(steps, side**2))
    always, never = np.ones((steps, 1)), np.zeros((steps, 1))
    alternating = (-1.0) ** np.arange(steps)[:, np.newaxis]
    early = 1.0 * (np.arange(steps)[:, np.newaxis] < steps // 3)
    factors = {
        "the same in each step": (always, never),
        "the same, with three times as much noise": (always, 3.0 * always),
        "one and its opposite in turn": (alternating, never),
        "the same for a third of the steps, then noise": (early, 1.0 - early),
        "noise": (never, always),
    }
    responses = {}
    for name, (of_signal, of_noise) in factors.items():
        gradients = of_signal * signal + of_noise * noise
        directions = np.where(of_signal, signal, gradients)
        responses[name] = _tensor_response(rule, parameters, gradients, directions)
    return responses


def _tensor_response(
    rule: TensorwiseRule, parameters: np.ndarray, gradients: np.ndarray, directions: np.ndarray
) -> TensorResponse:
    """Returns the response to gradients of a square matrix, `[steps, parameters]`."""
    size = len(parameters)
    side = math.isqrt(size)
    tensors = Tensors([(side, side)])
    state = rule.initial_state(size, 1)
    rows = []
    for gradient, direction in zip(gradients, directions, strict=True):
        g, theta = (ops.convert_to_tensor(v.astype("float32")) for v in (gradient, parameters))
        update, state = rule.step(g, state, theta, tensors)
        move = ops.convert_to_numpy(update).astype("float64")
        parameters = parameters + move
        norm = np.linalg.norm(move)
        cosine = -(move @ direction) / max(norm * np.linalg.norm(direction), 1e-30)
        step_size = rule.diagnose(state[-1]).get("step size", np.nan)
        rows.append((float(step_size), norm / side, cosine))
    return TensorResponse(*np.array(rows).T)
