"""A verdict on a comparison, in plain words: whether to use a learned optimizer on its task."""

from __future__ import annotations

import math
from typing import NamedTuple

from l2l_keras.evaluation.results import (
    Comparison,
    Ratio,
    Result,
    loss_ratio,
    mean_and_interval,
)

_AS_GOOD = 0.05
"""How much higher than the best baseline's a loss may be, if that is not clear, to be as good."""


def verdict(comparison: Comparison, name: str) -> str:
    """Says whether to use a learned optimizer on the task of a comparison, and why.

    Args:
        comparison: Results with a baseline.
        name: The learned optimizer.

    Returns:
        One line. What counts are final losses on examples held out, if there are any: their ratio
        (or difference, if they are not positive) to those of the best baseline, with its 95 %
        interval; and which of both is lower after the same time.

    Raises:
        KeyError: If no optimizer of the comparison has this name.

    Example:
        >>> tuning = l2l_keras.evaluation.Tuning(best=0.01, on_edge=False)
        >>> curves = np.array([[4.0, 1.0], [4.0, 1.2]])
        >>> mine = l2l_keras.evaluation.Result("mine", curves, 1, seconds=1.0)
        >>> adam = l2l_keras.evaluation.Result("Adam", 2.0 * curves, 1, tuning, seconds=1.0)
        >>> comparison = l2l_keras.evaluation.Comparison("digits", 1, (0, 1), (0,), 1, (mine, adam))
        >>> print(l2l_keras.evaluation.verdict(comparison, "mine"))
        Use mine on digits: its training loss is 0.5 times that (0.5 to 0.5) of Adam, ...
    """
    learned, best = comparison[name], comparison.best_baseline
    if best is None:
        return f"Nothing to compare {name} with."
    kind = "training loss" if learned.held_out is None else "loss on examples held out"
    order, relation, _ = standing(learned, best)
    facts = f"its {kind} is {relation} of {best.name}, the best baseline"
    slower = learned.seconds / best.seconds
    times = comparison.loss_at_equal_time(learned), comparison.loss_at_equal_time(best)
    if order > 0:
        advice = f"Do not use {name} on {comparison.task}: {facts}{_reason(learned, best)}"
    elif order < 0 and times[0] <= times[1]:
        advice = f"Use {name} on {comparison.task}: {facts}, and lower after the same time, too"
    elif order < 0:
        advice = (
            f"Use {name} on {comparison.task} if steps are scarce, not seconds: {facts}, but a "
            f"step takes {slower:.2g} times as long, and after the same time it is higher "
            f"({times[0]:.3g} to {times[1]:.3g})"
        )
    else:
        advice = (
            f"Use {name} on {comparison.task} only to save the tuning: {facts}, which is no clear "
            f"difference; a step takes {slower:.2g} times as long"
        )
    return advice + "."


class Standing(NamedTuple):
    """How the final losses of one optimizer compare with those of another.

    Attributes:
        order: -1 if they are clearly lower, 1 if they are higher, 0 without a clear difference.
        words: Their relation to those of the other, in words.
        ratio: Geometric mean of their ratios, with its interval; NaN if they are not positive.
    """

    order: int
    words: str
    ratio: Ratio


def standing(result: Result, other: Result) -> Standing:
    """Compares the final losses of paired runs of two optimizers."""
    ratio = loss_ratio(result.final, other.final)
    if math.isinf(ratio.mean):
        return Standing(1, "not finite, unlike that", ratio)
    if not math.isnan(ratio.mean):
        mean, high, middle, tolerance = ratio.mean, ratio.high, 1.0, _AS_GOOD
        words, low = f"{mean:.3g} times that", ratio.low
    else:
        differences = result.final - other.final
        mean, half_width = (float(number) for number in mean_and_interval(differences))
        low, high, middle = mean - half_width, mean + half_width, 0.0
        tolerance = _AS_GOOD * abs(other.mean_final)
        words = f"{abs(mean):.3g} {'below' if mean < 0 else 'above'} that"
    if math.isnan(low):  # A single run.
        low = high = mean
    else:
        words = f"{words} ({low:.3g} to {high:.3g})"
    if high < middle:
        return Standing(-1, words, ratio)
    return Standing(int(low > middle or mean > middle + tolerance), words, ratio)


def _reason(learned: Result, best: Result) -> str:
    """Says so if an optimizer is ahead only on the examples that it trains on."""
    training = learned.final_training.mean(), best.final_training.mean()
    if learned.held_out is None or not training[0] < training[1]:
        return ""
    return (
        f". It memorizes: its training loss is {training[0]:.3g} instead of {training[1]:.3g}, and "
        f"the lowest of its looks at the examples held out {learned.held_out.best.mean():.3g}"
    )
