"""How `l2l-benchmark` takes times: in rounds, and beside a plain matrix product.

Nothing here imports TensorFlow: it runs on every Keras backend.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import keras

from l2l_keras import rules

Call = Callable[[], Any]

_SGEMM = (4096, 512, 512)


class Timing(NamedTuple):
    """Medians of several rounds.

    Attributes:
        rate: Calls per second.
        sgemm_gflops: Rate of the plain product that was measured in turn with them.
        sgemm_share: Share of it that the calls' own operations reach.
    """

    rate: float
    sgemm_gflops: float
    sgemm_share: float


def median_rate(call: Call, rounds: int, seconds: float) -> float:
    """Returns calls per second, the median of some rounds.

    Args:
        call: What to measure; it returns when its work is done.
        rounds: Number of rounds.
        seconds: Least seconds of a round.

    Returns:
        The rate.

    Example:
        >>> median_rate(lambda: None, rounds=3, seconds=0.0) > 0
        True
    """
    return statistics.median(_rate(call, seconds) for _ in range(rounds))


def rate_and_ratio(call: Call, other: Call, rounds: int, seconds: float) -> tuple[float, float]:
    """Measures two kinds of calls in turn.

    Args:
        call: What to measure; it returns when its work is done.
        other: What to compare it with.
        rounds: Number of rounds.
        seconds: Least seconds of each of them in a round.

    Returns:
        How many of the others there are in a second, and how many times as long the first ones
        take: the medians.

    Example:
        >>> rate, ratio = rate_and_ratio(lambda: None, lambda: None, rounds=3, seconds=0.0)
        >>> rate > 0, ratio > 0
        (True, True)
    """
    pairs = [(_rate(other, seconds), _rate(call, seconds)) for _ in range(rounds)]
    ratio = statistics.median(others / calls for others, calls in pairs)
    return statistics.median(others for others, _ in pairs), ratio


def beside_sgemm(call: Call, operations: float, rounds: int, seconds: float) -> Timing:
    """Measures calls, and the speed of a plain product of two float32 matrices in turn with them.

    Args:
        call: What to measure; it returns when its work is done.
        operations: Floating-point operations of a call.
        rounds: Number of rounds.
        seconds: Least seconds of a round.

    Returns:
        The medians.

    Example:
        >>> timing = beside_sgemm(lambda: None, 1.0, rounds=1, seconds=0.0)
        >>> timing.sgemm_gflops > 0
        True
    """
    sgemm = _Sgemm()
    timings = []
    for _ in range(rounds):
        before = sgemm.gflops(seconds / 4)
        rate = _rate(call, seconds)
        gflops = (before + sgemm.gflops(seconds / 4)) / 2
        timings.append(Timing(rate, gflops, rate * operations / 1e9 / gflops))
    return Timing(*map(statistics.median, zip(*timings, strict=True)))


def product_operations(rule: rules.UpdateRule) -> int:
    """Returns the operations of a rule's matrix products, forward: 2 a weight and coordinate.

    Args:
        rule: The rule.

    Returns:
        Operations for one coordinate and step; 0 for tensorwise rules, whose products are a matter
        of tensors.

    Example:
        >>> product_operations(l2l_keras.rules.CoordinatewiseLSTM(units=(20, 20)))
        9960
    """
    if isinstance(rule, rules.TensorwiseRule):
        return 0
    return 2 * sum(w.shape[0] * w.shape[1] for w in rule.weights if len(w.shape) == 2)


def compiled(function: Callable[..., Any], **jax_options: Any) -> Callable[..., Any]:
    """Returns a function as the backend runs it best: compiled, or on PyTorch as it is.

    Args:
        function: Of tensors.
        **jax_options: Arguments of `jax.jit`.

    Returns:
        The function.

    Example:
        >>> float(compiled(keras.ops.add)(np.float32(1), np.float32(2)))
        3.0
    """
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.function(function, autograph=False)
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function, **jax_options)
    return function


def _rate(call: Call, seconds: float) -> float:
    """Returns calls per second over at least so many seconds, and one call."""
    start = time.perf_counter()
    count = 0
    while (elapsed := time.perf_counter() - start) < seconds or not count:
        call()
        count += 1
    return count / elapsed


class _Sgemm:
    """A plain product of two float32 matrices."""

    def __init__(self) -> None:
        m, k, n = _SGEMM
        self._a, self._b = keras.random.normal((m, k), seed=0), keras.random.normal((k, n), seed=1)
        self._product = compiled(keras.ops.matmul)
        self._call()

    def gflops(self, seconds: float) -> float:
        """Returns the rate over at least so many seconds."""
        return 2.0 * math.prod(_SGEMM) * _rate(self._call, seconds) / 1e9

    def _call(self) -> None:
        # Reading the result waits for it.
        keras.ops.convert_to_numpy(self._product(self._a, self._b))
