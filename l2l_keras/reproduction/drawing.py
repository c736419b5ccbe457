"""Figures in the paper's form: several panels side by side, and one legend for all."""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from l2l_keras.evaluation import (
    Curve,
    TensorResponse,
    draw_curves,
    line_styles,
    log_scale,
    log_ticks,
    testbed,
    tidy,
)
from l2l_keras.evaluation.plots import LEARNED_COLOURS

_WIDTH, _HEIGHT = 4.3, 4.2
"""Size of a panel in inches."""
_PICTURE = 1.7
"""Side of a picture on a sheet in inches."""
_DPI = 150
_SHOWN = (0.1, 10.0)
"""Ratios that are drawn as they are."""
Panels = Mapping[str, Sequence[Curve]]
"""Curves by the title of their panel."""
Lines = Mapping[str, tuple[np.ndarray, Mapping[str, np.ndarray]]]
"""By the title of a panel, places `[n]`, and by the name of a line its values there, `[n]`."""


def draw_panels(panels: Panels, labels: Mapping[str, str] | None = None) -> Any:
    """Draws mean loss curves with 95 % bands, a panel for each comparison.

    Args:
        panels: Curves by the title of their panel.
        labels: Texts of the legend by name of an optimizer. Defaults to the names.

    Returns:
        A `matplotlib.figure.Figure`, which belongs to no window.

    Raises:
        ValueError: If there is no panel.

    Example:
        >>> losses = np.array([2.0, 1.0])
        >>> curve = l2l_keras.evaluation.Curve("Adam", False, 0.1, losses, 0.1 * losses, 1.0, 0.1)
        >>> len(draw_panels({"100 steps": [curve], "200 steps": [curve]}).axes)
        2
    """
    styles = line_styles(curve for curves in panels.values() for curve in curves)
    labels = {name: (labels or {}).get(name, name) for name in styles}
    figure, row = _row_of_axes(len(panels))
    for axes, (title, curves) in zip(row, panels.items(), strict=True):
        draw_curves(axes, curves, styles, labels)
        axes.set_title(title)
    row[0].set_ylabel("loss")
    _legend(figure, row, labels.values())
    return figure


def draw_finals(
    groups: Mapping[str, Mapping[float, Sequence[Curve]]],
    variable: str,
    labels: Mapping[str, str] | None = None,
) -> Any:
    """Draws final losses with 95 % intervals against a variable, a panel for each group.

    Args:
        groups: By the title of a panel, the curves for each value of the variable.
        variable: What the values are, for the axis.
        labels: Texts of the legend by name of an optimizer. Defaults to the names.

    Returns:
        A `matplotlib.figure.Figure`, which belongs to no window.

    Raises:
        ValueError: If there is no panel.

    Example:
        >>> losses = np.array([2.0, 1.0])
        >>> curve = l2l_keras.evaluation.Curve("Adam", False, 0.1, losses, 0.1 * losses, 1.0, 0.1)
        >>> figure = draw_finals({"1 layer": {10: [curve], 20: [curve]}}, "units")
        >>> figure.axes[0].get_xlabel()
        'units'
    """
    all_cells = [cell for cells in groups.values() for cell in cells.values()]
    styles = line_styles(curve for cell in all_cells for curve in cell)
    finals = [curve.final for cell in all_cells for curve in cell if math.isfinite(curve.final)]
    labels = {name: (labels or {}).get(name, name) for name in styles}
    figure, row = _row_of_axes(len(groups), share_loss=True)
    for axes, (title, cells) in zip(row, groups.items(), strict=True):
        for k, (name, style) in enumerate(styles.items()):
            # Side by side, so that the intervals do not hide each other.
            shift = 0.01 * (k - (len(styles) - 1) / 2) * (max(cells) - min(cells))
            shown = {v: curve for v, cell in cells.items() for curve in cell if curve.name == name}
            axes.errorbar(
                [value + shift for value in shown],
                [curve.final if math.isfinite(curve.final) else np.nan for curve in shown.values()],
                yerr=[np.nan_to_num(curve.interval, posinf=0.0) for curve in shown.values()],
                label=labels[name],
                marker="o",
                markersize=4,
                elinewidth=1,
                capsize=2,
                **style,
            )
        if finals and min(finals) > 0:
            # Intervals may reach far beyond, where there are few runs.
            log_scale(axes, min(finals), max(finals))
        axes.set_xticks(sorted(cells))
        axes.set_xlabel(variable)
        axes.set_title(title)
        tidy(axes)
    row[0].set_ylabel("final loss")
    _legend(figure, row, labels.values())
    return figure


def draw_pictures(rows: Mapping[str, Mapping[str, np.ndarray]]) -> Any:
    """Draws a sheet of pictures.

    Args:
        rows: By the title of a row, the pictures in it by their captions, uint8
            `[height, width, 3]`. All rows have as many.

    Returns:
        A `matplotlib.figure.Figure`, which belongs to no window.

    Example:
        >>> picture = np.zeros((16, 16, 3), np.uint8)
        >>> len(draw_pictures({"a row": {"content": picture, "style": picture}}).axes)
        2
    """
    from matplotlib.figure import Figure

    columns = max(len(pictures) for pictures in rows.values())
    figure = Figure(
        figsize=(_PICTURE * columns, (_PICTURE + 0.45) * len(rows)), dpi=_DPI, layout="constrained"
    )
    parts = figure.subfigures(len(rows), 1, squeeze=False)[:, 0]
    for part, (title, pictures) in zip(parts, rows.items(), strict=True):
        part.suptitle(title)
        for axes, (caption, picture) in zip(
            part.subplots(1, columns, squeeze=False)[0], pictures.items(), strict=True
        ):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(caption, fontsize=8)
            axes.set_axis_off()
    return figure


def draw_update_maps(maps: Lines, responses: Lines, titles: Mapping[str, str] | None = None) -> Any:
    """Draws updates against gradients, and below them how rules answer to a single gradient.

    Args:
        maps: By the name of a rule, gradients and the updates after several histories.
        responses: By the name of a rule, steps since a single gradient, and the updates at them
            after gradients of several sizes.
        titles: Titles of the panels by name of a rule. Defaults to the names.

    Returns:
        A `matplotlib.figure.Figure`, which belongs to no window.

    Raises:
        ValueError: If there is no rule.

    Example:
        >>> gradients = np.array([-1.0, 1.0])
        >>> maps = {"SGD": (gradients, {"first step": -gradients})}
        >>> responses = {"SGD": (np.arange(2), {"gradient 1": np.array([-1.0, 0.0])})}
        >>> len(draw_update_maps(maps, responses).axes)
        2
    """
    from matplotlib.figure import Figure

    _check(len(maps))
    figure = Figure(figsize=(max(_WIDTH * len(maps), 7), 8.4), dpi=_DPI, layout="constrained")
    parts: Any = figure.subfigures(2, 1)
    row = _draw_lines(parts[0], maps, "gradient", "update")
    for axes, name in zip(row, maps, strict=True):
        # Higher than the power of ten at the top of the axis.
        axes.set_title((titles or {}).get(name, name), pad=16)
    _draw_lines(
        parts[1],
        responses,
        "steps since a single gradient",
        "update, less that without it",
        marker="o",
        markersize=3,
    )
    return figure


def draw_tensor_responses(responses: Mapping[str, Mapping[str, TensorResponse]]) -> Any:
    """Draws how tensorwise rules answer to sequences of gradients, a row for each rule.

    Args:
        responses: By the name of a rule, what `l2l_keras.evaluation.tensor_responses` returns.

    Returns:
        A `matplotlib.figure.Figure`, which belongs to no window.

    Raises:
        ValueError: If there is no rule.

    Example:
        >>> rule = l2l_keras.rules.TensorwiseLSTM(seed=0)
        >>> responses = l2l_keras.evaluation.tensor_responses(rule, steps=3, side=4)
        >>> len(draw_tensor_responses({"untrained": responses}).axes)
        3
    """
    from matplotlib.figure import Figure

    _check(len(responses))
    height = 3.6 * len(responses) + 0.9
    figure = Figure(figsize=(3 * _WIDTH, height), dpi=_DPI, layout="constrained")
    parts: Any = figure.subfigures(len(responses), 1, squeeze=False)[:, 0]
    for part, (name, own) in zip(parts, responses.items(), strict=True):
        steps = np.arange(1, len(next(iter(own.values())).sizes) + 1)
        panels: Any = {
            title: (steps[1:], {label: _of_pairs(getattr(r, field)) for label, r in own.items()})
            for title, field in (
                ("step size", "step_sizes"),
                ("root mean square of the update", "sizes"),
                ("cosine with descent", "cosines"),
            )
        }
        log = {"step size", "root mean square of the update"}
        row = _draw_lines(part, panels, "step", "", log)
        for axes, title in zip(row, panels, strict=True):
            axes.set_title(title)
        part.suptitle(name)
    return figure


def draw_ablations(ratios: Mapping[str, Mapping[str, float]]) -> Any:
    """Draws ratios of losses on several tasks, and their geometric means, a row for each rule.

    Args:
        ratios: By the name of a rule, by the name of a task, the ratio; that rule first that the
            others differ from in one thing.

    Returns:
        A `matplotlib.figure.Figure`, which belongs to no window. Ratios that are beyond 0.1 and 10
        are at the edge.

    Raises:
        ValueError: If there is no rule.

    Example:
        >>> ratios = {"all": {"a": 0.8, "b": 0.9}, "without": {"a": 1.2, "b": 1.1}}
        >>> [text.get_text() for text in draw_ablations(ratios).axes[0].get_yticklabels()]
        ['all', 'without']
    """
    from matplotlib.figure import Figure

    _check(len(ratios))
    figure = Figure(figsize=(7.5, 1.5 + 0.3 * len(ratios)), dpi=_DPI, layout="constrained")
    axes = figure.add_subplot()
    beside = axes.get_yaxis_transform()
    means = []
    for row, own in enumerate(ratios.values()):
        shown = np.clip(list(own.values()), *_SHOWN)
        mean = testbed.geometric_mean(list(own.values()))
        means.append(float(np.clip(mean, *_SHOWN)))
        axes.plot(shown, np.full(len(shown), row), "|", color="#999999", markersize=9)
        axes.text(1.02, row, f"{mean:.3g}", va="center", transform=beside)
    axes.plot(means, range(len(means)), "o", color=LEARNED_COLOURS[0], label="geometric mean")
    axes.plot([], [], "|", color="#999999", markersize=9, label="a task")
    axes.axvline(1.0, color="black", linewidth=0.8, zorder=1)
    axes.axvline(means[0], color=LEARNED_COLOURS[0], linewidth=0.8, linestyle="--", zorder=1)
    axes.set_xscale("log")
    log_ticks(axes.xaxis)
    axes.set_yticks(range(len(ratios)), [name.replace("_", " ") for name in ratios])
    axes.set_ylim(len(ratios) - 0.4, -0.6)
    axes.set_xlabel("final loss / best tuned baseline's")
    tidy(axes)
    figure.legend(loc="outside lower center", ncols=2, frameon=False)
    return figure


def _of_pairs(values: np.ndarray) -> np.ndarray:
    """Returns means of neighbours: what goes back and forth would be nothing but a band."""
    return (values[1:] + values[:-1]) / 2.0


def _draw_lines(
    figure: Any, lines: Lines, xlabel: str, ylabel: str, log: Container[str] = (), **style: Any
) -> Any:
    """Draws lines in shades from dark to light, axes side by side; returns the axes.

    Those of panels in `log` are on a logarithmic scale.
    """
    from matplotlib import colormaps

    row = figure.subplots(1, len(lines), squeeze=False)[0]
    labels: dict[str, None] = {}
    for axes, (title, (places, values)) in zip(row, lines.items(), strict=True):
        shades = colormaps["viridis"](np.linspace(0.0, 0.85, len(values)))
        for (label, line), shade in zip(values.items(), shades, strict=True):
            axes.plot(places, line, label=label, color=shade, linewidth=1.8, **style)
            labels[label] = None
        axes.axvline(0.0, color="#999999", linewidth=0.8, zorder=1)
        if title in log:
            axes.set_yscale("log")
        else:
            axes.axhline(0.0, color="#999999", linewidth=0.8, zorder=1)
            axes.ticklabel_format(style="sci", scilimits=(-2, 3))
        axes.margins(x=0.02)
        axes.set_xlabel(xlabel)
        tidy(axes)
    row[0].set_ylabel(ylabel)
    _legend(figure, row, labels)
    return row


def _row_of_axes(count: int, share_loss: bool = False) -> tuple[Any, Any]:
    """Returns a figure and its axes side by side."""
    # Late, since only figures need it and it is slow to import; without pyplot, figures need no
    # display and are freed like any object.
    from matplotlib.figure import Figure

    _check(count)
    figure = Figure(figsize=(max(_WIDTH * count, 6), _HEIGHT), dpi=_DPI, layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, sharey=share_loss)[0]


def _check(count: int) -> None:
    if not count:
        raise ValueError("Expected at least one panel. Received: none")


def _legend(figure: Any, row: Sequence[Any], labels: Iterable[str]) -> None:
    """Puts one legend below all panels, in the order of `labels`."""
    found: dict[str, Any] = {}
    for axes in row:
        handles, texts = axes.get_legend_handles_labels()
        found |= dict(zip(texts, handles, strict=True))
    labels = list(labels)
    figure.legend(
        [found[label] for label in labels],
        labels,
        loc="outside lower center",
        ncols=_columns(labels, row[0].figure.bbox.width / row[0].figure.dpi),
        frameon=False,
    )


def _columns(labels: Sequence[str], width: float) -> int:
    """Returns how many columns of a legend fit into a width in inches, in rows about as long."""
    fitting = 1
    for columns in range(len(labels), 1, -1):
        parts = np.array_split(np.array(labels, dtype=object), columns)
        # A line, the space around it, and letters of 10 points, of which few are as wide.
        if sum(0.8 + 0.083 * max(map(len, part)) for part in parts) <= width:
            fitting = columns
            break
    rows = math.ceil(len(labels) / fitting)
    return math.ceil(len(labels) / rows)
