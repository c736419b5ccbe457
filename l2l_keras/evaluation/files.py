"""The files of reports: figures, tables and numbers, each written completely or not at all."""

from __future__ import annotations

import csv
import json
import math
import os
import platform
import shutil
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from l2l_keras.version import __version__


def write_files(files: Mapping[str, Any], directory: str | os.PathLike[str]) -> list[Path]:
    """Writes files that belong together into a folder, which it makes where needed.

    `files` holds contents by file name: rows for ".csv", nested values for ".json", arrays by name
    for ".npz", a Matplotlib figure for ".png", and text for other endings. All are completed in a
    temporary folder inside `directory` and then renamed, in their order. Files of the same names
    are replaced, others are left alone.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    # In the same folder, and so on the same disk: a rename is atomic only there.
    temporary = Path(tempfile.mkdtemp(prefix=".report-", dir=directory))
    try:
        for name, content in files.items():
            write = _WRITERS.get(Path(name).suffix, _write_text)
            write(temporary / name, content)
        for name in files:
            os.replace(temporary / name, directory / name)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return [directory / name for name in files]


def _write_text(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _write_csv(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def _write_json(path: Path, content: Any) -> None:
    text = json.dumps(finite(content), indent=2, ensure_ascii=False, allow_nan=False)
    _write_text(path, f"{text}\n")


_WRITERS = {
    ".csv": _write_csv,
    ".json": _write_json,
    ".npz": lambda path, arrays: np.savez_compressed(path, **arrays),
    ".png": lambda path, figure: figure.savefig(path),
}


def finite(value: Any) -> Any:
    """Replaces numbers that are not finite, which JSON cannot express, by None.

    Nested mappings and sequences become dictionaries and lists.
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
    return {
        "l2l_keras": __version__,
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
    }
