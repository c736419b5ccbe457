"""Presets: trained update rules in folders, some of them shipped with the package."""

from __future__ import annotations

import importlib.resources
import os
import pathlib
from typing import Any

from l2l_keras.arguments import did_you_mean
from l2l_keras.presets import hub, io
from l2l_keras.presets.io import Rules

_REQUIRED_IN_SHIPPED_CARDS = ("name", "description", "use_for", "cost", "fails_on", "command")


class Cards(dict[str, dict[str, Any]]):
    """Cards of presets by name; printed as a table of what each preset is for.

    Example:
        >>> print(l2l_keras.presets.Cards(mine={"use_for": "my models", "cost": "3 to 5"}))
        preset  use it for  cost (a step of Adam: 1)
        mine    my models   3 to 5
        <BLANKLINE>
        A preset's card: l2l_keras.list_presets()["NAME"]
    """

    def __repr__(self) -> str:
        rows = [(name, card["use_for"], card["cost"]) for name, card in self.items()]
        rows.insert(0, ("preset", "use it for", "cost (a step of Adam: 1)"))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
            for row in rows
        ]
        return "\n".join([*lines, "", 'A preset\'s card: l2l_keras.list_presets()["NAME"]'])


def list_presets() -> Cards:
    """Returns the presets that ship with the package.

    Returns:
        Their cards by their names, in alphabetical order: a dictionary that is printed as a short
        table. A card says what a preset was trained on, what it achieved and what it `fails_on`.

    Example:
        >>> cards = l2l_keras.list_presets()
        >>> cards["quadratic"]["horizon"]
        100
        >>> cards["quadratic"]["fails_on"]["weights with zero gradient"]
        'move by up to 1 in 100 steps'
    """
    return Cards(
        {name: io.read_json(folder, io.CARD) for name, folder in sorted(_shipped().items())}
    )


def names() -> list[str]:
    """Returns the names of the presets that ship with the package, in alphabetical order.

    Example:
        >>> "general-fast" in l2l_keras.presets.names()
        True
    """
    return sorted(_shipped())


def load_preset(name_or_path: str | os.PathLike[str]) -> tuple[Rules, dict[str, Any]]:
    """Loads a preset.

    Args:
        name_or_path: Name of a shipped preset, path of a preset's folder, or a preset on the
            Hugging Face Hub, `"hf://user/name"`: it is downloaded once, and again only when it
            changes. A string that is the name of a shipped preset means that one, whatever folders
            there are.

    Returns:
        `(rule, card)`: the rule with its trained weights, or a dictionary of rules by the patterns
        of their parameter groups, as `LearnedOptimizer` takes it; and the preset's card.

    Raises:
        ValueError: If there is no such preset, or it lacks a file, or its weights are not those of
            its rule, or one from the hub has anything but a rule of `l2l_keras.rules`.
        ImportError: If it is on the hub, and the package `huggingface_hub` is not installed.
        OSError: If it cannot be downloaded, and has not been before.

    Example:
        >>> rule, card = l2l_keras.presets.load_preset("quadratic")
        >>> rule.units
        (20, 20)
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise ValueError(f"`preset` must be a name or a path. Received: {name_or_path!r}")
    name = os.fspath(name_or_path)
    shipped = _shipped()
    if name in shipped:
        return io.read(shipped[name], name)
    if name.startswith(hub.PREFIX):
        return io.read(hub.download(name), name, trusted=False)
    if os.path.isdir(name):
        return io.read(pathlib.Path(name), name)
    raise ValueError(
        f"`preset` must be the path of a folder, {hub.PREFIX}user/name, or one of the shipped "
        f"presets, {sorted(shipped)}. Received: {name!r}{did_you_mean(name, shipped)}"
    )


def save_preset(rule: Rules, path: str | os.PathLike[str], card: dict[str, Any]) -> None:
    """Saves a rule as a preset.

    The folder appears, or replaces the preset that is there, complete or not at all. Its README.md
    is generated from the card, unless it is one that you have written.

    Args:
        rule: The rule to save, or a dictionary of rules by the patterns of parameter groups.
        path: Folder to write. A preset that exists is replaced.
        card: Facts about the rule; anything that JSON can hold. Customary are `name`,
            `description`, `task`, `horizon` (in inner steps), `seed`, `command`, `wall_seconds`,
            `peak_memory_mb`, `versions`, `results`, `licence` and `date`. The first two, `command`,
            `use_for`, `cost` (of a step, in steps of Adam) and `fails_on` (what happens, by where)
            are required of a preset that ships with the package.

    Raises:
        ValueError: If `path` exists and is not a preset, the card lacks what is required of it, or
            a group has no rule.

    Example:
        >>> rule = l2l_keras.rules.CoordinatewiseLSTM(seed=0)
        >>> l2l_keras.presets.save_preset(rule, "my_rule", {"name": "my_rule"})
    """
    path = pathlib.Path(path).resolve()
    if path.parent == pathlib.Path(str(_shipped_folder())).resolve():
        missing = [key for key in _REQUIRED_IN_SHIPPED_CARDS if not card.get(key)]
        if missing:
            raise ValueError(
                f"The card of a preset that ships with the package must have "
                f"{', '.join(_REQUIRED_IN_SHIPPED_CARDS)}. "
                f"Received: a card without {', '.join(missing)}"
            )
    io.write(rule, path, card)


def _shipped_folder() -> Any:
    """Returns the folder of the shipped presets, which may lie in an archive."""
    return importlib.resources.files(__name__)


def _shipped() -> dict[str, Any]:
    """Returns the folders of the shipped presets by name."""
    return {
        folder.name: folder
        for folder in _shipped_folder().iterdir()
        if folder.is_dir() and folder.joinpath(io.CARD).is_file()
    }
