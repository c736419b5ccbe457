"""The random order and lengths of episodes, as pure functions of a seed and a number."""

from __future__ import annotations

import math

import numpy as np


def member(seed: int, turn: int, count: int) -> int:
    """Returns whose turn it is: all members have one in random order, then in another."""
    cycle, k = divmod(turn, count)
    return int(np.random.default_rng((seed, cycle)).permutation(count)[k])


def horizon(seed: int, number: int, shortest: int, longest: int, unroll: int) -> int:
    """Draws the horizon of an episode, a multiple of `unroll`, its logarithm uniformly."""
    fewest = shortest // unroll
    most = max(fewest, longest // unroll)
    random = np.random.default_rng((seed, 1, number))
    windows = math.exp(random.uniform(math.log(fewest), math.log(most + 1)))
    return min(int(windows), most) * unroll


def mean_horizon(shortest: int, longest: int) -> float:
    """Returns the mean of horizons whose logarithm is drawn uniformly."""
    if shortest == longest:
        return float(longest)
    return (longest - shortest) / math.log(longest / shortest)
