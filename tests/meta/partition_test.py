"""Tests of how meta-training divides parameters: what is split is joined again."""

import math

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from l2l_keras.meta.partition import Partition, Pieces, chunks


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(1, 50), st.integers(1, 60))
def test_chunks_are_equal_and_join_again(size, limit):
    cut = chunks(size, limit)
    vector = tf.range(1.0, size + 1.0)
    parts = cut.split(vector)
    assert len(parts) == cut.count == math.ceil(size / limit)
    assert {tuple(part.shape) for part in parts} == {cut.shape}
    assert cut.shape[0] <= limit
    np.testing.assert_array_equal(cut.join(parts), vector)
    padding = tf.concat(parts, axis=0)[size:]
    np.testing.assert_array_equal(padding, np.zeros(cut.count * cut.shape[0] - size))


def test_functions_have_a_row_each():
    cut = Pieces(6, 1, (3, 2))
    vectors = tf.reshape(tf.range(12.0), (2, 6))
    (piece,) = cut.split(vectors)
    np.testing.assert_array_equal(piece, np.arange(12.0).reshape(2, 3, 2))
    np.testing.assert_array_equal(cut.join([piece[1]]), vectors[1])


@st.composite
def partitions(draw):
    """A partition of weights of some sizes into groups, and the group of each parameter."""
    groups = draw(st.integers(1, 3), "groups")
    # Every group has a weight, in any order.
    owners = list(range(groups)) + draw(st.lists(st.integers(0, groups - 1), max_size=5), "more")
    owners = draw(st.permutations(owners), "owners")
    sizes = draw(st.lists(st.integers(1, 7), min_size=len(owners), max_size=len(owners)), "sizes")
    pieces = []
    for group in range(groups):
        size = sum(n for n, owner in zip(sizes, owners, strict=True) if owner == group)
        if draw(st.booleans(), "coupled"):
            pieces.append(Pieces(size, 1, (1, size)))
        else:
            pieces.append(chunks(size, draw(st.integers(1, 20), "limit")))
    return Partition(sizes, owners, pieces), pieces, np.repeat(owners, sizes)


class TestPartition:
    @settings(max_examples=40, deadline=None, derandomize=True)
    @given(partitions())
    def test_what_is_split_is_joined_again(self, drawn):
        partition, pieces, owners = drawn
        vector = tf.range(1.0, len(owners) + 1.0)
        parts = partition.split(vector)
        counts = [cut.count for cut in pieces]
        assert partition.owners == np.repeat(range(len(pieces)), counts).tolist()
        assert [tuple(p.shape) for p in parts] == partition.shapes
        np.testing.assert_array_equal(partition.join(parts), vector)
        # Each group's pieces hold its parameters in their order, and zeros besides.
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
