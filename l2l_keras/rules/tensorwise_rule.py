"""The interface of rules that decide once a tensor, not once a coordinate."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from keras import ops

from l2l_keras.rules.base import State, Tensor, UpdateRule
from l2l_keras.rules.tensors import Tensors


class TensorwiseRule(UpdateRule):
    """Base class of rules whose updates are sums of a few directions, weighted tensor by tensor.

    A direction is a number for each coordinate that costs next to nothing, such as a momentum over
    the usual size of the gradient. What φ decides is how they are weighted in each tensor, and all
    that it knows of a tensor are the mean products of the directions with each other: how large
    they are, and how they are aligned. A step is

        state ← advance(gradient, state)                       coordinate by coordinate
        D = directions(gradient, state, parameters)            coordinate by coordinate
        coefficients, memory ← control(⟨D, D⟩, memory)         tensor by tensor
        update = Σ_k coefficients_k · D_k                      coordinate by coordinate

    so that it costs one pass over the coordinates, and one over as many of them as it takes to
    tell the products.

    The state is `coordinate_rows` arrays `[n]`, and one array `[tensor_rows, T]`. Parameters count
    as given: meta-gradients do not flow through what a rule sees of them.

    A subclass implements `coordinate_rows`, `tensor_rows`, `direction_rows`, `advance`,
    `directions`, `control` and `get_config`.

    Args:
        name: Name of the layer.
    """

    coupled = True

    @property
    @abc.abstractmethod
    def coordinate_rows(self) -> int:
        """Floats kept for every coordinate."""

    @property
    @abc.abstractmethod
    def tensor_rows(self) -> int:
        """Floats kept for every tensor."""

    @property
    @abc.abstractmethod
    def direction_rows(self) -> int:
        """Rows that `directions` returns, r."""

    @property
    def state_rows(self) -> tuple[int, ...]:
        """Rows of the arrays of coordinates: each is one row."""
        return (1,) * self.coordinate_rows

    @abc.abstractmethod
    def advance(self, gradient: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
        """Computes coordinates' next state. Pure, element by element, in `keras.ops` only.

        Args:
            gradient: Gradients of some coordinates, float32 of any shape.
            state: `coordinate_rows` arrays of that shape.

        Returns:
            As many.
        """

    @abc.abstractmethod
    def directions(
        self, gradient: Tensor, state: Sequence[Tensor], parameters: Tensor
    ) -> list[Tensor]:
        """Computes what updates are made of, and what else is to be seen. Pure, as `advance`.

        Args:
            gradient: Gradients of some coordinates, float32 of any shape.
            state: As returned by `advance`.
            parameters: The coordinates, of that shape.

        Returns:
            `direction_rows` arrays of that shape: directions, and after them those of which only
            the products are wanted.
        """

    @abc.abstractmethod
    def control(self, products: Tensor, state: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Decides how directions are weighted. Pure, in `keras.ops` only.

        Args:
            products: Mean products of what `directions` returns, float32 `[r, r, T]`.
            state: float32 `[tensor_rows, T]`.
            tensors: The tensors.

        Returns:
            `(coefficients, state)`: float32 `[k, T]`, of the first k directions; and the next
            state.
        """

    def step(
        self,
        gradient: Tensor,
        state: State,
        parameters: Tensor | None = None,
        tensors: Tensors | None = None,
    ) -> tuple[Tensor, State]:
        """Computes one update. Pure, of static shapes, in `keras.ops` only.

        Args:
            gradient: Gradient of every coordinate, float32 `[n]`.
            state: `coordinate_rows` arrays `[n]`, and one `[tensor_rows, T]`.
            parameters: The coordinates themselves, float32 `[n]`. Defaults to zeros.
            tensors: What they belong to. Defaults to one vector.

        Returns:
            `(update, state)`: what to add to the coordinates, float32 `[n]`, and the next state.
        """
        *coordinate_state, tensor_state = state
        if parameters is None:
            parameters = ops.zeros_like(gradient)
        if tensors is None:
            tensors = Tensors([gradient.shape])
        coordinate_state = self.advance(gradient, coordinate_state)
        parameters = ops.stop_gradient(parameters)
        rows = ops.stack(self.directions(gradient, coordinate_state, parameters))
        coefficients, tensor_state = self.control(tensors.products(rows), tensor_state, tensors)
        update = tensors.combine(coefficients, rows[: coefficients.shape[0]])
        return update, (*coordinate_state, tensor_state)

    def initial_state(self, n: int, tensors: int = 1) -> State:
        """Returns the state before the first step (zeros).

        Args:
            n: Number of coordinates.
            tensors: Number of tensors, T. Defaults to 1.

        Returns:
            `coordinate_rows` float32 arrays `[n]`, and one `[tensor_rows, T]`.
        """
        return (
            *(ops.zeros((n,), "float32") for _ in range(self.coordinate_rows)),
            ops.zeros((self.tensor_rows, tensors), "float32"),
        )
