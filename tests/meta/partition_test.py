"""Tests of how meta-training divides coordinates: what is split is joined again."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.meta.partition import Chunks, Partition, Problems


class TestChunks:
    @settings(max_examples=100, deadline=None, derandomize=True)
    @given(st.integers(1, 50), st.integers(1, 60))
    def test_they_are_equal_and_join_again(self, size, limit):
        chunks = Chunks(size, limit)
        vector = tf.range(1.0, size + 1.0)
        parts = chunks.split(vector)
        assert len(parts) == chunks.count == math.ceil(size / limit)
        assert {tuple(part.shape) for part in parts} == {(chunks.length,)} == {chunks.shape}
        assert chunks.length <= limit
        np.testing.assert_array_equal(chunks.join(parts), vector)
        padding = tf.concat(parts, axis=0)[size:]
        np.testing.assert_array_equal(padding, np.zeros(chunks.count * chunks.length - size))


class TestProblems:
    def test_they_are_the_coordinates_of_one_function_after_the_other(self):
        problems = Problems(6, 3)
        vectors = tf.reshape(tf.range(12.0), (2, 6))
        (piece,) = problems.split(vectors)
        assert problems.count == 1
        assert problems.shape == (3, 2)
        np.testing.assert_array_equal(piece, np.arange(12.0).reshape(2, 3, 2))
        np.testing.assert_array_equal(problems.join([piece[1]]), vectors[1])


@st.composite
def partitions(draw):
    """A partition of weights of some sizes into groups, and which coordinate is whose."""
    groups = draw(st.integers(1, 3), "groups")
    # Every group has a weight, in any order.
    owners = list(range(groups)) + draw(st.lists(st.integers(0, groups - 1), max_size=5), "more")
    owners = draw(st.permutations(owners), "owners")
    sizes = draw(st.lists(st.integers(1, 7), min_size=len(owners), max_size=len(owners)), "sizes")
    pieces = []
    for group in range(groups):
        size = sum(n for n, owner in zip(sizes, owners, strict=True) if owner == group)
        if draw(st.booleans(), "coupled"):
            pieces.append(Problems(size, 1))
        else:
            pieces.append(Chunks(size, draw(st.integers(1, 20), "limit")))
    return Partition(sizes, owners, pieces), pieces, np.repeat(owners, sizes)


class TestPartition:
    @settings(max_examples=60, deadline=None, derandomize=True)
    @given(partitions())
    def test_what_is_split_is_joined_again(self, drawn):
        partition, pieces, owners = drawn
        vector = tf.range(1.0, len(owners) + 1.0)
        parts = partition.split(vector)
        counts = [cut.count for cut in pieces]
        assert partition.owners == np.repeat(range(len(pieces)), counts).tolist()
        assert [tuple(p.shape) for p in parts] == [partition.shape(k) for k in range(len(parts))]
        np.testing.assert_array_equal(partition.join(parts), vector)
        # Each group's pieces hold its coordinates in their order, and nothing but zeros besides.
        for group in range(len(pieces)):
            own = [np.ravel(p) for p, g in zip(parts, partition.owners, strict=True) if g == group]
            numbers = np.concatenate(own)
            members = 1.0 + np.flatnonzero(owners == group)
            np.testing.assert_array_equal(numbers[: len(members)], members)
            assert not np.any(numbers[len(members) :])

    @settings(max_examples=30, deadline=None, derandomize=True)
    @given(partitions())
    def test_rows_are_split_as_vectors_are(self, drawn):
        partition, _, owners = drawn
        rows = tf.reshape(tf.range(1.0, 3.0 * len(owners) + 1.0), (3, len(owners)))
        together = partition.split(rows)
        for k, row in enumerate(tf.unstack(rows)):
            for part, expected in zip(together, partition.split(row), strict=True):
                np.testing.assert_array_equal(part[k], expected)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
