"""Matrices whose rows are orthogonal to each other."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

from keras import ops

from l2l_keras.rules.base import Shape, Tensor

# Larger matrices are cut into blocks of so many rows or columns: a weight costs 20 multiplications
# for each row of its block.
_LARGEST_SIDE = 256
# Five iterations of this quintic bring every singular value between 0.003 and 1 close to 1.
_QUINTIC, _STEPS = (3.4445, -4.7750, 2.0315), 5
# Added to divisors: to largest absolute values, and to mean squares of numbers divided by those.
# Compilers may divide by the product of both, which must not be zero.
_TINY, _SMALL = 1e-30, 1e-12
# Added to the eigenvalues of Gram matrices of trace 1: rounding may leave them below zero, where
# the iteration diverges. Their roots are then at least 0.05, and three iterations suffice.
_DAMPING, _WHITENING_STEPS = 3e-3, 3


def orthogonal_factor(vector: Tensor, shape: Shape) -> Tensor:
    """Returns the orthogonal factors of tensors `[..., size]`, scaled to an RMS of about 1.

    That of U S Vᵀ, a singular value decomposition, is about U Vᵀ. A vector is divided by its RMS.

    Source: Carlson et al., "Stochastic spectral descent for restricted Boltzmann machines" (2015);
    the iteration is from Jordan et al., "Muon: an optimizer for hidden layers in neural networks"
    (2024), after Newton, Schulz, and Björck and Bowie.
    """
    rows, columns = matrix_shape(shape)
    if not rows * columns:
        return vector
    # Divided by the largest first: the square of a small number is zero.
    vector = vector / (ops.max(ops.abs(vector), axis=-1, keepdims=True) + _TINY)
    if min(rows, columns) < 2:
        return vector / ops.sqrt(ops.mean(ops.square(vector), axis=-1, keepdims=True) + _SMALL)
    side = _even_side(min(rows, columns), _LARGEST_SIDE)
    factor = _block_by_block(_polar, vector, (rows, columns), side, by_column=rows > columns)
    return factor * math.sqrt(max(rows, columns))


def whiten_rows(vector: Tensor, shape: Shape, most: int, degree: float = 1.0) -> Tensor:
    """Makes rows of each matrix nearly orthogonal and of similar RMS, in blocks of `most` at most.

    A block X becomes about (X Xᵀ)^(-1/2) X, scaled so that the RMS of the matrix stays; `degree` is
    the whitened fraction of the result. Columns are whitened if they are fewer than `most`.

    Source: Gupta et al., "Shampoo: preconditioned stochastic tensor optimization" (2018), has such
    factors, from statistics of all gradients; the iteration is that of `orthogonal_factor`.
    """
    rows, columns = matrix_shape(shape)
    if min(rows, columns) < 2:
        return vector
    by_column = columns < min(rows, most)
    side = _side(columns if by_column else rows, most)

    def whiten(blocks: Tensor) -> Tensor:
        # As an einsum, since XLA would make a transposed copy for a matrix product.
        root = _whitening(ops.einsum("...ik,...jk->...ij", blocks, blocks))
        return ops.matmul(degree * root + (1.0 - degree) * ops.eye(side), blocks)

    return _block_by_block(whiten, vector, (rows, columns), side, by_column)


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """Returns the most square matrix shape that a cut between two axes of a tensor makes."""
    size = math.prod(shape)
    sides = [math.prod(shape[:cut]) for cut in range(max(1, len(shape)))]
    rows = max((side for side in sides if side), key=lambda side: min(side, size // side))
    return rows, size // rows


def _block_by_block(
    function: Callable[[Tensor], Tensor],
    vector: Tensor,
    shape: tuple[int, int],
    side: int,
    by_column: bool,
) -> Tensor:
    """Applies a function of `[..., count, side, length]` to blocks of `side` rows, or columns."""
    several = vector.shape[:-1]
    matrix = ops.reshape(vector, (*several, *shape))
    if by_column:
        matrix = ops.swapaxes(matrix, -1, -2)
    rows, length = matrix.shape[-2:]
    if rows % side:
        # Padded with rows of zeros: they are orthogonal to all others, and stay zero.
        matrix = ops.pad(matrix, (*[(0, 0)] * len(several), (0, -rows % side), (0, 0)))
    blocks = function(ops.reshape(matrix, (*several, -1, side, length)))
    matrix = ops.reshape(blocks, (*several, -1, length))[..., :rows, :]
    if by_column:
        matrix = ops.swapaxes(matrix, -1, -2)
    return ops.reshape(matrix, vector.shape)


def _side(rows: int, most: int) -> int:
    """Returns the rows of a block: those that divide `rows` evenly, if more than half of `most`."""
    for side in range(min(rows, most), most // 2, -1):
        if rows % side == 0:
            return side
    return _even_side(rows, most)


def _even_side(rows: int, most: int) -> int:
    """Returns the rows of a block in the smallest number of blocks."""
    return math.ceil(rows / math.ceil(rows / most))


def _whitening(gram: Tensor) -> Tensor:
    """Returns what whitens blocks of given Gram matrices, both `[..., blocks, side, side]`."""
    one = ops.eye(gram.shape[-1])
    squares = ops.sum(one * gram, axis=(-2, -1), keepdims=True)
    gram = gram / (squares + _TINY)
    a, b, c = _QUINTIC
    factors: list[Tensor] = []
    square = gram + _DAMPING * one
    for _ in range(_WHITENING_STEPS):
        if factors:
            square = ops.matmul(factors[-1], ops.matmul(square, factors[-1]))
        factors.append(a * one + b * square + c * ops.matmul(square, square))
    root = functools.reduce(ops.matmul, factors)
    new_squares = ops.sum(ops.matmul(root, gram) * root, axis=(-2, -1), keepdims=True)
    old, new = (ops.sum(x, axis=-3, keepdims=True) for x in (squares, new_squares))
    return root * (ops.sqrt(old / (new + _SMALL)) / ops.sqrt(squares + _TINY))


def _polar(blocks: Tensor) -> Tensor:
    """Returns the orthogonal factors of matrices `[..., rows, columns]`, rows ≤ columns."""
    norm = ops.sqrt(ops.sum(ops.square(blocks), axis=(-2, -1), keepdims=True) + _SMALL)
    a, b, c = _QUINTIC
    x = blocks / norm
    for _ in range(_STEPS):
        square = ops.matmul(x, ops.swapaxes(x, -1, -2))
        x = a * x + ops.matmul(b * square + c * ops.matmul(square, square), x)
    return x
