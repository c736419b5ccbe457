"""Flags of commands, as a figure puts them together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def task_options(options: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the flags that give arguments to a task.

    Args:
        options: Arguments by their names.

    Example:
        >>> task_options({"size": 64})
        ('--task_option=size=64',)
    """
    return tuple(f"--task_option={name}={value}" for name, value in options.items())


def replaced(arguments: Sequence[str], changes: Sequence[str]) -> tuple[str, ...]:
    """Returns flags, some of which others take the place of.

    Args:
        arguments: Flags, `--name` or `--name=value`.
        changes: Those that are added; flags of their names are taken out.

    Example:
        >>> replaced(["--epochs=50", "--seed=1"], ["--epochs=2"])
        ('--seed=1', '--epochs=2')
    """
    changed = {change.partition("=")[0] for change in changes}
    return (*(flag for flag in arguments if flag.partition("=")[0] not in changed), *changes)


def value(arguments: Sequence[str], name: str, default: str) -> str:
    """Returns the value of a flag.

    Args:
        arguments: Flags, `--name=value`. The last one of a name counts.
        name: The flag's name.
        default: What to return where it is not among them.

    Example:
        >>> value(["--task=quadratic"], "task", "digits_mlp")
        'quadratic'
    """
    values = [flag.partition("=")[2] for flag in arguments if flag.startswith(f"--{name}=")]
    return values[-1] if values else default
