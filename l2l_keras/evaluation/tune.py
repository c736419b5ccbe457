"""Baselines, and how their learning rates are tuned: on validation optimizees, by final loss."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence

import keras
import numpy as np
import tensorflow as tf

from l2l_keras import schedules
from l2l_keras.evaluation.results import HeldOut, Tuning, final_losses, last_tenth
from l2l_keras.evaluation.rollout import Rollout, checked_seeds
from l2l_keras.progress import Progress, silent
from l2l_keras.tasks.base import Split, Task

_EXTENSIONS = 4
"""Most learning rates added beyond either end of a grid."""


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A hand-designed optimizer with the learning rates to choose from.

    Attributes:
        name: Name in tables and figures.
        make: Makes a fresh optimizer from a learning rate.
        grid: Learning rates to try, in increasing order; or one, which is not tuned.
        schedule: Factor of the learning rate, a function of the share of a run that is over, from
            0 to 1. Defaults to None, for a constant rate.

    Example:
        >>> grid = l2l_keras.evaluation.half_decades(-4, -1)
        >>> lion = l2l_keras.evaluation.Baseline("Lion", keras.optimizers.Lion, grid)
        >>> task = l2l_keras.tasks.Quadratic(functions=4)
        >>> lion.rollout(task, steps=5)(seed=0, learning_rate=0.01).shape
        (4, 6)
    """

    name: str
    make: Callable[[float], keras.optimizers.Optimizer]
    grid: tuple[float, ...]
    schedule: schedules.Schedule | None = None

    def rollout(self, task: Task, steps: int, split: Split = "test") -> Rollout:
        """Returns runs of the baseline, which take their learning rate when they are called."""
        return Rollout(task, self.make(self.grid[0]), steps, split, self.schedule)


def half_decades(lowest: float, highest: float) -> tuple[float, ...]:
    """Lists learning rates two per factor of ten, in increasing order, both ends included.

    Args:
        lowest: Power of ten of the first one, a multiple of a half.
        highest: Power of ten of the last one, a multiple of a half, not below `lowest`.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> l2l_keras.evaluation.half_decades(-1, 0)
        (0.1, 0.31622776601683794, 1.0)
    """
    if lowest > highest or (2 * lowest) % 1 or (2 * highest) % 1:
        raise ValueError(
            "`lowest` and `highest` must be multiples of 0.5 with lowest <= highest. "
            f"Received: lowest={lowest}, highest={highest}"
        )
    return tuple(10.0 ** (k / 2) for k in range(int(2 * lowest), int(2 * highest) + 1))


_nag = functools.partial(keras.optimizers.SGD, momentum=0.9, nesterov=True)

# Adam and RMSprop take steps of about the learning rate whatever the gradient's scale: rates above
# 1 make no sense. Those of SGD and NAG are in units of (parameter)² / loss.
BASELINES: dict[str, Baseline] = {
    "Adam": Baseline("Adam", keras.optimizers.Adam, half_decades(-4, 0)),
    "RMSprop": Baseline("RMSprop", keras.optimizers.RMSprop, half_decades(-4, 0)),
    "NAG": Baseline("NAG", _nag, half_decades(-4, 1)),
    "SGD": Baseline("SGD", keras.optimizers.SGD, half_decades(-4, 1)),
}
"""The paper's baselines by name; hyper-parameters not named here are at Keras' defaults.

Source: Andrychowicz et al. (2016), section 3.
"""


ALL_BASELINES: dict[str, Baseline] = {
    **BASELINES,
    "Adam (default)": Baseline("Adam (default)", keras.optimizers.Adam, (1e-3,)),
    "AdamW + cosine": Baseline(
        "AdamW + cosine", keras.optimizers.AdamW, half_decades(-4, -1), schedules.cosine
    ),
}
"""The paper's baselines, and what practitioners use: Adam as it is, AdamW with a cosine decay."""


def default_window(task: Task, steps: int) -> int:
    """Returns the number of last losses whose mean is the final loss of a run on a task.

    It is a tenth of the steps, since losses of minibatches are noisy, or 1 where a task has no
    data: losses are then exact.
    """
    has_data = bool(tf.nest.flatten(task.batch("validation", tf.constant([0, 0], tf.int32))))
    return last_tenth(steps) if has_data else 1


def tune(
    task: Task,
    make_optimizer: Callable[[float], keras.optimizers.Optimizer],
    grid: Sequence[float],
    steps: int,
    seeds: Sequence[int],
    window: int | None = None,
    progress: Progress = silent,
) -> Tuning:
    """Finds the learning rate of the lowest mean final loss, and returns all that were tried.

    Losses are those of examples held out, if the task holds any out. If the best rate is at an end
    of the grid, the grid is extended there by its own factor until it is not, by at most four
    rates.

    Args:
        task: Where optimizees come from.
        make_optimizer: Makes a fresh Keras optimizer from a learning rate. Called once.
        grid: At least two learning rates.
        steps: Updates of a run.
        seeds: Seeds of the optimizees and their minibatches.
        window: Number of last losses whose mean is a run's final loss. Defaults to a tenth of the
            steps, or to 1 where a task has no data.
        progress: Called with a line of text after every learning rate. Defaults to silence.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> task = l2l_keras.tasks.Quadratic(functions=16)
        >>> grid = l2l_keras.evaluation.half_decades(-3, -1)
        >>> tuning = l2l_keras.evaluation.tune(
        ...     task, keras.optimizers.SGD, grid, steps=20, seeds=[0]
        ... )
        >>> tuning.best
        0.01

    Source: Andrychowicz et al. (2016), section 3, where the learning rate of each baseline is the
    one of the best final loss on each problem.
    """
    windows = {steps: default_window(task, steps) if window is None else window}
    baseline = Baseline("", make_optimizer, tuple(grid))
    return tune_for_lengths(task, baseline, windows, seeds, progress)[0]


def tune_for_lengths(
    task: Task,
    baseline: Baseline,
    windows: Mapping[int, int],
    seeds: Sequence[int],
    progress: Progress = silent,
) -> tuple[Tuning, ...]:
    """Tunes for several numbers of steps, the keys of `windows`; other arguments are as in `tune`.

    Each rate is tried once, in the longest runs: their first steps are those of shorter ones.
    """
    rates = sorted(baseline.grid)
    if len(rates) < 2 or rates[0] <= 0:
        raise ValueError(
            "`grid` must hold at least two positive learning rates. "
            f"Received: grid={list(baseline.grid)}"
        )
    seeds = checked_seeds("seeds", seeds)
    rollout = baseline.rollout(task, max(windows), "validation")
    looks = sorted(windows) if task.holds_out else ()
    seconds: list[float] = []

    def losses_of(rate: float) -> list[float]:
        runs = [rollout.run(seed, rate, looks=looks) for seed in seeds]
        seconds.extend(run.seconds for run in runs)
        if looks:
            held_out = HeldOut.of(looks, [run.looks for run in runs])
            losses = [held_out.loss_after(steps) for steps in windows]
        else:
            curves = np.concatenate([run.losses for run in runs])
            losses = [
                float(final_losses(curves[:, : steps + 1], window).mean())
                for steps, window in windows.items()
            ]
        shown = ", ".join(f"{loss:.4g}" for loss in losses)
        progress(f"learning rate {rate:.3g}: final loss {shown}")
        return losses

    losses = {rate: losses_of(rate) for rate in rates}
    below, above = rates[0] / rates[1], rates[-1] / rates[-2]
    for _ in range(_EXTENSIONS):
        rates = sorted(losses)
        best = np.argmin([losses[rate] for rate in rates], axis=0)
        beyond = {0: rates[0] * below, len(rates) - 1: rates[-1] * above}
        losses |= {rate: losses_of(rate) for index, rate in beyond.items() if index in best}
    rates = sorted(losses)
    table = np.array([losses[rate] for rate in rates])
    cost = len(seconds), sum(seconds)
    return tuple(
        Tuning(rates[n], n in (0, len(rates) - 1), tuple(rates), tuple(losses.tolist()), *cost)
        for n, losses in zip(np.argmin(table, axis=0).tolist(), table.T, strict=True)
    )
