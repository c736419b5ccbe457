"""Matrices whose rows are orthogonal to each other."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from keras import ops

from l2l_keras.rules.tensorwise.tensors import Shape

Tensor = Any

# Of a larger matrix, blocks of so many rows or columns are made orthogonal: the cost of a weight is
# bounded, 20 multiplications a row of its block.
_LARGEST_SIDE = 256
# A quintic whose iterates bring every singular value between 0.003 and 1 close to 1 in five steps.
_QUINTIC, _STEPS = (3.4445, -4.7750, 2.0315), 5
# What largest numbers are when they are none, and mean squares of what was divided by the largest.
# Compilers divide by their product: that must not be zero.
_TINY, _LITTLE = 1e-30, 1e-12
# What is added to the eigenvalues of rows' products, whose sum is 1: rounded, they may be below
# zero, which the iteration would blow up. Their roots are 0.05 at least then: three steps will do.
_DAMPING, _FEWER_STEPS = 3e-3, 3


def orthogonal_factor(vector: Tensor, shape: Shape) -> Tensor:
    """Computes the orthogonal factor of a tensor, a matrix with all singular values about the same.

    With the singular value decomposition U S Vᵀ of the matrix, that is U Vᵀ: the step that does
    most against a loss that is known to change by so much at most in the spectral norm. A tensor of
    several axes is cut into two groups of neighbouring axes that make it as square as can be.

    Args:
        vector: The tensor's coordinates, float32 `[..., size]`: those of several, one by one.
        shape: Its shape.

    Returns:
        float32 `[..., size]`: the factor, times the root of the matrix's larger side, so that the
        root mean square of a matrix of full rank is about 1. That of a tensor that cannot be cut,
        such as a vector, is the vector over its root mean square. Zero for zeros.

    Example:
        >>> orthogonal_factor(keras.ops.array([3.0, 0.0, 0.0, 0.1]), (4,)).numpy().round(1)
        array([2. , 0. , 0. , 0.1], dtype=float32)
        >>> diagonal = keras.ops.array([3.0, 0.0, 0.0, 0.1])
        >>> bool((orthogonal_factor(diagonal, (2, 2)).numpy()[[0, 3]] > 0.9).all())
        True

    Source: Carlson et al., "Stochastic spectral descent for restricted Boltzmann machines" (2015);
    the iteration is that of Jordan et al., "Muon: an optimizer for hidden layers in neural
    networks" (2024), after Newton, Schulz, and Björck and Bowie.
    """
    rows, columns = matrix_shape(shape)
    if not rows * columns:
        return vector
    # Divided by the largest first: the square of a small number is zero.
    vector = vector / (ops.max(ops.abs(vector), axis=-1, keepdims=True) + _TINY)
    if min(rows, columns) < 2:
        return vector / ops.sqrt(ops.mean(ops.square(vector), axis=-1, keepdims=True) + _LITTLE)
    side = _even_side(min(rows, columns), _LARGEST_SIDE)
    factor = _block_by_block(_polar, vector, (rows, columns), side, by_column=rows > columns)
    return factor * math.sqrt(max(rows, columns))


def whiten_rows(vector: Tensor, shape: Shape, most: int, degree: float = 1.0) -> Tensor:
    """Makes neighbouring rows of a tensor orthogonal to each other, and about as large.

    A block X of rows becomes about (X Xᵀ)^(-1/2) X, its orthogonal factor, but that what is less
    than some thousandths of its squares grows less. All that there is to iterate on are the
    products of its rows: it costs 2 multiplications a coordinate for each row of a block, and a
    block ten times the cube of its rows.

    Args:
        vector: As in `orthogonal_factor`.
        shape: As in `orthogonal_factor`: it is cut into the same matrix. Where that has fewer
            columns than a block has rows, it is columns that are made orthogonal.
        most: Largest number of rows of a block. They have as many as leave no rest, if those are
            more than half of it.
        degree: How much of the result is whitened, from 0 to 1. Defaults to 1, all.

    Returns:
        float32 `[..., size]`, of the same root mean square if all is whitened, or else of no more.
        A tensor that cannot be cut, such as a vector, stays as it is.

    Example:
        >>> vector = keras.ops.array([3.0, 0.1, 3.0, -0.1])
        >>> whiten_rows(vector, (2, 2), most=2).numpy().round(1)
        array([ 2.3,  1.9,  2.3, -1.9], dtype=float32)

    Source: Gupta et al., "Shampoo: preconditioned stochastic tensor optimization" (2018), has such
    factors, of what is known of all gradients; the iteration is that of `orthogonal_factor`.
    """
    rows, columns = matrix_shape(shape)
    if min(rows, columns) < 2:
        return vector
    by_column = columns < min(rows, most)
    side = _side(columns if by_column else rows, most)

    def whiten(blocks: Tensor) -> Tensor:
        # Said like this, XLA makes no transposed copy of them.
        root = _whitening(ops.einsum("...ik,...jk->...ij", blocks, blocks))
        return ops.matmul(degree * root + (1.0 - degree) * ops.eye(side), blocks)

    return _block_by_block(whiten, vector, (rows, columns), side, by_column)


def matrix_shape(shape: Shape) -> tuple[int, int]:
    """Returns the sides of the most square matrix that a tensor's axes can be cut into.

    Args:
        shape: The tensor's shape.

    Example:
        >>> matrix_shape((3, 3, 16, 32)), matrix_shape((24, 3, 8)), matrix_shape((10,))
        ((144, 32), (24, 24), (1, 10))
    """
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
    """Applies a function to blocks of neighbouring rows, or columns, of matrices `[..., size]`.

    It is given the blocks `[..., count, side, length]`, the last of them with rows of zeros below
    where some are missing, and returns as many numbers.
    """
    several = vector.shape[:-1]
    matrix = ops.reshape(vector, (*several, *shape))
    if by_column:
        matrix = ops.swapaxes(matrix, -1, -2)
    rows, length = matrix.shape[-2:]
    if rows % side:
        # Rows of zeros are orthogonal to all others, and stay zero.
        matrix = ops.pad(matrix, (*[(0, 0)] * len(several), (0, -rows % side), (0, 0)))
    blocks = function(ops.reshape(matrix, (*several, -1, side, length)))
    matrix = ops.reshape(blocks, (*several, -1, length))[..., :rows, :]
    if by_column:
        matrix = ops.swapaxes(matrix, -1, -2)
    return ops.reshape(matrix, vector.shape)


def _side(rows: int, most: int) -> int:
    """Returns how many of so many rows a block has: what leaves no rest, if that is not few."""
    for side in range(min(rows, most), most // 2, -1):
        if rows % side == 0:
            return side
    return _even_side(rows, most)


def _even_side(rows: int, most: int) -> int:
    """Returns how many of so many rows a block has where there are as few blocks as can be."""
    return math.ceil(rows / math.ceil(rows / most))


def _whitening(products: Tensor) -> Tensor:
    """Returns what whitens blocks, `[..., blocks, side, side]`, from the products of their rows."""
    one = ops.eye(products.shape[-1])
    squares = ops.sum(one * products, axis=(-2, -1), keepdims=True)
    products = products / (squares + _TINY)
    a, b, c = _QUINTIC
    factors: list[Tensor] = []
    square = products + _DAMPING * one
    for _ in range(_FEWER_STEPS):
        if factors:
            square = ops.matmul(factors[-1], ops.matmul(square, factors[-1]))
        factors.append(a * one + b * square + c * ops.matmul(square, square))
    root = functools.reduce(ops.matmul, factors)
    new_squares = ops.sum(ops.matmul(root, products) * root, axis=(-2, -1), keepdims=True)
    old, new = (ops.sum(x, axis=-3, keepdims=True) for x in (squares, new_squares))
    return root * (ops.sqrt(old / (new + _LITTLE)) / ops.sqrt(squares + _TINY))


def _polar(blocks: Tensor) -> Tensor:
    """Returns the orthogonal factors of matrices `[..., rows, columns]`, not more rows."""
    norm = ops.sqrt(ops.sum(ops.square(blocks), axis=(-2, -1), keepdims=True) + _LITTLE)
    a, b, c = _QUINTIC
    x = blocks / norm
    for _ in range(_STEPS):
        square = ops.matmul(x, ops.swapaxes(x, -1, -2))
        x = a * x + ops.matmul(b * square + c * ops.matmul(square, square), x)
    return x
