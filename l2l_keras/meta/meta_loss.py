"""Meta-losses: what meta-training minimises, as a function of an optimizee's losses."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

Tensor = Any

_EPSILON = 1e-8
# What the part of the initial loss that is left is raised to by `"log_relative"`: what is gained by
# a factor counts half as much once a thousandth is left, and a tenth at 1e-10.
_POWER = 0.1


def _log_of(losses: Tensor) -> Tensor:
    return tf.math.log(tf.maximum(losses, 0.0) + _EPSILON)


def _mean(losses: Tensor, initial: Tensor, weights: Tensor) -> Tensor:
    del initial
    return tf.reduce_mean(weights * losses)


def _log(losses: Tensor, initial: Tensor, weights: Tensor) -> Tensor:
    del initial
    return tf.reduce_mean(weights * _log_of(losses))


def _log_mean(losses: Tensor, initial: Tensor, weights: Tensor) -> Tensor:
    del initial
    means = tf.reduce_mean(tf.maximum(losses, 0.0), axis=1, keepdims=True)
    return tf.reduce_mean(weights * _log_of(means))


def _means(losses: Tensor, weights: Tensor) -> Tensor:
    return tf.reduce_sum(weights * losses, axis=0) / (tf.reduce_sum(weights, axis=0) + _EPSILON)


def _log_window(losses: Tensor, initial: Tensor, weights: Tensor) -> Tensor:
    del initial
    return tf.reduce_mean(_log_of(_means(losses, weights)))


def _log_relative(losses: Tensor, initial: Tensor, weights: Tensor) -> Tensor:
    # The logarithm of losses, which may be tiny, first: that of zero has a derivative.
    logs = _log_of(_means(losses, weights)) - _log_of(tf.abs(initial))
    return tf.reduce_mean(tf.math.expm1(_POWER * logs) / _POWER)


def _relative(losses: Tensor, initial: Tensor, weights: Tensor) -> Tensor:
    return tf.reduce_mean(weights * losses / (tf.abs(initial) + _EPSILON))


META_LOSSES = {
    "mean": _mean,
    "log": _log,
    "log_mean": _log_mean,
    "log_window": _log_window,
    "log_relative": _log_relative,
    "relative": _relative,
}
"""Meta-losses of a window by name. `"mean"`: the mean of its losses, the paper's choice. `"log"`:
that of their logarithms, for losses that fall over orders of magnitude or differ between functions.
`"log_mean"`: that of the logarithms of means over functions side by side, for losses that fall over
orders of magnitude while the few functions that are worst off shall count. `"log_window"`: the
logarithm of the mean loss of a window, for tasks whose losses differ and are noisy: what is gained
in a task with a large loss is worth no more than in one with a small loss, and a lucky minibatch is
worth no more than another. `"log_relative"`: nearly that of the part r of the initial loss that is
left, (r^0.1 - 1) / 0.1, so that tasks which are learned by heart, whose losses fall over ever more
orders of magnitude, do not drown the others. `"relative"`: the mean of the losses over the
optimizee's initial loss."""

STEP_WEIGHTS = {
    "uniform": lambda progress: tf.ones_like(progress),
    "linear": lambda progress: 2.0 * progress,
    "final": lambda progress: 5.0 * tf.cast(progress > 0.8, progress.dtype),
}
"""Weights w_t of an episode's steps by name, functions of t / T in (0, 1], 1 on average.
`"uniform"`: the paper's w_t = 1. `"linear"`: growing, for a low loss at the end. `"final"`: the
last fifth only; for an unroll as long as the horizon, since earlier windows would learn nothing."""


def window_loss(
    name: str, step_weights: str, losses: Tensor, initial: Tensor, progress: Tensor
) -> Tensor:
    """Computes the meta-loss of a window: the weighted mean over its steps and functions.

    Args:
        name: One of `META_LOSSES`.
        step_weights: One of `STEP_WEIGHTS`.
        losses: f(θ_t) of the window's steps, float32 `[unroll, functions]`.
        initial: f(θ_0), float32 `[functions]`.
        progress: t / T of the window's steps, float32 `[unroll]`.

    Returns:
        A scalar.

    Source: Andrychowicz et al. (2016), equation 3 (weights); Chen et al. (2020) and others (log).
    """
    weights = STEP_WEIGHTS[step_weights](progress)[:, None]
    return META_LOSSES[name](losses, initial, weights)
