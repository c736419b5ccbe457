"""What is recorded of updates, for people to look at."""

from __future__ import annotations

from typing import Any

from keras import ops

from l2l_keras.columns import Step
from l2l_keras.gradient_guard import square_norm

Tensor = Any

NAMES = ("update norm", "cosine with descent")
"""What is recorded of each variable's update by its rule."""


def recording(step: Step, records: dict[int, Tensor]) -> Step:
    """Returns a step that records updates as they are added to variables.

    Args:
        step: The step as it would be.
        records: Where to put float32 `[2]` with what `NAMES` says, by the places of variables.
    """

    def add(index: int, update: Tensor) -> Any:
        vector = ops.reshape(update, (-1,))
        gradient = ops.reshape(step.gradients[index], (-1,))
        norms = [ops.sqrt(square_norm(part)) for part in (vector, gradient)]
        cosine = -ops.dot(vector, gradient) / ops.maximum(norms[0] * norms[1], 1e-30)
        records[index] = ops.stack([norms[0], cosine])
        return step.add(index, update)

    return step._replace(add=add)
