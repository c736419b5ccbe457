"""Reports of the testbed: tables, everything as JSON, and a figure."""

from __future__ import annotations

import dataclasses
import io
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2l_keras.evaluation.panels import LEARNED_COLOURS, read_number
from l2l_keras.evaluation.report import finite, versions, write_files
from l2l_keras.evaluation.testbed.scores import Ratio, Score, Summary, summarise

_HEADER = (
    "problem",
    "best baseline",
    "its loss",
    "final loss",
    "ratio",
    "to Adam's default",
    "area",
    "steps",
    "seconds",
)
_MARKERS = "osD^vP"
_SHOWN = (0.05, 20.0)
"""Ratios that the figure shows; those beyond are drawn as triangles that point there."""


def summaries(scores: Sequence[Score]) -> list[Summary]:
    """Summarises scores, for each optimizer and each length of runs.

    Args:
        scores: Scores of any optimizers, lengths and problems.
    """
    groups: dict[tuple[str, int], list[Score]] = {}
    for score in scores:
        groups.setdefault((score.optimizer, score.steps), []).append(score)
    return [summarise(group) for group in groups.values()]


def table(scores: Sequence[Score]) -> str:
    """Lays scores out as Markdown: a table for each optimizer and each length of runs.

    Args:
        scores: The scores.

    Returns:
        Lines of text, the last one ended.
    """
    parts = []
    for summary in summaries(scores):
        own = [
            score
            for score in scores
            if (score.optimizer, score.steps) == (summary.optimizer, summary.steps)
        ]
        rows = [_HEADER, tuple("---" for _ in _HEADER), *map(_row, own), _last_row(summary)]
        parts.append(
            f"**{summary.optimizer}, {summary.steps:,} steps**\n\n"
            + "\n".join(f"| {' | '.join(row)} |" for row in rows)
        )
    parts.append(
        "Ratios are of final losses, geometric means over seeds with 95 % intervals; area: that "
        "under the loss curve, to the best tuned baseline's; steps and seconds: shares of a run "
        "after which the best tuned baseline's final loss is reached. An asterisk: a better "
        "learning rate of the baseline may lie beyond those tried."
    )
    return "\n\n".join(parts) + "\n"


def figure(scores: Sequence[Score]) -> Any:
    """Draws the final-loss ratio of every problem, one panel for each length of runs.

    Args:
        scores: The scores.

    Returns:
        A `matplotlib.figure.Figure`, which belongs to no window.
    """
    # Late, since only figures need it and it is slow to import.
    from matplotlib.figure import Figure

    problems = list(dict.fromkeys(score.problem for score in scores))
    optimizers = list(dict.fromkeys(score.optimizer for score in scores))
    lengths = sorted({score.steps for score in scores})
    size = (3.2 + 2.8 * len(lengths), 1.6 + 0.32 * len(problems))
    drawing = Figure(figsize=size, dpi=150, layout="constrained")
    panels = drawing.subplots(1, len(lengths), sharey=True, squeeze=False)[0]
    for axes, steps in zip(panels, lengths, strict=True):
        for number, optimizer in enumerate(optimizers):
            own = [s for s in scores if (s.optimizer, s.steps) == (optimizer, steps)]
            shift = 0.5 * (number + 0.5) / len(optimizers) - 0.25
            places = [problems.index(s.problem) + shift for s in own]
            _draw_ratios(axes, own, places, optimizer, number)
        axes.axvline(1.0, color="black", linewidth=0.8)
        axes.set_xscale("log")
        axes.set_xlim(*_limits(scores))
        axes.grid(axis="x", which="both", alpha=0.2)
        axes.set_title(f"{steps:,} steps", fontsize=10)
        axes.set_xlabel("final loss / best tuned baseline's")
    panels[0].set_yticks(range(len(problems)), problems)
    panels[0].invert_yaxis()
    drawing.legend(
        *panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False
    )
    return drawing


def to_json(scores: Sequence[Score], settings: Mapping[str, Any]) -> str:
    """Writes scores, their summaries, settings and versions as JSON.

    Args:
        scores: The scores.
        settings: What else there is to record, such as the flags of a script.
    """
    content = {
        "settings": settings,
        "summaries": [dataclasses.asdict(summary) for summary in summaries(scores)],
        "scores": [
            {**dataclasses.asdict(score), "ratio": list(score.ratio)}
            | {"default_ratio": list(score.default_ratio)}
            for score in scores
        ],
        "versions": versions(),
    }
    return json.dumps(finite(content), indent=2, allow_nan=False) + "\n"


def read_scores(report: str | os.PathLike[str]) -> list[Score]:
    """Reads scores from the report of them.

    Args:
        report: A folder that `write_report` wrote; its `testbed.json` is read.

    Returns:
        The scores, in the order of the report.

    Raises:
        ValueError: If there is no report, or it cannot be read.

    Example:
        >>> l2l_keras.evaluation.testbed.read_scores("report")  # doctest: +SKIP
    """
    try:
        scores = json.loads((Path(report) / "testbed.json").read_text())["scores"]
        return [_score(score) for score in scores]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the folder of a report, with testbed.json. "
            f"Received: {str(report)!r} ({type(error).__name__}: {error})"
        ) from error


def write_report(
    scores: Sequence[Score], directory: str | os.PathLike[str], settings: Mapping[str, Any]
) -> list[Path]:
    """Writes the whole report into a folder, which it makes where needed.

    Args:
        scores: The scores.
        directory: The folder.
        settings: What else there is to record.

    Returns:
        Paths of `testbed.md`, `testbed.png` and `testbed.json`.

    Raises:
        OSError: If the folder cannot be written to.
    """
    image = io.BytesIO()
    figure(scores).savefig(image, format="png")
    files = {
        "testbed.md": table(scores).encode(),
        "testbed.png": image.getvalue(),
        "testbed.json": to_json(scores, settings).encode(),
    }
    return write_files(files, directory)


def _score(content: Mapping[str, Any]) -> Score:
    """Returns a score from its JSON."""
    losses = ("initial_loss", "final_loss", "baseline_loss", "area_ratio")
    ratios = ("ratio", "default_ratio")
    return Score(
        **{
            **content,
            **{name: read_number(content[name], math.inf) for name in losses},
            **{name: _ratio(*content[name]) for name in ratios},
        }
    )


def _ratio(mean: float | None, low: float | None, high: float | None) -> Ratio:
    return Ratio(
        read_number(mean, math.inf), read_number(low, math.nan), read_number(high, math.nan)
    )


def _row(score: Score) -> tuple[str, ...]:
    """Returns the cells of one problem."""
    return (
        score.problem,
        f"{score.baseline} ({score.learning_rate:.2g}{chr(92) + '*' if score.on_edge else ''})",
        f"{score.baseline_loss:.4g}",
        f"{score.final_loss:.4g}",
        _interval(score.ratio),
        f"{score.default_ratio.mean:.2f}",
        f"{score.area_ratio:.2f}",
        _share(score.share_of_steps),
        _share(score.share_of_seconds),
    )


def _last_row(summary: Summary) -> tuple[str, ...]:
    """Returns the cells that stand for all problems."""
    return (
        f"all {summary.problems} (geometric mean)",
        "",
        "",
        "",
        f"**{summary.ratio:.3f}** (worst {summary.worst_ratio:.2f})",
        f"{summary.default_ratio:.3f}",
        f"below 1: {summary.smaller_areas:.0%}",
        f"{summary.share_of_steps:.2f}",
        f"{summary.share_of_seconds:.2f}",
    )


def _interval(ratio: Any) -> str:
    if math.isnan(ratio.low):
        return f"{ratio.mean:.2f}"
    return f"{ratio.mean:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _share(share: float | None) -> str:
    return "not reached" if share is None else f"{share:.2f}"


def _limits(scores: Sequence[Score]) -> tuple[float, float]:
    """Returns the ratios from which and to which the figure goes, the same on both sides of 1."""
    means = np.array([score.ratio.mean for score in scores])
    with np.errstate(divide="ignore"):
        widest = np.exp(np.abs(np.log(np.clip(means, *_SHOWN))).max())
    widest = 1.15 * max(1.5, float(widest))
    return 1.0 / widest, widest


def _draw_ratios(
    axes: Any, scores: Sequence[Score], places: Sequence[float], label: str, number: int
) -> None:
    """Draws the ratios of one optimizer, with their intervals."""
    means = np.array([score.ratio.mean for score in scores])
    shown = np.clip(means, *_SHOWN)
    ratios = [score.ratio for score in scores]
    # A single seed has no interval.
    lows = [r.mean if math.isnan(r.low) else r.low for r in ratios]
    highs = [r.mean if math.isnan(r.high) else r.high for r in ratios]
    colour = LEARNED_COLOURS[number % len(LEARNED_COLOURS)]
    axes.hlines(places, lows, highs, color=colour, linewidth=1.2, alpha=0.6)
    own, (lowest, highest) = _MARKERS[number % len(_MARKERS)], _SHOWN
    inside = (means >= lowest) & (means <= highest)
    for marker, chosen in ((own, inside), ("<", means < lowest), (">", means > highest)):
        axes.plot(
            shown[chosen],
            np.array(places)[chosen],
            marker,
            color=colour,
            markersize=4.5,
            label=label if marker == own else None,
        )
