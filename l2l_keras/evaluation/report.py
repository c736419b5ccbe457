"""Reports of a comparison: a table, curves as CSV, everything as JSON, and a figure."""

from __future__ import annotations

import collections
import csv
import io
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2l_keras.evaluation.plots import Curve, curves_of, figure
from l2l_keras.evaluation.results import Comparison, Result

_HEADER = ("optimizer", "learning rate", "final loss", "ratio", "mean loss", "seconds")


def table(comparison: Comparison, markdown: bool = False) -> str:
    """Lays out a comparison as a table, lowest mean final loss first.

    The final loss is the mean over runs ± the half-width of its 95 % interval. The ratio is that of
    final losses to the best tuned baseline's, a geometric mean over runs. The mean loss is that
    after each update. The seconds are the wall time of all runs, compilation not included.

    Args:
        comparison: What to lay out.
        markdown: Whether to write Markdown rather than plain text. Defaults to False.
    """
    ranked = sorted(comparison.results, key=lambda result: result.mean_final)
    runs, window = len(comparison.results[0].curves), comparison.window
    final = "last loss" if window == 1 else f"mean of the last {window} losses"
    notes = [
        f"task {comparison.task}, {comparison.steps} steps, {runs} fresh runs; "
        f"final loss: {final}; ratio: to the best tuned baseline, geometric mean over runs"
    ]
    if any(result.on_edge for result in comparison.results):
        notes.append("* the best learning rate is the last one tried: a better one may lie beyond")
    if markdown:
        notes = [note.replace("*", r"\*") for note in notes]
    body = lay_out(_HEADER, [_row(comparison, result) for result in ranked], markdown)
    return f"{body}\n\n" + ("\n\n" if markdown else "\n").join(notes) + "\n"


def _row(comparison: Comparison, result: Result) -> tuple[str, ...]:
    """Returns the cells of one optimizer."""
    rate = "not tuned" if result.learned else f"{result.learning_rate:.3g}"
    interval = f" ± {result.interval:.2g}" if math.isfinite(result.interval) else ""
    ratio = comparison.ratio(result.name)
    return (
        result.name,
        rate + "*" * result.on_edge,
        f"{result.mean_final:.4g}{interval}",
        "" if math.isnan(ratio) else f"{ratio:.3g}",
        f"{result.mean_loss:.4g}",
        f"{result.seconds:.2f}",
    )


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


def curves_csv(comparison: Comparison) -> str:
    """Writes, for every step, mean losses before the update and half-widths of 95 % intervals."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("optimizer", "step", "mean", "half_width"))
    for curve in curves_of(comparison):
        for step, point in enumerate(zip(curve.mean, curve.half_width, strict=True)):
            writer.writerow((curve.name, step, *(f"{number:.6g}" for number in point)))
    return text.getvalue()


def to_json(comparison: Comparison, settings: Mapping[str, Any] | None = None) -> str:
    """Writes settings, tuned learning rates, results without curves, and versions as JSON."""
    fields = ("task", "steps", "seeds", "tuning_seeds", "window")
    own_settings = {field: getattr(comparison, field) for field in fields}
    best = comparison.best_baseline
    return json_text(
        {
            "settings": {**own_settings, **(settings or {})},
            "best_baseline": best and best.name,
            "results": [_record(comparison, result) for result in comparison.results],
            "versions": versions(),
        }
    )


def _record(comparison: Comparison, result: Result) -> dict[str, Any]:
    """Returns what JSON holds of one optimizer."""
    return {
        "name": result.name,
        "learned": result.learned,
        "learning_rate": result.learning_rate,
        "mean_final_loss": result.mean_final,
        "interval_half_width": result.interval,
        "ratio_to_best_baseline": comparison.ratio(result.name),
        "mean_loss": result.mean_loss,
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
    """Writes the whole report into a folder, and returns the paths of its files; see `write_files`.

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
    files = {
        "table.txt": table(comparison).encode(),
        "table.md": table(comparison, markdown=True).encode(),
        "curves.csv": curves_csv(comparison).encode(),
        "curves.png": png(figure(comparison)),
        "results.json": to_json(comparison, settings).encode(),
    }
    return write_files(files, directory)


def read_curves(report: str | os.PathLike[str]) -> tuple[Curve, ...]:
    """Reads the mean loss curves of a comparison from its report.

    Args:
        report: A folder that `write_report` wrote; its `curves.csv` and `results.json` are read.

    Returns:
        A curve for each optimizer, in the order of the report.

    Raises:
        ValueError: If there is no report, or it cannot be read.
    """
    folder = Path(report)
    points: dict[str, list[tuple[float, float]]] = collections.defaultdict(list)
    curves = []
    try:
        with (folder / "curves.csv").open(newline="") as file:
            for row in csv.DictReader(file):
                points[row["optimizer"]].append((float(row["mean"]), float(row["half_width"])))
        for result in json.loads((folder / "results.json").read_text())["results"]:
            mean, half_width = np.transpose(points[result["name"]])
            final = number_or(result["mean_final_loss"], math.inf)
            interval = number_or(result["interval_half_width"], math.nan)
            own = (result["name"], result["learned"], result["learning_rate"])
            curves.append(Curve(*own, mean, half_width, final, interval))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(
            "Expected the folder of a report, with curves.csv and results.json. "
            f"Received: {str(folder)!r} ({type(error).__name__}: {error})"
        ) from error
    return tuple(curves)


def write_files(files: Mapping[str, bytes], directory: str | os.PathLike[str]) -> list[Path]:
    """Writes files that belong together into a folder, which it makes where needed.

    No file is ever half-written: all are completed in a temporary folder inside `directory` and
    then renamed, in their order. Files of the same names are replaced, others are left alone.

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
    # In the same folder, and so on the same disk: a rename is atomic only there.
    temporary = Path(tempfile.mkdtemp(prefix=".report-", dir=directory))
    try:
        for name, content in files.items():
            (temporary / name).write_bytes(content)
        for name in files:
            os.replace(temporary / name, directory / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [directory / name for name in files]


def png(drawing: Any) -> bytes:
    """Returns a Matplotlib figure as PNG."""
    image = io.BytesIO()
    drawing.savefig(image, format="png")
    return image.getvalue()


def json_text(content: Mapping[str, Any]) -> str:
    """Returns content as strict JSON, null for numbers that are not finite."""
    return json.dumps(finite(content), indent=2, allow_nan=False) + "\n"


def finite(value: Any) -> Any:
    """Replaces numbers that are not finite, which JSON cannot express, by None.

    Args:
        value: Nested mappings and sequences, which become dictionaries and lists.

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


def number_or(value: float | None, missing: float) -> float:
    """Returns a number of a report, or `missing` for null, which stands for one not finite."""
    return missing if value is None else float(value)


def versions() -> dict[str, str]:
    """Returns the versions of the package, its libraries and the platform, by name."""
    import l2l_keras  # Late: the package imports this module.

    return {
        "l2l_keras": l2l_keras.__version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
