"""Results of runs: final losses, and the *ratios* of those of two optimizers in paired runs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special


def last_tenth(steps: int) -> int:
    """Returns the number of losses in the last tenth of a run, at least one."""
    return max(1, steps // 10)


def final_losses(curves: np.ndarray, window: int = 1) -> np.ndarray:
    """Returns the mean of the last `window` losses of `curves`, `[runs, steps + 1]`.

    It is float64 `[runs]`, and infinite if it is not finite.
    """
    if not 1 <= window <= curves.shape[1]:
        raise ValueError(
            "`window` must be from 1 to the number of losses in a run. "
            f"Received: window={window}, curves.shape={curves.shape}"
        )
    final = curves[:, -window:].astype(np.float64).mean(axis=1)
    return np.where(np.isfinite(final), final, np.inf)


def mean_and_interval(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Computes means over runs, and half-widths of their 95 % confidence intervals.

    Args:
        values: `[runs, ...]`, one independent run a row.

    Returns:
        `(mean, half_width)`, float64 of shape `values.shape[1:]`, by Student's t distribution. The
        half-width is NaN for a single run and where values are not finite.

    Example:
        >>> mean, half_width = l2l_keras.evaluation.mean_and_interval(np.array([1.0, 2.0, 3.0]))
        >>> print(f"{mean:.2f} ± {half_width:.2f}")
        2.00 ± 2.48
    """
    values = np.asarray(values, np.float64)
    runs = len(values)
    with np.errstate(invalid="ignore", over="ignore"):
        mean = values.mean(axis=0)
        if runs == 1:
            return mean, np.full_like(mean, np.nan)
        error = values.std(axis=0, ddof=1) / math.sqrt(runs)
    return mean, special.stdtrit(runs - 1, 0.975) * error


def geometric_mean(values: Sequence[float]) -> float:
    """Returns the geometric mean of numbers; infinite if one of them is.

    Args:
        values: Numbers that are not negative, at least one.

    Example:
        >>> l2l_keras.evaluation.testbed.geometric_mean([0.5, 2.0])
        1.0
    """
    if math.inf in values:
        return math.inf
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(values).mean()))


class Ratio(NamedTuple):
    """A ratio of losses: its geometric mean over runs, and the 95 % interval of that.

    Attributes:
        mean: The mean. Infinite if a run was not finite, NaN if losses are not positive.
        low: The lower end of the interval; NaN for a single run.
        high: Its upper end.

    Example:
        >>> ratio = l2l_keras.evaluation.testbed.Ratio(mean=0.8, low=0.7, high=0.9)
        >>> ratio.high < 1.0  # Clearly below the baseline.
        True
    """

    mean: float
    low: float
    high: float


def loss_ratio(losses: np.ndarray, others: np.ndarray) -> Ratio:
    """Returns the ratio of losses to others of paired runs, both `[runs]`."""
    if np.isinf(losses).any():
        return Ratio(math.inf, math.nan, math.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        mean, half_width = mean_and_interval(np.log(losses) - np.log(others))
        return Ratio(*(float(np.exp(log)) for log in (mean, mean - half_width, mean + half_width)))


@dataclasses.dataclass(frozen=True)
class Tuning:
    """How a learning rate was chosen.

    Attributes:
        best: The learning rate of the lowest mean final loss.
        on_edge: Whether it is the lowest or highest one tried: a better one may lie beyond.
        rates: All rates tried, in increasing order; empty where only the best one was kept.
        losses: Mean final loss of each; infinite where a run was not finite.
        runs: Runs that it took.
        seconds: Wall time of these, without compilation; NaN where it was not measured.

    Example:
        >>> tuning = l2l_keras.evaluation.Tuning(best=0.01, on_edge=False)
        >>> l2l_keras.evaluation.Result("Adam", np.ones((2, 4)), 1, tuning).learning_rate
        0.01
    """

    best: float
    on_edge: bool
    rates: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    losses: tuple[float, ...] = dataclasses.field(default=(), repr=False)
    runs: int = 0
    # Two tunings that found the same are equal.
    seconds: float = dataclasses.field(default=math.nan, compare=False)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Looks at examples that were held out, during runs.

    Attributes:
        steps: The steps after which there was a look, in increasing order.
        metrics: Values of each metric, float64 `[runs, looks]`, `"loss"` among them.

    Example:
        >>> losses = np.array([[2.0, 1.0, 1.5], [2.0, 0.5, 0.7]])
        >>> looks = l2l_keras.evaluation.HeldOut(steps=(0, 10, 20), metrics={"loss": losses})
        >>> print(looks.best, looks.final["loss"])
        [1.  0.5] [1.5 0.7]
        >>> looks.loss_after(5)
        1.375
    """

    steps: tuple[int, ...]
    metrics: Mapping[str, np.ndarray] = dataclasses.field(repr=False)

    @classmethod
    def of(cls, steps: Sequence[int], looks: Sequence[Sequence[Mapping[str, float]]]) -> HeldOut:
        """Collects the looks of several runs."""
        names = looks[0][0]
        metrics = {
            name: np.array([[look[name] for look in own] for own in looks], np.float64)
            for name in names
        }
        metrics["loss"] = np.where(np.isfinite(metrics["loss"]), metrics["loss"], np.inf)
        return cls(tuple(steps), metrics)

    @property
    def final(self) -> dict[str, np.ndarray]:
        """Values at the end of every run, `[runs]`."""
        return {name: values[:, -1] for name, values in self.metrics.items()}

    @property
    def best(self) -> np.ndarray:
        """The lowest loss of every run, `[runs]`."""
        return self.metrics["loss"].min(axis=1)

    def loss_after(self, steps: float) -> float:
        """Mean loss after a number of steps, interpolated between looks."""
        return float(np.interp(steps, self.steps, self.metrics["loss"].mean(axis=0)))


@dataclasses.dataclass(frozen=True)
class Result:
    """What one optimizer achieved in runs of one length.

    Attributes:
        name: Name of the optimizer.
        curves: Training losses f(θ_0) to f(θ_steps), float32 `[runs, steps + 1]`.
        window: Number of last losses whose mean is the final training loss of a run.
        tuning: How the learning rate was chosen; None if the optimizer was used as it is.
        seconds: Wall time of all runs without compilation; NaN where it was not measured.
        held_out: Looks at examples held out; None if the task holds none out.
        state_bytes: Size of the optimizer's state; None where it was not measured.

    Example:
        >>> curves = np.array([[4.0, 2.0, 1.0], [4.0, 3.0, 2.0]])
        >>> result = l2l_keras.evaluation.Result("mine", curves, window=1)
        >>> result.steps, result.mean_final, result.mean_loss
        (2, 1.5, 2.0)
    """

    name: str
    curves: np.ndarray = dataclasses.field(repr=False)
    window: int
    tuning: Tuning | None = None
    seconds: float = math.nan
    held_out: HeldOut | None = None
    state_bytes: int | None = None

    @property
    def learned(self) -> bool:
        """Whether the optimizer was used as it is, as learned ones are, rather than tuned."""
        return self.tuning is None

    @property
    def tuned(self) -> bool:
        """Whether several learning rates were tried."""
        return self.tuning is not None and bool(self.tuning.rates)

    @property
    def learning_rate(self) -> float:
        """The tuned learning rate; 1, that of learned optimizers, where none was tuned."""
        return 1.0 if self.tuning is None else self.tuning.best

    @property
    def on_edge(self) -> bool:
        """Whether a better learning rate may lie beyond those tried."""
        return self.tuning is not None and self.tuning.on_edge

    @property
    def steps(self) -> int:
        """Updates of a run."""
        return self.curves.shape[1] - 1

    @functools.cached_property
    def final(self) -> np.ndarray:
        """Final loss of every run, float64 `[runs]`: on examples held out, if there are any."""
        return self.final_training if self.held_out is None else self.held_out.final["loss"]

    @functools.cached_property
    def final_training(self) -> np.ndarray:
        """Final training loss of every run, float64 `[runs]`."""
        return final_losses(self.curves, self.window)

    @property
    def mean_final(self) -> float:
        """Mean final loss over runs."""
        return float(self.final.mean())

    @property
    def interval(self) -> float:
        """Half-width of the 95 % confidence interval of `mean_final`."""
        return float(mean_and_interval(self.final)[1])

    def loss_after(self, share: float) -> float:
        """Returns the mean loss over runs, as in `mean_final`, after a share of the steps."""
        if self.held_out is not None:
            return self.held_out.loss_after(share * self.steps)
        steps = max(1, round(share * self.steps)) if math.isfinite(share) else self.steps
        losses = final_losses(self.curves[:, : steps + 1], min(self.window, steps))
        return float(losses.mean())

    @property
    def mean_loss(self) -> float:
        """Mean loss over the run, f(θ_1) to f(θ_steps), and over runs; infinite if not finite."""
        with np.errstate(invalid="ignore"):
            return float(final_losses(self.curves[:, 1:], self.steps).mean())


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What several optimizers achieved in the same runs.

    Attributes:
        task: Name of the task.
        steps: Updates of a run.
        seeds: Seeds of the test optimizees.
        tuning_seeds: Seeds of the validation optimizees, for tuning.
        window: Number of last losses whose mean is the final training loss of a run.
        results: One result an optimizer, learned ones first.

    Example:
        >>> tuning = l2l_keras.evaluation.Tuning(best=0.01, on_edge=False)
        >>> mine = l2l_keras.evaluation.Result("mine", np.array([[4.0, 1.0]]), 1)
        >>> adam = l2l_keras.evaluation.Result("Adam", np.array([[4.0, 2.0]]), 1, tuning)
        >>> comparison = l2l_keras.evaluation.Comparison("task", 1, (0,), (0,), 1, (mine, adam))
        >>> comparison.best_baseline.name, comparison.ratio("mine")
        ('Adam', 0.5)
    """

    task: str
    steps: int
    seeds: tuple[int, ...]
    tuning_seeds: tuple[int, ...]
    window: int
    results: tuple[Result, ...]

    def __repr__(self) -> str:
        losses = ", ".join(f"{result.name} {result.mean_final:.4g}" for result in self.results)
        return f"<Comparison on {self.task!r}, final losses after {self.steps:,} steps: {losses}>"

    def __getitem__(self, name: str) -> Result:
        """Returns the result of the optimizer of this name."""
        by_name = {result.name: result for result in self.results}
        if name not in by_name:
            raise KeyError(f"Expected one of {list(by_name)}. Received: {name!r}")
        return by_name[name]

    @property
    def best_baseline(self) -> Result | None:
        """The tuned baseline of the lowest mean final loss in these runs."""
        baselines = [result for result in self.results if not result.learned]
        return min(baselines, key=lambda result: result.mean_final, default=None)

    def ratio(self, name: str) -> float:
        """Returns an optimizer's final loss over that of the best tuned baseline.

        It is the geometric mean over the paired runs: infinite if a run was not finite, NaN without
        a baseline or if losses are not positive.
        """
        best = self.best_baseline
        return math.nan if best is None else loss_ratio(self[name].final, best.final).mean

    @property
    def fastest(self) -> Result:
        """The optimizer whose runs took the least time."""
        return min(self.results, key=lambda result: result.seconds)

    def loss_at_equal_time(self, result: Result) -> float:
        """Returns the mean loss of an optimizer after as many seconds as the fastest one takes."""
        return result.loss_after(self.fastest.seconds / result.seconds)
