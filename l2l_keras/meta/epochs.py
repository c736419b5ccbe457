"""How many epochs of meta-training there is time for, and the meta-optimizer that fits them."""

from __future__ import annotations

import math
import time
from typing import Any

import keras

from l2l_keras.meta.trainer import MetaModel


class _CosineDecay(keras.optimizers.schedules.CosineDecay):
    """A cosine decay that a variable multiplies."""

    def __init__(self, learning_rate: float, updates: int, factor: keras.Variable | None) -> None:
        super().__init__(learning_rate, updates, alpha=0.01)
        self._factor = factor

    def __call__(self, step: Any) -> Any:
        rate = super().__call__(step)
        return rate if self._factor is None else rate * self._factor


def adam(
    learning_rate: float,
    updates: int,
    clip: float | None = None,
    ema_momentum: float | None = None,
    factor: keras.Variable | None = None,
) -> keras.optimizers.Adam:
    """Returns Adam for meta-training, with a learning rate that falls as a cosine.

    Args:
        learning_rate: The first one.
        updates: Meta-updates until it has fallen to a hundredth.
        clip: Largest global norm of a meta-gradient. Defaults to None.
        ema_momentum: Momentum of the moving average of weights. Defaults to None, for no average.
        factor: A variable that multiplies the learning rate; see `Backtrack`. Defaults to None.

    Example:
        >>> l2l_keras.meta.adam(0.01, updates=100, clip=1.0, ema_momentum=0.98).use_ema
        True
    """
    averaging = {} if ema_momentum is None else {"use_ema": True, "ema_momentum": ema_momentum}
    return keras.optimizers.Adam(
        _CosineDecay(learning_rate, updates, factor), global_clipnorm=clip, **averaging
    )


def epochs_within(
    minutes: float, meta_model: MetaModel, windows: int, validation_episodes: int
) -> int:
    """Returns how many epochs take about so many minutes, one or more.

    An eighth of an epoch is run, and undone.

    Args:
        minutes: The time.
        meta_model: A compiled model.
        windows: Training steps in an epoch.
        validation_episodes: Validation optimizees of each task.

    Example:
        >>> rule = l2l_keras.rules.RNNprop(units=(4,), seed=0)
        >>> meta_model = l2l_keras.meta.MetaModel(rule, l2l_keras.tasks.Quadratic(functions=8))
        >>> meta_model.compile("adam")
        >>> l2l_keras.meta.epochs_within(10, meta_model, windows=5, validation_episodes=1) > 10
        True
    """
    variables = [*meta_model.variables, *meta_model.optimizer.variables]
    values = [keras.ops.convert_to_numpy(v) for v in variables]
    part, validation_part = (math.ceil(n / 8) for n in (windows, validation_episodes))
    meta_model.fit(1, 1, min(1, validation_part), verbose=0)  # Compiles.
    begin = time.monotonic()
    meta_model.fit(1, part, validation_part, verbose=0)
    seconds = (time.monotonic() - begin) * windows / part
    for variable, value in zip(variables, values, strict=True):
        variable.assign(value)
    return max(1, int(60.0 * minutes / seconds))
