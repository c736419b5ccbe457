"""How a learned optimizer did against tuned baselines, in numbers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from l2l_keras.evaluation.compare import mean_and_interval
from l2l_keras.evaluation.testbed.runs import Lengths, Outcome

NOT_REACHED = 1.5
"""What counts as the share of steps where the baseline's final loss is not reached."""


class Ratio(NamedTuple):
    """A ratio of losses: the geometric mean over seeds, and its 95 % interval.

    Attributes:
        mean: The mean; infinite if a run was not finite.
        low: Lower end of the interval; NaN for a single seed.
        high: Upper end of it.
    """

    mean: float
    low: float
    high: float


@dataclasses.dataclass(frozen=True)
class Score:
    """How an optimizer did on one problem in runs of one length.

    Attributes:
        problem: Name of the problem.
        optimizer: Name of the optimizer.
        steps: Updates of a run.
        baseline: Name of the best tuned baseline: that of the lowest mean final loss.
        learning_rate: Its learning rate.
        on_edge: Whether a better learning rate of it may lie beyond those tried.
        initial_loss: Mean loss before the first update.
        final_loss: The optimizer's mean final loss.
        baseline_loss: That of the best tuned baseline.
        ratio: Final loss to the best tuned baseline's.
        default_ratio: Final loss to that of Adam at Keras' default.
        area_ratio: Area under the loss curve to the best tuned baseline's.
        share_of_steps: Share of a run's steps after which the best tuned baseline's final loss is
            reached; None if it is not.
        share_of_seconds: The same of its wall time.
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
    area_ratio: float
    share_of_steps: float | None
    share_of_seconds: float | None


@dataclasses.dataclass(frozen=True)
class Summary:
    """How an optimizer did on several problems in runs of one length.

    Attributes:
        optimizer: Name of the optimizer.
        steps: Updates of a run.
        problems: Number of problems.
        ratio: Geometric mean of the final-loss ratios to the best tuned baseline of each problem.
        worst_ratio: The largest of them.
        worst_problem: Where it is.
        default_ratio: Geometric mean of those to Adam at Keras' default.
        share_of_steps: Geometric mean; `NOT_REACHED` where the baseline's loss is not reached.
        share_of_seconds: The same.
        smaller_areas: Share of the problems with an area ratio below 1.
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
    smaller_areas: float


def best_of(baselines: Iterable[Outcome], k: int) -> Outcome:
    """Returns the baseline of the lowest mean final loss in runs of the k-th length."""
    return min(baselines, key=lambda outcome: outcome.final(k).mean())


def score(
    problem: str,
    learned: Outcome,
    best: Outcome,
    default: Outcome,
    k: int,
    pace: float,
) -> Score:
    """Compares a learned optimizer with baselines in runs of one length.

    Args:
        problem: Name of the problem.
        learned: What the optimizer did.
        best: What the best tuned baseline did, in runs of the same seeds.
        default: What Adam at Keras' default did in them.
        k: Which of the lengths.
        pace: Seconds of a step of the optimizer to those of the baseline.
    """
    curves, others = (outcome.curves[k].astype("float64") for outcome in (learned, best))
    steps = curves.shape[1] - 1
    target = float(best.final(k).mean())
    share = share_of_steps(curves, target)
    assert best.rates is not None
    return Score(
        problem=problem,
        optimizer=learned.name,
        steps=steps,
        baseline=best.name,
        learning_rate=best.rates[k],
        on_edge=best.on_edge[k],
        initial_loss=float(curves[:, 0].mean()),
        final_loss=float(learned.final(k).mean()),
        baseline_loss=target,
        ratio=ratio_of(learned.final(k), best.final(k)),
        default_ratio=ratio_of(learned.final(k), default.final(k)),
        area_ratio=_or_infinite(curves[:, 1:].sum() / others[:, 1:].sum()),
        share_of_steps=share,
        share_of_seconds=None if share is None else share * pace,
    )


def ratio_of(losses: np.ndarray, others: np.ndarray) -> Ratio:
    """Compares losses of the same runs.

    Args:
        losses: Positive, `[seeds]`.
        others: What to divide them by, `[seeds]`.

    Example:
        >>> ratio_of(np.array([1.0, 4.0]), np.array([2.0, 2.0])).mean
        1.0
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.log(losses) - np.log(others)
    mean, half_width = (float(part) for part in mean_and_interval(logs))
    if not math.isfinite(mean):
        return Ratio(0.0 if mean < 0.0 else math.inf, math.nan, math.nan)
    return Ratio(math.exp(mean), math.exp(mean - half_width), math.exp(mean + half_width))


def share_of_steps(curves: np.ndarray, target: float) -> float | None:
    """Returns the share of a run's steps after which a loss is reached.

    The loss of an optimizer is its mean over seeds and over as many steps as make a final loss: a
    single minibatch says little.

    Args:
        curves: Losses `[seeds, steps + 1]`.
        target: The loss.

    Returns:
        A number up to 1; None where the loss is not reached.

    Example:
        >>> share_of_steps(np.array([[4.0, 3.0, 2.0, 1.0, 0.0]]), target=2.0)
        0.5
    """
    steps = curves.shape[1] - 1
    window = Lengths.window(steps)
    sums = np.cumsum(np.insert(curves.mean(axis=0), 0, 0.0))
    means = (sums[window:] - sums[:-window]) / window
    with np.errstate(invalid="ignore"):
        # Sums of many losses are not exact: the baseline reaches its own final loss.
        reached = np.flatnonzero(means <= target * (1.0 + 1e-9))
    return max(1, int(reached[0]) + window - 1) / steps if len(reached) else None


def summarise(scores: Sequence[Score]) -> Summary:
    """Summarises the scores of one optimizer in runs of one length, over problems.

    Args:
        scores: The scores.
    """
    worst = max(scores, key=lambda s: s.ratio.mean)
    return Summary(
        optimizer=worst.optimizer,
        steps=worst.steps,
        problems=len(scores),
        ratio=geometric_mean([s.ratio.mean for s in scores]),
        worst_ratio=worst.ratio.mean,
        worst_problem=worst.problem,
        default_ratio=geometric_mean([s.default_ratio.mean for s in scores]),
        share_of_steps=geometric_mean([_or_not_reached(s.share_of_steps) for s in scores]),
        share_of_seconds=geometric_mean([_or_not_reached(s.share_of_seconds) for s in scores]),
        smaller_areas=sum(s.area_ratio < 1.0 for s in scores) / len(scores),
    )


def geometric_mean(values: Sequence[float]) -> float:
    """Returns the geometric mean of numbers; infinite if one of them is.

    Example:
        >>> round(geometric_mean([0.5, 2.0, 1.0]), 12)
        1.0
    """
    if math.inf in values:
        return math.inf
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(values).mean()))


def _or_infinite(value: float) -> float:
    return float(value) if math.isfinite(value) else math.inf


def _or_not_reached(share: float | None) -> float:
    return NOT_REACHED if share is None else share
