"""Figures of comparisons: mean loss curves, and ratios of final losses on several problems.

Matplotlib is imported where figures are made: it is slow to import. Figures are made without
pyplot, so that they need no display and are freed like any object.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from l2l_keras.evaluation.results import Comparison, Result, mean_and_interval
from l2l_keras.evaluation.scores import Score

# Okabe and Ito's colours, and Tol's olive and wine: colour-blind readers can distinguish them. Line
# styles distinguish curves in print.
LEARNED_COLOURS = ("#d55e00", "#cc79a7", "#e69f00", "#000000", "#999933", "#882255")
_BASELINE_COLOURS = ("#0072b2", "#009e73", "#56b4e9", "#999999", "#332288", "#117733")
_BASELINE_LINES = ("--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":", (0, (9, 2)), (0, (3, 1, 1, 1)))
_MARKERS = "osD^vP"

_MOST_STEPS = 200
"""Longest runs of which every step is drawn: the noise of more would hide other curves."""
_SECTIONS = 50
"""Sections of longer runs, of which means are drawn."""
_RATIO_RANGE = (0.05, 20.0)
"""Ratios that are drawn as they are; those beyond are triangles at the edge."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """The mean loss curve of one optimizer.

    Attributes:
        name: Name of the optimizer.
        learned: Whether it was used as it is, rather than tuned.
        learning_rate: Its learning rate; 1 if none was tuned.
        steps: Increasing numbers of steps, int `[n]`.
        mean: Mean losses over runs after each, float64 `[n]`.
        half_width: Half-width of the 95 % interval of each, float64 `[n]`.
        final: Mean final loss; infinite where it is not finite.
        interval: Half-width of its 95 % interval.
        tuned: Whether the learning rate was tuned.

    Example:
        >>> steps, mean, half_width = np.arange(3), np.array([4.0, 2.0, 1.0]), np.zeros(3)
        >>> curve = l2l_keras.evaluation.Curve(
        ...     "mine", True, 1.0, steps, mean, half_width, final=1.0, interval=0.1
        ... )
        >>> curve.label
        'mine (learned, not tuned)'
    """

    name: str
    learned: bool
    learning_rate: float
    steps: np.ndarray = dataclasses.field(repr=False)
    mean: np.ndarray = dataclasses.field(repr=False)
    half_width: np.ndarray = dataclasses.field(repr=False)
    final: float
    interval: float
    tuned: bool = True

    @property
    def label(self) -> str:
        """Text of a legend."""
        if self.learned:
            return f"{self.name} (learned, not tuned)"
        return f"{self.name} (tuned, {self.learning_rate:.3g})" if self.tuned else self.name


def curves_of(comparison: Comparison) -> tuple[Curve, ...]:
    """Returns the mean training loss of every result of a comparison, in their order."""
    steps = np.arange(comparison.steps + 1)
    return tuple(_curve(result, steps, result.curves) for result in comparison.results)


def held_out_curves_of(comparison: Comparison, metric: str = "loss") -> tuple[Curve, ...]:
    """Returns the mean of a metric on examples held out, of every result that has it."""
    return tuple(
        _curve(result, np.array(held_out.steps), held_out.metrics[metric])
        for result in comparison.results
        if (held_out := result.held_out) is not None
    )


def _curve(result: Result, steps: np.ndarray, values: np.ndarray) -> Curve:
    own = (result.name, result.learned, result.learning_rate)
    final = (result.mean_final, result.interval)
    return Curve(*own, steps, *mean_and_interval(values), *final, result.tuned)


def figure(comparison: Comparison) -> Any:
    """Draws mean loss curves with 95 % bands, learned optimizers in front.

    If the task holds examples out, the loss on these has a panel of its own.

    Args:
        comparison: What to draw.

    Returns:
        A `matplotlib.figure.Figure`.

    Example:
        >>> result = l2l_keras.evaluation.Result("mine", np.ones((2, 4)), window=1)
        >>> comparison = l2l_keras.evaluation.Comparison("task", 3, (0, 1), (0,), 1, (result,))
        >>> l2l_keras.evaluation.figure(comparison).savefig("curves.png")
    """
    from matplotlib.figure import Figure

    curves = {"training loss": curves_of(comparison)}
    if held_out := held_out_curves_of(comparison):
        curves["loss on examples held out"] = held_out
    drawing = Figure(figsize=(1.5 + 6.0 * len(curves), 5.2), dpi=150, layout="constrained")
    panels = drawing.subplots(1, len(curves), squeeze=False)[0]
    styles = line_styles(curves["training loss"])
    for axes, (label, own) in zip(panels, curves.items(), strict=True):
        draw_curves(axes, own, styles)
        axes.set_ylabel(label)
    runs = len(comparison.results[0].curves)
    drawing.suptitle(f"{comparison.task}: mean of {runs} runs, 95 % interval")
    handles = panels[0].get_legend_handles_labels()
    drawing.legend(*handles, loc="outside lower center", ncols=1 + len(curves), frameon=False)
    return drawing


def line_styles(curves: Iterable[Curve]) -> dict[str, dict[str, Any]]:
    """Returns Matplotlib's properties of a line by name; the first curve of a name counts."""
    learned = itertools.cycle(
        {"color": colour, "linewidth": 2.5, "zorder": 4} for colour in LEARNED_COLOURS
    )
    baselines = itertools.cycle(
        {"color": colour, "linestyle": line, "linewidth": 1.5, "zorder": 3}
        for colour, line in zip(_BASELINE_COLOURS, _BASELINE_LINES, strict=True)
    )
    styles: dict[str, dict[str, Any]] = {}
    for curve in curves:
        if curve.name not in styles:
            styles[curve.name] = next(learned if curve.learned else baselines)
    return styles


def draw_curves(
    axes: Any,
    curves: Iterable[Curve],
    styles: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str] | None = None,
) -> None:
    """Draws mean loss curves with 95 % bands, on a log scale if losses are positive.

    The lowest final loss comes first in a legend, with `labels` by name, or the curves' own. Runs
    of more than 200 steps are drawn as means over fiftieths of the run. Their bands have the mean
    width of the bands of single steps, which are wider than those of such means.
    """
    curves = sorted(curves, key=lambda curve: curve.final)
    lowest, highest = math.inf, -math.inf
    means = np.concatenate([curve.mean[np.isfinite(curve.mean)] for curve in curves])
    # Losses may be negative, such as a log-likelihood or a similarity.
    logarithmic = bool(np.all(means >= 0) and np.any(means > 0))
    for curve in curves:
        style = styles[curve.name]
        steps, mean, half_width = _in_sections(curve)
        mean = np.where(np.isfinite(mean), mean, np.nan)
        low = mean - half_width
        if logarithmic:
            mean = np.where(mean > 0, mean, np.nan)
            # A log scale has no zero: a band reaches as far below the mean as above it.
            low = mean**2 / (mean + half_width)
        axes.plot(steps, mean, label=(labels or {}).get(curve.name, curve.label), **style)
        band = {"color": style["color"], "alpha": 0.2, "linewidth": 0, "zorder": 2}
        axes.fill_between(steps, low, mean + half_width, **band)
        if np.isfinite(mean).any():
            lowest = min(lowest, np.nanmin(mean))
            # Diverging curves are cut off, or they would flatten the others.
            start = np.nan_to_num(mean[0], nan=np.inf)
            limit = 3 * start if logarithmic else start + 3 * abs(start)
            highest = max(highest, min(np.nanmax(mean), limit))
    if logarithmic:
        log_scale(axes, lowest, highest)
    elif lowest < highest:
        margin = 0.05 * (highest - lowest)
        axes.set_ylim(lowest - margin, highest + margin)
    axes.set_xlim(0, max(curve.steps[-1] for curve in curves))
    axes.set_xlabel("step")
    tidy(axes)


def _in_sections(curve: Curve) -> Iterable[np.ndarray]:
    """Returns steps, mean and half-width; of long runs at the start, and means over sections."""
    columns = np.stack([curve.steps, curve.mean, curve.half_width])
    if len(curve.steps) > _MOST_STEPS + 1:
        indices = np.arange(len(curve.steps))
        sections = [indices[:1], *np.array_split(indices[1:], _SECTIONS)]
        columns = np.stack([columns[:, section].mean(axis=1) for section in sections], axis=1)
    return columns


def log_scale(axes: Any, lowest: float, highest: float) -> None:
    """Gives axes a vertical log scale with readable numbers, from `lowest` to `highest`.

    Both are positive. If `highest` is not above `lowest`, limits are Matplotlib's.
    """
    axes.set_yscale("log")
    if lowest < highest:
        axes.set_ylim(lowest / 1.5, highest * 1.5)
    if lowest < highest < 100 * lowest:
        # Powers of ten alone would be one number or none.
        log_ticks(axes.yaxis)


def log_ticks(axis: Any) -> None:
    """Labels a logarithmic axis, such as `axes.xaxis`, at 1, 2 and 5 times every power of ten."""
    from matplotlib import ticker

    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def tidy(axes: Any) -> None:
    """Gives axes a light grid, and no frame at the top and the right."""
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def ratio_figure(scores: Sequence[Score]) -> Any:
    """Draws the ratios of final losses on several problems, a panel for each length of runs."""
    from matplotlib.figure import Figure

    problems = list(dict.fromkeys(score.problem for score in scores))
    optimizers = list(dict.fromkeys(score.optimizer for score in scores))
    lengths = sorted({score.steps for score in scores})
    size = (3.2 + 2.8 * len(lengths), 1.6 + 0.32 * len(problems))
    drawing = Figure(figsize=size, dpi=150, layout="constrained")
    panels = drawing.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    # The same range on both sides of 1.
    means = np.clip([score.ratio.mean for score in scores], *_RATIO_RANGE)
    widest = 1.15 * max(1.5, float(np.exp(np.abs(np.log(means)).max())))
    for axes, steps in zip(panels, lengths, strict=True):
        for number, optimizer in enumerate(optimizers):
            own = [s for s in scores if (s.optimizer, s.steps) == (optimizer, steps)]
            shift = 0.5 * (number + 0.5) / len(optimizers) - 0.25
            rows = np.array([problems.index(s.problem) + shift for s in own])
            _draw_ratios(axes, own, rows, optimizer, number)
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlim(1.0 / widest, widest)
        axes.grid(axis="x", which="both", alpha=0.2)
        axes.set_title(f"{steps:,} steps", fontsize=10)
        axes.set_xlabel("final loss / best tuned baseline's")
    panels[0].set_yticks(range(len(problems)), problems)
    panels[0].invert_yaxis()
    drawing.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    return drawing


def _draw_ratios(
    axes: Any, scores: Sequence[Score], rows: np.ndarray, label: str, number: int
) -> None:
    """Draws the ratios of one optimizer, with their intervals."""
    means, lows, highs = np.array([score.ratio for score in scores]).reshape(-1, 3).T
    # A single run has no interval.
    lows, highs = (np.where(np.isnan(ends), means, ends) for ends in (lows, highs))
    colour = LEARNED_COLOURS[number % len(LEARNED_COLOURS)]
    axes.hlines(rows, lows, highs, color=colour, linewidth=1.2, alpha=0.6)
    lowest, highest = _RATIO_RANGE
    style = {"color": colour, "markersize": 4.5}
    inside = (means >= lowest) & (means <= highest)
    marker = _MARKERS[number % len(_MARKERS)]
    axes.plot(means[inside], rows[inside], marker, label=label, **style)
    for marker, edge, beyond in (("<", lowest, means < lowest), (">", highest, means > highest)):
        axes.plot(np.full(beyond.sum(), edge), rows[beyond], marker, **style)
