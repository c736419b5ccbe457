"""A cache of optimizers' results on the testbed, in files that name their settings."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_keras.evaluation.files import versions, write_files
from l2l_keras.evaluation.results import Result, Tuning, last_tenth

Results = tuple[Result, ...]
"""Results of one optimizer, one for each length of runs."""


class Cache:
    """A folder of results, each with all settings that it depends on; losses have three digits.

    Results that the folder lacks are taken from `shipped` folders, or made.
    """

    def __init__(self, folder: str | os.PathLike[str], *shipped: Path) -> None:
        self._folder = Path(folder).expanduser()
        self._folders = (self._folder, *shipped)

    def get(self, name: str, settings: Mapping[str, Any], make: Callable[[], Results]) -> Results:
        """Returns the results of settings, fit for JSON, by a name to show."""
        text = json.dumps(settings, sort_keys=True)
        file_name = f"{hashlib.sha256(text.encode()).hexdigest()[:16]}.npz"
        for folder in self._folders:
            if cached := _read(folder / file_name, name, text):
                return cached
        results = tuple(
            dataclasses.replace(result, curves=_to_three_digits(result.curves)) for result in make()
        )
        tunings = [result.tuning for result in results if result.tuning is not None]
        content = {
            "settings": settings,
            "name": name,
            "rates": [tuning.best for tuning in tunings] or None,
            "on_edge": [tuning.on_edge for tuning in tunings],
            "versions": versions(),
        }
        arrays = {f"curves_{k}": result.curves for k, result in enumerate(results)}
        arrays["content"] = np.array(json.dumps(content))
        write_files({file_name: arrays}, self._folder)
        return results


def _read(path: Path, name: str, settings: str) -> Results | None:
    """Reads results; None if the file is missing, damaged or of other settings."""
    try:
        with np.load(path, allow_pickle=False) as file:
            content = json.loads(str(file["content"]))
            curves = [file[f"curves_{k}"] for k in range(len(file.files) - 1)]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if json.dumps(content["settings"], sort_keys=True) != settings:
        return None
    tunings = map(Tuning, content["rates"] or [], content["on_edge"])
    return tuple(
        Result(name, losses, last_tenth(losses.shape[1] - 1), next(tunings, None))
        for losses in curves
    )


def _to_three_digits(curves: np.ndarray) -> np.ndarray:
    """Rounds float32 numbers to eleven significant bits, which compresses well."""
    bits = np.ascontiguousarray(curves, np.float32).view(np.uint32)
    rounded = ((bits + np.uint32(2**12)) & np.uint32(2**32 - 2**13)).view(np.float32)
    return np.where(np.isfinite(curves), rounded, curves).astype(np.float32)
