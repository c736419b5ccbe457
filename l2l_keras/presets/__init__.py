"""Presets: trained update rules in folders, some of them shipped with the package.

A preset is a folder of three files:

- `config.json`: the rule, as Keras serialises objects (no weights, no code); or, for parameter
  groups, `{"groups": {pattern: rule}}`;
- `weights.npz`: its weights, float32 arrays in the order of `rule.weights`, group after group;
- `card.json`: what the rule was trained on and by which command, what that took, what came of it.

Nothing in it is pickled: a preset is loaded with Keras' safe mode on and `allow_pickle=False`.
"""

from __future__ import annotations

import difflib
import importlib.resources
import io
import json
import os
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

_CONFIG, _WEIGHTS, _CARD = "config.json", "weights.npz", "card.json"
_FILES = (_CONFIG, _WEIGHTS, _CARD)
_REQUIRED_IN_SHIPPED_CARDS = ("name", "description", "command")


class _Folder(Protocol):
    """What is used of a folder: a path's, or that of a package's resources."""

    def joinpath(self, name: str, /) -> Any: ...


def list_presets() -> dict[str, dict[str, Any]]:
    """Returns the presets that ship with the package.

    Returns:
        Their cards by their names, in alphabetical order.

    Example:
        >>> l2l_keras.list_presets()["quadratic"]["horizon"]
        100
    """
    return {name: _read_json(folder, _CARD) for name, folder in sorted(_shipped().items())}


def load_preset(name_or_path: str | os.PathLike[str]) -> tuple[Rules, dict[str, Any]]:
    """Loads a preset.

    Args:
        name_or_path: Name of a shipped preset, or path of a preset's folder. A string that is the
            name of a shipped preset means that one, whatever folders there are.

    Returns:
        `(rule, card)`: the rule with its trained weights, or a dictionary of rules by the patterns
        of their parameter groups, as `LearnedOptimizer` takes it; and the preset's card.

    Raises:
        ValueError: If there is no such preset, or it lacks a file, or its weights are not those of
            its rule.

    Example:
        >>> rule, card = l2l_keras.presets.load_preset("quadratic")
        >>> rule.units
        (20, 20)
    """
    name = os.fspath(name_or_path)
    folder = _find(name)
    for file in _FILES:
        if not folder.joinpath(file).is_file():
            raise ValueError(
                f"A preset is a folder with the files {', '.join(_FILES)}. "
                f"Received: {name!r}, which has no {file}"
            )
    config = _read_json(folder, _CONFIG)
    rule: Rules
    if isinstance(config.get("groups"), dict):
        rule = {group: _make_rule(member, name) for group, member in config["groups"].items()}
    else:
        rule = _make_rule(config, name)
    _set_weights(rule, _read_weights(folder), name)
    return rule, _read_json(folder, _CARD)


def save_preset(rule: Rules, path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Saves a rule as a preset.

    The folder appears, or takes the place of the preset that is there, complete or not at all.

    Args:
        rule: The rule to save, or a dictionary of rules by the patterns of parameter groups.
        path: Folder to write. A preset that is there is replaced.
        card: What to tell about the rule; anything that JSON can hold. Customary are `name`,
            `description`, `task`, `horizon` (in inner steps), `seed`, `command`, `wall_seconds`,
            `peak_memory_mb`, `versions`, `results`, `licence` and `date`. The first two and
            `command` are required of a preset that ships with the package.

    Raises:
        ValueError: If `path` exists and is not a preset, the card lacks what is required of it, or
            a group has no rule.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
        >>> l2l_keras.presets.save_preset(rule, "my_rule", {"name": "my_rule"})
    """
    rules = parameter_groups.only_rules(rule)
    path = pathlib.Path(path).resolve()
    if path.exists() and not _is_preset(path):
        raise ValueError(
            f"`path` must be new, or a preset to replace (a folder of {', '.join(_FILES)} and "
            f"nothing else). Received: path={str(path)!r}"
        )
    if path.parent == pathlib.Path(str(_shipped_folder())).resolve():
        missing = [key for key in _REQUIRED_IN_SHIPPED_CARDS if not card.get(key)]
        if missing:
            raise ValueError(
                f"The card of a preset that ships with the package must have "
                f"{', '.join(_REQUIRED_IN_SHIPPED_CARDS)}. "
                f"Received: a card without {', '.join(missing)}"
            )
    weights = io.BytesIO()
    np.savez(weights, *(np.asarray(w, "float32") for r in rules for w in r.get_weights()))
    serialize = keras.saving.serialize_keras_object
    if isinstance(rule, UpdateRule):
        config = serialize(rule)
    else:
        config = {"groups": {group: serialize(member) for group, member in rule.items()}}
    contents = {
        _CONFIG: _to_json(config),
        _WEIGHTS: weights.getvalue(),
        _CARD: _to_json(card),
    }

    path.parent.mkdir(parents=True, exist_ok=True)
    suffix = uuid.uuid4().hex
    new = path.with_name(f".{path.name}.{suffix}.new")
    old = path.with_name(f".{path.name}.{suffix}.old")
    try:
        new.mkdir()
        for file, content in contents.items():
            (new / file).write_bytes(content)
        # A folder that is not empty cannot be replaced in one go: the old one steps aside.
        if path.exists():
            path.rename(old)
        new.rename(path)
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        for folder in (new, old):
            shutil.rmtree(folder, ignore_errors=True)


def _shipped_folder() -> Any:
    """Returns the folder of the shipped presets, which may lie in an archive."""
    return importlib.resources.files(__name__)


def _shipped() -> dict[str, Any]:
    """Returns the folders of the shipped presets by name."""
    return {
        folder.name: folder
        for folder in _shipped_folder().iterdir()
        if folder.is_dir() and folder.joinpath(_CARD).is_file()
    }


def _find(name: str) -> _Folder:
    """Returns the folder of a preset, given its name or path."""
    shipped = _shipped()
    if name in shipped:
        return shipped[name]
    if os.path.isdir(name):
        return pathlib.Path(name)
    close = difflib.get_close_matches(name, shipped, n=1)
    raise ValueError(
        f"`preset` must be the path of a folder or one of the shipped presets, {sorted(shipped)}. "
        f"Received: {name!r}" + (f" (did you mean {close[0]!r}?)" if close else "")
    )


def _is_preset(path: pathlib.Path) -> bool:
    """Returns whether a path is a preset and holds nothing that replacing it would lose."""
    return path.is_dir() and {child.name for child in path.iterdir()} == set(_FILES)


def _to_json(value: dict[str, Any]) -> bytes:
    """Returns a dictionary as JSON text, in UTF-8."""
    return (json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode()


def _read_json(folder: _Folder, file: str) -> dict[str, Any]:
    """Returns the dictionary in a JSON file."""
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


def _read_weights(folder: _Folder) -> list[np.ndarray]:
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
    """Gives rules the weights read from a preset, after checking that they are their own."""
    weights = parameter_groups.weights(rule)
    if len(arrays) != len(weights):
        kinds = " and ".join(type(r).__name__ for r in parameter_groups.only_rules(rule))
        raise ValueError(
            f"{_WEIGHTS} must hold {len(weights)} arrays, the weights of its {kinds}. "
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
