"""Tests of what is kept of a window."""

import pytest

from l2l_keras.meta import InnerLoop
from l2l_keras.meta.trace import Kept, plan
from tests.meta.problems import COUPLED, RULES, quadratic

UNROLL, PIECES = 2, 4


@pytest.mark.parametrize(
    ("cache_bytes", "second", "kept"),
    [
        (2**27, False, Kept(PIECES, True, False)),
        (2**27, True, Kept(PIECES, True, True)),
        (0, False, Kept(0, False, False)),
        # Second derivatives need all caches.
        (0, True, Kept(PIECES, False, True)),
    ],
)
def test_memory_decides(cache_bytes, second, kept):
    loop = InnerLoop(RULES["lstm_plain"](), quadratic(), chunk_size=3)
    assert plan(loop, UNROLL, cache_bytes, second) == kept


def test_caches_are_kept_as_far_as_they_fit():
    loop = InnerLoop(RULES["lstm_plain"](), quadratic(), chunk_size=3)
    counts = [plan(loop, UNROLL, cache_bytes).caches for cache_bytes in range(0, 2000, 50)]
    assert counts == sorted(counts)
    assert {0, 1, 2} < {*counts}


def test_those_of_tensorwise_rules_are_kept():
    """The parameters that they saw could not be computed again."""
    loop = InnerLoop(COUPLED["tensorwise_lstm"](), quadratic())
    assert plan(loop, UNROLL, cache_bytes=0) == Kept(1, False, False)


if __name__ == "__main__":
    raise SystemExit(pytest.main([__file__]))
