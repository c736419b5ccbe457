"""Reports of a comparison: a table, curves as CSV, everything as JSON, and a figure."""

from __future__ import annotations

import collections
import csv
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from l2l_keras.evaluation.files import number_or, versions, write_files
from l2l_keras.evaluation.plots import Curve, curves_of, figure, held_out_curves_of
from l2l_keras.evaluation.results import Comparison, Result, mean_and_interval
from l2l_keras.evaluation.verdict import verdict

CURVE_HEADER = ("optimizer", "step", "mean", "half_width")


def table(comparison: Comparison, markdown: bool = False) -> str:
    """Lays out a comparison as a table, lowest mean final loss first, and a verdict.

    Final losses are means over runs ± half-widths of their 95 % intervals: on examples held out, if
    there are any, and of training. The ratio is that of final losses to the best baseline's, a
    geometric mean over runs. The mean loss is that after each update. Losses at equal time are
    those after as many seconds as the fastest optimizer takes. Seconds are the wall time of all
    runs, without compilation and looks at examples held out.

    Args:
        comparison: What to lay out.
        markdown: Whether to write Markdown rather than plain text. Defaults to False.

    Example:
        >>> result = l2l_keras.evaluation.Result("mine", np.ones((2, 4)), window=1, seconds=2.5)
        >>> comparison = l2l_keras.evaluation.Comparison("task", 3, (0, 1), (0,), 1, (result,))
        >>> print(l2l_keras.evaluation.table(comparison))
        optimizer  learning rate  training loss  mean loss  at equal time  ratio  seconds
        ---------  -------------  -------------  ---------  -------------  -----  -------
        mine           not tuned          1 ± 0          1              1            2.50
        ...
    """
    ranked = sorted(comparison.results, key=lambda result: result.mean_final)
    columns = [_cells(comparison, result) for result in ranked]
    body = lay_out(list(columns[0]), [list(cells.values()) for cells in columns], markdown)
    notes = _notes(comparison)
    if markdown:
        notes = [note.replace("*", r"\*") for note in notes]
    return f"{body}\n\n" + ("\n\n" if markdown else "\n").join(notes) + "\n"


def _cells(comparison: Comparison, result: Result) -> dict[str, str]:
    """Returns the cells of one optimizer by the names of their columns."""
    rate = "not tuned" if result.learned else f"{result.learning_rate:.3g}"
    ratio = comparison.ratio(result.name)
    cells = {"optimizer": result.name, "learning rate": rate + "*" * result.on_edge}
    final = _mean(result.final)
    if result.held_out is None:
        losses = {"training loss": final, "mean loss": f"{result.mean_loss:.4g}"}
    else:
        finals = result.held_out.final
        metrics = {name: _mean(finals[name]) for name in finals if name != "loss"}
        losses = {
            "held-out loss": final,
            "best look": f"{result.held_out.best.mean():.4g}",
            **metrics,
            "training loss": f"{result.final_training.mean():.4g}",
        }
    return {
        **cells,
        **losses,
        "at equal time": f"{comparison.loss_at_equal_time(result):.4g}",
        "ratio": "" if math.isnan(ratio) else f"{ratio:.3g}",
        "seconds": f"{result.seconds:.2f}",
    }


def _mean(values: np.ndarray) -> str:
    """Returns a mean over runs ± the half-width of its 95 % interval."""
    mean, half_width = mean_and_interval(values)
    return f"{mean:.4g}" + (f" ± {half_width:.2g}" if np.isfinite(half_width) else "")


def _notes(comparison: Comparison) -> list[str]:
    """Returns what has to be said of the numbers, and verdicts."""
    first, window = comparison.results[0], comparison.window
    training = "the last loss" if window == 1 else f"the mean of the last {window} losses"
    notes = [
        f"task {comparison.task}, {comparison.steps} steps, {len(first.curves)} fresh runs; "
        f"training loss: {training}; at equal time: after the seconds of {comparison.fastest.name}"
    ]
    if first.held_out is not None:
        notes.append(
            "other losses and metrics: on examples held out, at the end of runs; best look: the "
            f"lowest of {len(first.held_out.steps)} in each run"
        )
    notes.append("ratio: to the best baseline, geometric mean over runs")
    if any(result.on_edge for result in comparison.results):
        notes.append("* the best learning rate is the last one tried: a better one may lie beyond")
    learned = [result.name for result in comparison.results if result.learned]
    if comparison.best_baseline is not None:
        notes += [verdict(comparison, name) for name in learned]
    return notes


def lay_out(header: Sequence[str], rows: Sequence[Sequence[str]], markdown: bool = True) -> str:
    """Lays out cells as a table, names aligned left and numbers right; no final line end."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    if markdown:
        dashes = [":" + "-" * (widths[0] - 1), *("-" * (width - 1) + ":" for width in widths[1:])]
    else:
        dashes = ["-" * width for width in widths]

    def line(cells: Sequence[str]) -> str:
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    return "\n".join(map(line, (header, dashes, *rows)))


def curve_rows(curves: Iterable[Curve]) -> Iterator[tuple[str, int, str, str]]:
    """Yields optimizer, step, mean loss before its update and half-width of its 95 % interval."""
    for curve in curves:
        for step, mean, half_width in zip(curve.steps, curve.mean, curve.half_width, strict=True):
            yield curve.name, int(step), f"{mean:.6g}", f"{half_width:.6g}"


def _record(comparison: Comparison, result: Result) -> dict[str, Any]:
    """Returns what JSON holds of one optimizer."""
    return {
        "name": result.name,
        "learned": result.learned,
        "learning_rate": result.learning_rate,
        "mean_final_loss": result.mean_final,
        "interval_half_width": result.interval,
        "ratio_to_best_baseline": comparison.ratio(result.name),
        "mean_final_training_loss": float(result.final_training.mean()),
        "held_out": result.held_out
        and {
            "steps": result.held_out.steps,
            **{name: values.tolist() for name, values in result.held_out.metrics.items()},
        },
        "mean_loss": result.mean_loss,
        "loss_at_equal_time": comparison.loss_at_equal_time(result),
        "seconds": result.seconds,
        "runs": len(result.final),
        "final_losses": result.final.tolist(),
        "tuning": result.tuning
        and {
            "learning_rates": result.tuning.rates,
            "mean_final_losses": result.tuning.losses,
            "on_edge": result.tuning.on_edge,
        },
    }


def write_report(
    comparison: Comparison,
    directory: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Writes the whole report into a folder, and returns the paths of its files.

    Args:
        comparison: What to report.
        directory: The folder.
        settings: More settings to record in `results.json`. Defaults to none.

    Raises:
        OSError: If the folder cannot be written to.

    Example:
        >>> result = l2l_keras.evaluation.Result("mine", np.ones((2, 4)), window=1)
        >>> comparison = l2l_keras.evaluation.Comparison("task", 3, (0, 1), (0,), 1, (result,))
        >>> paths = l2l_keras.evaluation.write_report(comparison, "report")
        >>> [path.name for path in paths]
        ['table.txt', 'table.md', 'curves.csv', 'curves.png', 'results.json']
    """
    own = ("task", "steps", "seeds", "tuning_seeds", "window")
    best = comparison.best_baseline
    results = {
        "settings": {**{name: getattr(comparison, name) for name in own}, **(settings or {})},
        "best_baseline": best and best.name,
        "results": [_record(comparison, result) for result in comparison.results],
        "versions": versions(),
    }
    files = {
        "table.txt": table(comparison),
        "table.md": table(comparison, markdown=True),
        "curves.csv": [CURVE_HEADER, *curve_rows(curves_of(comparison))],
        **_held_out_files(comparison),
        "curves.png": figure(comparison),
        "results.json": results,
    }
    return write_files(files, directory)


def _held_out_files(comparison: Comparison) -> dict[str, Any]:
    """Returns a file of the metrics on examples held out, if there are any."""
    held_out = comparison.results[0].held_out
    if held_out is None:
        return {}
    rows = [
        (metric, *row)
        for metric in held_out.metrics
        for row in curve_rows(held_out_curves_of(comparison, metric))
    ]
    return {"held_out.csv": [("metric", *CURVE_HEADER), *rows]}


def read_curves(report: str | os.PathLike[str]) -> tuple[Curve, ...]:
    """Reads the mean loss curves of a comparison from its report.

    Args:
        report: A folder that `write_report` wrote; its `curves.csv` and `results.json` are read.

    Returns:
        A curve for each optimizer, in the order of the report.

    Raises:
        ValueError: If there is no report, or it cannot be read.

    Example:
        >>> result = l2l_keras.evaluation.Result("mine", np.ones((2, 4)), window=1)
        >>> comparison = l2l_keras.evaluation.Comparison("task", 3, (0, 1), (0,), 1, (result,))
        >>> paths = l2l_keras.evaluation.write_report(comparison, "report")
        >>> [curve.name for curve in l2l_keras.evaluation.read_curves("report")]
        ['mine']
    """
    folder = Path(report)
    points: dict[str, list[tuple[float, ...]]] = collections.defaultdict(list)
    curves = []
    try:
        with (folder / "curves.csv").open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                points[row["optimizer"]].append(
                    tuple(float(row[name]) for name in CURVE_HEADER[1:])
                )
        for result in json.loads((folder / "results.json").read_bytes())["results"]:
            steps, mean, half_width = np.transpose(points[result["name"]])
            tuned = bool(result["tuning"] and result["tuning"]["learning_rates"])
            final = number_or(result["mean_final_loss"], math.inf)
            interval = number_or(result["interval_half_width"], math.nan)
            own = (result["name"], result["learned"], result["learning_rate"])
            curves.append(Curve(*own, steps.astype(int), mean, half_width, final, interval, tuned))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the folder of a report, with curves.csv and results.json. "
            f"Received: {str(folder)!r} ({type(error).__name__}: {error})"
        ) from error
    return tuple(curves)
