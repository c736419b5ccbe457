"""The interface of rules that decide once a tensor, not once a coordinate."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from keras import ops

from l2l_keras.rules.base import State, Tensor, UpdateRule
from l2l_keras.rules.tensorwise.tensors import Shape, Tensors


class TensorwiseRule(UpdateRule):
    """Base class of rules whose updates are sums of a few directions, weighted tensor by tensor.

    A direction is a number for each coordinate that costs next to nothing, such as a momentum over
    the usual size of the gradient. What φ decides is how they are weighted in each tensor, and all
    that it knows of a tensor are the mean products of the directions with each other: how large
    they are, and how they are aligned. A step is

        state ← advance(gradient, state)                       coordinate by coordinate
        M = matrix_directions(state)                           tensor by tensor, if at all
        D = M, directions(gradient, state, parameters)         coordinate by coordinate
        coefficients, memory ← control(⟨D, D⟩, memory)         tensor by tensor
        update = refine(Σ_k coefficients_k · D_k)              tensor by tensor, if at all

    so that, without matrix directions, it costs one pass over the coordinates, and one over as many
    of them as it takes to tell the products.

    The state is `coordinate_rows` arrays `[n]`, and one array `[tensor_rows, T]`. Parameters and
    matrix directions count as given: meta-gradients do not flow through how they come about.

    A subclass implements `coordinate_rows`, `tensor_rows`, `direction_rows`, `advance`,
    `directions`, `control` and `get_config`; `matrix_rows` and `matrix_directions` if it has such
    directions; and `refine` if there is something to refine.

    Args:
        name: Name of the layer.
    """

    scope = "tensor"
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
    def matrix_rows(self) -> int:
        """How many directions come from tensors as a whole."""
        return 0

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

    def matrix_directions(self, state: Sequence[Tensor], shape: Shape) -> list[Tensor]:
        """Computes the directions that come from a tensor as a whole. Pure, in `keras.ops` only.

        Args:
            state: As returned by `advance`, arrays of all coordinates of some tensors of one shape,
                `[count, size]`.
            shape: Their shape.

        Returns:
            `matrix_rows` arrays `[count, size]`.
        """
        del state, shape
        return []

    @abc.abstractmethod
    def control(self, products: Tensor, state: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Decides how directions are weighted. Pure, in `keras.ops` only.

        Args:
            products: Mean products of the directions, float32 `[r, r, T]`: first those that
                `matrix_directions` returns, then those that `directions` does.
            state: float32 `[tensor_rows, T]`.
            tensors: The tensors.

        Returns:
            `(coefficients, state)`: float32 `[k, T]`, of the first k directions; and the next
            state.
        """

    def refine(self, sums: Tensor, shape: Shape) -> Tensor:
        """Makes updates of weighted sums of directions. Pure, in `keras.ops` only.

        Args:
            sums: Those of some tensors of one shape, float32 `[count, size]`.
            shape: Their shape.

        Returns:
            The updates, float32 `[count, size]`, zeros for zeros; by default, the sums.
        """
        del shape
        return sums

    def matrices(self, gradient: Tensor, state: Sequence[Tensor], tensors: Tensors) -> Tensor:
        """Computes the matrix directions of all tensors.

        Args:
            gradient: As in `step`.
            state: As in `step`, that of the coordinates alone.
            tensors: As in `step`.

        Returns:
            float32 `[matrix_rows, n]`.
        """
        if not self.matrix_rows:
            return ops.zeros((0, *gradient.shape), "float32")
        arrays = [tensors.cut(array) for array in self.advance(gradient, state)]
        parts = [
            ops.stack(self.matrix_directions([array[run] for array in arrays], shape))
            for run, (shape, _) in enumerate(tensors.runs)
        ]
        return ops.stop_gradient(tensors.join(parts))

    def step(
        self,
        gradient: Tensor,
        state: State,
        parameters: Tensor | None = None,
        tensors: Tensors | None = None,
        matrices: Tensor | None = None,
    ) -> tuple[Tensor, State]:
        """Computes one update. Pure, of static shapes, in `keras.ops` only.

        Args:
            gradient: Gradient of every coordinate, float32 `[n]`.
            state: `coordinate_rows` arrays `[n]`, and one `[tensor_rows, T]`.
            parameters: The coordinates themselves, float32 `[n]`. Defaults to zeros.
            tensors: What they belong to. Defaults to one vector.
            matrices: As returned by `matrices`. Defaults to what it returns.

        Returns:
            `(update, state)`: what to add to the coordinates, float32 `[n]`, and the next state.
        """
        if parameters is None:
            parameters = ops.zeros_like(gradient)
        if tensors is None:
            tensors = Tensors([gradient.shape])
        if matrices is None:
            matrices = self.matrices(gradient, state[:-1], tensors)
        *coordinate_state, tensor_state = state
        coordinate_state = self.advance(gradient, coordinate_state)
        directions = self.directions(gradient, coordinate_state, ops.stop_gradient(parameters))
        rows = ops.concatenate([matrices, ops.stack(directions)])
        coefficients, tensor_state = self.control(tensors.products(rows), tensor_state, tensors)
        sums = tensors.combine(coefficients, rows[: coefficients.shape[0]])
        parts = zip(sums, tensors.runs, strict=True)
        update = tensors.join([self.refine(part, shape) for part, (shape, _) in parts])
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
