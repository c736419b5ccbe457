"""Meta-losses: what meta-training minimizes, as functions of an optimizee's losses."""

from __future__ import annotations

import tensorflow as tf

from l2l_keras.tasks.base import Tensor

_EPSILON = 1e-8
# Exponent of the remaining part of the initial loss in `"log_relative"`: a gain by a factor counts
# half as much at a remaining thousandth, and a tenth as much at 1e-10.
_POWER = 0.1


def _log_of(losses: Tensor) -> Tensor:
    return tf.math.log(tf.maximum(losses, 0.0) + _EPSILON)


def _mean(losses: Tensor, _: Tensor, weights: Tensor) -> Tensor:
    return tf.reduce_mean(weights * losses)


def _log(losses: Tensor, _: Tensor, weights: Tensor) -> Tensor:
    return tf.reduce_mean(weights * _log_of(losses))


def _log_mean(losses: Tensor, _: Tensor, weights: Tensor) -> Tensor:
    means = tf.reduce_mean(tf.maximum(losses, 0.0), axis=1, keepdims=True)
    return tf.reduce_mean(weights * _log_of(means))


def _window_means(losses: Tensor, weights: Tensor) -> Tensor:
    return tf.reduce_sum(weights * losses, axis=0) / (tf.reduce_sum(weights, axis=0) + _EPSILON)


def _log_window(losses: Tensor, _: Tensor, weights: Tensor) -> Tensor:
    return tf.reduce_mean(_log_of(_window_means(losses, weights)))


def _log_relative(losses: Tensor, initial: Tensor, weights: Tensor) -> Tensor:
    # Logarithms first, since losses may be tiny: the logarithm here of zero has a derivative.
    logs = _log_of(_window_means(losses, weights)) - _log_of(tf.abs(initial))
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
the mean of their logarithms, for losses that fall over orders of magnitude or differ between
functions. `"log_mean"`: the mean over steps of the logarithm of the mean over functions, which is
about the functions with the largest losses. `"log_window"`: the logarithm of the window's mean
loss, for tasks whose losses differ and are noisy: the same factor counts the same in every task,
and a lucky minibatch counts no more than others. `"log_relative"`: nearly the logarithm of the
remaining part r of the initial loss, (r^0.1 - 1) / 0.1, so that tasks which are memorized, whose
losses fall over ever more orders of magnitude, do not dominate. `"relative"`: the mean of the
losses divided by the initial loss."""

STEP_WEIGHTS = {
    "uniform": tf.ones_like,
    "linear": lambda progress: 2.0 * progress,
    "final": lambda progress: 5.0 * tf.cast(progress > 0.8, progress.dtype),
}
"""Weights w_t of an episode's steps by name, functions of t / T in (0, 1], 1 on average.
`"uniform"`: the paper's w_t = 1. `"linear"`: growing, for a low loss at the end. `"final"`: the
last fifth only; for an unroll as long as the horizon, since earlier windows would learn nothing."""
