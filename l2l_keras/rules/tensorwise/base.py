"""The interface of rules that decide once for each tensor of a model."""

from __future__ import annotations

import abc
from collections.abc import Sequence

from keras import ops

from l2l_keras.rules.base import Shape, State, Tensor, UpdateRule
from l2l_keras.rules.tensorwise.tensors import Tensors


class TensorwiseRule(UpdateRule):
    """Base class of rules whose updates are weighted sums of a few directions.

    A direction is a number for each element that costs next to nothing, such as a momentum divided
    by the RMS of the gradient. φ decides how the directions of each tensor are weighted, from their
    Gram matrix: how large they are and how they are aligned. A step is

        state ← advance(gradient, state)                       elementwise
        M = matrix_directions(state)                           per tensor, optional
        D = M, directions(gradient, state, parameters)         elementwise
        coefficients, memory ← control(mean of D Dᵀ, memory)   per tensor
        update = refine(Σ_k coefficients_k · D_k)              per tensor, optional

    The Gram matrices of large tensors are means over a sample of their elements (see
    `l2l_keras.rules.tensorwise.sampling`), unless there are matrix directions, whose cost dwarfs
    theirs. Meta-training and use sample alike.

    The state is `element_rows` arrays `[n]` and one array `[tensor_rows, T]`. Meta-gradients do not
    flow through parameters and matrix directions.

    A subclass implements `element_rows`, `tensor_rows`, `direction_count`, `advance`, `directions`
    and `control`, and if it needs them, `matrix_direction_count` and `matrix_directions`, `refine`.

    Args:
        name: Name of the layer.

    Example:
        Momentum whose steps all have the RMS of the tensor's weights, times a factor:

        >>> class RelativeMomentum(l2l_keras.rules.TensorwiseRule):
        ...     element_rows, tensor_rows = 1, 0
        ...     direction_count = 2  # The second one only for its product with itself.
        ...
        ...     def advance(self, gradient, state):
        ...         return [0.9 * state[0] + gradient]
        ...
        ...     def directions(self, gradient, state, parameters):
        ...         return [state[0], parameters]
        ...
        ...     def control(self, gram, state, tensors):
        ...         return -0.01 * keras.ops.sqrt(gram[1, 1] / gram[0, 0])[None], state
        >>> rule = RelativeMomentum()
        >>> gradient, weights = keras.ops.array([1.0, -3.0]), keras.ops.array([2.0, 4.0])
        >>> update, _ = rule.step(gradient, rule.initial_state(2), weights)
        >>> print(update.numpy().round(4))
        [-0.0141  0.0424]
    """

    scope = "tensor"

    @property
    @abc.abstractmethod
    def element_rows(self) -> int:
        """Floats kept for every element."""

    @property
    @abc.abstractmethod
    def tensor_rows(self) -> int:
        """Floats kept for every tensor."""

    @property
    @abc.abstractmethod
    def direction_count(self) -> int:
        """Number of arrays that `directions` returns."""

    @property
    def matrix_direction_count(self) -> int:
        """Number of arrays that `matrix_directions` returns."""
        return 0

    @property
    def state_rows(self) -> tuple[int, ...]:
        """One row for each of the elements' arrays."""
        return (1,) * self.element_rows

    @abc.abstractmethod
    def advance(self, gradient: Tensor, state: Sequence[Tensor]) -> list[Tensor]:
        """Computes the elements' next state. Pure, elementwise, in `keras.ops` only.

        Args:
            gradient: Gradients of some elements, float32 of any shape.
            state: `element_rows` arrays of that shape.
        """

    @abc.abstractmethod
    def directions(
        self, gradient: Tensor, state: Sequence[Tensor], parameters: Tensor
    ) -> list[Tensor]:
        """Computes the directions. Pure, elementwise, in `keras.ops` only.

        Args:
            gradient: Gradients of some elements, float32 of any shape.
            state: As returned by `advance`.
            parameters: Values of the elements, of that shape.

        Returns:
            `direction_count` arrays of that shape: the directions, and after them arrays that only
            `control` needs, by their products in the Gram matrix.
        """

    def matrix_directions(self, state: Sequence[Tensor], shape: Shape) -> list[Tensor]:
        """Computes directions that depend on a tensor as a whole. Pure, in `keras.ops` only.

        Args:
            state: As returned by `advance`, for `count` tensors of one shape, `[count, size]`.
            shape: Their shape.

        Returns:
            `matrix_direction_count` arrays `[count, size]`.
        """
        return []

    @abc.abstractmethod
    def control(self, gram: Tensor, state: Tensor, tensors: Tensors) -> tuple[Tensor, Tensor]:
        """Decides how the directions of each tensor are weighted. Pure, in `keras.ops` only.

        Args:
            gram: Gram matrices of matrix directions and directions, float32 `[r, r, T]`.
            state: float32 `[tensor_rows, T]`.
            tensors: The tensors.

        Returns:
            `(coefficients, state)`: float32 `[k, T]`, of the first k directions; and the next
            state.
        """

    def refine(self, sums: Tensor, shape: Shape) -> Tensor:
        """Turns weighted sums of directions into updates. Pure, in `keras.ops` only.

        Args:
            sums: Those of `count` tensors of one shape, float32 `[count, size]`.
            shape: Their shape.

        Returns:
            The updates, float32 `[count, size]`, zeros for zeros; by default, the sums.
        """
        return sums

    @property
    def samples(self) -> bool:
        """Whether the Gram matrices of large tensors come from a sample of their elements."""
        return not self.matrix_direction_count

    def matrices(self, gradient: Tensor, state: Sequence[Tensor], tensors: Tensors) -> Tensor:
        """Computes the matrix directions that `step` takes, from the state's arrays `[n]`."""
        if not self.matrix_direction_count:
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
            gradient: Gradient of every element, float32 `[n]`.
            state: `element_rows` arrays `[n]`, and one `[tensor_rows, T]`.
            parameters: Values of the elements, float32 `[n]`. Defaults to zeros.
            tensors: The tensors that the elements belong to. Defaults to one vector.
            matrices: As returned by `matrices`. Defaults to computing them.

        Returns:
            `(update, state)`: what to add to the elements, float32 `[n]`, and the next state.
        """
        if parameters is None:
            parameters = ops.zeros_like(gradient)
        if tensors is None:
            tensors = Tensors([gradient.shape])
        if matrices is None:
            matrices = self.matrices(gradient, state[:-1], tensors)
        *element_state, tensor_state = state
        element_state = self.advance(gradient, element_state)
        directions = self.directions(gradient, element_state, ops.stop_gradient(parameters))
        rows = ops.concatenate([matrices, ops.stack(directions)])
        gram = tensors.gram_matrices(rows, self.samples)
        coefficients, tensor_state = self.control(gram, tensor_state, tensors)
        sums = tensors.combine(coefficients, rows[: coefficients.shape[0]])
        parts = zip(sums, tensors.runs, strict=True)
        update = tensors.join([self.refine(part, shape) for part, (shape, _) in parts])
        return update, (*element_state, tensor_state)

    def initial_state(self, n: int, tensors: int = 1) -> State:
        """Returns zeros: `element_rows` float32 arrays `[n]`, and one `[tensor_rows, tensors]`."""
        return (
            *(ops.zeros((n,), "float32") for _ in range(self.element_rows)),
            ops.zeros((self.tensor_rows, tensors), "float32"),
        )
