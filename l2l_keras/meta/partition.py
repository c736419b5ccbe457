"""How an optimizee's parameters are divided into the pieces that rules update at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence

import tensorflow as tf

from l2l_keras import parameter_groups
from l2l_keras.rules import Tensors, UpdateRule
from l2l_keras.rules.base import Shape
from l2l_keras.rules.tensorwise.tensors import fan_in
from l2l_keras.tasks.base import Task, Tensor


@dataclasses.dataclass(frozen=True)
class Pieces:
    """Cuts vectors of `size` into `count` pieces of one shape, `[n]` or `[functions, n]`."""

    size: int
    count: int
    shape: Shape

    def split(self, vector: Tensor) -> list[Tensor]:
        """Cuts a float32 `[..., size]` vector into pieces `[..., *shape]`, padded with zeros."""
        *first, _ = vector.shape
        if self.count == 1:
            return [tf.reshape(vector, (*first, *self.shape))]
        padding = [[0, 0]] * len(first) + [[0, self.count * self.shape[0] - self.size]]
        return tf.split(tf.pad(vector, padding), self.count, axis=-1)

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """Undoes `split` of a vector `[size]`."""
        if self.count == 1:
            return tf.reshape(pieces[0], (self.size,))
        return tf.concat(pieces, axis=0)[: self.size]


def chunks(size: int, limit: int) -> Pieces:
    """Returns equal pieces of at most `limit` elements.

    They fit the processor's cache, and a rule is compiled once for all of them.
    """
    count = math.ceil(size / limit)
    return Pieces(size, count, (math.ceil(size / count),))


class Partition:
    """Divides an optimizee's parameters by groups, and the parameters of a group into pieces.

    The parameters consist of arrays of given sizes and groups. `owners` and `shapes` are the
    pieces' groups and shapes.
    """

    def __init__(
        self, sizes: Sequence[int], groups: Sequence[int], pieces: Sequence[Pieces]
    ) -> None:
        self._sizes = list(sizes)
        self._groups = list(groups)
        self._pieces = list(pieces)
        self.owners = [g for g, cut in enumerate(pieces) for _ in range(cut.count)]
        self.shapes = [pieces[owner].shape for owner in self.owners]

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
        rest = iter(pieces)
        vectors = [cut.join([next(rest) for _ in range(cut.count)]) for cut in self._pieces]
        if len(vectors) == 1:
            return vectors[0]
        # The parameters of a group need not be consecutive.
        parts = []
        for group, vector in enumerate(vectors):
            sizes = [n for n, g in zip(self._sizes, self._groups, strict=True) if g == group]
            parts.append(iter(tf.split(vector, sizes)))
        return tf.concat([next(parts[group]) for group in self._groups], axis=0)


def divide(
    rule: UpdateRule | Mapping[str, UpdateRule], task: Task, chunk_size: int
) -> tuple[Partition, list[Tensors]]:
    """Divides a task's parameters among rules, and each rule's into what it updates at once.

    Also returns the tensors of each group that one function's parameters belong to.
    """
    groups = parameter_groups.rules(rule)
    patterns = list(groups)
    layout = task.layout
    owners = [patterns.index(name) for name in parameter_groups.assign(layout, patterns)]
    if len(patterns) > 1 and task.functions > 1:
        raise ValueError(
            "Parameter groups need a task of one function. "
            f"Received: {task.functions} functions, groups {patterns}"
        )
    pieces, tensors = [], []
    for group, (pattern, member) in enumerate(groups.items()):
        own = [weight for weight, owner in zip(layout, owners, strict=True) if owner == group]
        size = sum(math.prod(weight.shape) for weight in own)
        if not size:
            raise ValueError(
                f"Every group must have variables of the task. Received: {pattern!r}, which "
                f"has none of {[weight.path for weight in layout]}"
            )
        shape: Shape = (size,)
        if task.functions > 1:
            shape = (task.functions, size // task.functions)
            tensors.append(Tensors([shape[1:]]))
        else:
            tensors.append(Tensors([w.shape for w in own], [fan_in(*w) for w in own]))
        element = member.scope == "element"
        pieces.append(chunks(size, chunk_size) if element else Pieces(size, 1, shape))
    sizes = [math.prod(weight.shape) for weight in layout]
    return Partition(sizes, owners, pieces), tensors
