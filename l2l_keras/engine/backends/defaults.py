"""What backends do that neither build graphs nor replicate steps; see `backends`."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import keras

Tensor = Any
Variable = Any


def handle(variable: Variable) -> Tensor:
    """Returns the tensor in a variable."""
    return variable.value


def device(variable: Variable) -> str:
    """Returns the device on which a variable was placed."""
    return str(getattr(variable.value, "device", ""))


def next_to(variable: Variable) -> contextlib.AbstractContextManager[Any]:
    """Returns a scope without effect: Keras places variables itself."""
    del variable
    return contextlib.nullcontext()


def after(tensors: Sequence[Any]) -> contextlib.AbstractContextManager[Any]:
    """Returns a scope without effect: the backend orders operations itself."""
    del tensors
    return contextlib.nullcontext()


def pack(tensors: Sequence[Tensor]) -> Sequence[Tensor]:
    """Returns the tensors as they are."""
    return tensors


def unpack(packed: Sequence[Tensor], shapes: Sequence[tuple[int, ...]]) -> Sequence[Tensor]:
    """Returns the tensors as they are."""
    del shapes
    return packed


def replicated() -> bool:
    """Returns False: there is one step at a time."""
    return False


def synchronize(model: keras.Model) -> None:
    """Does nothing: the trainer keeps its values in the model's variables."""
    del model
