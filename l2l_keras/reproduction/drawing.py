"""Figures in the paper's form: panels side by side, and one legend; they need no display."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from l2l_keras.evaluation import Curve
from l2l_keras.evaluation.plots import draw_curves, line_styles, log_scale, log_ticks, tidy
from l2l_keras.evaluation.results import geometric_mean
from l2l_keras.evaluation.rule_response import SIDE, Lines, TensorResponse

_WIDTH, _HEIGHT = 4.3, 4.2
"""Size of a panel in inches."""
_PICTURE = 1.7
"""Side of a picture on a sheet in inches."""
_DPI = 150
_SHOWN = (0.1, 10.0)
"""Ratios beyond these are drawn at the edge."""
_GREY = "#999999"
_EMPHASIS = "#d55e00"
_LINES = ("-", "--", "-.", (0, (5, 1, 1, 1, 1, 1)), ":")
RESPONSE_PANELS = (
    ("step_sizes", "step size (of Adam: learning rate)"),
    ("sizes", "size of the update (RMS)"),
    ("cosines", "cosine of update and −gradient"),
)
"""Fields of the responses of a tensorwise rule, and the labels of their axes."""
Panels = Mapping[str, Sequence[Curve]]
"""Curves by the title of their panel."""


def draw_panels(panels: Panels, labels: Mapping[str, str]) -> Any:
    """Draws mean loss curves with 95 % bands, and `labels` of optimizers if not their names."""
    styles = line_styles(curve for curves in panels.values() for curve in curves)
    labels = {name: labels.get(name, name) for name in styles}
    figure, row = _row_of_axes(len(panels))
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        draw_curves(axes, curves, styles, labels)
        axes.set_title(title)
    row[0].set_ylabel("loss")
    _legend(figure, row, labels.values())
    return figure


def draw_finals(
    groups: Mapping[str, Mapping[float, Sequence[Curve]]], variable: str, labels: Mapping[str, str]
) -> Any:
    """Draws final losses with 95 % intervals against a variable.

    `groups` holds, by the title of a panel, the curves for each value of the variable.
    """
    all_cells = [cell for cells in groups.values() for cell in cells.values()]
    styles = line_styles(curve for cell in all_cells for curve in cell)
    finals = [curve.final for cell in all_cells for curve in cell if math.isfinite(curve.final)]
    labels = {name: labels.get(name, name) for name in styles}
    figure, row = _row_of_axes(len(groups), sharey=True)
    for axes, (title, cells) in zip(row, groups.items(), strict=True):
        for k, (name, style) in enumerate(styles.items()):
            # Side by side, so that the intervals do not hide each other.
            shift = 0.01 * (k - (len(styles) - 1) / 2) * (max(cells) - min(cells))
            shown = {x: curve for x, cell in cells.items() for curve in cell if curve.name == name}
            x = [value + shift for value in shown]
            y = [curve.final if math.isfinite(curve.final) else np.nan for curve in shown.values()]
            intervals = [np.nan_to_num(curve.interval, posinf=0.0) for curve in shown.values()]
            marks = {"marker": "o", "markersize": 4, "elinewidth": 1, "capsize": 2}
            axes.errorbar(x, y, intervals, label=labels[name], **marks, **style)
        if finals and min(finals) > 0:
            # Limited to the losses: intervals of few runs may reach far beyond.
            log_scale(axes, min(finals), max(finals))
        axes.set_xticks(sorted(cells))
        axes.set_xlabel(variable)
        axes.set_title(title)
        tidy(axes)
    row[0].set_ylabel("final loss")
    _legend(figure, row, labels.values())
    return figure


def draw_pictures(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """Draws a sheet of pictures, uint8 `[height, width, 3]`, by the titles of rows and captions."""
    columns = max(len(pictures) for pictures in rows.values())
    figure, parts = _stacked(len(rows), _PICTURE * columns, (_PICTURE + 0.45) * len(rows))
    for part, (title, pictures) in zip(parts, rows.items(), strict=True):
        part.suptitle(title)
        row = part.subplots(1, columns, squeeze=False)[0]
        for axes, (caption, picture) in zip(row, pictures.items(), strict=True):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(caption, fontsize=8)
            axes.set_axis_off()
    return figure


def draw_update_maps(
    maps: Mapping[str, Lines],
    responses: Mapping[str, Lines],
    scales: Mapping[str, float],
    titles: Mapping[str, str],
) -> Any:
    """Draws updates against gradients, and below them the responses of rules to one gradient.

    `maps` holds gradients, in units of `scales`, and the updates after several histories;
    `responses` steps since a single gradient, and the updates after gradients of several sizes;
    `titles` those of the panels.
    """
    figure, parts = _stacked(2, max(_WIDTH * len(maps), 7), 9.0)
    heads = (
        "Update of a weight for its next gradient, after several histories",
        "Effect of a single gradient (in the units above) on later updates",
    )
    for part, head, lines in zip(parts, heads, (maps, responses), strict=True):
        part.suptitle(head, fontsize=13)
        row = part.subplots(1, len(lines), squeeze=False)[0]
        for axes, (name, (x, values)) in zip(row, lines.items(), strict=True):
            _draw_lines(axes, x, values)
            axes.axhline(0.0, color=_GREY, linewidth=0.8, zorder=1)
            axes.set_title(titles.get(name, name))
            if lines is maps:
                axes.set_xlabel(f"gradient, in units of {scales[name]:g}")
            else:
                axes.set_xlabel("steps since that gradient, the others are 0")
        row[0].set_ylabel("update" if lines is maps else "update, minus that without the gradient")
        _legend(part, row, next(iter(lines.values()))[1])
    return figure


def draw_tensor_responses(responses: Mapping[str, Mapping[str, TensorResponse]]) -> Any:
    """Draws what `tensor_responses` returns for each rule, in a row for each."""
    columns = len(RESPONSE_PANELS)
    figure = _figure(columns * _WIDTH, 3.4 * len(responses) + 1.2)
    heading = f"Updates of a {SIDE}×{SIDE} matrix, when successive gradients agree more or less"
    figure.suptitle(heading, fontsize=13)
    grid = figure.subplots(len(responses), columns, sharex=True, sharey="col", squeeze=False)
    for row, (name, own) in zip(grid, responses.items(), strict=True):
        for axes, (field, label) in zip(row, RESPONSE_PANELS, strict=True):
            values = {which: getattr(response, field) for which, response in own.items()}
            # Means of neighbours: alternating values would be drawn as a band.
            lines = {which: (v[1:] + v[:-1]) / 2.0 for which, v in values.items()}
            _draw_lines(axes, np.arange(2, 2 + len(next(iter(lines.values())))), lines)
            axes.set_title(name)
            axes.set_ylabel(label)
            if field == "cosines":
                axes.axhline(0.0, color=_GREY, linewidth=0.8, zorder=1)
            else:
                axes.set_yscale("log")
    for axes in grid[-1]:
        axes.set_xlabel("step")
    _legend(figure, grid[0], next(iter(responses.values())))
    return figure


def draw_ablations(ratios: Mapping[str, Mapping[str, float]]) -> Any:
    """Draws ratios of losses by rule and task, and geometric means, which a line compares."""
    figure, (part,) = _stacked(1, 7.5, 1.5 + 0.3 * len(ratios))
    axes = part.subplots()
    means = []
    for row, own in enumerate(ratios.values()):
        shown = np.clip(list(own.values()), *_SHOWN)
        mean = geometric_mean(list(own.values()))
        means.append(float(np.clip(mean, *_SHOWN)))
        axes.plot(shown, np.full(len(shown), row), "|", color=_GREY, markersize=9)
        axes.text(1.02, row, f"{mean:.3g}", va="center", transform=axes.get_yaxis_transform())
    axes.plot(means, range(len(means)), "o", color=_EMPHASIS, label="geometric mean")
    axes.plot([], [], "|", color=_GREY, markersize=9, label="a task")
    axes.axvline(1.0, color="black", linewidth=0.8, zorder=1)
    axes.axvline(means[0], color=_EMPHASIS, linewidth=0.8, linestyle="--", zorder=1)
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
    axes.set_yticks(range(len(ratios)), [name.replace("_", " ") for name in ratios])
    axes.set_ylim(len(ratios) - 0.4, -0.6)
    axes.set_xlabel("final loss / best tuned baseline's")
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _draw_lines(axes: Any, x: np.ndarray, lines: Mapping[str, np.ndarray]) -> None:
    """Draws lines in shades from dark to light."""
    from matplotlib import colormaps

    shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(lines)))
    for (label, line), shade, style in zip(lines.items(), shades, _LINES, strict=False):
        axes.plot(x, line, label=label, color=shade, linestyle=style, linewidth=1.8)
    axes.axvline(0.0, color=_GREY, linewidth=0.8, zorder=1)
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(x=0.02)
    tidy(axes)


def _figure(width: float, height: float) -> Any:
    """Returns a figure of a size in inches."""
    # Imported late because it is slow. Without pyplot, figures are freed like any other object.
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=_DPI, layout="constrained")


def _row_of_axes(count: int, sharey: bool = False) -> tuple[Any, Any]:
    """Returns a figure and its axes side by side."""
    figure = _figure(max(_WIDTH * count, 6), _HEIGHT)
    return figure, figure.subplots(1, count, squeeze=False, sharey=sharey)[0]


def _stacked(count: int, width: float, height: float) -> tuple[Any, Any]:
    """Returns a figure and its parts, one above the other."""
    figure = _figure(width, height)
    return figure, figure.subfigures(count, 1, squeeze=False)[:, 0]


def _legend(figure: Any, row: Sequence[Any], labels: Iterable[str]) -> None:
    """Puts one legend below all panels, in the order of `labels`."""
    found: dict[str, Any] = {}
    for axes in row:
        handles, texts = axes.get_legend_handles_labels()
        found |= dict(zip(texts, handles, strict=True))
    labels = list(labels)
    handles = [found[label] for label in labels]
    for rows in range(1, len(labels) + 1):
        columns = math.ceil(len(labels) / rows)
        legend = figure.legend(
            handles, labels, loc="outside lower center", ncols=columns, frameon=False
        )
        if columns == 1 or legend.get_window_extent().width <= figure.bbox.width:
            break
        legend.remove()
