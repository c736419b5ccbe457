"""Reports of a comparison: a table, curves as CSV, everything as JSON, and a figure."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2l_keras.evaluation import panels
from l2l_keras.evaluation.compare import Comparison, Result, mean_and_interval

_HEADER = ("optimizer", "learning rate", "final loss", "ratio", "area", "seconds")


def table(comparison: Comparison, markdown: bool = False) -> str:
    """Lays out a comparison as a table, best final loss first.

    The final loss is the mean over runs ± the half-width of its 95 % interval; the ratio is that
    mean over the best tuned baseline's; the area is the sum of the mean losses after each update;
    the seconds are the wall time of all runs, compilation not included.

    Args:
        comparison: What to lay out.
        markdown: Whether to write Markdown rather than plain text.

    Returns:
        Lines of text, the last one ended.

    Example:
        >>> comparison = l2l_keras.evaluation.compare(
        ...     l2l_keras.tasks.Quadratic(functions=2), {}, steps=3, seeds=[0]
        ... )
        >>> lines = l2l_keras.evaluation.table(comparison).splitlines()
        >>> lines[0].split("  ")[:2]
        ['optimizer', 'learning rate']
    """
    rows = [_row(comparison, result) for result in _ranked(comparison)]
    widths = [max(map(len, column)) for column in zip(_HEADER, *rows, strict=True)]

    def line(cells: tuple[str, ...]) -> str:
        # Names to the left, numbers to the right.
        padded = [cells[0].ljust(widths[0])]
        padded += [cell.rjust(width) for cell, width in zip(cells[1:], widths[1:], strict=True)]
        return f"| {' | '.join(padded)} |" if markdown else "  ".join(padded).rstrip()

    if markdown:
        dashes = [":" + "-" * (widths[0] - 1)] + ["-" * (width - 1) + ":" for width in widths[1:]]
        rule = f"| {' | '.join(dashes)} |"
    else:
        rule = "  ".join("-" * width for width in widths)
    notes = [_summary(comparison)]
    if any(result.tuning is not None and result.tuning.on_edge for result in comparison.results):
        notes.append("* the best learning rate is the last one tried: a better one may lie beyond")
    if markdown:
        notes = [note.replace("*", r"\*") for note in notes]
    separator = "\n\n" if markdown else "\n"
    body = "\n".join([line(_HEADER), rule, *map(line, rows)])
    return body + "\n\n" + separator.join(notes) + "\n"


def curves_csv(comparison: Comparison) -> str:
    """Writes the mean loss curves as comma-separated values.

    Args:
        comparison: What to write.

    Returns:
        Lines of `optimizer, step, mean, half_width`, with a header: the mean loss over runs
        before update `step` (0 to steps), and the half-width of its 95 % interval.

    Example:
        >>> comparison = l2l_keras.evaluation.compare(
        ...     l2l_keras.tasks.Quadratic(functions=2), {}, steps=3, seeds=[0]
        ... )
        >>> l2l_keras.evaluation.curves_csv(comparison).splitlines()[0]
        'optimizer,step,mean,half_width'
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("optimizer", "step", "mean", "half_width"))
    for result in comparison.results:
        for step, (mean, half_width) in enumerate(
            zip(*mean_and_interval(result.curves), strict=True)
        ):
            writer.writerow((result.name, step, f"{mean:.6g}", f"{half_width:.6g}"))
    return text.getvalue()


def to_json(comparison: Comparison, settings: Mapping[str, Any] | None = None) -> str:
    """Writes settings, tuned learning rates, results and versions as JSON.

    Args:
        comparison: What to write.
        settings: More settings to record, such as the flags of a script.

    Returns:
        A JSON object; null stands for a number that is not finite. The final loss of every run
        is there, in the same order for all optimizers; the curves are in the CSV file.

    Example:
        >>> comparison = l2l_keras.evaluation.compare(
        ...     l2l_keras.tasks.Quadratic(functions=2), {}, steps=3, seeds=[0]
        ... )
        >>> text = l2l_keras.evaluation.to_json(comparison, settings={"machine": "my laptop"})
    """
    best = comparison.best_baseline
    content = {
        "settings": {
            "task": comparison.task,
            "steps": comparison.steps,
            "seeds": comparison.seeds,
            "tuning_seeds": comparison.tuning_seeds,
            "window": comparison.window,
            **(settings or {}),
        },
        "best_baseline": None if best is None else best.name,
        "results": [
            {
                "name": result.name,
                "learned": result.learned,
                "learning_rate": result.learning_rate,
                "mean_final_loss": result.mean_final,
                "interval_half_width": result.interval,
                "ratio_to_best_baseline": comparison.ratio(result.name),
                "area": result.area,
                "seconds": result.seconds,
                "runs": len(result.final),
                "final_losses": result.final.tolist(),
                "tuning": None
                if result.tuning is None
                else {
                    "learning_rates": result.tuning.rates,
                    "mean_final_losses": result.tuning.losses,
                    "on_edge": result.tuning.on_edge,
                },
            }
            for result in comparison.results
        ],
        "versions": versions(),
    }
    return json.dumps(finite(content), indent=2, allow_nan=False) + "\n"


def versions() -> dict[str, str]:
    """Returns the versions of what a result depends on, by name."""
    import l2l_keras  # Late: the package imports this module.

    return {
        "l2l_keras": getattr(l2l_keras, "__version__", "unknown"),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


def figure(comparison: Comparison) -> Any:
    """Draws mean loss curves with 95 % bands, learned optimizers in front.

    Args:
        comparison: What to draw.

    Returns:
        A `matplotlib.figure.Figure`, which belongs to no window.

    Example:
        >>> comparison = l2l_keras.evaluation.compare(
        ...     l2l_keras.tasks.Quadratic(functions=2), {}, steps=3, seeds=[0]
        ... )
        >>> l2l_keras.evaluation.figure(comparison).savefig("curves.png")
    """
    # Late, since only figures need it and it is slow to import. Figures made in this way, without
    # pyplot, need no display and are freed like any object.
    from matplotlib.figure import Figure

    drawing = Figure(figsize=(7.5, 4.8), dpi=150, layout="constrained")
    axes = drawing.add_subplot()
    curves = panels.curves_of(comparison)
    panels.draw_curves(axes, curves, panels.line_styles(curves))
    axes.set_ylabel("loss")
    runs = len(comparison.results[0].curves)
    axes.set_title(f"{comparison.task}: mean of {runs} runs, 95 % interval")
    axes.legend(frameon=False)
    return drawing


def write_report(
    comparison: Comparison,
    directory: str | os.PathLike[str],
    settings: Mapping[str, Any] | None = None,
) -> list[Path]:
    """Writes the whole report into a folder, which it makes where needed.

    Nothing is ever half-written (see `write_files`), and `results.json` comes last.

    Args:
        comparison: What to report.
        directory: The folder.
        settings: More settings to record in `results.json`.

    Returns:
        Paths of `table.txt`, `table.md`, `curves.csv`, `curves.png` and `results.json`.

    Raises:
        OSError: If the folder cannot be written to.

    Example:
        >>> comparison = l2l_keras.evaluation.compare(
        ...     l2l_keras.tasks.Quadratic(functions=2), {}, steps=3, seeds=[0]
        ... )
        >>> paths = l2l_keras.evaluation.write_report(comparison, "report")
        >>> paths[0].name
        'table.txt'
    """
    image = io.BytesIO()
    figure(comparison).savefig(image, format="png")
    files = {
        "table.txt": table(comparison).encode(),
        "table.md": table(comparison, markdown=True).encode(),
        "curves.csv": curves_csv(comparison).encode(),
        "curves.png": image.getvalue(),
        "results.json": to_json(comparison, settings).encode(),
    }
    return write_files(files, directory)


def write_files(files: Mapping[str, bytes], directory: str | os.PathLike[str]) -> list[Path]:
    """Writes files that belong together into a folder, which it makes where needed.

    Nothing is ever half-written: all files are made complete elsewhere in the folder and then
    renamed, in their order. Files of the same names are replaced, others left alone.

    Args:
        files: Contents by file name.
        directory: The folder.

    Returns:
        Paths of the files.

    Raises:
        OSError: If the folder cannot be written to.

    Example:
        >>> l2l_keras.evaluation.write_files({"notes.txt": b"mine"}, "notes")
        [PosixPath('notes/notes.txt')]
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # In the same folder, so that it is on the same disk: only there is a rename all or nothing.
    temporary = Path(tempfile.mkdtemp(prefix=".report-", dir=directory))
    try:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        for name in files:
            os.replace(temporary / name, directory / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [directory / name for name in files]


def _ranked(comparison: Comparison) -> list[Result]:
    """Returns the results, lowest mean final loss first."""
    return sorted(comparison.results, key=lambda result: result.mean_final)


def _row(comparison: Comparison, result: Result) -> tuple[str, ...]:
    """Returns the cells of one optimizer."""
    rate = "not tuned" if result.learned else f"{result.learning_rate:.3g}"
    if result.tuning is not None and result.tuning.on_edge:
        rate += "*"
    final = f"{result.mean_final:.4g}"
    if math.isfinite(result.interval):
        final += f" ± {result.interval:.2g}"
    ratio = comparison.ratio(result.name)
    return (
        result.name,
        rate,
        final,
        "" if math.isnan(ratio) else f"{ratio:.3g}",
        f"{result.area:.4g}",
        f"{result.seconds:.2f}",
    )


def _summary(comparison: Comparison) -> str:
    """Says in one line what was measured."""
    runs = len(comparison.results[0].curves)
    final = (
        "last loss" if comparison.window == 1 else f"mean of the last {comparison.window} losses"
    )
    return (
        f"task {comparison.task}, {comparison.steps} steps, {runs} fresh runs; "
        f"final loss: {final}; ratio: to the best tuned baseline"
    )


def finite(value: Any) -> Any:
    """Replaces numbers that are not finite, which JSON cannot express, by None.

    Args:
        value: What JSON shall express: nested mappings and sequences, numbers and text.

    Returns:
        The same, mappings as dictionaries and sequences as lists.

    Example:
        >>> l2l_keras.evaluation.finite({"Adam": 0.5, "SGD": float("inf")})
        {'Adam': 0.5, 'SGD': None}
    """
    if isinstance(value, Mapping):
        return {key: finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
