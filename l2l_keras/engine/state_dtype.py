"""In which type the state of a rule is stored; rules compute in float32."""

from __future__ import annotations

from typing import Any

from keras import ops

from l2l_keras.engine.backends import backend

Tensor = Any

STATE_DTYPES = ("float32", "bfloat16")
"""The types that `LearnedOptimizer(state_dtype=...)` takes."""


class StateDtype:
    """Encodes float32 numbers in the type in which they are stored, one of `STATE_DTYPES`.

    In bfloat16, arrays hold the bits of the numbers as int16: in each turn of a loop, XLA would
    convert a whole array of bfloat16 to float32 and back.
    """

    def __init__(self, name: str) -> None:
        self.stored = "int16" if name == "bfloat16" else "float32"

    def decode(self, stored: Tensor) -> Tensor:
        """Returns stored numbers as float32."""
        if self.stored == "float32":
            return stored
        return ops.cast(backend.bitcast(stored, "bfloat16"), "float32")

    def encode(self, numbers: Tensor) -> Tensor:
        """Returns float32 numbers as they are stored."""
        if self.stored == "float32":
            return numbers
        return backend.bitcast(ops.cast(numbers, "bfloat16"), "int16")
