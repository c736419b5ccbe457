"""Measures one case of `l2l-benchmark --what=apply`, in a process of its own.

  KERAS_BACKEND=jax python -m l2l_keras.scripts._benchmark_apply SETTINGS

The settings are the arguments of `measure`, as JSON; so is the line that is printed. TensorFlow is
imported only where it is the backend.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from l2l_keras import rules
from l2l_keras.optimizer import LearnedOptimizer
from l2l_keras.scripts import _benchmark_timing as timing

Tensor = Any
Variable = Any

_WARM_UP = 10_000  # Coordinates.
_COPIED = 64_000_000  # float32: 256 MB, more than any cache holds.


def measure(
    rule: str,
    coordinates: int,
    variables: int,
    columns: int = 0,
    state_dtype: str = "float32",
    threads: int = 0,
    rounds: int = 7,
    seconds: float = 1.0,
) -> dict[str, Any]:
    """Measures what steps of a `LearnedOptimizer` cost, beside those of Adam.

    Args:
        rule: Name of a class in `l2l_keras.rules`, or of a preset, or path of one.
        coordinates: Coordinates of all variables together.
        variables: Number of variables, equal in size but for one coordinate or row.
        columns: Columns of the variables, which are matrices then; 0 for vectors.
        state_dtype: As in `LearnedOptimizer`.
        threads: Processor threads; 0 for all.
        rounds: Measurements of each kind, whose medians are returned.
        seconds: Least seconds of a measurement.

    Returns:
        The figures by name. Those of scratch memory are None where the system does not tell.

    Example:
        >>> figures = measure("CoordinatewiseLSTM", 10_000, 40)  # doctest: +SKIP
        >>> figures["state_bytes_per_coordinate"]  # doctest: +SKIP
        320.0
    """
    _set_threads(threads)
    # First a small one: what libraries and compilers take for themselves is not the optimizer's. Of
    # another size, since programs may be kept.
    warm_up = _Step(
        _learned_optimizer(rule, state_dtype),
        *_problem(max(variables, min(coordinates, _WARM_UP)) + 1, variables, 0),
    )
    for _ in range(2):
        warm_up()
    del warm_up

    problem = _problem(coordinates, variables, columns)
    step = _Step(_learned_optimizer(rule, state_dtype), *problem)
    first_call, scratch, steady_scratch = _first_steps(step)
    operations = timing.product_operations(step.optimizer.rule) * coordinates
    learned = timing.beside_sgemm(step, operations, rounds, seconds)
    adam = _Step(keras.optimizers.Adam(), *problem)
    adam_first_call = _seconds(adam)
    adam_rate, times_adam = timing.rate_and_ratio(step, adam, rounds, seconds)
    return {
        "backend_version": sys.modules[keras.backend.backend()].__version__,
        "ns_per_coordinate": 1e9 / learned.rate / coordinates,
        "adam_ns_per_coordinate": 1e9 / adam_rate / coordinates,
        "times_adam": times_adam,
        "sgemm_share": learned.sgemm_share,
        "sgemm_gflops": learned.sgemm_gflops,
        "copy_bytes_per_second": _copy_speed(rounds, seconds),
        "state_bytes_per_coordinate": step.bytes_of("/state_", "/tensor_state_") / coordinates,
        "adam_state_bytes_per_coordinate": adam.bytes_of("_momentum", "_velocity") / coordinates,
        "scratch_bytes": scratch,
        "scratch_bytes_per_coordinate": None if scratch is None else scratch / coordinates,
        "steady_scratch_bytes": steady_scratch,
        "build_seconds": step.build_seconds,
        "first_call_seconds": first_call,
        "adam_first_call_seconds": adam_first_call,
    }


class _Step:
    """Calls take one step of an optimizer, as training with the backend does.

    Args:
        optimizer: Built here.
        gradients: The gradients of all steps.
        variables: What to update.

    Attributes:
        optimizer: The optimizer. On JAX, its variables hold no values once a step was taken.
        build_seconds: What building it took.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        gradients: Sequence[Tensor],
        variables: Sequence[Variable],
    ) -> None:
        self.optimizer = optimizer
        self.build_seconds = _seconds(lambda: optimizer.build(variables))
        # Zeros that were never written to need not have memory yet.
        for variable in optimizer.variables:
            variable.assign(variable + 0)
        if keras.backend.backend() == "jax":
            self._gradients = gradients
            # Copies, since a step takes over what it is given.
            self._values = [keras.ops.copy(variable) for variable in variables]
            self._state = [variable.value for variable in optimizer.variables]
            self._apply = timing.compiled(optimizer.stateless_apply, donate_argnums=(0, 2))
        else:
            self._apply = timing.compiled(lambda: optimizer.apply(gradients, variables))

    def __call__(self) -> None:
        """Takes the step, and waits for it."""
        if keras.backend.backend() == "jax":
            import jax

            self._values, self._state = self._apply(self._state, self._gradients, self._values)
            jax.block_until_ready((self._values, self._state))
        elif keras.backend.backend() == "tensorflow":
            import tensorflow as tf

            self._apply()
            tf.test.experimental.sync_devices()
        else:
            import torch

            self._apply()
            if torch.cuda.is_available():
                torch.cuda.synchronize()

    def bytes_of(self, *parts: str) -> int:
        """Returns the bytes of the optimizer's variables whose paths contain one of these."""
        chosen = [v for v in self.optimizer.variables if any(part in v.path for part in parts)]
        return sum(np.dtype(v.dtype).itemsize * int(np.prod(v.shape)) for v in chosen)


def _learned_optimizer(rule: str, state_dtype: str) -> LearnedOptimizer:
    if hasattr(rules, rule):
        return LearnedOptimizer(getattr(rules, rule)(seed=0), state_dtype=state_dtype)
    return LearnedOptimizer.from_preset(rule, state_dtype=state_dtype)


def _problem(coordinates: int, variables: int, columns: int) -> tuple[list[Tensor], list[Variable]]:
    """Returns gradients, and variables to update."""
    numbers = np.random.default_rng(0).standard_normal(coordinates, "float32")
    parts = np.array_split(numbers.reshape(-1, columns) if columns else numbers, variables)
    return [keras.ops.array(part) for part in parts], [keras.Variable(part) for part in parts]


def _first_steps(step: _Step) -> tuple[float, int | None, int | None]:
    """Takes the first steps.

    Returns:
        Seconds of the first, the scratch memory of the first three, and that of two more: the
        largest resident set less that before the first.
    """
    known = _reset_peak()
    baseline = _resident_bytes("VmRSS")
    first_call = _seconds(step)
    step()
    step()
    peak = _resident_bytes("VmHWM")
    _reset_peak()
    step()
    step()
    steady_peak = _resident_bytes("VmHWM")
    if not known:
        return first_call, None, None
    return first_call, peak - baseline, steady_peak - baseline


def _reset_peak() -> bool:
    """Makes Linux forget the largest resident set of this process; returns whether it did."""
    gc.collect()
    # The C library keeps what was freed: it would count where nothing needs it any more, and later
    # needs would be met from it without being counted.
    with contextlib.suppress(OSError, AttributeError):  # Other libraries than GNU's.
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident_bytes(kind: str) -> int:
    """Returns the resident set (`VmRSS`) or the largest since `_reset_peak` (`VmHWM`)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(kind)), 0)


def _copy_speed(rounds: int, seconds: float) -> float:
    """Returns the bytes read and written per second of copying an array."""
    source = np.ones(_COPIED, "float32")
    target = np.zeros_like(source)
    rate = timing.median_rate(lambda: np.copyto(target, source), rounds, seconds)
    return 2 * source.nbytes * rate


def _seconds(call: timing.Call) -> float:
    """Returns how long a call takes."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _set_threads(threads: int) -> None:
    """Limits this process to some processor threads; 0 for all."""
    if not threads:
        return
    # JAX has no setting of its own, but counts the cores that it may use.
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    if keras.backend.backend() == "tensorflow":
        from l2l_keras.scripts import _console

        _console.set_threads(threads)
    elif keras.backend.backend() == "torch":
        import torch

        torch.set_num_threads(threads)


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
