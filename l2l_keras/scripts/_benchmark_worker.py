"""Measures one case of `l2l-benchmark`, with the l2l_keras that it finds, and prints JSON.

Other versions of the package are measured with this file: it needs only what they have.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import gc
import json
import math
import os
import re
import sys
import timeit
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

import l2l_keras

Result = dict[str, Any]
Call = Callable[[], Any]

_WINDOWS, _STEPS = 5, 100  # Of an episode of meta-training.
_SGEMM_OPERATIONS = 2 * 4096 * 512 * 512


def measure(case: Result, threads: int, rounds: int, seconds: float) -> Result:
    """Measures a case in this process."""
    if threads and hasattr(os, "sched_setaffinity"):  # JAX counts the cores that it may use.
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    result = (_meta_training if "problem" in case else _applying)(case, rounds, seconds)
    return {"version": sys.modules[keras.backend.backend()].__version__, **result}


def _meta_training(case: Result, rounds: int, seconds: float) -> Result:
    """Measures meta-training on one problem."""
    preprocessing, task = "none", l2l_keras.tasks.get("quadratic")
    if case["problem"] == "mnist_mlp":
        generator = np.random.default_rng(0)
        images = generator.integers(0, 256, (2_000, 28, 28, 1), np.uint8)
        data = (images, generator.integers(0, 10, (2_000,), np.int32))
        splits = dict.fromkeys(("train", "validation", "test"), data)
        preprocessing, task = "log_sign", l2l_keras.tasks.image_mlp(splits, name="mnist_mlp")
    rule = l2l_keras.rules.CoordinatewiseLSTM(preprocessing=preprocessing, seed=0)
    meta_model = l2l_keras.meta.MetaModel(rule, task, horizon=_STEPS)
    meta_model.compile(keras.optimizers.Adam(1e-4, global_clipnorm=1.0))
    window = functools.partial(meta_model.train_step, None)
    first_call = timeit.timeit(window, number=1)
    episode = functools.partial(timeit.timeit, window, number=_WINDOWS)
    episode()
    peak_memory = _peak()  # Before anything that is not meta-training.
    speed, sgemm = _rates([episode, _sgemm()], rounds, seconds)
    # Backward, there are two matrix products for each one forward.
    operations = 3 * _operations(rule) * task.size * _STEPS
    return {
        "weights": task.size,
        "steps/s": speed * _STEPS,
        "of sgemm": speed * operations / (sgemm * _SGEMM_OPERATIONS),
        "sgemm, GFLOP/s": sgemm * _SGEMM_OPERATIONS / 1e9,
        "first call, s": first_call,
        "peak, MB": peak_memory / 1e6,
    }


def _applying(case: Result, rounds: int, seconds: float) -> Result:
    """Measures steps of a `LearnedOptimizer`, and of Adam; scratch is NaN where it is unknown."""
    size, variables, columns = case["coordinates"], case["variables"], case["columns"]
    # First a small problem, so that memory of libraries and compilers is not counted; of another
    # size, because programs may be cached.
    warm_up = _make_step(_learned(case), max(variables, min(size, 10_000)) + 1, variables, 0)
    timeit.timeit(warm_up, number=2)
    optimizer = _learned(case)
    step = _make_step(optimizer, size, variables, columns)
    memory = _reset_peak()
    first_call = timeit.timeit(step, number=1)
    timeit.timeit(step, number=2)
    scratch_with_compilers = _peak() - memory
    _reset_peak()
    timeit.timeit(step, number=2)
    scratch = _peak() - memory
    adam_step = _make_step(keras.optimizers.Adam(), size, variables, columns)
    adam_first_call = timeit.timeit(adam_step, number=1)
    speed, adam_speed, sgemm = _rates([step, adam_step, _sgemm()], rounds, seconds)
    operations = _operations(optimizer.rule) * size
    state = [v for v in optimizer.variables if "/state_" in v.path or "/tensor_state_" in v.path]
    state_bytes = sum(np.dtype(v.dtype).itemsize * math.prod(v.shape) for v in state)
    return {
        "steps/s": speed,
        "ns/weight": 1e9 / speed / size,
        "(Adam)": 1e9 / adam_speed / size,
        "times Adam": adam_speed / speed,
        "of sgemm": speed * operations / (sgemm * _SGEMM_OPERATIONS),
        "sgemm, GFLOP/s": sgemm * _SGEMM_OPERATIONS / 1e9,
        "state, B/weight": state_bytes / size,
        "scratch, MB": scratch / 1e6,
        "with compilers, MB": scratch_with_compilers / 1e6,
        "first call, s": first_call,
        "(Adam), s": adam_first_call,
    }


def _learned(case: Result) -> l2l_keras.LearnedOptimizer:
    """Returns an optimizer with a new rule of a class, or with that of a preset."""
    if case["class"]:
        rule = getattr(l2l_keras.rules, case["class"])(seed=0)
    else:
        rule, _ = l2l_keras.presets.load_preset(case["rule"])
    return l2l_keras.LearnedOptimizer(rule, state_dtype=case["state_dtype"])


def _make_step(optimizer: Any, size: int, variables: int, columns: int) -> Call:
    """Returns a function that takes a step, as training with the backend does, and waits for it."""
    numbers = np.random.default_rng(0).standard_normal(size, "float32")
    parts = np.array_split(numbers.reshape(-1, columns) if columns else numbers, variables)
    gradients = [keras.ops.array(part) for part in parts]
    parameters = [keras.Variable(part) for part in parts]
    optimizer.build(parameters)
    # Zeros that were never written to may not occupy memory yet.
    for variable in optimizer.variables:
        variable.assign(variable + 0)
    if keras.backend.backend() == "jax":
        import jax

        jitted = jax.jit(optimizer.stateless_apply, donate_argnums=(0, 2))
        # A step takes over its arguments.
        state = [variable.value for variable in optimizer.variables]
        values = [keras.ops.copy(variable) for variable in parameters]

        def step() -> None:
            values[:], state[:] = jax.block_until_ready(jitted(state, gradients, values))

    elif keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        apply = tf.function(lambda: optimizer.apply(gradients, parameters), autograph=False)

        def step() -> None:
            apply()
            tf.test.experimental.sync_devices()

    else:
        import torch

        def step() -> None:
            optimizer.apply(gradients, parameters)
            if torch.cuda.is_available():
                torch.cuda.synchronize()

    return step


def _operations(rule: Any) -> int:
    """Returns the operations of a rule's matrix products per element and step; 0 if none."""
    if getattr(rule, "scope", "tensor") == "tensor":  # Groups of rules have no scope.
        return 0
    return 2 * sum(math.prod(w.shape) for w in rule.weights if len(w.shape) == 2)


def _sgemm() -> Call:
    """Returns a function that computes a plain matrix product, and waits for it by reading it."""
    a, b = (keras.random.normal(shape, seed=0) for shape in ((4096, 512), (512, 512)))
    return lambda: keras.ops.convert_to_numpy(a @ b)


def _rates(calls: Sequence[Call], rounds: int, seconds: float) -> list[float]:
    """Returns medians of calls per second; each is measured in turn, for at least `seconds`."""

    def rate(call: Call) -> float:
        count, elapsed = 1, timeit.timeit(call, number=1)
        while elapsed < seconds:
            elapsed += timeit.timeit(call, number=1)
            count += 1
        return count / elapsed

    return np.median([[rate(call) for call in calls] for _ in range(rounds)], axis=0).tolist()


def _reset_peak() -> float:
    """Resets the peak memory of this process, and returns its memory; NaN if this is impossible."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # Linux with GNU's C library.
        # The library keeps freed memory, which would be counted; later needs would be met from it.
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
        return _peak()
    return math.nan


def _peak() -> float:
    """Returns the largest resident set since `_reset_peak` in bytes; NaN if it is unknown."""
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s*(\d+)", status.read_text() if status.exists() else "")
    return 1024 * int(found[1]) if found else math.nan


if __name__ == "__main__":
    print(json.dumps(measure(*json.loads(sys.argv[1]))))
