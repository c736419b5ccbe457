"""Reads, checks and writes presets.

A preset is a folder of these files:

- `config.json`: the rule, as Keras serializes objects (no weights, no code); or, for parameter
  groups, `{"groups": {pattern: rule}}`;
- `weights.npz`: its weights, float32 arrays in the order of `rule.weights`, group after group;
- `card.json`: what the rule was trained on and by which command, what that took, and the results;
- `README.md`: the same for people (see `model_card`); nothing reads it.

Nothing in it is pickled, and nothing but an `UpdateRule` is made of it.
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
from l2l_keras.presets import model_card
from l2l_keras.rules import UpdateRule

Rules = Any
"""An `UpdateRule`, or a dictionary of them by the patterns of parameter groups."""

CARD = "card.json"
_CONFIG, _WEIGHTS = "config.json", "weights.npz"
FILES = (_CONFIG, _WEIGHTS, CARD)
"""What a preset must have."""
_OWN_RULES = "l2l_keras.rules."
_UNLESS_TRUSTED = " of this package; to load another one, download the folder and pass its path"


class Folder(Protocol):
    """A path or a folder of a package's resources."""

    def joinpath(self, name: str, /) -> Any:
        """Returns a file of the folder."""


def read(folder: Folder, name: str, trusted: bool = True) -> tuple[Rules, dict[str, Any]]:
    """Reads a preset; returns its rules, with their weights, and its card.

    Args:
        folder: Where it is.
        name: What error messages call it.
        trusted: Whether it may have rules that other programs have registered with Keras.

    Raises:
        ValueError: If a file is missing or damaged, or the weights do not fit the rule.
    """
    for file in FILES:
        if not folder.joinpath(file).is_file():
            raise ValueError(
                f"A preset is a folder with the files {', '.join(FILES)}. "
                f"Received: {name!r}, which has no {file}"
            )
    config = read_json(folder, _CONFIG)
    rule: Rules
    groups = config.get("groups")
    if groups and isinstance(groups, dict):
        rule = {group: _make_rule(member, name, trusted) for group, member in groups.items()}
    else:
        rule = _make_rule(config, name, trusted)
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
            f"`path` must be new, or a preset to replace (a folder of {', '.join(FILES)}, "
            f"{model_card.FILE} and nothing else). Received: path={str(path)!r}"
        )
    weights = io.BytesIO()
    np.savez(weights, *(np.asarray(w, "float32") for r in rules for w in r.get_weights()))
    serialize = keras.saving.serialize_keras_object
    if isinstance(rule, UpdateRule):
        config = serialize(rule)
    else:
        config = {"groups": {group: serialize(member) for group, member in rule.items()}}
    readme = model_card.own(path) or model_card.render(card, rule, "path/of/this/folder")
    contents = {
        _CONFIG: _to_json(config),
        _WEIGHTS: weights.getvalue(),
        CARD: _to_json(card),
        model_card.FILE: readme.encode(),
    }

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
    except (ValueError, RecursionError) as error:
        raise ValueError(f"A preset's {file} must be JSON. Received: {path}: {error}") from error
    if not isinstance(value, dict):
        raise ValueError(
            f"A preset's {file} must be a JSON object. Received: a {type(value).__name__} in {path}"
        )
    return value


def _is_preset(path: pathlib.Path) -> bool:
    """Returns whether a path is a preset and holds nothing that replacing it would lose."""
    return path.is_dir() and {c.name for c in path.iterdir()} - {model_card.FILE} == set(FILES)


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


def _make_rule(config: Any, name: str, trusted: bool) -> UpdateRule:
    """Returns the rule that a configuration describes.

    `keras.saving.deserialize_keras_object` would make an object of any class before it could be
    refused.
    """
    registered = config.get("registered_name") if isinstance(config, dict) else None
    found = keras.saving.get_registered_object(str(registered))
    is_rule = isinstance(found, type) and issubclass(found, UpdateRule)
    if not is_rule or not (trusted or found.__module__.startswith(_OWN_RULES)):
        raise ValueError(
            f"{_CONFIG} of a preset must describe a registered `l2l_keras.rules.UpdateRule`"
            f"{'' if trusted else _UNLESS_TRUSTED}. Received: {registered!r} in {name!r}"
        )
    try:
        arguments = config["config"]
        if not (trusted or _is_plain([*arguments.values()])):
            raise ValueError("an argument is neither a number nor a string nor a list of these")
        return found.from_config(arguments)
    except Exception as error:  # Of any type: the arguments may be anything.
        raise ValueError(
            f"{_CONFIG} of a preset must hold the arguments of its {found.__name__}. "
            f"Received: {name!r}: {type(error).__name__}: {error}"
        ) from error


def _is_plain(value: Any) -> bool:
    """Returns whether JSON holds no dictionaries, of which Keras might make objects."""
    return all(map(_is_plain, value)) if isinstance(value, list) else not isinstance(value, dict)


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
