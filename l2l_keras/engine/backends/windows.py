"""Windows of a long vector, and a loop over them that XLA compiles."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from keras import ops

Tensor = Any
WindowStep = Callable[[Sequence[Tensor], Tensor, Tensor], tuple[Tensor, Tensor]]
"""Maps weights, a gradient `[length]` and a state `[rows, length]` to an update and a state."""


class Windows(NamedTuple):
    """Windows of one length, each of which updates elements that no other one does.

    Attributes:
        length: Elements in a window.
        start: First element of each window, int32.
        first: First element that each window updates, int32.
        last: One past the last such element, int32.
    """

    length: int
    start: np.ndarray
    first: np.ndarray
    last: np.ndarray


def loop(
    step: WindowStep,
    state: Sequence[Tensor],
    factor: Tensor,
    weights: Sequence[Tensor],
    gradient: Tensor,
    windows: Windows,
    accepted: Tensor,
) -> tuple[Tensor, list[Tensor]]:
    """Steps through windows, with the scratch memory of one window and a vector of updates.

    Returns:
        `(update, state)`: float32 `[n]`, meaningless where no window updates it, and zero if there
        is no step; and the next state, alone in a list.
    """
    (state,) = state
    start, first, last = (ops.convert_to_tensor(elements) for elements in windows[1:])
    offsets = ops.arange(windows.length, dtype="int32")

    def body(k: Tensor, carry: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        # Updates replace their gradients, which no other window needs.
        vector, state = carry
        begin = start[k]
        old_vector = ops.slice(vector, [begin], [windows.length])
        old_state = ops.slice(state, [0, begin], [state.shape[0], windows.length])
        update, new_state = step(weights, old_vector, old_state)
        updated = ops.logical_and(offsets + begin >= first[k], offsets + begin < last[k])
        vector = ops.slice_update(vector, [begin], ops.where(updated, factor * update, old_vector))
        new_state = ops.where(updated, new_state, old_state)
        return vector, ops.slice_update(state, [0, begin], new_state)

    count = ops.where(accepted, start.shape[0], 0)
    vector, state = ops.fori_loop(0, count, body, (ops.where(accepted, gradient, 0.0), state))
    return vector, [state]
