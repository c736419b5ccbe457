"""Comparisons of learned optimizers with tuned baselines, on the same optimizees and data.

A *run* is one function minimised by one optimizer. Every run starts from nothing: parameters,
state, the optimizer's slots and its count of iterations are reset. Runs of different optimizers
are paired: the same seed gives the same optimizee and, step by step, the same minibatches.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from scipy import special

from l2l_keras import parameter_groups
from l2l_keras.evaluation.baselines import BASELINES, Baseline
from l2l_keras.evaluation.rollout import Rollout, RuleRollout
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.rules.base import UpdateRule
from l2l_keras.tasks.base import Split, Task

Progress = Callable[[str], None]
DEFAULT_WINDOW = 10
"""Losses at the end of a run whose mean is its final loss, where minibatches make them noisy."""
_EXTENSIONS = 4
"""Most learning rates added beyond either end of a grid."""


def run(
    task: Task,
    optimizer: keras.optimizers.Optimizer,
    steps: int,
    seeds: Sequence[int],
    split: Split = "test",
) -> np.ndarray:
    """Minimises the optimizees of several seeds, each from a fresh start.

    Args:
        task: Where optimizees come from. Each of a task's functions side by side is a run of its
            own: `Quadratic(functions=128)` gives 128 runs a seed.
        optimizer: A fresh Keras optimizer.
        steps: Updates of a run.
        seeds: Seeds of the optimizees and their minibatches.
        split: Which optimizees and data: `"train"`, `"validation"` or `"test"`.

    Returns:
        Losses f(θ_0) to f(θ_steps), float32 `[runs, steps + 1]` with
        `runs = len(seeds) * task.functions`, seed after seed.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> task = l2l_keras.tasks.Quadratic(functions=4)
        >>> optimizer = keras.optimizers.Adam(0.1)
        >>> l2l_keras.evaluation.run(task, optimizer, steps=5, seeds=range(3)).shape
        (12, 6)
    """
    rollout = Rollout(task, optimizer, steps, split)
    return np.concatenate([rollout(seed) for seed in _checked_seeds("seeds", seeds)])


def final_losses(curves: np.ndarray, window: int = 1) -> np.ndarray:
    """Returns the final loss of every run; not a number counts as infinitely bad.

    Args:
        curves: Losses, `[runs, steps + 1]`.
        window: How many losses at the end to take the mean of.

    Returns:
        float64 `[runs]`.

    Raises:
        ValueError: If there are fewer losses than `window`, or `window` is not positive.

    Example:
        >>> curves = np.array([[3.0, 2.0, 1.0], [3.0, np.nan, np.nan]])
        >>> l2l_keras.evaluation.final_losses(curves, window=2)
        array([1.5, inf])
    """
    if not 1 <= window <= curves.shape[1]:
        raise ValueError(
            "`window` must be from 1 to the number of losses in a run. "
            f"Received: window={window}, curves.shape={curves.shape}"
        )
    final = curves[:, -window:].astype(np.float64).mean(axis=1)
    return np.where(np.isfinite(final), final, np.inf)


def mean_and_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes means over runs, and the 95 % confidence interval of each.

    Args:
        values: `[runs, ...]`, one independent run a row.

    Returns:
        `(mean, half_width)`, float64 of shape `values.shape[1:]`: the interval is
        `mean ± half_width`, by Student's t distribution. The half-width is NaN for a single run
        and where values are not finite.

    Example:
        >>> mean, half_width = l2l_keras.evaluation.mean_and_interval(np.array([1.0, 2.0, 3.0]))
        >>> print(f"{mean:.2f} ± {half_width:.2f}")
        2.00 ± 2.48
    """
    values = np.asarray(values, np.float64)
    runs = values.shape[0]
    with np.errstate(invalid="ignore", over="ignore"):
        mean = values.mean(axis=0)
        if runs == 1:
            return mean, np.full_like(mean, np.nan)
        error = values.std(axis=0, ddof=1) / math.sqrt(runs)
    return mean, special.stdtrit(runs - 1, 0.975) * error


@dataclasses.dataclass(frozen=True)
class Tuning:
    """The learning rates that were tried, and what came of each.

    Attributes:
        rates: Learning rates in increasing order.
        losses: Mean final loss of each; infinite where a run was not finite.

    Example:
        >>> l2l_keras.evaluation.Tuning(rates=(0.1, 1.0, 10.0), losses=(3.0, 2.0, 5.0)).best
        1.0
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]

    @property
    def best(self) -> float:
        """The learning rate of the lowest mean final loss."""
        return self.rates[self._best_index]

    @property
    def on_edge(self) -> bool:
        """Whether the best one is the lowest or highest tried: a better one may lie beyond."""
        return self._best_index in (0, len(self.rates) - 1)

    @property
    def _best_index(self) -> int:
        return int(np.argmin(self.losses))


def tune(
    task: Task,
    make_optimizer: Callable[[float], keras.optimizers.Optimizer],
    grid: Sequence[float],
    steps: int,
    seeds: Sequence[int],
    split: Split = "validation",
    window: int | None = None,
    progress: Progress | None = None,
) -> Tuning:
    """Finds the learning rate of the lowest mean final loss.

    Where the best one lies on the edge of the grid, the grid goes on beyond it, by its own
    factor, until it does not (by at most four more values).

    Args:
        task: Where optimizees come from.
        make_optimizer: Makes a fresh Keras optimizer from a learning rate. Called once.
        grid: At least two learning rates.
        steps: Updates of a run.
        seeds: Seeds of the optimizees and their minibatches.
        split: Which optimizees and data: `"train"`, `"validation"` or `"test"`.
        window: How many losses at the end of a run to take the mean of. Defaults to
            `default_window(task, steps)`.
        progress: Called with a line of text after every learning rate. Defaults to nothing.

    Returns:
        All learning rates tried, with their mean final losses.

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
    rates = sorted(grid)
    if len(rates) < 2 or rates[0] <= 0:
        raise ValueError(
            f"`grid` must hold at least two positive learning rates. Received: {list(grid)}"
        )
    seeds = _checked_seeds("seeds", seeds)
    window = default_window(task, steps) if window is None else window
    rollout = Rollout(task, make_optimizer(rates[0]), steps, split)

    def loss_of(rate: float) -> float:
        curves = np.concatenate([rollout(seed, rate) for seed in seeds])
        loss = float(final_losses(curves, window).mean())
        if progress is not None:
            progress(f"learning rate {rate:.3g}: final loss {loss:.4g}")
        return loss

    tried, losses = try_rates(rates, lambda rate: [loss_of(rate)])
    return Tuning(tuple(tried), tuple(losses[:, 0].tolist()))


def try_rates(
    grid: Sequence[float], losses_of: Callable[[float], Sequence[float]]
) -> tuple[list[float], np.ndarray]:
    """Tries the learning rates of a grid, which goes on beyond an edge on which a best one lies.

    Args:
        grid: At least two learning rates in increasing order.
        losses_of: Maps a learning rate to one or several losses, each with a best rate of its own.

    Returns:
        `(rates, losses)`: all learning rates tried in increasing order, and `[rates, losses]`.
    """
    rates = list(grid)
    losses = [losses_of(rate) for rate in rates]
    below, above = rates[0] / rates[1], rates[-1] / rates[-2]
    for _ in range(_EXTENSIONS):
        best = set(np.argmin(losses, axis=0).tolist())
        lowest, highest = 0 in best, len(rates) - 1 in best
        if highest:
            rates.append(rates[-1] * above)
            losses.append(losses_of(rates[-1]))
        if lowest:
            rates.insert(0, rates[0] * below)
            losses.insert(0, losses_of(rates[0]))
    return rates, np.array(losses)


def default_window(task: Task, steps: int) -> int:
    """Returns how many losses at the end of a run make its final loss.

    Args:
        task: A task.
        steps: Updates of a run.

    Returns:
        1 for a task without data, whose losses are exact; else 10, or `steps` if that is fewer.

    Example:
        >>> l2l_keras.evaluation.default_window(l2l_keras.tasks.Quadratic(), steps=100)
        1
    """
    has_data = bool(tf.nest.flatten(task.batch("validation", tf.constant([0, 0], tf.int32))))
    return min(DEFAULT_WINDOW, steps) if has_data else 1


@dataclasses.dataclass(frozen=True)
class Result:
    """What one optimizer achieved; see `compare`.

    Attributes:
        name: Name of the optimizer.
        learning_rate: Its learning rate.
        tuning: How that was chosen; None for a learned optimizer, which is not tuned.
        curves: Losses f(θ_0) to f(θ_steps), float32 `[runs, steps + 1]`.
        window: How many losses at the end of a run make its final loss.
        seconds: Wall time of all runs, compilation not included.
    """

    name: str
    learning_rate: float
    tuning: Tuning | None
    curves: np.ndarray = dataclasses.field(repr=False)
    window: int
    seconds: float

    @property
    def learned(self) -> bool:
        """Whether this is a learned optimizer."""
        return self.tuning is None

    @functools.cached_property
    def final(self) -> np.ndarray:
        """Final loss of every run, float64 `[runs]`."""
        return final_losses(self.curves, self.window)

    @property
    def mean_final(self) -> float:
        """Mean final loss over runs."""
        return float(mean_and_interval(self.final)[0])

    @property
    def interval(self) -> float:
        """Half-width of the 95 % confidence interval of `mean_final`."""
        return float(mean_and_interval(self.final)[1])

    @property
    def area(self) -> float:
        """Area under the mean curve, Σ_t f(θ_t), t from 1 to steps; infinite if not finite."""
        area = float(self.curves[:, 1:].astype(np.float64).sum(axis=1).mean())
        return area if math.isfinite(area) else math.inf


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What several optimizers achieved on the same runs; see `compare`.

    Attributes:
        task: Name of the task.
        steps: Updates of a run.
        seeds: Seeds of the runs.
        tuning_seeds: Seeds of the optimizees on which learning rates were tuned.
        window: How many losses at the end of a run make its final loss.
        results: One result an optimizer, learned ones first.
    """

    task: str
    steps: int
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    window: int
    results: tuple[Result, ...]

    def __getitem__(self, name: str) -> Result:
        """Returns the result of the optimizer of this name."""
        for result in self.results:
            if result.name == name:
                return result
        raise KeyError(f"Expected one of {[r.name for r in self.results]}. Received: {name!r}")

    @property
    def best_baseline(self) -> Result | None:
        """The tuned baseline of the lowest mean final loss in these runs."""
        baselines = [result for result in self.results if not result.learned]
        return min(baselines, key=lambda result: result.mean_final, default=None)

    def ratio(self, name: str) -> float:
        """Returns an optimizer's mean final loss over that of the best tuned baseline.

        Args:
            name: Name of the optimizer.

        Returns:
            Below 1 where it beats all baselines. NaN where there is nothing to divide by.
        """
        best = self.best_baseline
        if best is None or best.mean_final == 0 or math.isinf(best.mean_final):
            return math.nan
        return self[name].mean_final / best.mean_final


def compare(
    task: Task,
    learned: Mapping[str, UpdateRule | Mapping[str, UpdateRule]],
    steps: int,
    seeds: Sequence[int],
    tuning_seeds: Sequence[int] | None = None,
    baselines: Mapping[str, Baseline] = BASELINES,
    window: int | None = None,
    guard: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Compares learned optimizers, as they are, with baselines whose learning rate is tuned.

    Learning rates are tuned on optimizees of the validation split. Then everything starts anew
    on fresh optimizees of the test split, the same and with the same minibatches for all.

    Args:
        task: Where optimizees come from.
        learned: Update rules, or groups of them as `LearnedOptimizer` takes them, by the name to
            show. Their learning rate is 1.
        steps: Updates of a run, in tuning as in the comparison.
        seeds: Seeds of the test optimizees and their minibatches.
        tuning_seeds: Seeds of the validation optimizees. Defaults to `seeds`.
        baselines: Baselines by the name to show. Defaults to the paper's.
        window: How many losses at the end of a run to take the mean of. Defaults to
            `default_window(task, steps)`.
        guard: Whether learned optimizers have a guard. Defaults to False.
        progress: Called with a line of text as the work goes on. Defaults to nothing.

    Returns:
        The results, learned optimizers first, in the order given.

    Raises:
        ValueError: If an argument is not as described.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(units=(4,), seed=0)
        >>> comparison = l2l_keras.evaluation.compare(
        ...     l2l_keras.tasks.Quadratic(functions=16),
        ...     {"untrained": rule},
        ...     steps=10,
        ...     seeds=[0],
        ...     baselines={"Adam": l2l_keras.evaluation.BASELINES["Adam"]},
        ... )
        >>> [result.name for result in comparison.results]
        ['untrained', 'Adam']
        >>> comparison.ratio("untrained") > 1
        True

    Source: Andrychowicz et al. (2016), section 3.
    """
    both = sorted(set(learned) & set(baselines))
    if both:
        raise ValueError(f"A learned optimizer must not be named as a baseline. Received: {both}")
    if not learned and not baselines:
        raise ValueError("Expected at least one optimizer. Received: learned={}, baselines={}")
    seeds = _checked_seeds("seeds", seeds)
    tuning_seeds = seeds if tuning_seeds is None else _checked_seeds("tuning_seeds", tuning_seeds)
    window = default_window(task, steps) if window is None else window

    def report(name: str, text: str) -> None:
        if progress is not None:
            progress(f"{name}: {text}")

    def result(name: str, rollout: Rollout | RuleRollout, tuning: Tuning | None) -> Result:
        start = time.perf_counter()
        curves = np.concatenate([rollout(seed) for seed in seeds])
        seconds = time.perf_counter() - start
        rate = 1.0 if tuning is None else tuning.best
        outcome = Result(name, rate, tuning, curves, window, seconds)
        report(name, f"test: final loss {outcome.mean_final:.4g}")
        return outcome

    def rollout_of(rule: Any) -> Rollout | RuleRollout:
        if task.functions > 1 and any(r.coupled for r in parameter_groups.only_rules(rule)):
            if guard:
                raise ValueError("A coupled rule on several functions side by side has no guard.")
            return RuleRollout(task, rule, steps, "test")
        return Rollout(task, LearnedOptimizer(rule, guard=guard), steps, "test")

    results = [result(name, rollout_of(rule), None) for name, rule in learned.items()]
    for name, baseline in baselines.items():
        tuning = tune(
            task,
            baseline.make,
            baseline.grid,
            steps,
            tuning_seeds,
            window=window,
            progress=functools.partial(report, name),
        )
        rollout = Rollout(task, baseline.make(tuning.best), steps, "test")
        results.append(result(name, rollout, tuning))
    return Comparison(task.name, steps, seeds, tuning_seeds, window, tuple(results))


def _checked_seeds(argument: str, seeds: Sequence[int]) -> tuple[int, ...]:
    """Returns the seeds as a tuple, or raises where there is none."""
    seeds = tuple(int(seed) for seed in seeds)
    if not seeds:
        raise ValueError(f"`{argument}` must hold at least one seed. Received: {seeds}")
    return seeds
