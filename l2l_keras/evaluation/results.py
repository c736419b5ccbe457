"""Results of runs: final losses, and the *ratios* of those of two optimizers in paired runs."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

_NOT_REACHED = 1.5
"""Share of steps that counts where the baseline's final loss is not reached."""


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
    """Returns the geometric mean of numbers that are not negative; infinite if one of them is."""
    if math.inf in values:
        return math.inf
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(values).mean()))


class Ratio(NamedTuple):
    """A ratio of losses: its geometric mean over runs, and the 95 % interval of that.

    Attributes:
        mean: The mean. Infinite if a run was not finite, NaN if losses are not positive.
        low, high: The ends of the interval; NaN for a single run.
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


def share_of_steps(curves: np.ndarray, target: float, window: int) -> float | None:
    """Returns the share of a run's steps after which a loss is reached; None if it never is.

    The mean of `curves`, `[runs, steps + 1]`, over runs and `window` steps has to reach the target.
    """
    steps = curves.shape[1] - 1
    mean = curves.astype(np.float64).mean(axis=0)
    means = np.lib.stride_tricks.sliding_window_view(mean, window).mean(axis=1)
    # Means of many losses are not exact: the baseline must reach its own final loss.
    reached = np.flatnonzero(means <= target * (1.0 + 1e-9))
    return max(1, int(reached[0]) + window - 1) / steps if len(reached) else None


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
    """

    best: float
    on_edge: bool
    rates: tuple[float, ...] = ()
    losses: tuple[float, ...] = ()
    runs: int = 0
    # Two tunings that found the same are equal.
    seconds: float = dataclasses.field(default=math.nan, compare=False)


@dataclasses.dataclass(frozen=True)
class HeldOut:
    """Looks at examples that were held out, during runs.

    Attributes:
        steps: The steps after which there was a look, in increasing order.
        metrics: Values of each metric, float64 `[runs, looks]`, `"loss"` among them.
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
        steps, seeds, tuning_seeds, window: See `compare`.
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


@dataclasses.dataclass(frozen=True)
class Score:
    """How an optimizer compares with the best tuned baseline on one problem.

    Attributes:
        problem, optimizer: Their names.
        steps: Updates of a run.
        baseline: Name of the tuned baseline of the lowest mean final loss.
        learning_rate, on_edge: See `Result`.
        initial_loss: Mean loss before the first update.
        final_loss, baseline_loss: Mean final losses of the optimizer and the baseline.
        ratio, default_ratio: Final loss to the baseline's, and to that of Adam at Keras' default.
        mean_loss_ratio: Mean loss over the run to the baseline's.
        share_of_steps, share_of_seconds: Shares of a run's steps and wall time after which the
            baseline's final loss is reached; None if it is not.
    """

    problem: str
    optimizer: str
    steps: int
    baseline: str
    learning_rate: float
    on_edge: bool
    initial_loss: float
    final_loss: float
    baseline_loss: float
    ratio: Ratio
    default_ratio: Ratio
    mean_loss_ratio: float
    share_of_steps: float | None
    share_of_seconds: float | None


def score(
    problem: str, learned: Result, best: Result, default: Result, relative_step_time: float
) -> Score:
    """Compares a learned optimizer with the best tuned baseline, and Adam at Keras' default.

    Runs have the same seeds. `relative_step_time` is relative to the best baseline's.
    """
    share = share_of_steps(learned.curves, best.mean_final, learned.window)
    mean_loss_ratio = learned.mean_loss / best.mean_loss
    return Score(
        problem=problem,
        optimizer=learned.name,
        steps=learned.steps,
        baseline=best.name,
        learning_rate=best.learning_rate,
        on_edge=best.on_edge,
        initial_loss=float(learned.curves[:, 0].astype(np.float64).mean()),
        final_loss=learned.mean_final,
        baseline_loss=best.mean_final,
        ratio=loss_ratio(learned.final, best.final),
        default_ratio=loss_ratio(learned.final, default.final),
        mean_loss_ratio=mean_loss_ratio if math.isfinite(mean_loss_ratio) else math.inf,
        share_of_steps=share,
        share_of_seconds=None if share is None else share * relative_step_time,
    )


@dataclasses.dataclass(frozen=True)
class Summary:
    """Scores of an optimizer on several problems, in runs of one length.

    Attributes:
        optimizer, steps: Those of the scores.
        problems: Number of problems.
        ratio, default_ratio: Geometric means.
        worst_ratio, worst_problem: The largest ratio, and its problem.
        share_of_steps, share_of_seconds: Geometric means; 1.5 where the loss is not reached.
        lower_mean_losses: Share of the problems with a `mean_loss_ratio` below 1.
    """

    optimizer: str
    steps: int
    problems: int
    ratio: float
    worst_ratio: float
    worst_problem: str
    default_ratio: float
    share_of_steps: float
    share_of_seconds: float
    lower_mean_losses: float


def summaries(scores: Sequence[Score]) -> list[Summary]:
    """Summarizes scores over problems, for each optimizer and each length of runs."""
    keys = dict.fromkeys((s.optimizer, s.steps) for s in scores)
    return [_summary([s for s in scores if (s.optimizer, s.steps) == key]) for key in keys]


def _summary(scores: Sequence[Score]) -> Summary:
    """Summarizes the scores of one optimizer in runs of one length."""
    worst = max(scores, key=lambda s: s.ratio.mean)

    def mean_share(shares: Iterable[float | None]) -> float:
        return geometric_mean([_NOT_REACHED if share is None else share for share in shares])

    return Summary(
        optimizer=worst.optimizer,
        steps=worst.steps,
        problems=len(scores),
        ratio=geometric_mean([s.ratio.mean for s in scores]),
        worst_ratio=worst.ratio.mean,
        worst_problem=worst.problem,
        default_ratio=geometric_mean([s.default_ratio.mean for s in scores]),
        share_of_steps=mean_share(s.share_of_steps for s in scores),
        share_of_seconds=mean_share(s.share_of_seconds for s in scores),
        lower_mean_losses=sum(s.mean_loss_ratio < 1.0 for s in scores) / len(scores),
    )
