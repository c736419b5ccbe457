"""Reports of the testbed: tables, everything as JSON, and a figure."""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from l2l_keras.evaluation.files import number_or, versions, write_files
from l2l_keras.evaluation.plots import ratio_figure
from l2l_keras.evaluation.report import lay_out
from l2l_keras.evaluation.results import Ratio
from l2l_keras.evaluation.scores import Score, Summary, summaries

_HEADER = (
    "problem",
    "best baseline",
    "its loss",
    "final loss",
    "ratio",
    "to Adam's default",
    "mean loss",
    "steps",
    "seconds",
)
_NOTE = (
    "Ratios are of final losses, geometric means over seeds with 95 % intervals; mean loss: ratio "
    "of mean losses over the run to the best tuned baseline's; steps and seconds: shares of a run "
    "after which the best tuned baseline's final loss is reached. An asterisk: a better learning "
    "rate of the baseline may lie beyond those tried."
)


def table(scores: Sequence[Score]) -> str:
    """Lays scores out as Markdown: a table for each optimizer and each length of runs.

    Args:
        scores: What to lay out.

    Example:
        >>> ratio = l2l_keras.evaluation.testbed.Ratio(mean=0.8, low=0.7, high=0.9)
        >>> rest = ("Adam", 0.01, False, 2.0, 0.4, 0.5, ratio, ratio, 0.9, 0.6, None)
        >>> score = l2l_keras.evaluation.testbed.Score("wine_mlp", "mine", 100, *rest)
        >>> print(l2l_keras.evaluation.testbed.table([score]).splitlines()[0])
        **mine, 100 steps**
    """
    parts = []
    for summary in summaries(scores):
        key = (summary.optimizer, summary.steps)
        own = [_row(score) for score in scores if (score.optimizer, score.steps) == key]
        title = f"**{summary.optimizer}, {summary.steps:,} steps**"
        parts.append(f"{title}\n\n{lay_out(_HEADER, [*own, _last_row(summary)])}")
    return "\n\n".join([*parts, _NOTE]) + "\n"


def read_scores(report: str | os.PathLike[str]) -> list[Score]:
    """Reads scores, in their order, from their report.

    Args:
        report: A folder that `write_report` wrote; its `testbed.json` is read.

    Raises:
        ValueError: If there is no report, or it cannot be read.

    Example:
        >>> ratio = l2l_keras.evaluation.testbed.Ratio(mean=0.8, low=0.7, high=0.9)
        >>> rest = ("Adam", 0.01, False, 2.0, 0.4, 0.5, ratio, ratio, 0.9, 0.6, None)
        >>> score = l2l_keras.evaluation.testbed.Score("wine_mlp", "mine", 100, *rest)
        >>> paths = l2l_keras.evaluation.testbed.write_report([score], "report", settings={})
        >>> l2l_keras.evaluation.testbed.read_scores("report") == [score]
        True
    """
    try:
        scores = json.loads((Path(report) / "testbed.json").read_bytes())["scores"]
        return [_score(score) for score in scores]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the folder of a report, with testbed.json. "
            f"Received: {str(report)!r} ({type(error).__name__}: {error})"
        ) from error


def _score(content: Mapping[str, Any]) -> Score:
    """Returns a score from its JSON."""
    losses = ("initial_loss", "final_loss", "baseline_loss", "mean_loss_ratio")
    numbers = {name: number_or(content[name], math.inf) for name in losses}
    ratios = {
        name: Ratio(*map(number_or, content[name], (math.inf, math.nan, math.nan)))
        for name in ("ratio", "default_ratio")
    }
    return Score(**{**content, **numbers, **ratios})


def write_report(
    scores: Sequence[Score], directory: str | os.PathLike[str], settings: Mapping[str, Any]
) -> list[Path]:
    """Writes the whole report into a folder.

    Args:
        scores: What to report.
        directory: The folder.
        settings: Settings to record, such as the flags of a script.

    Returns:
        Paths of `testbed.md`, `testbed.png` and `testbed.json`.

    Raises:
        OSError: If the folder cannot be written to.

    Example:
        >>> ratio = l2l_keras.evaluation.testbed.Ratio(mean=0.8, low=0.7, high=0.9)
        >>> rest = ("Adam", 0.01, False, 2.0, 0.4, 0.5, ratio, ratio, 0.9, 0.6, None)
        >>> score = l2l_keras.evaluation.testbed.Score("wine_mlp", "mine", 100, *rest)
        >>> paths = l2l_keras.evaluation.testbed.write_report([score], "report", {"seeds": 3})
        >>> [path.name for path in paths]
        ['testbed.md', 'testbed.png', 'testbed.json']
    """
    content = {
        "settings": settings,
        "summaries": [dataclasses.asdict(summary) for summary in summaries(scores)],
        "scores": [dataclasses.asdict(score) for score in scores],
        "versions": versions(),
    }
    files = {
        "testbed.md": table(scores),
        "testbed.png": ratio_figure(scores),
        "testbed.json": content,
    }
    return write_files(files, directory)


def _row(score: Score) -> tuple[str, ...]:
    """Returns the cells of one problem."""
    asterisk = r"\*" if score.on_edge else ""
    mean, low, high = score.ratio
    interval = "" if math.isnan(low) else f" ({low:.2f} to {high:.2f})"
    shares = (score.share_of_steps, score.share_of_seconds)
    return (
        score.problem,
        f"{score.baseline} ({score.learning_rate:.2g}{asterisk})",
        f"{score.baseline_loss:.4g}",
        f"{score.final_loss:.4g}",
        f"{mean:.2f}{interval}",
        f"{score.default_ratio.mean:.2f}",
        f"{score.mean_loss_ratio:.2f}",
        *("not reached" if share is None else f"{share:.2f}" for share in shares),
    )


def _last_row(summary: Summary) -> tuple[str, ...]:
    """Returns the cells for all problems."""
    return (
        f"all {summary.problems} (geometric mean)",
        *[""] * 3,
        f"**{summary.ratio:.3f}** (worst {summary.worst_ratio:.2f})",
        f"{summary.default_ratio:.3f}",
        f"below 1: {summary.lower_mean_losses:.0%}",
        f"{summary.share_of_steps:.2f}",
        f"{summary.share_of_seconds:.2f}",
    )
