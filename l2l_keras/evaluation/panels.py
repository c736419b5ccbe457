"""Drawings of mean loss curves on axes, of a comparison or of the report that it left in a folder.

A panel holds what is drawn and nothing else: means and intervals, not the runs.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_keras.evaluation.compare import Comparison, mean_and_interval

# Okabe and Ito's colours, and Tol's olive and wine, told apart by colour-blind readers too; line
# styles tell them apart in print.
LEARNED_COLOURS = ("#d55e00", "#cc79a7", "#e69f00", "#000000", "#999933", "#882255")
_BASELINE_COLOURS = ("#0072b2", "#009e73", "#56b4e9", "#999999")
_BASELINE_STYLES = ("--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":")

_MOST_STEPS = 200
"""Steps that are drawn one by one. Losses of minibatches are noisy: more would hide each other."""
_STRETCHES = 50
"""Stretches of longer runs whose means are drawn instead."""


@dataclasses.dataclass(frozen=True)
class Curve:
    """What is drawn of one optimizer.

    Attributes:
        name: Name of the optimizer.
        learned: Whether it is a learned one, which is not tuned.
        learning_rate: Its learning rate.
        mean: Mean losses f(θ_0) to f(θ_steps) over runs, float64 `[steps + 1]`.
        half_width: Half-width of the 95 % interval of each, float64 `[steps + 1]`.
        final: Mean final loss; infinite where it is not finite.
        interval: Half-width of its 95 % interval.

    Example:
        >>> losses = np.array([2.0, 1.0])
        >>> curve = l2l_keras.evaluation.Curve("Adam", False, 0.1, losses, 0.1 * losses, 1.0, 0.1)
        >>> curve.label
        'Adam (tuned, 0.1)'
    """

    name: str
    learned: bool
    learning_rate: float
    mean: np.ndarray = dataclasses.field(repr=False)
    half_width: np.ndarray = dataclasses.field(repr=False)
    final: float
    interval: float

    @property
    def label(self) -> str:
        """Text of a legend."""
        if self.learned:
            return f"{self.name} (learned, not tuned)"
        return f"{self.name} (tuned, {self.learning_rate:.3g})"


def curves_of(comparison: Comparison) -> tuple[Curve, ...]:
    """Returns what is drawn of a comparison.

    Args:
        comparison: A comparison.

    Returns:
        A curve for each of its results, in their order.

    Example:
        >>> comparison = l2l_keras.evaluation.compare(
        ...     l2l_keras.tasks.Quadratic(functions=2),
        ...     {},
        ...     steps=3,
        ...     seeds=[0],
        ...     baselines={"Adam": l2l_keras.evaluation.BASELINES["Adam"]},
        ... )
        >>> [curve.name for curve in l2l_keras.evaluation.curves_of(comparison)]
        ['Adam']
    """
    return tuple(
        Curve(
            result.name,
            result.learned,
            result.learning_rate,
            *mean_and_interval(result.curves),
            result.mean_final,
            result.interval,
        )
        for result in comparison.results
    )


def read_curves(report: str | os.PathLike[str]) -> tuple[Curve, ...]:
    """Reads what is drawn of a comparison from the report of it.

    Args:
        report: A folder that `write_report` wrote; its `curves.csv` and `results.json` are read.

    Returns:
        A curve for each optimizer, in the order of the report.

    Raises:
        ValueError: If there is no report, or it cannot be read.

    Example:
        >>> l2l_keras.evaluation.read_curves("report")  # doctest: +SKIP
    """
    folder = Path(report)
    rows: dict[str, tuple[list[float], list[float]]] = {}
    try:
        with (folder / "curves.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                means, half_widths = rows.setdefault(row["optimizer"], ([], []))
                means.append(float(row["mean"]))
                half_widths.append(float(row["half_width"]))
        results = json.loads((folder / "results.json").read_text())["results"]
        return tuple(
            Curve(
                result["name"],
                result["learned"],
                result["learning_rate"],
                np.array(rows[result["name"]][0]),
                np.array(rows[result["name"]][1]),
                read_number(result["mean_final_loss"], math.inf),
                read_number(result["interval_half_width"], math.nan),
            )
            for result in results
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the folder of a report, with curves.csv and results.json. "
            f"Received: {str(folder)!r} ({type(error).__name__}: {error})"
        ) from error


def line_styles(curves: Iterable[Curve]) -> dict[str, dict[str, Any]]:
    """Chooses how to draw each optimizer: the same whichever comes out ahead.

    Args:
        curves: Curves of one or more panels; what comes first by its name counts.

    Returns:
        Matplotlib's properties of a line by name of the optimizer.

    Example:
        >>> losses = np.array([2.0, 1.0])
        >>> curve = l2l_keras.evaluation.Curve("Adam", False, 0.1, losses, losses, 1.0, 0.1)
        >>> l2l_keras.evaluation.line_styles([curve])["Adam"]["linestyle"]
        '--'
    """
    styles: dict[str, dict[str, Any]] = {}
    learned, baselines = 0, 0
    for curve in curves:
        if curve.name in styles:
            continue
        if curve.learned:
            colour = LEARNED_COLOURS[learned % len(LEARNED_COLOURS)]
            styles[curve.name] = {"color": colour, "linewidth": 2.5, "zorder": 4}
            learned += 1
        else:
            colour = _BASELINE_COLOURS[baselines % len(_BASELINE_COLOURS)]
            line = _BASELINE_STYLES[baselines % len(_BASELINE_STYLES)]
            style = {"color": colour, "linestyle": line, "linewidth": 1.5, "zorder": 3}
            styles[curve.name] = style
            baselines += 1
    return styles


def draw_curves(
    axes: Any,
    curves: Iterable[Curve],
    styles: Mapping[str, Mapping[str, Any]],
    labels: Mapping[str, str] | None = None,
) -> None:
    """Draws mean loss curves with 95 % bands, on a log scale where losses are positive.

    Of runs of more than 200 steps, means over fiftieths of the run are drawn, and means of the
    bands' widths: those of all runs at one step, which are wider than those of such means.

    Args:
        axes: Matplotlib's axes.
        curves: What to draw; the lowest final loss comes first in a legend.
        styles: Properties of the lines by name; see `line_styles`.
        labels: Texts for a legend by name. Defaults to the curves' own.

    Example:
        >>> from matplotlib.figure import Figure
        >>> losses = np.array([2.0, 1.0])
        >>> curve = l2l_keras.evaluation.Curve("Adam", False, 0.1, losses, 0.1 * losses, 1.0, 0.1)
        >>> axes = Figure().add_subplot()
        >>> styles = l2l_keras.evaluation.line_styles([curve])
        >>> l2l_keras.evaluation.draw_curves(axes, [curve], styles)
        >>> axes.get_yscale()
        'log'
    """
    curves = sorted(curves, key=lambda curve: curve.final)
    lowest, highest = math.inf, -math.inf
    means = np.concatenate([curve.mean[np.isfinite(curve.mean)] for curve in curves])
    # Some losses are negative, such as those that are a likelihood or a similarity.
    logarithmic = bool(np.all(means >= 0) and np.any(means > 0))
    for curve in curves:
        style = styles[curve.name]
        steps, mean, half_width = _in_stretches(curve)
        mean = np.where(np.isfinite(mean), mean, np.nan)
        low = mean - half_width
        if logarithmic:
            mean = np.where(mean > 0, mean, np.nan)
            # Below zero there is nothing on a log scale: such a band reaches down to the frame.
            low = np.maximum(low, np.finfo(np.float32).tiny)
        axes.plot(steps, mean, label=(labels or {}).get(curve.name, curve.label), **style)
        band = {"color": style["color"], "alpha": 0.2, "linewidth": 0, "zorder": 2}
        axes.fill_between(steps, low, mean + half_width, **band)
        if np.isfinite(mean).any():
            lowest = min(lowest, np.nanmin(mean))
            # Curves that shoot up are cut off, or they would press the others flat.
            start = np.nan_to_num(mean[0], nan=np.inf)
            limit = 3 * start if logarithmic else start + 3 * abs(start)
            highest = max(highest, min(np.nanmax(mean), limit))
    if logarithmic:
        log_scale(axes, lowest, highest)
    elif lowest < highest:
        margin = 0.05 * (highest - lowest)
        axes.set_ylim(lowest - margin, highest + margin)
    axes.set_xlim(0, max(len(curve.mean) for curve in curves) - 1)
    axes.set_xlabel("step")
    tidy(axes)


def _in_stretches(curve: Curve) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns steps, mean and half-width: the first one, and means over stretches of long runs."""
    steps = np.arange(len(curve.mean), dtype=np.float64)
    columns = steps, curve.mean, curve.half_width
    if len(steps) <= _MOST_STEPS + 1:
        return columns
    parts = [steps[:1].astype(int), *np.array_split(np.arange(1, len(steps)), _STRETCHES)]
    steps, mean, half_width = (np.array([c[part].mean() for part in parts]) for c in columns)
    return steps, mean, half_width


def log_scale(axes: Any, lowest: float, highest: float) -> None:
    """Gives axes a vertical log scale with numbers that one can read.

    Args:
        axes: Matplotlib's axes.
        lowest: The lowest positive value to show.
        highest: The highest one. Where it is not above the lowest, limits are Matplotlib's.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().add_subplot()
        >>> l2l_keras.evaluation.log_scale(axes, 0.2, 2.0)
        >>> axes.get_yscale()
        'log'
    """
    axes.set_yscale("log")
    if lowest < highest:
        axes.set_ylim(lowest / 1.5, highest * 1.5)
    if lowest < highest < 100 * lowest:
        # Powers of ten alone would be one number or none.
        log_ticks(axes.yaxis)


def log_ticks(axis: Any) -> None:
    """Gives an axis that is logarithmic the numbers 1, 2 and 5 of every power of ten.

    Args:
        axis: One of Matplotlib's axes, `axes.xaxis` or `axes.yaxis`.

    Example:
        >>> from matplotlib.figure import Figure
        >>> axes = Figure().add_subplot(xscale="log")
        >>> l2l_keras.evaluation.log_ticks(axes.xaxis)
        >>> axes.xaxis.get_major_formatter()(0.5)
        '0.5'
    """
    from matplotlib import ticker

    axis.set_major_locator(ticker.LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def tidy(axes: Any) -> None:
    """Gives axes a light grid and no frame above and to the right.

    Args:
        axes: Matplotlib's axes.

    Example:
        >>> from matplotlib.figure import Figure
        >>> l2l_keras.evaluation.tidy(Figure().add_subplot())
    """
    axes.grid(True, which="major", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)


def read_number(value: float | None, missing: float) -> float:
    """Returns a number of a report, where null stands for one that is not finite.

    Args:
        value: The number, or None.
        missing: Which one None stands for.

    Example:
        >>> read_number(None, math.inf)
        inf
    """
    return missing if value is None else float(value)
