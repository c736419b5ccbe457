"""The charts of a study, as Matplotlib figures and as SVG."""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from l2l_keras.evaluation.plots import (
    LEARNED_COLOURS,
    Curve,
    draw_curves,
    held_out_curves_of,
    line_styles,
    log_ticks,
    tidy,
)
from l2l_keras.evaluation.results import Comparison, Ratio
from l2l_keras.studies.break_even import Cost

_SIZE = (5.2, 3.6)
_RANGE = (0.2, 5.0)
"""Ratios beyond are drawn at the edge."""
_JAPANESE_FONTS = ("Noto Sans CJK JP", "IPAexGothic", "IPAGothic", "Hiragino Sans", "Yu Gothic")
_UNITS = {"unit hours": 3600.0, "unit minutes": 60.0, "unit seconds": 1.0}
Words = Mapping[str, str]


def learning_curves(comparison: Comparison, words: Words, by_seconds: bool = False) -> Any:
    """Draws mean losses on examples held out against steps, or against seconds."""
    figure, axes = _new()
    curves = held_out_curves_of(comparison)
    styles = line_styles(curves)
    if by_seconds:
        curves = tuple(_by_seconds(comparison, curve) for curve in curves)
    labels = {curve.name: curve.name for curve in curves}
    draw_curves(axes, curves, styles, labels)
    axes.set_xlabel(words["seconds of a run" if by_seconds else "step"])
    axes.set_ylabel(words["loss on examples held out"])
    if by_seconds:
        # As long as the learned optimizer takes, or the slowest other one.
        axes.set_xlim(0, max(curve.steps[-1] for curve in curves))
    _legend(figure, axes)
    return figure


def _by_seconds(comparison: Comparison, curve: Curve) -> Curve:
    """Returns a curve whose steps are seconds."""
    result = comparison[curve.name]
    seconds_of_step = result.seconds / len(result.curves) / result.steps
    return Curve(**{**vars(curve), "steps": curve.steps * seconds_of_step})


def transfer(ratios: Mapping[str, Mapping[str, Ratio]], words: Words) -> Any:
    """Draws ratios of losses, with their intervals, by problem and optimizer."""
    names = list(next(iter(ratios.values())))
    figure, axes = _new(0.9 + 0.34 * len(ratios) * max(1.0, 0.55 * len(names)))
    for number, name in enumerate(names):
        rows = np.arange(len(ratios)) + 0.6 * ((number + 0.5) / len(names) - 0.5)
        own = np.array([by_name[name] for by_name in ratios.values()], np.float64)
        own[:, 1:] = np.where(np.isnan(own[:, 1:]), own[:, :1], own[:, 1:])
        mean, low, high = np.clip(np.nan_to_num(own, nan=1.0, posinf=_RANGE[1]), *_RANGE).T
        colour = LEARNED_COLOURS[number % len(LEARNED_COLOURS)]
        axes.hlines(rows, low, high, color=colour, linewidth=1.5, alpha=0.6)
        axes.plot(mean, rows, "osD^vP"[number % 6], color=colour, markersize=5, label=name)
    axes.axvline(1.0, color="black", linewidth=0.8, zorder=1)
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
    axes.set_yticks(range(len(ratios)), list(ratios))
    axes.set_ylim(len(ratios) - 0.5, -0.5)
    axes.set_xlabel(words["ratio to the best tuned baseline"])
    tidy(axes)
    _legend(figure, axes)
    return figure


def break_even(costs: Mapping[str, Cost], runs: int, words: Words) -> Any:
    """Draws total time against the number of runs, in the unit that suits it."""
    figure, axes = _new()
    longest = max((c.after(runs) for c in costs.values() if math.isfinite(c.per_run)), default=0.0)
    unit = next(
        (name for name, length in _UNITS.items() if longest >= 2.0 * length), "unit seconds"
    )
    numbers = range(runs + 1)
    styles = [("-", 2.5), ("--", 1.5), ("-.", 1.5), (":", 1.5)]
    colours = (LEARNED_COLOURS[0], "#0072b2", "#56b4e9", "#999999")
    for (name, cost), (line, width), colour in zip(costs.items(), styles, colours, strict=False):
        if math.isfinite(cost.per_run):
            time = [cost.after(n) / _UNITS[unit] for n in numbers]
            axes.plot(numbers, time, line, linewidth=width, color=colour, label=name)
    axes.set_xlim(0, runs)
    axes.set_ylim(bottom=0)
    axes.set_xlabel(words["training runs"])
    axes.set_ylabel(words[unit])
    tidy(axes)
    _legend(figure, axes)
    return figure


def step_sizes(steps: Sequence[int], sizes: Mapping[str, Sequence[float]], words: Words) -> Any:
    """Draws the step size of each tensor over a run."""
    from matplotlib import colormaps

    figure, axes = _new()
    shades = colormaps["viridis"](np.linspace(0.0, 0.9, max(1, len(sizes))))
    for (name, values), shade in zip(sizes.items(), shades, strict=True):
        axes.plot(steps, values, color=shade, linewidth=1.5, label=name)
    axes.set_yscale("log")
    axes.set_xlabel(words["step"])
    axes.set_ylabel(words["step size"])
    tidy(axes)
    if len(sizes) <= 12:
        _legend(figure, axes)
    return figure


def japanese_font() -> str | None:
    """Returns a font that Matplotlib finds and that has Japanese letters; None if there is none."""
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return next((font for font in _JAPANESE_FONTS if font in installed), None)


def to_svg(figure: Any, label: str) -> str:
    """Returns a figure as an SVG element whose text is text, and that is as wide as its parent."""
    import matplotlib

    buffer = io.StringIO()
    with (
        matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label}),
        warnings.catch_warnings(),
    ):
        # The browser's fonts draw the text, not Matplotlib's.
        warnings.filterwarnings("ignore", "Glyph .* missing")
        figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    text = buffer.getvalue()
    start, end = text.index("<svg"), text.index(">", text.index("<svg"))
    width, height = (72.0 * inches for inches in figure.get_size_inches())
    head = (
        f'<svg role="img" aria-label="{label}" viewBox="0 0 {width:g} {height:g}" '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    )
    assert start < end
    return head + text[end:]


def _new(height: float = _SIZE[1]) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_SIZE[0], height), dpi=150, layout="constrained")
    return figure, figure.subplots()


def _legend(figure: Any, axes: Any) -> None:
    handles = axes.get_legend_handles_labels()
    figure.legend(*handles, loc="outside lower center", ncols=2, frameon=False, fontsize=8)
