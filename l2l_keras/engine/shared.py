"""Compiled kernels that optimizers share if what they serve has the same configuration."""

from __future__ import annotations

import functools
import json
import weakref
from collections.abc import Callable, Hashable
from typing import Any, TypeVar

import keras

_Kernels = TypeVar("_Kernels")
_KEPT = 2
_kept: list[list[Any]] = []


def by_configuration(make: Callable[..., _Kernels]) -> Callable[..., _Kernels]:
    """Decorates a constructor of kernels: rules, or safeguards, of one configuration share them.

    Further arguments, such as shapes, must be the same as well: kernels compile a program for each
    shape, which is freed with the optimizers that have such variables. Kernels get weights as
    arguments: which of the rules they were made from does not matter.
    """
    made: weakref.WeakValueDictionary[tuple[Any, ...], Any] = weakref.WeakValueDictionary()

    @functools.wraps(make)
    def shared(owner: object, *arguments: Hashable) -> _Kernels:
        config = keras.saving.serialize_keras_object(owner)
        config["config"] = {k: v for k, v in config["config"].items() if k != "name"}
        key: tuple[Any, ...] = (type(owner), json.dumps(config, sort_keys=True), *arguments)
        kernels = made.get(key)
        if kernels is None:
            kernels = made[key] = make(owner, *arguments)
        return kernels

    return shared


def keep(kernels: list[Any]) -> None:
    """Keeps the kernels of an optimizer, and of the last one with others, beyond its life.

    The next optimizer with the same rule, for the next similar model, then compiles nothing again.
    """
    if kernels in _kept:
        _kept.remove(kernels)
    _kept.append(kernels)
    del _kept[:-_KEPT]
