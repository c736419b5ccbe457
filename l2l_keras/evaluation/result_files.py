"""Results of single optimizers in files, each with a record of what they were made from."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from l2l_keras.evaluation.files import write_files
from l2l_keras.evaluation.results import HeldOut, Result, Tuning
from l2l_keras.optimizer import LearnedOptimizer

_METRIC = "metric: "


def save(result: Result, path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Writes a result to a file `.npz`, with a record that JSON can express."""
    held_out, tuning = result.held_out, result.tuning
    content = {
        "name": result.name,
        "window": result.window,
        "seconds": result.seconds,
        "state_bytes": result.state_bytes,
        "tuning": tuning and dataclasses.asdict(tuning),
        "looks": held_out and held_out.steps,
        "record": record,
    }
    metrics = held_out.metrics if held_out else {}
    # Not with the writer of reports, which replaces numbers that are not finite.
    arrays = {"content": np.array(json.dumps(content)), "curves": result.curves}
    arrays |= {_METRIC + name: values for name, values in metrics.items()}
    path = Path(path)
    write_files({path.name: arrays}, path.parent)


def load(path: str | os.PathLike[str], record: Mapping[str, Any]) -> Result | None:
    """Reads a result; None if there is none, or it is damaged or has another record."""
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        content = json.loads(str(arrays["content"]))
        if content["record"] != json.loads(json.dumps(record)):
            return None
        tuning, looks = content["tuning"], content["looks"]
        held_out = None
        if looks is not None:
            names = [name for name in arrays if name.startswith(_METRIC)]
            metrics = {name.removeprefix(_METRIC): arrays[name] for name in names}
            held_out = HeldOut(tuple(looks), metrics)
        return Result(
            content["name"],
            arrays["curves"],
            content["window"],
            tuning and Tuning(**{**tuning, **_tuples(tuning)}),
            content["seconds"],
            held_out,
            content["state_bytes"],
        )
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def digest(optimizer: LearnedOptimizer) -> str:
    """Returns a digest of an optimizer's configuration without names, which Keras numbers."""

    def nameless(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        return {key: nameless(part) for key, part in value.items() if key != "name"}

    text = json.dumps(nameless(optimizer.get_config()), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _tuples(values: Mapping[str, Any]) -> dict[str, tuple[float, ...]]:
    """Returns those values that JSON has made lists of as tuples."""
    return {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
