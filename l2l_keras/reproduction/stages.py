"""The stages of a figure as data, and the flags of their commands."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar


@dataclasses.dataclass(frozen=True)
class Training:
    """A rule that a figure needs, and how it is meta-trained."""

    name: str  # Of the rule in the figure, and of its folder.
    arguments: tuple[str, ...]  # Of `l2l-meta-train`, without those of folders.
    preset: str | None = None  # The shipped preset that was made in this way.

    program: ClassVar[str] = "l2l-meta-train"
    folder: ClassVar[str] = "trainings"
    trainings: ClassVar[tuple[str, ...]] = ()
    resumable: ClassVar[bool] = True

    def complete(self, folder: Path) -> bool:
        """Returns whether a folder holds all outputs of the command."""
        return (folder / "preset").is_dir() and not (folder / "backup").exists()


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """A comparison of rules, named by their trainings, with tuned baselines."""

    name: str  # Of its folder.
    trainings: tuple[str, ...]
    arguments: tuple[str, ...]  # Of `l2l-evaluate`, without those of presets and folders.

    program: ClassVar[str] = "l2l-evaluate"
    folder: ClassVar[str] = "evaluations"
    resumable: ClassVar[bool] = False

    def complete(self, folder: Path) -> bool:
        """Returns whether a folder holds all outputs of the command."""
        return any((folder / name).is_file() for name in ("results.json", "testbed.json"))


Stage = Training | Evaluation


def task_options(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the flags that pass arguments to a task, such as `--task_option=size=64`."""
    return tuple(f"--task_option={name}={value}" for name, value in options.items())


def replaced(arguments: Sequence[str], changes: Sequence[str]) -> tuple[str, ...]:
    """Returns flags with changes appended, and without the flags that these replace."""
    changed = {change.partition("=")[0] for change in changes}
    return (*(flag for flag in arguments if flag.partition("=")[0] not in changed), *changes)
