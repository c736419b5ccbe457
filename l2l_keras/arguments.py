"""Checks of arguments: each function returns the argument if it is valid."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable
from typing import Any


def check(valid: bool, name: str, expected: str, value: Any) -> None:
    """Raises a ValueError that says what an argument must be, unless it is valid."""
    if not valid:
        raise ValueError(f"`{name}` must be {expected}. Received: {name}={value!r}")


def call(instance: Any) -> str:
    """Returns the call that makes an object, without arguments that have their defaults.

    It is for objects that keep the arguments as attributes of their names; `name` is left out.
    """
    given = [
        f"{name}={value!r}"
        for name, parameter in inspect.signature(type(instance)).parameters.items()
        for value in [getattr(instance, name, parameter.default)]
        if name != "name" and repr(value) != repr(parameter.default)
    ]
    return f"{type(instance).__name__}({', '.join(given)})"


def one_of(name: str, value: Any, known: Iterable[str]) -> Any:
    """Returns one of some names."""
    check(value in known, name, f"one of {sorted(known)}", value)
    return value


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns the end of an error message, which suggests the known name that is most alike."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def count(name: str, value: int) -> int:
    """Returns a number of things, at least one."""
    check(value >= 1, name, "positive", value)
    return value


def positive(name: str, value: float) -> float:
    """Returns a positive number as a float."""
    check(value > 0.0, name, "positive", value)
    return float(value)


def positive_or_none(name: str, value: float | None) -> float | None:
    """Returns a positive number as a float, or None."""
    check(value is None or value > 0.0, name, "positive or None", value)
    return None if value is None else float(value)


def not_negative(name: str, value: float) -> float:
    """Returns a number that is not negative as a float."""
    check(value >= 0.0, name, "zero or positive", value)
    return float(value)


def seed(name: str, value: int) -> int:
    """Returns a seed: small enough that those of all splits fit into 31 bits."""
    check(0 <= value < 2**29, name, "an integer from 0 to 2**29 - 1", value)
    return value


def decay(name: str, value: float) -> float:
    """Returns the decay of a moving average as a float."""
    check(0.0 <= value < 1.0, name, "in [0, 1)", value)
    return float(value)
