"""Compiled kernels that optimizers share if their rules have the same configuration."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import keras

from l2l_keras.rules import UpdateRule

_Kernels = TypeVar("_Kernels")
_MOST_CONFIGURATIONS = 16


def by_configuration(
    make: Callable[[UpdateRule, str], _Kernels],
) -> Callable[[UpdateRule, str], _Kernels]:
    """Decorates a constructor of kernels so that rules of one configuration share them.

    The next optimizer with the same rule, for the next similar model, then compiles nothing again.
    Kernels get weights as arguments: which of the rules they were made from does not matter.
    """
    made: dict[tuple[Any, ...], _Kernels] = {}

    @functools.wraps(make)
    def shared(rule: UpdateRule, state_dtype: str) -> _Kernels:
        config = keras.saving.serialize_keras_object(rule)
        config["config"] = {k: v for k, v in config["config"].items() if k != "name"}
        key = (type(rule), json.dumps(config, sort_keys=True), state_dtype)
        if key not in made:
            if len(made) == _MOST_CONFIGURATIONS:
                del made[next(iter(made))]  # The oldest.
            made[key] = make(rule, state_dtype)
        return made[key]

    return shared
