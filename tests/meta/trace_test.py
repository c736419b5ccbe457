"""Tests of what is kept of a window."""

import pytest

from l2l_keras.meta import InnerLoop
from l2l_keras.meta.trace import pieces_to_keep
from tests.meta.problems import COUPLED, RULES, quadratic


def test_pieces_are_kept_as_far_as_they_fit():
    loop = InnerLoop(RULES["lstm_plain"](), quadratic(), chunk_size=3)
    assert len(loop.pieces) == 4
    counts = [pieces_to_keep(loop, 2, cache_bytes) for cache_bytes in range(0, 3000, 50)]
    assert counts == sorted(counts)
    assert {*counts} == {0, 1, 2, 3, 4}


def test_those_of_tensorwise_rules_are_kept():
    """The parameters that they saw could not be computed again."""
    loop = InnerLoop(COUPLED["tensorwise_lstm"](), quadratic())
    assert pieces_to_keep(loop, 2, cache_bytes=0) == 1


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
