"""How a rule responds to gradients.

An elementwise rule is shown the gradients of many weights at once, a rule of scope "model" those of
one weight after the other, and a tensorwise rule a matrix whose gradients agree more or less. Adam
is there to compare them with.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
from keras import ops

from l2l_keras.rules import Tensors, TensorwiseRule, moments
from l2l_keras.rules.base import State, Tensor, UpdateRule

SIDE = 32
"""Rows and columns of the matrix that tensorwise rules are shown."""
_HISTORY_STEPS, _IMPULSE_STEPS = 10, 30

Lines = tuple[np.ndarray, dict[str, np.ndarray]]
"""Values of x `[n]`, and values of y by the name of a line, `[n]` each."""


class Adam(UpdateRule):
    """Adam with Keras' defaults, as a rule."""

    learning_rate = 1e-3

    @property
    def state_rows(self) -> tuple[int, ...]:
        """Rows of the moments."""
        return moments.ROWS

    def step(self, gradient: Tensor, state: State) -> tuple[Tensor, State]:
        """See `UpdateRule.step`."""
        mean, rms, state = moments.update(gradient[None], state, 0.9, 0.999, 1e-7)
        return -self.learning_rate * (mean / rms)[0], state


def update_map(rule: UpdateRule, scale: float) -> Lines:
    """Computes updates for gradients from -3 to 3 in units of `scale`, by the name of a history.

    Source: Andrychowicz et al. (2016), appendix.
    """
    gradients = np.linspace(-3.0, 3.0, 121)
    histories = {
        "first step": [],
        f"after {_HISTORY_STEPS} gradients of 0": [0.0] * _HISTORY_STEPS,
        f"after {_HISTORY_STEPS} gradients of 1": [1.0] * _HISTORY_STEPS,
        f"after {_HISTORY_STEPS} gradients of -1": [-1.0] * _HISTORY_STEPS,
        f"after {_HISTORY_STEPS} gradients of 1 and -1 in turn": [1.0, -1.0]
        * (_HISTORY_STEPS // 2),
    }
    return gradients, {
        name: updates_after(rule, scale * np.array(past), scale * gradients)
        for name, past in histories.items()
    }


def impulse_map(rule: UpdateRule, scale: float) -> Lines:
    """Computes updates by steps since a single gradient, and the name of its size."""
    sizes = (0.1, 1.0, 3.0)
    responses = impulse_responses(rule, scale * np.array(sizes), _IMPULSE_STEPS)
    names = (f"gradient of {size:g}" for size in sizes)
    return np.arange(_IMPULSE_STEPS + 1), dict(zip(names, responses, strict=True))


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
        update, state = rule.step(ops.convert_to_tensor(gradient.astype("float32")), state)
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
    rule: TensorwiseRule | Adam, steps: int = 300, side: int = SIDE, seed: int = 0
) -> dict[str, TensorResponse]:
    """Returns how a rule updates a square matrix, by a description of the gradients."""
    parameters = np.random.default_rng((seed, 0)).normal(size=side**2) / np.sqrt(side)
    random = np.random.default_rng((seed, 1))
    signal, noise = random.normal(size=side**2), random.normal(size=(steps, side**2))
    always, never = np.ones((steps, 1)), np.zeros((steps, 1))
    alternating = (-1.0) ** np.arange(steps)[:, np.newaxis]
    early = 1.0 * (np.arange(steps)[:, np.newaxis] < steps // 3)
    factors = {
        "the same gradient in each step": (always, never),
        "the same plus three times as much noise": (always, 3.0 * always),
        "one gradient and its opposite in turn": (alternating, never),
        "the same for a third of the steps, then noise": (early, 1.0 - early),
        "noise only": (never, always),
    }
    responses = {}
    for name, (of_signal, of_noise) in factors.items():
        gradients = of_signal * signal + of_noise * noise
        if isinstance(rule, TensorwiseRule):
            step_sizes, moves = _moves(rule, parameters, gradients)
        else:
            step_sizes, moves = np.full(steps, rule.learning_rate), _updates(rule, gradients)
        directions = np.where(of_signal, signal, gradients)
        norms, lengths = (np.linalg.norm(v, axis=1) for v in (moves, directions))
        cosines = -np.sum(moves * directions, axis=1) / np.maximum(norms * lengths, 1e-30)
        responses[name] = TensorResponse(step_sizes, norms / side, cosines)
    return responses


def _moves(
    rule: TensorwiseRule, parameters: np.ndarray, gradients: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Returns step sizes `[steps]` and updates of a square matrix for `[steps, parameters]`."""
    size = len(parameters)
    side = math.isqrt(size)
    tensors = Tensors([(side, side)])
    state = rule.initial_state(size, 1)
    step_sizes, moves = [], []
    for gradient in gradients:
        g, theta = (ops.convert_to_tensor(v.astype("float32")) for v in (gradient, parameters))
        update, state = rule.step(g, state, theta, tensors)
        moves.append(ops.convert_to_numpy(update).astype("float64"))
        parameters = parameters + moves[-1]
        step_sizes.append(float(rule.diagnose(state[-1]).get("step size", np.nan)))
    return np.array(step_sizes), np.stack(moves)
