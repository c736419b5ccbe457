"""Reads, checks and writes presets.

A preset is a folder of three files:

- `config.json`: the rule, as Keras serializes objects (no weights, no code); or, for parameter
  groups, `{"groups": {pattern: rule}}`;
- `weights.npz`: its weights, float32 arrays in the order of `rule.weights`, group after group;
- `card.json`: what the rule was trained on and by which command, what that took, and the results.

Nothing in it is pickled: a preset is loaded with Keras' safe mode on and `allow_pickle=False`.
"""

from __future__ import annotations

import io
import json
import pathlib
import shutil
import uuid
import zipfile
from typing import Any, Protocol

import keras
import numpy as np

from l2l_keras import parameter_groups
from l2l_keras.rules import UpdateRule

Rules = Any
"""An `UpdateRule`, or a dictionary of them by the patterns of parameter groups."""

CARD = "card.json"
_CONFIG, _WEIGHTS = "config.json", "weights.npz"
_FILES = (_CONFIG, _WEIGHTS, CARD)


class Folder(Protocol):
    """A path or a folder of a package's resources."""

    def joinpath(self, name: str, /) -> Any:
        """Returns a file of the folder."""


def read(folder: Folder, name: str) -> tuple[Rules, dict[str, Any]]:
    """Reads a preset; returns its rules, with their weights, and its card.

    Raises:
        ValueError: If a file is missing or damaged, or the weights do not fit the rule.
    """
    for file in _FILES:
        if not folder.joinpath(file).is_file():
            raise ValueError(
                f"A preset is a folder with the files {', '.join(_FILES)}. "
                f"Received: {name!r}, which has no {file}"
            )
    config = read_json(folder, _CONFIG)
    rule: Rules
    if isinstance(config.get("groups"), dict):
        rule = {group: _make_rule(member, name) for group, member in config["groups"].items()}
    else:
        rule = _make_rule(config, name)
    _set_weights(rule, _read_weights(folder), name)
    return rule, read_json(folder, CARD)


def write(rule: Rules, path: pathlib.Path, card: dict[str, Any]) -> None:
    """Writes a preset, complete or not at all; a preset that exists is replaced.

    Raises:
        ValueError: If `path` exists and is not a preset, or a group has no rule.
    """
    rules = parameter_groups.only_rules(rule)
    if path.exists() and not _is_preset(path):
        raise ValueError(
            f"`path` must be new, or a preset to replace (a folder of {', '.join(_FILES)} and "
            f"nothing else). Received: path={str(path)!r}"
        )
    weights = io.BytesIO()
    np.savez(weights, *(np.asarray(w, "float32") for r in rules for w in r.get_weights()))
    serialize = keras.saving.serialize_keras_object
    if isinstance(rule, UpdateRule):
        config = serialize(rule)
    else:
        config = {"groups": {group: serialize(member) for group, member in rule.items()}}
    contents = {_CONFIG: _to_json(config), _WEIGHTS: weights.getvalue(), CARD: _to_json(card)}

    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = uuid.uuid4().hex
    new = path.with_name(f".{path.name}.{suffix}.new")
    old = path.with_name(f".{path.name}.{suffix}.old")
    try:
        new.mkdir()
        for file, content in contents.items():
            (new / file).write_bytes(content)
        # A folder that is not empty cannot be replaced in one operation: the old one moves aside.
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def read_json(folder: Folder, file: str) -> dict[str, Any]:
    """Returns the dictionary in a JSON file of a preset."""
    path = folder.joinpath(file)
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"A preset's {file} must be JSON. Received: {path}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"A preset's {file} must be a JSON object. Received: a {type(value).__name__} in {path}"
        )
    return value


def _is_preset(path: pathlib.Path) -> bool:
    """Returns whether a path is a preset and holds nothing that replacing it would lose."""
    return path.is_dir() and {child.name for child in path.iterdir()} == set(_FILES)


def _to_json(value: dict[str, Any]) -> bytes:
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _read_weights(folder: Folder) -> list[np.ndarray]:
    """Returns the arrays in a preset's file of weights, in their order."""
    path = folder.joinpath(_WEIGHTS)
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as arrays:
            return [arrays[f"arr_{i}"] for i in range(len(arrays.files))]
    except (ValueError, KeyError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"A preset's {_WEIGHTS} must hold arrays as `numpy.savez` names them. "
            f"Received: {path}: {error}"
        ) from error


def _make_rule(config: dict[str, Any], name: str) -> UpdateRule:
    """Returns the rule that a configuration describes."""
    rule = keras.saving.deserialize_keras_object(config, safe_mode=True)
    if not isinstance(rule, UpdateRule):
        raise ValueError(
            f"{_CONFIG} of a preset must describe an `l2l_keras.rules.UpdateRule`. "
            f"Received: a {type(rule).__name__} in {name!r}"
        )
    return rule


def _set_weights(rule: Rules, arrays: list[np.ndarray], name: str) -> None:
    """Assigns the weights that were read, after checking that they fit."""
    weights = parameter_groups.weights(rule)
    if len(arrays) != len(weights):
        types = " and ".join(type(r).__name__ for r in parameter_groups.only_rules(rule))
        raise ValueError(
            f"{_WEIGHTS} must hold {len(weights)} arrays, the weights of its {types}. "
            f"Received: {len(arrays)} arrays in {name!r}"
        )
    for i, (weight, array) in enumerate(zip(weights, arrays, strict=True)):
        expected = tuple(weight.shape)
        if array.shape != expected or array.dtype != np.float32:
            raise ValueError(
                f"Array {i} of {_WEIGHTS} ({weight.name}) must be float32 of shape {expected}. "
                f"Received: {array.dtype} of shape {array.shape} in {name!r}"
            )
    for weight, array in zip(weights, arrays, strict=True):
        weight.assign(array)
