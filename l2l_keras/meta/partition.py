"""How meta-training divides the coordinates of an optimizee into what rules step through."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import tensorflow as tf

Tensor = Any
Shape = tuple[int, ...]


class Chunks:
    """Cuts vectors into equal chunks of coordinates, the last one filled up with zeros.

    A few thousand coordinates at a time stay in the processor's cache, and equal chunks need the
    rule compiled for one shape only.

    Args:
        size: Number of coordinates.
        limit: Largest number of coordinates in a chunk.

    Attributes:
        count: Number of chunks.
        shape: Shape of each.
    """

    def __init__(self, size: int, limit: int) -> None:
        self.size = size
        self.count = math.ceil(size / limit)
        self.length = math.ceil(size / self.count)
        self.shape: Shape = (self.length,)
        self._padding = self.count * self.length - size

    def split(self, vector: Tensor) -> list[Tensor]:
        """Cuts a float32 `[..., size]` vector into `count` vectors `[..., length]`."""
        if self.count == 1:
            return [vector]
        padding = [[0, 0]] * (len(vector.shape) - 1) + [[0, self._padding]]
        return tf.split(tf.pad(vector, padding), self.count, axis=-1)

    def join(self, vectors: Sequence[Tensor]) -> Tensor:
        """Undoes `split` of a vector `[size]`."""
        if self.count == 1:
            return vectors[0]
        return tf.concat(vectors, axis=0)[: self.size]


class Problems:
    """Takes vectors as the coordinates of several problems, one after the other, in one piece.

    Args:
        size: Number of coordinates.
        problems: Number of problems.

    Attributes:
        count: 1, the number of pieces.
        shape: Shape of the piece.
    """

    count = 1

    def __init__(self, size: int, problems: int) -> None:
        self.size = size
        self.shape: Shape = (problems, size // problems)

    def split(self, vector: Tensor) -> list[Tensor]:
        """Turns a `[..., size]` vector into one array `[..., problems, size / problems]`."""
        return [tf.reshape(vector, (*vector.shape[:-1], *self.shape))]

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """Undoes `split` of a vector `[size]`."""
        return tf.reshape(pieces[0], (self.size,))


class Partition:
    """Divides the coordinates of an optimizee by groups, and those of a group into pieces.

    Args:
        sizes: Numbers of consecutive coordinates that belong together.
        groups: The group that each of them belongs to, counted from 0.
        pieces: How the coordinates of each group are cut, for vectors of their number.

    Attributes:
        owners: The group of each piece.
    """

    def __init__(
        self, sizes: Sequence[int], groups: Sequence[int], pieces: Sequence[Chunks | Problems]
    ) -> None:
        self._sizes = list(sizes)
        self._groups = list(groups)
        self._pieces = list(pieces)
        self.owners = [g for g, cut in enumerate(pieces) for _ in range(cut.count)]

    def shape(self, piece: int) -> Shape:
        """Returns the shape of a vector's piece."""
        return self._pieces[self.owners[piece]].shape

    def split(self, vector: Tensor) -> list[Tensor]:
        """Cuts a float32 `[..., size]` vector into pieces, group after group."""
        if len(self._pieces) == 1:
            return self._pieces[0].split(vector)
        parts = tf.split(vector, self._sizes, axis=-1)
        return [
            piece
            for group, cut in enumerate(self._pieces)
            for piece in cut.split(
                tf.concat([p for p, g in zip(parts, self._groups, strict=True) if g == group], -1)
            )
        ]

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """Undoes `split` of a vector `[size]`."""
        vectors = []
        rest = iter(pieces)
        for cut in self._pieces:
            vectors.append(cut.join([next(rest) for _ in range(cut.count)]))
        if len(vectors) == 1:
            return vectors[0]
        parts = [iter(self._cut(vector, group)) for group, vector in enumerate(vectors)]
        return tf.concat([next(parts[group]) for group in self._groups], axis=0)

    def _cut(self, vector: Tensor, group: int) -> list[Tensor]:
        """Cuts the vector of a group where its coordinates are not consecutive."""
        sizes = [n for n, g in zip(self._sizes, self._groups, strict=True) if g == group]
        return tf.split(vector, sizes)
